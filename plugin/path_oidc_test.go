package plugin

import (
	"context"
	"maps"
	"net/url"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/optest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

// peopleRedirect is where the browser comes back to, with the port of `vault login`.
const peopleRedirect = "http://localhost:8250/oidc/callback"

// A peopleMount is a mount that people log in to, with an OpenID provider.
type peopleMount struct {
	*loginMount
	t  *testing.T
	op *optest.Provider
}

func newPeopleMount(t *testing.T) *peopleMount {
	t.Helper()
	return newPeopleMountLogging(t, hclog.NewNullLogger())
}

func newPeopleMountLogging(t *testing.T, logger hclog.Logger) *peopleMount {
	t.Helper()
	m := &peopleMount{t: t, op: optest.Start(t), loginMount: &loginMount{tb: t, storage: storetest.New()}}
	made, err := Factory(t.Context(), &logical.BackendConfig{
		System: &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour}, StorageView: m.storage, Logger: logger,
	})
	require.NoError(t, err)
	m.backend = made.(*backend)
	m.stop() // nothing is delivered
	t.Cleanup(func() { m.Cleanup(context.Background()) })
	m.write("config", m.op.Config(nil))
	m.write("jwt/orders", map[string]any{"type": "account"})
	m.role("dev", nil)
	return m
}

// role writes a role of type oidc.
func (m *peopleMount) role(name string, more map[string]any) {
	m.t.Helper()
	fields := map[string]any{
		"role_type": "oidc", "account": "orders", "user_claim": "sub", "allowed_redirect_uris": peopleRedirect,
		"user_template": `{"pub":{"allow":["orders.{{claim(sub)}}.>"]}}`,
	}
	maps.Copy(fields, more)
	m.write("role/"+name, fields)
}

func (m *peopleMount) request(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	return m.HandleRequest(context.Background(), &logical.Request{
		Operation: operation, Path: path, Storage: m.storage, Data: data, Connection: &logical.Connection{RemoteAddr: "127.0.0.1"}, MountPoint: "auth/nats/",
	})
}

// begin begins a login as `vault login -method=oidc` does.
func (m *peopleMount) begin(changes map[string]any) (*logical.Response, error) {
	data := map[string]any{"role": "dev", "redirect_uri": peopleRedirect, "client_nonce": "nonce-of-the-cli"}
	maps.Copy(data, changes)
	return m.request(logical.UpdateOperation, "oidc/auth_url", data)
}

// sentBack begins a login and goes through it at the provider: what the browser
// brings back, with the program's nonce.
func (m *peopleMount) sentBack(changes map[string]any) map[string]any {
	m.t.Helper()
	resp, err := m.begin(changes)
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	back := fieldsOf(m.op.Login(resp.Data["auth_url"].(string)))
	back["client_nonce"] = "nonce-of-the-cli"
	return back
}

func fieldsOf(query url.Values) map[string]any {
	fields := map[string]any{}
	for name := range query {
		fields[name] = query.Get(name)
	}
	return fields
}

func (m *peopleMount) callback(back map[string]any) (*logical.Response, error) {
	return m.request(logical.ReadOperation, "oidc/callback", back)
}

// refused demands an answer with an error.
func (m *peopleMount) refused(resp *logical.Response, err error, text string) {
	m.t.Helper()
	require.NoError(m.t, err)
	require.NotNil(m.t, resp)
	require.ErrorContains(m.t, resp.Error(), text)
	require.Nil(m.t, resp.Auth)
}

func TestAPersonLogsIn(t *testing.T) {
	m := newPeopleMount(t)
	resp, err := m.callback(m.sentBack(nil))
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.Equal(t, "ann", resp.Auth.Alias.Name)
	require.Equal(t, "dev", resp.Auth.Alias.Metadata["role"])
	user, err := natsjwt.DecodeUserClaims(resp.Data["jwt"].(string))
	require.NoError(t, err)
	require.Equal(t, natsjwt.StringList{"orders.ann.>"}, user.Pub.Allow)
	require.Contains(t, resp.Data["creds"], resp.Data["jwt"])
}
