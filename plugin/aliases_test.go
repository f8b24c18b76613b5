package plugin

import (
	"encoding/base64"
	"maps"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// aliasRole writes a role of type vault for what this mount calls its callers.
func (m *credsMount) aliasRole(name string, more map[string]any) {
	m.t.Helper()
	data := map[string]any{
		"user_name":     "{{alias-name()|escape}}",
		"user_template": `{"pub":{"allow":["ci.{{alias-name()|escape}}.>"]},"sub":{"allow":["_INBOX.>"]}}`,
	}
	maps.Copy(data, more)
	m.vaultRole(name, data)
}

// readCreds asks for credentials as those tools do that can only read: without a
// body, and, as with Vault, without the mount's accessor in the request.
func (m *credsMount) readCreds(role string) (*logical.Response, error) {
	m.t.Helper()
	req := m.request(role, nil)
	req.Operation, req.MountAccessor = logical.ReadOperation, ""
	return m.HandleRequest(m.t.Context(), req)
}

// readRefused is refused for readCreds.
func (m *credsMount) readRefused(role, fault string) {
	m.t.Helper()
	before := m.stored()
	resp, err := m.readCreds(role)
	require.NoError(m.t, err)
	require.ErrorContains(m.t, resp.Error(), fault)
	require.Equal(m.t, before, m.stored())
}

// allowed is to what the user of a plain read may publish.
func (m *credsMount) allowed(role string) []string {
	m.t.Helper()
	resp, err := m.readCreds(role)
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	require.NotNil(m.t, resp.Secret)
	return userClaims(m.t, resp.Data["jwt"]).Pub.Allow
}

func (m *credsMount) alias() *logical.Alias { return m.system.EntityVal.Aliases[0] }

func TestAPlainReadGivesWhatTheAliasSpells(t *testing.T) {
	m := newCredsMount(t)
	m.aliasRole("ci", nil)
	m.restart()
	m.alias().Name = "shop/web.app"
	require.Equal(t, []string{"ci.shop/web%2Eapp.>"}, m.allowed("ci"))
	resp, err := m.readCreds("ci")
	require.NoError(t, err)
	require.Equal(t, "shop/web%2Eapp", userClaims(t, resp.Data["jwt"]).Name)

	// A write gives the same, and so does the preview.
	require.Equal(t, []string{"ci.shop/web%2Eapp.>"}, []string(userClaims(t, m.lease("ci", nil).Data["jwt"]).Pub.Allow))
	preview := m.write("role/ci/preview", map[string]any{"entity_id": entityID})
	require.Equal(t, true, preview["allowed"], preview["errors"])
	nats, err := asJSON[map[string]any](userClaims(t, resp.Data["jwt"]).User)
	require.NoError(t, err)
	require.Equal(t, nats, preview["user"].(map[string]any)["nats"])
}

// What the last login of an alias left in its metadata is perhaps another job's.
func TestTwoJobsOfOneAliasGetWhatTheAliasSpells(t *testing.T) {
	m := newCredsMount(t)
	m.aliasRole("ci", nil)
	for _, project := range []string{"web", "billing", ">"} {
		m.alias().Metadata = map[string]string{"project": project, "role": project, "service_account_name": project}
		require.Equal(t, []string{"ci.runner.>"}, m.allowed("ci"))
	}
	m.refuse(logical.UpdateOperation, "role/ci", map[string]any{"user_name": "{{alias-metadata(project)}}"}, "user_name alias-metadata(project): an alias's metadata is what its last login wrote")
}

func TestAnAliasOfAnotherMountOrIssuerGetsNothing(t *testing.T) {
	m := newCredsMount(t)
	m.aliasRole("ci", nil)
	m.aliasRole("prod", map[string]any{"bound_issuers": "prod", "bound_aliases": "shop/*"})
	m.readRefused("prod", `the issuer "default" of the caller's alias is none of the role's bound_issuers`)
	for alias, fault := range map[string]string{
		"issuer:prod2:shop/web":   `the issuer "prod2" of the caller's alias`,
		"issuer:prod:billing/web": `the caller's alias "billing/web" is none of the role's bound_aliases`,
		"prod:shop/web":           `the issuer "default"`,
		"ISSUER:prod:shop/web":    "is not one that this mount gives",
	} {
		m.alias().Name = alias
		m.readRefused("prod", fault)
	}
	m.alias().Name = "issuer:prod:shop/web"
	require.Equal(t, []string{"ci.shop/web.>"}, m.allowed("prod"))
	m.readRefused("ci", `a role without bound_issuers takes those of the default issuer only`)

	// Mounts come and go at the same path; Vault never gives an accessor again.
	m.alias().MountAccessor = "auth_nats_2"
	m.readRefused("prod", "the caller's entity has no alias of this mount")
	m.alias().MountAccessor = mountAccessor
	m.system.EntityVal.Aliases = append(m.system.EntityVal.Aliases, &logical.Alias{MountAccessor: "auth_nats_2", Name: "x"})
	require.Equal(t, []string{"ci.shop/web.>"}, m.allowed("prod"))
	m.system.EntityVal.Aliases[1].MountAccessor = mountAccessor
	m.readRefused("prod", "several aliases of this mount")
	m.system.EntityVal.Aliases[1].MountAccessor = "auth_nats_2"

	m.aliasRole("other", map[string]any{"user_name": "{{alias-name(auth_nats_2)}}", "user_template": `{"pub":{"allow":["of.{{name()}}"]}}`})
	require.Equal(t, []string{"of.x"}, m.allowed("other"))
	m.system.EntityVal.Disabled = true
	_, err := m.readCreds("prod")
	require.ErrorIs(t, err, logical.ErrPermissionDenied)
}

func TestARoleKeepsTheMountsAccessorOnlyIfItReadsAliases(t *testing.T) {
	m := newCredsMount(t)
	stored := func(name string) string {
		entry, err := m.storage.Get(t.Context(), rolePrefix+name)
		require.NoError(t, err)
		return string(entry.Value)
	}
	m.vaultRole("ops", nil)
	require.NotContains(t, stored("ops"), mountAccessor)
	m.write("role/ops", map[string]any{"bound_aliases": "runner"})
	require.Contains(t, stored("ops"), mountAccessor)
	m.write("role/ops", map[string]any{"bound_aliases": ""})
	require.NotContains(t, stored("ops"), mountAccessor)

	before := m.stored()
	_, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "role/ops", Data: map[string]any{"bound_aliases": "runner"}, Storage: m.storage, MountPoint: "auth/nats/",
	})
	require.ErrorContains(t, err, "the request lacks the mount's accessor")
	require.Equal(t, before, m.stored())
}

