package plugin

import (
	"context"
	"encoding/base64"
	"html"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/optest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
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

func TestAPersonLogsInWithTheDefaultRole(t *testing.T) {
	m := newPeopleMount(t)
	m.write("config", map[string]any{"default_role": "dev"})
	resp, err := m.callback(m.sentBack(map[string]any{"role": ""}))
	require.NoError(t, err)
	require.NotNil(t, resp.Auth)
	renewed, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.RenewOperation, Path: "oidc/callback", Storage: m.storage, Auth: resp.Auth})
	require.NoError(t, err)
	require.NoError(t, renewed.Error())
}

// As in the JWT method, a role with redirect URIs is one for people; here one without is
// for workloads.
func TestARoleIsForPeopleWhereItHasRedirectURIs(t *testing.T) {
	m := newPeopleMount(t)
	fields := map[string]any{"account": "orders", "user_claim": "sub", "bound_audiences": "vault"}
	m.write("role/jwt", fields)
	fields["allowed_redirect_uris"] = peopleRedirect
	m.write("role/people", fields)
	for role, want := range map[string]string{"jwt": "jwt", "people": "oidc"} {
		resp, err := m.request(logical.ReadOperation, "role/"+role, nil)
		require.NoError(t, err)
		require.Equal(t, want, resp.Data["role_type"])
	}
	m.write("role/people", map[string]any{"token_ttl": "5m"})
	resp, err := m.request(logical.ReadOperation, "role/people", nil)
	require.NoError(t, err)
	require.Equal(t, "oidc", resp.Data["role_type"], "as it was")
}

func TestRolesForPeopleTakeNoTokensAndOthersNoBrowser(t *testing.T) {
	m := newPeopleMount(t)
	m.write("role/job", map[string]any{"account": "orders", "user_claim": "sub", "bound_audiences": optest.ClientID})
	m.write("role/ops", map[string]any{"account": "orders", "role_type": "vault"})
	token := m.op.IDToken(url.Values{}, "", "")
	resp, err := m.request(logical.UpdateOperation, "login", map[string]any{"role": "dev", "jwt": token})
	m.refused(resp, err, `role "dev" is of type oidc: people log in with it, through a browser and oidc/auth_url, and it takes no jwt`)
	resp, err = m.request(logical.UpdateOperation, "login", map[string]any{"role": "job", "jwt": token})
	require.NoError(t, err)
	require.NotNil(t, resp.Auth)
	for role, kind := range map[string]string{"job": "jwt", "ops": "vault"} {
		resp, err = m.begin(map[string]any{"role": role})
		m.refused(resp, err, `role "`+role+`" is of type `+kind+`: no browser logs in with it`)
	}
	resp, err = m.request(logical.UpdateOperation, "creds/dev", map[string]any{"jwt": token})
	m.refused(resp, err, "is of type oidc: its credentials come with the login")
	m.write("jwt/doors", map[string]any{"type": "account"})
	resp, err = m.request(logical.CreateOperation, "callout/edge", map[string]any{"account": "doors", "roles": "dev", "default_role": "dev"})
	m.refused(resp, err, "is of type oidc: its users are people with a browser")

	// Quotas are by role, and Vault asks the login's path for it.
	resp, err = m.request(logical.ResolveRoleOperation, "login", map[string]any{"role": "dev"})
	require.NoError(t, err)
	require.Equal(t, "dev", resp.Data["role"])
}

func TestTwoIssuersLogPeopleIn(t *testing.T) {
	m := newPeopleMount(t)
	other := optest.Start(t)
	m.write("issuer/other", other.Config(nil))
	m.role("guest", map[string]any{"issuer": "other"})
	resp, err := m.begin(map[string]any{"role": "guest"})
	require.NoError(t, err)
	back := fieldsOf(other.Login(resp.Data["auth_url"].(string)))
	back["client_nonce"] = "nonce-of-the-cli"
	resp, err = m.callback(back)
	require.NoError(t, err)
	require.Equal(t, "issuer:other:ann", resp.Auth.Alias.Name)
}

