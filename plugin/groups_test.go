package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/optest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/standin"
)

// internet has the servers of Microsoft Graph, Google and Okta. It stands behind the
// proxy of the environment, as it may do in a company, and no test gets out of it.
// The environment is read once, so it is set before anything asks.
var internet = startInternet()

func startInternet() *standin.Internet {
	n := standin.Start()
	for name, value := range map[string]string{"HTTPS_PROXY": n.Proxy(), "NO_PROXY": ""} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	return n
}

const (
	annAtGraph   = "5b8c2e39-3f41-4a73-8b57-0d6a64c1f001"
	anOktaToken  = "the-api-token-of-okta"
	googleReader = "vault@example.iam.gserviceaccount.com"
)

// anOverage is what a token of Entra ID says of groups that it has no room for.
var anOverage = map[string]any{
	"oid":            annAtGraph,
	"_claim_names":   map[string]any{"groups": "src1"},
	"_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://graph.windows.net/tenant/users/" + annAtGraph + "/getMemberObjects"}},
}

// A directoryMount is a mount whose issuer has a provider_config.
type directoryMount struct {
	*peopleMount
	log *bytes.Buffer
}

// newDirectoryMount serves the three directories, in which ann is an engineer.
func newDirectoryMount(t *testing.T, provider map[string]any) *directoryMount {
	t.Helper()
	m := &directoryMount{log: new(bytes.Buffer)}
	m.peopleMount = newPeopleMountLogging(t, hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: m.log}))
	groups := []string{"everyone", "engineers", "news"}
	internet.Serve("graph.microsoft.com", &standin.Graph{
		Who: func(token string) (string, bool) {
			if token == "an-apps-token" {
				return "", true
			}
			return annAtGraph, slices.Contains(m.op.Tokens, token)
		},
		Groups: map[string][]string{annAtGraph: groups},
		Page:   2,
	})
	google := &standin.Google{
		Account: googleReader, Admin: "reader@example.com", Page: 2,
		Groups:  map[string][]string{"ann@example.com": {"everyone", "engineers"}, "everyone": {"news"}, "engineers": {}, "news": {}},
		Schemas: map[string]map[string]json.RawMessage{"ann@example.com": {"Employment": json.RawMessage(`{"team": "harbour"}`)}},
	}
	google.Serve(internet)
	internet.Serve("example.okta.com", &standin.Okta{Token: anOktaToken, Owner: "root", Page: 2, Groups: map[string][]string{"ann": groups}})

	if provider["provider"] == "gsuite" {
		provider["gsuite_service_account"] = google.Key()
	}
	m.write("config", m.config(map[string]any{"provider_config": provider}))
	m.role("people", map[string]any{"groups_claim": "groups", "bound_claims": map[string]any{"groups": "engineers"}, "user_claim": "email"})
	m.write("role/jobs", map[string]any{
		"role_type": "jwt", "account": "orders", "user_claim": "sub", "groups_claim": "groups",
		"bound_audiences": "vault", "bound_claims": map[string]any{"groups": "engineers"}, "user_template": `{"pub":{"allow":["orders.>"]}}`,
	})
	m.log.Reset()
	return m
}

// config are the fields of the issuer, whose CA vouches for the directories, too.
func (m *directoryMount) config(more map[string]any) map[string]any {
	fields := m.op.Config(map[string]any{"oidc_discovery_ca_pem": m.op.CA() + internet.CAPEM})
	maps.Copy(fields, more)
	return fields
}

// work logs a workload in.
func (m *directoryMount) work(said, more map[string]any) (*logical.Response, error) {
	now := time.Now().Unix()
	all := map[string]any{"iss": m.op.URL(), "sub": "ann", "aud": "vault", "iat": now, "exp": now + 600}
	maps.Copy(all, said)
	data := map[string]any{"role": "jobs", "jwt": m.op.Sign(all)}
	maps.Copy(data, more)
	return m.request(logical.UpdateOperation, "login", data)
}

func aliasNames(aliases []*logical.Alias) []string {
	var names []string
	for _, alias := range aliases {
		names = append(names, alias.Name)
	}
	return names
}

// The directories, each with a login that needs it.
var directories = map[string]struct {
	provider map[string]any
	claims   map[string]any // of the ID token
}{
	"Entra ID": {map[string]any{"provider": "azure"}, anOverage},
	"Google Workspace": {map[string]any{
		"provider": "gsuite", "gsuite_admin_impersonate": "reader@example.com", "fetch_groups": true, "groups_recurse_max_depth": 3,
		"fetch_user_info": true, "user_custom_schemas": "Employment",
	}, nil},
	"Okta": {map[string]any{"provider": "okta", "org_url": "https://example.okta.com", "fetch_groups": true, "api_token": anOktaToken, "user_id_claim": "sub"}, nil},
}