func TestBindingsOfAliasesReadBackAsWritten(t *testing.T) {
	m := newCredsMount(t)
	m.aliasRole("ci", map[string]any{"bound_issuers": "gitlab,prod-*", "bound_aliases": []any{"shop/*", "a,b"}})
	want := map[string]any{"bound_issuers": []string{"gitlab", "prod-*"}, "bound_aliases": []string{"shop/*", "a,b"}}
	check := func() {
		t.Helper()
		role := m.read("role/ci")
		for field, value := range want {
			require.Equal(t, value, role[field])
		}
		require.NotContains(t, role, "mount_accessor")
	}
	check()
	m.restart()
	check()
	m.write("role/ci", map[string]any{"user_ttl": "5m"})
	check()
	m.write("role/ci", map[string]any{"bound_issuers": ""})
	want["bound_issuers"] = []string{}
	check()
	for fault, data := range map[string]map[string]any{
		`bound_issuers has "Prod", which no issuer is called`:            {"bound_issuers": "Prod"},
		`bound_aliases has an empty value`:                               {"bound_aliases": []any{""}},
		`bound_issuers is set, but a role of type jwt has no use for it`: {"role_type": "jwt", "bound_issuers": "x", "bound_aliases": ""},
		`user_name alias-name(auth/nats): "auth/nats" is not the acc`:    {"user_name": "{{alias-name(auth/nats)}}"},
	} {
		m.refuse(logical.UpdateOperation, "role/ci", data, fault)
		check()
	}
}

