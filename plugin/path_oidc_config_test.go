package plugin

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/optest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

func TestFieldsForPeopleReadBackAsTheyWereWritten(t *testing.T) {
	m := newPeopleMount(t)
	issuer := map[string]any{
		"oidc_response_mode": "form_post", "oidc_response_types": []string{"id_token"}, "namespace_in_state": false,
		"provider_config": map[string]any{"provider": "secureauth"}, "override_allowed_server_names": []string{"example.com"},
		"unsupported_critical_cert_extensions": []string{"2.5.29.54", "2.5.29.36"},
	}
	role := map[string]any{
		"role_type": "oidc", "allowed_redirect_uris": []string{directRedirect, peopleRedirect}, "oidc_scopes": []string{"profile", "groups"},
		"callback_mode": "direct", "poll_interval": int64(3), "verbose_oidc_logging": true, "max_age": int64(60),
	}
	fields := maps.Clone(role)
	maps.Copy(fields, map[string]any{"account": "orders", "user_claim": "sub", "issuer": "other"})
	m.write("issuer/other", m.op.Config(issuer))
	m.write("role/other", fields)
	for path, wanted := range map[string]map[string]any{"issuer/other": issuer, "role/other": role} {
		resp, err := m.request(logical.ReadOperation, path, nil)
		require.NoError(t, err)
		for field, value := range wanted {
			require.Equal(t, value, resp.Data[field], field)
		}
	}

	// From the command line an object comes as a text.
	m.write("issuer/other", map[string]any{"provider_config": `{"provider":"ibmisam"}`})
	resp, err := m.request(logical.ReadOperation, "issuer/other", nil)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"provider": "ibmisam"}, resp.Data["provider_config"])
}

func TestWhatOlderVersionsStoredHasTheDefaultsOfFieldsForPeople(t *testing.T) {
	m := newPeopleMount(t)
	for key, text := range map[string]string{
		"issuer/older": `{"jwks_url":"https://127.0.0.1:1","disable_iss_validation":true,"disable_local_ca_jwt":false,"use_annotations_as_alias_metadata":false}`,
		"role/older":   `{"role_type":"jwt","issuer":"older","bound_audiences":["vault"],"user_claim":"sub","account":"orders","credentials_on_login":true}`,
	} {
		require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(text)}))
	}
	for path, wanted := range map[string]map[string]any{
		"issuer/older": {"namespace_in_state": true, "oidc_client_id": "", "oidc_client_secret_set": false, "oidc_response_types": []string{}, "provider_config": map[string]any{}},
		"role/older":   {"role_type": "jwt", "callback_mode": "client", "allowed_redirect_uris": []string{}, "poll_interval": int64(0), "verbose_oidc_logging": false},
	} {
		resp, err := m.request(logical.ReadOperation, path, nil)
		require.NoError(t, err)
		for field, value := range wanted {
			require.Equal(t, value, resp.Data[field], field)
		}
	}
	m.write("role/older", map[string]any{"token_ttl": "1m"})
}