// page demands an answer that is a page.
func (m *peopleMount) page(resp *logical.Response, err error, status int) string {
	m.t.Helper()
	require.NoError(m.t, err)
	require.Equal(m.t, status, resp.Data[logical.HTTPStatusCode], "%s", resp.Data[logical.HTTPRawBody])
	require.Equal(m.t, "text/html; charset=utf-8", resp.Data[logical.HTTPContentType])
	require.Equal(m.t, "no-store", resp.Data[logical.HTTPCacheControlHeader])
	require.Equal(m.t, []string{"nosniff"}, resp.Headers["X-Content-Type-Options"])
	require.Contains(m.t, resp.Headers["Content-Security-Policy"][0], "default-src 'none'")
	require.Nil(m.t, resp.Auth)
	text := string(resp.Data[logical.HTTPRawBody].([]byte))
	require.NotContains(m.t, text, "<script")
	return text
}

// confirm is what the browser sends when the person says that it was they.
func (m *peopleMount) confirm(page string) map[string]any {
	m.t.Helper()
	fields := map[string]any{}
	for _, found := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(page, -1) {
		fields[found[1]] = html.UnescapeString(found[2])
	}
	require.NotEmpty(m.t, fields["confirmation"])
	return fields
}

const directRedirect = "https://vault.example.com/v1/auth/nats/oidc/callback"

func (m *peopleMount) beginDirect() (data map[string]any, back map[string]any) {
	m.t.Helper()
	resp, err := m.begin(map[string]any{"role": "direct", "redirect_uri": directRedirect})
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	return resp.Data, fieldsOf(m.op.Login(resp.Data["auth_url"].(string)))
}

func (m *peopleMount) poll(state any) (*logical.Response, error) {
	return m.request(logical.UpdateOperation, "oidc/poll", map[string]any{"state": state, "client_nonce": "nonce-of-the-cli"})
}

func TestAPersonsBrowserComesBackToVault(t *testing.T) {
	m := newPeopleMount(t)
	m.role("direct", map[string]any{"callback_mode": "direct", "allowed_redirect_uris": directRedirect})
	begun, back := m.beginDirect()
	require.Equal(t, "5", begun["poll_interval"])
	resp, err := m.poll(begun["state"])
	m.refused(resp, err, "authorization_pending")

	resp, err = m.callback(back)
	question := m.page(resp, err, http.StatusOK)
	require.Contains(t, question, "127.0.0.1", "from where the login was begun")
	resp, err = m.poll(begun["state"])
	m.refused(resp, err, "authorization_pending")
	require.Zero(t, m.op.Asked, "nobody has confirmed")

	resp, err = m.request(logical.UpdateOperation, "oidc/callback", m.confirm(question))
	require.Contains(t, m.page(resp, err, http.StatusOK), "You are logged in")
	resp, err = m.request(logical.UpdateOperation, "oidc/poll", map[string]any{"state": begun["state"], "client_nonce": "another"})
	m.refused(resp, err, "client_nonce")
	resp, err = m.poll(begun["state"])
	require.NoError(t, err)
	require.Equal(t, "ann", resp.Auth.Alias.Name)
	require.NotEmpty(t, resp.Data["creds"])
	resp, err = m.poll(begun["state"])
	m.refused(resp, err, "was fetched already")
	resp, err = m.request(logical.UpdateOperation, "oidc/callback", m.confirm(question))
	require.Contains(t, m.page(resp, err, http.StatusBadRequest), "was used before")
}

func TestAPersonAndTheirProgramLearnWhyTheyAreNotLoggedIn(t *testing.T) {
	m := newPeopleMount(t)
	m.role("direct", map[string]any{"callback_mode": "direct", "allowed_redirect_uris": directRedirect, "bound_claims": map[string]any{"team": "shop"}})
	begun, back := m.beginDirect()
	resp, err := m.callback(back)
	resp, err = m.request(logical.UpdateOperation, "oidc/callback", m.confirm(m.page(resp, err, http.StatusOK)))
	require.Contains(t, m.page(resp, err, http.StatusBadRequest), "team")
	resp, err = m.poll(begun["state"])
	m.refused(resp, err, "team")

	begun, back = m.beginDirect()
	delete(back, "code")
	back["error"], back["error_description"] = "access_denied", "<script>alert(1)</script>"
	resp, err = m.callback(back)
	require.Contains(t, m.page(resp, err, http.StatusBadRequest), "access_denied")
	resp, err = m.poll(begun["state"])
	m.refused(resp, err, "access_denied")

	back["error"] = "<b>made up</b>"
	_, again := m.beginDirect()
	back["state"] = again["state"]
	resp, err = m.callback(back)
	require.NotContains(t, m.page(resp, err, http.StatusBadRequest), "made up")

	// Of another node, or of nobody.
	resp, err = m.callback(map[string]any{"state": "sd_x", "code": "x"})
	require.Contains(t, m.page(resp, err, http.StatusBadRequest), "another node")
	resp, err = m.callback(map[string]any{"state": "st_x", "code": "x"})
	m.refused(resp, err, "state cannot be used")
}