func TestATokenWithoutAnEntityGetsWhatNeedsNone(t *testing.T) {
	m := newCredsMount(t)
	m.vaultRole("batch", map[string]any{"user_name": "batch", "user_template": `{"pub":{"allow":["{{name()}}.{{account-name()}}.>"]}}`})
	m.vaultRole("named", map[string]any{"user_template": `{"pub":{"allow":["x"]}}`})
	m.vaultRole("ops", nil)
	m.aliasRole("ci", nil)
	m.vaultRole("bound", map[string]any{"user_name": "x", "user_template": `{"pub":{"allow":["x"]}}`, "bound_aliases": "*"})
	m.vaultRole("own", map[string]any{"user_name": "x", "user_template": `{"pub":{"allow":["x"]}}`, "user_key": "client"})
	m.vaultRole("near", map[string]any{"user_name": "x", "user_template": `{"pub":{"allow":["x"]}}`, "token_bound_cidrs": "10.0.0.0/8"})
	ask := func(role string, data map[string]any) (*logical.Response, error) {
		req := m.request(role, data)
		req.EntityID = ""
		return m.HandleRequest(t.Context(), req)
	}
	resp, err := ask("batch", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	user := userClaims(t, resp.Data["jwt"])
	require.Equal(t, "batch", user.Name)
	require.Equal(t, []string{"batch.orders.>"}, []string(user.Pub.Allow))

	// The lease is one as any other.
	_, err = m.handle(logical.RenewOperation, resp.Secret)
	require.NoError(t, err)
	_, err = m.handle(logical.RevokeOperation, resp.Secret)
	require.NoError(t, err)
	claims := accountClaims(t, m.read("jwt/orders")["jwt"])
	require.True(t, claims.IsClaimRevoked(user))

	key := newKey(t, trust.User)
	for role, test := range map[string]struct {
		data  map[string]any
		fault string
	}{
		"named": {nil, "user_name, whose default is the entity's name, asks for the caller's Vault entity, and this Vault token has none"},
		"ops":   {nil, "{{groups()}} asks for the caller's Vault entity, and this Vault token has none"},
		"ci":    {nil, "{{alias-name()|escape}} asks for"},
		"bound": {nil, "bound_aliases asks for"},
		"own":   {proven(key, proof.Claim{Purpose: proof.Creds, Role: "own"}), "user_public_key cannot be used with a Vault token without an entity"},
	} {
		before := m.stored()
		resp, err := ask(role, test.data)
		require.NoError(t, err, role)
		require.ErrorContains(t, resp.Error(), test.fault, role)
		require.Nil(t, resp.Secret)
		require.Equal(t, before, m.stored())
	}
	_, err = ask("near", nil)
	require.ErrorIs(t, err, logical.ErrPermissionDenied)

	preview := m.write("role/batch/preview", nil)
	require.Equal(t, true, preview["allowed"])
	require.Equal(t, "batch", preview["user"].(map[string]any)["name"])
	m.refuse(logical.UpdateOperation, "role/ci/preview", nil, "entity_id is missing: {{alias-name()|escape}} asks for an entity")
}

// A proof that names nobody would be good for whoever comes by it.
func TestAKeyIsNotProvenByNobody(t *testing.T) {
	m := newCredsMount(t)
	m.vaultRole("batch", map[string]any{"user_name": "batch", "user_template": `{"pub":{"allow":["x"]}}`})
	key := newKey(t, trust.User)
	data := proven(key, proof.Claim{Purpose: proof.Creds, Role: "batch"})
	nobody := proof.Claim{Purpose: proof.Creds, Mount: "auth/nats/", Role: "batch", User: key.Public(), Time: data["user_key_time"].(int64)}
	data["user_key_signature"] = base64.StdEncoding.EncodeToString(key.Sign([]byte(nobody.Text())))
	req := m.request("batch", data)
	req.EntityID = ""
	resp, err := m.HandleRequest(t.Context(), req)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "user_public_key cannot be used with a Vault token without an entity")
}

func TestARoleInAScopeHasTheAliasInItsTags(t *testing.T) {
	m := newCredsMount(t)
	m.aliasRole("batch", map[string]any{
		"scoped": true, "bound_issuers": "*", "user_name": "j-{{alias-name()|escape}}",
		"user_template": `{"pub":{"allow":["batch.{{tag(by)}}.{{name()}}"]},"tags":["by:{{alias-issuer()}}"]}`,
	})
	m.alias().Name = "issuer:prod:a.b"
	resp, err := m.readCreds("batch")
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	user := userClaims(t, resp.Data["jwt"])
	require.Equal(t, "j-a%2Eb", user.Name)
	require.Equal(t, []string{"by:prod"}, []string(user.Tags))
	m.alias().Name = "issuer:_prod:x"
	m.readRefused("batch", `"_prod" cannot begin the tag "by" of a scoped role`)
}