func TestFaultyFieldsForPeopleAreRefusedByName(t *testing.T) {
	m := newPeopleMount(t)
	m.write("issuer/keys", map[string]any{"jwks_url": "https://127.0.0.1:1", "skip_jwks_validation": true})
	m.role("other", nil)
	before := storetest.KeysBelow(t, m.storage.Storage, "")
	discovered := func(more map[string]any) map[string]any {
		fields := m.op.Config(more)
		for name, value := range more {
			if value == nil {
				delete(fields, name)
			}
		}
		return fields
	}
	role := func(more map[string]any) map[string]any {
		fields := map[string]any{"role_type": "oidc", "account": "orders", "user_claim": "sub", "allowed_redirect_uris": peopleRedirect}
		maps.Copy(fields, more)
		return fields
	}
	for _, c := range []struct {
		path   string
		fields map[string]any
		fault  string
	}{
		{"issuer/new", discovered(map[string]any{"oidc_client_secret": nil}), "oidc_client_secret and oidc_client_id are set together"},
		{"issuer/new", discovered(map[string]any{"oidc_client_id": nil}), "oidc_client_secret and oidc_client_id are set together"},
		{"issuer/new", map[string]any{"jwks_url": "https://127.0.0.1:1", "oidc_client_id": "a", "oidc_client_secret": "b"}, "oidc_client_id is set without oidc_discovery_url"},
		{"issuer/new", map[string]any{"kubernetes_host": "https://127.0.0.1:1", "kubernetes_ca_cert": m.op.CA(), "provider_config": map[string]any{"provider": "azure"}}, "provider_config is set on an issuer of kind kubernetes"},
		{"issuer/new", discovered(map[string]any{"oidc_response_mode": "fragment"}), `oidc_response_mode is "fragment"`},
		{"issuer/new", discovered(map[string]any{"oidc_response_types": "token"}), `oidc_response_types has "token"`},
		{"issuer/new", discovered(map[string]any{"oidc_response_types": "id_token"}), "oidc_response_mode is not"},
		{"issuer/new", discovered(map[string]any{"oidc_client_id": nil, "oidc_client_secret": nil, "oidc_response_mode": "query"}), "oidc_response_mode is set without oidc_client_id"},
		{"issuer/new", discovered(map[string]any{"provider_config": map[string]any{"provider": "nobody"}}), `provider_config has the provider "nobody"`},
		{"issuer/new", discovered(map[string]any{"provider_config": "[]"}), "provider_config is not a JSON object"},
		{"issuer/new", discovered(map[string]any{"unsupported_critical_cert_extensions": "nonsense"}), `unsupported_critical_cert_extensions has "nonsense"`},
		{"issuer/new", discovered(map[string]any{"override_allowed_server_names": "elsewhere.invalid"}), "elsewhere.invalid"},
		{"role/new", role(map[string]any{"issuer": "keys"}), `role_type is oidc, but issuer "keys" has no oidc_client_id`},
		{"role/new", role(map[string]any{"allowed_redirect_uris": ""}), "allowed_redirect_uris is required"},
		{"role/new", role(map[string]any{"allowed_redirect_uris": "oidc/callback"}), "allowed_redirect_uris has"},
		{"role/new", role(map[string]any{"allowed_redirect_uris": "https://*.example.com/"}), "allowed_redirect_uris has"},
		{"role/new", role(map[string]any{"allowed_redirect_uris": "https://example.com/#x"}), "allowed_redirect_uris has"},
		{"role/new", role(map[string]any{"allowed_redirect_uris": "https://a@example.com/"}), "allowed_redirect_uris has"},
		{"role/new", role(map[string]any{"allowed_redirect_uris": "javascript:alert(1)"}), "allowed_redirect_uris has"},
		{"role/new", role(map[string]any{"allowed_redirect_uris": "https:///x"}), "allowed_redirect_uris has"},
		{"role/new", role(map[string]any{"oidc_scopes": []string{"a b"}}), "oidc_scopes has"},
		{"role/new", role(map[string]any{"callback_mode": "popup"}), "callback_mode is"},
		{"role/new", role(map[string]any{"poll_interval": -1}), "poll_interval is negative"},
		{"role/new", role(map[string]any{"poll_interval": 61, "callback_mode": "direct"}), "poll_interval is too long"},
		{"role/new", role(map[string]any{"poll_interval": 1}), "poll_interval is set, but nobody polls"},
		{"role/new", role(map[string]any{"max_age": -1}), "max_age"},
		{"role/new", role(map[string]any{"user_claim": ""}), "user_claim is required"},
		{"role/new", role(map[string]any{"bound_service_account_names": "a"}), "bound_service_account_names is set"},
		{"role/new", map[string]any{"role_type": "jwt", "account": "orders", "user_claim": "sub", "bound_audiences": "a", "oidc_scopes": "a"}, "oidc_scopes is set, but a role of type jwt has no use for it"},
		{"role/new", map[string]any{"role_type": "vault", "account": "orders", "callback_mode": "direct"}, "callback_mode is set, but a role of type vault"},
		{"config", map[string]any{"oidc_client_id": "", "oidc_client_secret": ""}, `oidc_client_id is taken from issuer "default", which people log in with by these roles: dev, other`},
		{"config", map[string]any{"jwks_url": "https://127.0.0.1:1", "skip_jwks_validation": true}, `oidc_client_id is taken from issuer "default"`},
	} {
		resp, err := m.request(logical.UpdateOperation, c.path, c.fields)
		m.refused(resp, err, c.fault)
	}
	require.Equal(t, before, storetest.KeysBelow(t, m.storage.Storage, ""), "nothing was stored")
	resp, err := m.callback(m.sentBack(nil))
	require.NoError(t, err)
	require.NotNil(t, resp.Auth)
}

// What is allowed and rarely meant is said.
func TestARoleForPeopleWarnsOfWhatIsRarelyMeant(t *testing.T) {
	m := newPeopleMount(t)
	warnings := func(changes map[string]any) string {
		fields := map[string]any{"role_type": "oidc", "account": "orders", "user_claim": "sub", "allowed_redirect_uris": peopleRedirect, "bound_claims": map[string]any{"team": "shop"}}
		maps.Copy(fields, changes)
		resp, err := m.request(logical.UpdateOperation, "role/new", fields)
		require.NoError(t, err)
		require.NoError(t, resp.Error())
		if resp == nil {
			return ""
		}
		text, err := json.Marshal(resp.Warnings)
		require.NoError(t, err)
		return string(text)
	}
	usual := warnings(nil)
	require.NotContains(t, usual, "redirect")
	require.NotContains(t, usual, "verbose_oidc_logging")
	require.Contains(t, warnings(map[string]any{"verbose_oidc_logging": true}), "verbose_oidc_logging")
	require.Contains(t, warnings(map[string]any{"allowed_redirect_uris": "http://vault.example.com/cb"}), "http://vault.example.com/cb")
	require.Contains(t, warnings(map[string]any{"bound_claims": map[string]any{}}), "everyone")
	require.NotContains(t, warnings(map[string]any{"bound_claims": map[string]any{}, "bound_audiences": optest.ClientID}), "redirect")
}