func TestAPersonTypesACodeOnAnotherDevice(t *testing.T) {
	for _, postOnly := range []bool{false, true} {
		m := newPeopleMount(t)
		m.op.PostOnly = postOnly
		m.role("tv", map[string]any{"callback_mode": "device", "allowed_redirect_uris": ""})
		resp, err := m.begin(map[string]any{"role": "tv", "redirect_uri": ""})
		require.NoError(t, err)
		require.NoError(t, resp.Error())
		require.Equal(t, m.op.URL()+"/activate", resp.Data["auth_url"])
		require.Equal(t, "ABCD-EFGH", resp.Data["user_code"])
		require.Equal(t, "1", resp.Data["poll_interval"])
		state := resp.Data["state"]
		resp, err = m.poll(state)
		m.refused(resp, err, "authorization_pending")
		asked := m.op.Asked
		resp, err = m.poll(state)
		m.refused(resp, err, "slow_down")
		require.Equal(t, asked, m.op.Asked, "the issuer is not asked sooner than it asked for")

		m.op.TypeCode(true)
		require.Eventually(t, func() bool {
			resp, err = m.poll(state)
			return err != nil || !resp.IsError() || resp.Error().Error() != "slow_down"
		}, 10*time.Second, 50*time.Millisecond)
		require.NoError(t, err)
		require.NoError(t, resp.Error())
		require.Equal(t, "ann", resp.Auth.Alias.Name)
		resp, err = m.poll(state)
		m.refused(resp, err, "was fetched already")

		resp, err = m.begin(map[string]any{"role": "tv", "redirect_uri": ""})
		require.NoError(t, err)
		m.op.TypeCode(false)
		resp, err = m.poll(resp.Data["state"])
		m.refused(resp, err, "access_denied")
	}
}

func TestAnIssuerSendsAPersonBackWithAForm(t *testing.T) {
	for name, config := range map[string]map[string]any{
		"with a code":      {"oidc_response_mode": "form_post"},
		"with an ID token": {"oidc_response_mode": "form_post", "oidc_response_types": "id_token"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newPeopleMount(t)
			m.write("config", config)
			resp, err := m.begin(nil)
			require.NoError(t, err)
			require.Contains(t, resp.Data["auth_url"], "response_mode=form_post")
			form := fieldsOf(m.op.Login(resp.Data["auth_url"].(string)))
			resp, err = m.request(logical.UpdateOperation, "oidc/callback", form)
			require.Contains(t, m.page(resp, err, http.StatusOK), "You are logged in")
			resp, err = m.callback(map[string]any{"state": form["state"], "code": "no_code", "client_nonce": "another"})
			m.refused(resp, err, "client_nonce")

			resp, err = m.begin(nil)
			require.NoError(t, err)
			form = fieldsOf(m.op.Login(resp.Data["auth_url"].(string)))
			form["client_nonce"] = "nonce-of-the-cli" // Vault's CLI sends it along
			resp, err = m.request(logical.UpdateOperation, "oidc/callback", form)
			m.page(resp, err, http.StatusOK)
			delete(form, "id_token")
			resp, err = m.callback(form)
			require.NoError(t, err)
			require.NoError(t, resp.Error())
			require.Equal(t, "ann", resp.Auth.Alias.Name)
			resp, err = m.callback(form)
			require.NoError(t, err)
			require.True(t, resp.IsError())
		})
	}
	m := newPeopleMount(t)
	back := m.sentBack(nil)
	resp, err := m.request(logical.UpdateOperation, "oidc/callback", back)
	m.page(resp, err, http.StatusMethodNotAllowed)
}