func TestAnAliasOfSeveralClaimsIsThatOfTheLoginAndItsCredentials(t *testing.T) {
	m := newCredsMount(t)
	named := map[string]any{"user_claim": "", "alias_name": "{{claim(project)}}:{{claim(sub)}}"}
	m.role("dev", named)
	req := m.request("", map[string]any{"role": "dev", "jwt": m.token(map[string]any{"sub": "a:b"})})
	req.Path = "login"
	login, err := m.HandleRequest(t.Context(), req)
	require.NoError(t, err)
	require.NoError(t, login.Error())
	require.Equal(t, "web:a%3Ab", login.Auth.Alias.Name)
	require.Equal(t, "web:a%253Ab", userClaims(t, login.Data["jwt"]).Name)
	m.alias().Name = "web:runner"
	m.lease("dev", map[string]any{"jwt": m.token(nil)})
	m.refused("dev", map[string]any{"jwt": m.token(map[string]any{"project": "billing"})}, `jwt is of "billing:runner", which is not the workload`)
	preview := m.write("role/dev/preview", map[string]any{"claims": map[string]any{"sub": "x"}})
	require.Contains(t, preview["errors"], "the claim of {{claim(project)}} in alias_name is not in the token")

	require.Equal(t, named["alias_name"], m.read("role/dev")["alias_name"])
	m.restart()
	require.Equal(t, named["alias_name"], m.read("role/dev")["alias_name"])
	m.refuse(logical.UpdateOperation, "role/dev", map[string]any{"user_claim": "sub"}, "alias_name is set beside user_claim")
	m.refuse(logical.UpdateOperation, "role/dev", map[string]any{"alias_name": "{{claim(a)}}{{claim(b)}}"}, "alias_name")
	m.write("role/dev", map[string]any{"user_claim": "sub", "alias_name": ""})
	require.Equal(t, "", m.read("role/dev")["alias_name"])
}

func TestPoliciesFollowFromClaimsWhereTheRoleSaysSo(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", map[string]any{"token_policies": "orders,team/{{.project}}", "token_policies_template_claims": true})
	login := func(project string) *logical.Response {
		req := m.request("", map[string]any{"role": "dev", "jwt": m.token(map[string]any{"project": project})})
		req.Path = "login"
		resp, err := m.HandleRequest(t.Context(), req)
		require.NoError(t, err)
		return resp
	}
	require.Equal(t, []string{"orders", "team/web"}, login("web").Auth.Policies)
	require.ErrorContains(t, login("web/admin").Error(), `token_policies[1] cannot be filled in: "web/admin" is not one segment of a policy's name: it has a "/"`)
	require.ErrorContains(t, login("*").Error(), "token_policies[1]")
	preview := m.write("role/dev/preview", map[string]any{"claims": map[string]any{"sub": "x", "project": "web"}})
	require.Equal(t, []string{"orders", "team/web"}, preview["policies"])

	require.Equal(t, true, m.read("role/dev")["token_policies_template_claims"])
	m.restart()
	require.Equal(t, true, m.read("role/dev")["token_policies_template_claims"])
	require.Equal(t, []string{"orders", "team/web"}, login("web").Auth.Policies)
	m.refuse(logical.UpdateOperation, "role/dev", map[string]any{"token_policies": "{{.project"}, "token_policies with token_policies_template_claims: [0]:1")
	// Under its older name, too.
	m.write("role/dev", map[string]any{"policies": "p-{{.project}}"})
	require.Equal(t, []string{"p-web"}, login("web").Auth.Policies)
	m.write("role/dev", map[string]any{"token_policies_template_claims": false})
	require.Equal(t, []string{"p-{{.project}}"}, login("web").Auth.Policies)
	require.Equal(t, false, m.read("role/dev")["token_policies_template_claims"])
	m.refuse(logical.UpdateOperation, "role/v", map[string]any{"account": "orders", "role_type": "vault", "token_policies_template_claims": true},
		"token_policies_template_claims is set, but a role of type vault has no use for it")
}