func TestAPersonHasTheGroupsThatTheirTokenLeavesOut(t *testing.T) {
	for name, directory := range directories {
		t.Run(name, func(t *testing.T) {
			m := newDirectoryMount(t, maps.Clone(directory.provider))
			m.op.Claims = directory.claims
			if directory.provider["provider"] == "gsuite" {
				m.role("people", map[string]any{
					"groups_claim": "groups", "bound_claims": map[string]any{"groups": "engineers"}, "user_claim": "email",
					"user_template":  `{"pub":{"allow":["orders.{{claim(/Employment/team)}}.>"]}}`,
					"claim_mappings": map[string]any{"/Employment/team": "team"},
				})
			}
			resp, err := m.callback(m.sentBack(map[string]any{"role": "people"}))
			require.NoError(t, err)
			require.NoError(t, resp.Error())
			require.Equal(t, "ann@example.com", resp.Auth.Alias.Name)
			require.Equal(t, []string{"everyone", "engineers", "news"}, aliasNames(resp.Auth.GroupAliases))
			if directory.provider["provider"] == "gsuite" {
				require.Equal(t, "harbour", resp.Auth.Alias.Metadata["team"])
			}
			for _, token := range append(m.op.Tokens, anOktaToken) {
				require.NotContains(t, m.log.String(), token)
			}
			require.NotContains(t, m.log.String(), "PRIVATE KEY")
		})
	}
}

func TestAPersonOutsideOfTheBoundGroupIsRefused(t *testing.T) {
	for name, directory := range directories {
		t.Run(name, func(t *testing.T) {
			m := newDirectoryMount(t, maps.Clone(directory.provider))
			m.op.Claims = directory.claims
			m.role("people", map[string]any{"groups_claim": "groups", "bound_claims": map[string]any{"groups": "admins"}, "user_claim": "email"})
			resp, err := m.callback(m.sentBack(map[string]any{"role": "people"}))
			m.refused(resp, err, `the claim "groups" does not match the role's bound_claims`)
		})
	}
}

func TestAWorkloadHasTheGroupsThatItsTokenLeavesOut(t *testing.T) {
	m := newDirectoryMount(t, map[string]any{"provider": "azure"})
	resp, err := m.work(anOverage, map[string]any{"distributed_claim_access_token": "an-apps-token"})
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.Equal(t, []string{"everyone", "engineers", "news"}, aliasNames(resp.Auth.GroupAliases))

	resp, err = m.work(map[string]any{"groups": []string{"engineers"}}, nil)
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.Equal(t, []string{"engineers"}, aliasNames(resp.Auth.GroupAliases))

	resp, err = m.work(anOverage, nil)
	m.refused(resp, err, "error completing claims: provider_config: there is no access token, without which Microsoft Graph cannot be asked for the groups")
	resp, err = m.work(anOverage, map[string]any{"distributed_claim_access_token": "a-token-for-another-api"})
	m.refused(resp, err, "getMemberObjects answered with status 401 (InvalidAuthenticationToken)")
	require.NotContains(t, resp.Error().Error()+m.log.String(), "a-token-for-another-api")
}

func TestAWorkloadHasItsGroupsForCredentialsToo(t *testing.T) {
	m := newDirectoryMount(t, map[string]any{"provider": "azure"})
	m.System().(*systemView).SystemView.(*logical.StaticSystemView).EntityVal = &logical.Entity{ID: "ann's", Aliases: []*logical.Alias{{MountAccessor: "auth_nats_1", Name: "ann"}}}
	now := time.Now().Unix()
	all := map[string]any{"iss": m.op.URL(), "sub": "ann", "aud": "vault", "iat": now, "exp": now + 600}
	maps.Copy(all, anOverage)
	ask := func(accessToken string) (*logical.Response, error) {
		return m.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.UpdateOperation, Path: "creds/jobs", Storage: m.storage, EntityID: "ann's", MountAccessor: "auth_nats_1",
			Data: map[string]any{"jwt": m.op.Sign(all), "distributed_claim_access_token": accessToken},
		})
	}
	resp, err := ask("an-apps-token")
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.NotEmpty(t, resp.Data["creds"])
	resp, err = ask("")
	m.refused(resp, err, "there is no access token")
}

func TestAnAccessTokenOfAnotherGivesAWorkloadNoGroups(t *testing.T) {
	m := newDirectoryMount(t, map[string]any{"provider": "azure", "fetch_groups": true})
	m.op.Tokens = append(m.op.Tokens, "anns-token")
	mallory := map[string]any{"sub": "mallory", "oid": "5b8c2e39-3f41-4a73-8b57-0d6a64c1f666", "hasgroups": true}
	resp, err := m.work(mallory, map[string]any{"distributed_claim_access_token": "anns-token"})
	m.refused(resp, err, "answered with status 403 (Authorization_RequestDenied)")
	delete(mallory, "oid")
	resp, err = m.work(mallory, map[string]any{"distributed_claim_access_token": "anns-token"})
	m.refused(resp, err, "the token has no oid claim")
}