func TestAPersonBringsTheirOwnKey(t *testing.T) {
	m := newPeopleMount(t)
	m.role("direct", map[string]any{"callback_mode": "direct", "allowed_redirect_uris": directRedirect, "user_key": "client"})
	key := newKey(t, trust.User)
	begun, back := m.beginDirect()
	resp, err := m.callback(back)
	resp, err = m.request(logical.UpdateOperation, "oidc/callback", m.confirm(m.page(resp, err, http.StatusOK)))
	m.page(resp, err, http.StatusOK)
	resp, err = m.poll(begun["state"])
	m.refused(resp, err, "user_public_key is missing")
	resp, err = m.request(logical.UpdateOperation, "oidc/poll", map[string]any{"state": begun["state"], "client_nonce": "nonce-of-the-cli", "user_public_key": key.Public()})
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.Equal(t, key.Public(), resp.Data["user_public_key"])
	require.NotContains(t, resp.Data, "creds")

	m.role("dev", map[string]any{"user_key": "client", "user_key_proof": true})
	back = m.sentBack(nil)
	now := time.Now().Unix()
	claim := proof.Claim{Purpose: proof.Login, Mount: "auth/nats/", Role: "dev", Token: back["state"].(string), User: key.Public(), Time: now}
	signature := key.Sign([]byte(claim.Text()))
	back["user_public_key"], back["user_key_time"], back["user_key_signature"] = key.Public(), now, base64.StdEncoding.EncodeToString(signature)
	resp, err = m.callback(back)
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.Equal(t, key.Public(), resp.Auth.Metadata["user_public_key"])
}

func TestWithoutCredentialsOnLoginAPersonGetsATokenAlone(t *testing.T) {
	m := newPeopleMount(t)
	m.role("dev", map[string]any{"credentials_on_login": false})
	resp, err := m.callback(m.sentBack(nil))
	require.NoError(t, err)
	require.NotNil(t, resp.Auth)
	require.Empty(t, resp.Data)
}

func TestUserinfoAddsToWhatTheTokenSays(t *testing.T) {
	m := newPeopleMount(t)
	m.op.Userinfo = map[string]any{"team": "shop", "groups": []string{"a", "b"}, "aud": "somebody", "iss": m.op.URL()}
	m.role("dev", map[string]any{
		"groups_claim": "groups", "bound_claims": map[string]any{"team": "shop", "aud": optest.ClientID}, "claim_mappings": map[string]any{"email": "email"},
		"bound_expression": `!("nonce" in claims)`,
	})
	resp, err := m.callback(m.sentBack(nil))
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.Equal(t, "ann@example.com", resp.Auth.Metadata["email"])
	require.Len(t, resp.Auth.GroupAliases, 2)

	m.op.Userinfo["sub"] = "eve"
	resp, err = m.callback(m.sentBack(nil))
	m.refused(resp, err, "groups")
}

func TestADirectoryCompletesWhatAnIssuerSays(t *testing.T) {
	m := newPeopleMount(t)
	m.write("config", map[string]any{"provider_config": map[string]any{"provider": "secureauth"}})
	m.op.Claims = map[string]any{"groups": "a,b"}
	m.role("dev", map[string]any{"groups_claim": "groups"})
	m.write("role/job", map[string]any{"account": "orders", "user_claim": "sub", "bound_audiences": optest.ClientID, "groups_claim": "groups"})
	person, err := m.callback(m.sentBack(nil))
	require.NoError(t, err)
	job, err := m.request(logical.UpdateOperation, "login", map[string]any{"role": "job", "jwt": m.op.IDToken(url.Values{}, "", "")})
	require.NoError(t, err)
	for _, resp := range []*logical.Response{person, job} {
		require.NoError(t, resp.Error())
		require.Equal(t, []*logical.Alias{{Name: "a"}, {Name: "b"}}, resp.Auth.GroupAliases)
	}
}

func TestAPreviewShowsWhatAPersonWouldGet(t *testing.T) {
	m := newPeopleMount(t)
	resp, err := m.request(logical.UpdateOperation, "role/dev/preview", map[string]any{"claims": map[string]any{"sub": "ann"}})
	require.NoError(t, err)
	require.Equal(t, true, resp.Data["allowed"], "%v", resp.Data["errors"])
	require.Equal(t, "ann", resp.Data["alias"])
}