func TestATokenWithoutRoomForGroupsSaysWhatIsMissing(t *testing.T) {
	const fault = `the groups claim "groups" is not in the token, which says that there are too many groups for it: the issuer needs a provider_config`
	m := newDirectoryMount(t, map[string]any{})
	for _, said := range []map[string]any{anOverage, {"hasgroups": true}} {
		resp, err := m.work(said, map[string]any{"distributed_claim_access_token": "an-apps-token"})
		m.refused(resp, err, fault)
		m.op.Claims = said
		resp, err = m.callback(m.sentBack(map[string]any{"role": "people"}))
		m.refused(resp, err, fault)
	}
}

func TestADirectoryThatIsDownIsTheServersFault(t *testing.T) {
	m := newDirectoryMount(t, maps.Clone(directories["Okta"].provider))
	internet.Serve("example.okta.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	_, err := m.work(nil, nil)
	var coded logical.HTTPCodedError
	require.ErrorAs(t, err, &coded)
	require.Equal(t, http.StatusServiceUnavailable, coded.Code())
	require.ErrorContains(t, err, `issuer "default" is unavailable: the groups at Okta cannot be had now`)
	require.Contains(t, m.log.String(), "GET https://example.okta.com/api/v1/users/ann/groups answered with status 502")
	require.NotContains(t, m.log.String(), anOktaToken)
}

func TestASecretOfAProviderConfigIsNotShownNorTakenElsewhere(t *testing.T) {
	for name, secret := range map[string]string{"Okta": "api_token", "Google Workspace": "gsuite_service_account"} {
		t.Run(name, func(t *testing.T) {
			m := newDirectoryMount(t, maps.Clone(directories[name].provider))
			read, err := m.request(logical.ReadOperation, "config", nil)
			require.NoError(t, err)
			require.NotContains(t, fmt.Sprint(read.Data), anOktaToken)
			require.NotContains(t, fmt.Sprint(read.Data), "PRIVATE KEY")
			shown := read.Data["provider_config"].(map[string]any)
			require.Equal(t, directories[name].provider["provider"], shown["provider"])
			require.NotContains(t, shown, secret)

			// Whoever may write the issuer, and never saw the secret, sends it nowhere.
			evil := optest.Start(t)
			resp, err := m.request(logical.UpdateOperation, "config", evil.Config(nil))
			m.refused(resp, err, "provider_config is missing: the one there is has a secret")
			resp, err = m.request(logical.UpdateOperation, "config", map[string]any{"oidc_discovery_ca_pem": standin.New(t).CAPEM, "oidc_client_secret": optest.ClientSecret})
			m.refused(resp, err, "provider_config is missing: the one there is has a secret")

			m.write("config", m.config(map[string]any{"provider_config": map[string]any{}}))
			read, err = m.request(logical.ReadOperation, "config", nil)
			require.NoError(t, err)
			require.Empty(t, read.Data["provider_config"])
		})
	}
}

func TestAProviderConfigIsCheckedWhenItIsWritten(t *testing.T) {
	m := newDirectoryMount(t, map[string]any{})
	for config, fault := range map[string]string{
		`{"provider": "entra"}`:                        `provider_config has the provider "entra"`,
		`{"provider": "okta", "fetch_groups": true}`:   "provider_config api_token is missing",
		`{"provider": "azure", "fetch_groups": "yes"}`: "provider_config fetch_groups is neither true nor false",
		`{"provider": "gsuite", "gsuite_service_account": "/nowhere/key.json", "fetch_groups": true}`:                              "provider_config cannot be used: the file of gsuite_service_account cannot be read",
		`{"provider": "gsuite", "gsuite_service_account": ` + quotedKey("another@example.com") + `, "fetch_groups": true}`:         "provider_config cannot be used: POST https://oauth2.googleapis.com/token answered with status 401 (unauthorized_client)",
		`{"provider": "okta", "org_url": "https://example.okta.com/x", "api_token": "` + anOktaToken + `", "fetch_groups": false}`: "provider_config org_url is more than a scheme and a host",
	} {
		var provider map[string]any
		require.NoError(t, json.Unmarshal([]byte(config), &provider))
		resp, err := m.request(logical.UpdateOperation, "config", m.config(map[string]any{"provider_config": provider}))
		m.refused(resp, err, fault)
		require.NotContains(t, resp.Error().Error(), anOktaToken)
	}
	m.write("config", m.config(map[string]any{
		"provider_config": map[string]any{"provider": "gsuite", "gsuite_service_account": "/nowhere/key.json", "fetch_groups": true}, "skip_jwks_validation": true,
	}))
	resp, err := m.request(logical.UpdateOperation, "config", m.config(map[string]any{"provider_config": `{"provider": "azure"`}))
	m.refused(resp, err, "provider_config")
	require.False(t, strings.Contains(m.log.String(), anOktaToken))
}

func quotedKey(account string) string {
	key, err := json.Marshal((&standin.Google{Account: account}).Key())
	if err != nil {
		panic(err)
	}
	return string(key)
}
