package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// aliasTemplate gives a job what its alias spells.
const aliasTemplate = `{"pub":{"allow":["ci.{{alias-issuer()}}.{{alias-name()|escape}}.>"]},"sub":{"allow":["_INBOX.>"]}}`

// reader is the role whose tokens may read credentials, and do nothing else.
func (e *env) reader(name string, more fields) {
	e.t.Helper()
	role := fields{"credentials_on_login": false, "token_policies": e.policy("reader", map[string]string{"creds/*": `"read"`})}
	for field, value := range more {
		role[field] = value
	}
	e.role(name, role)
}

// vaultRole creates a role of type vault.
func (e *env) vaultRole(name string, data fields) {
	e.t.Helper()
	role := fields{"role_type": "vault", "bound_audiences": nil, "user_claim": nil, "user_template": aliasTemplate}
	for field, value := range data {
		role[field] = value
	}
	e.role(name, role)
}

// readCreds gets credentials with a plain read, as tools do that can do no more.
func (e *env) readCreds(client *api.Client, role string) (*lease, error) {
	e.t.Helper()
	secret, err := client.Logical().ReadWithContext(e.ctx(), e.path("creds/"+role))
	if err != nil {
		return nil, err
	}
	require.NotEmpty(e.t, secret.LeaseID)
	return &lease{Secret: secret, JWT: secret.Data["jwt"].(string), Creds: secret.Data["creds"].(string)}, nil
}

// mayPublish is to what a plain read lets the holder of the client's token publish.
func (e *env) mayPublish(client *api.Client, role string) string {
	e.t.Helper()
	lease, err := e.readCreds(client, role)
	require.NoError(e.t, err)
	return strings.Join(e.user(lease.JWT).Pub.Allow, " ")
}

// readRefused reads credentials and is answered with status 400 and these texts.
func (e *env) readRefused(client *api.Client, role string, texts ...string) {
	e.t.Helper()
	_, err := e.readCreds(client, role)
	e.isStatus(err, http.StatusBadRequest, texts...)
}

// identity writes to Vault's identity store.
func (e *env) identity(path string, data fields) *api.Secret {
	e.t.Helper()
	secret, err := e.client.Logical().WriteWithContext(e.ctx(), "identity/"+path, data)
	require.NoError(e.t, err)
	return secret
}

// accessor is what Vault calls an auth mount for good.
func (e *env) accessor(mount string) string {
	e.t.Helper()
	secret, err := e.client.Logical().ReadWithContext(e.ctx(), "sys/auth/"+mount)
	require.NoError(e.t, err)
	return secret.Data["accessor"].(string)
}

func TestAPlainReadGivesAJobWhatItsAliasSpells(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.write("issuer/prod", fields{"oidc_discovery_url": e.issuer.URL})
	e.reader("login", nil)
	e.reader("prod-login", fields{"issuer": "prod"})
	e.vaultRole("ci", fields{"user_name": "{{alias-name()|escape}}"})
	e.vaultRole("prod", fields{"bound_issuers": "prod", "bound_aliases": "acme/*"})

	job := e.login("login", e.token(fields{"sub": "acme/web.app", "project": "web"}))
	lease, err := e.readCreds(job.client, "ci")
	require.NoError(t, err)
	require.Equal(t, "acme/web%2Eapp", e.user(lease.JWT).Name)
	workload := e.connect(lease.Creds)
	workload.publishes("ci.default.acme/web%2Eapp.new")
	workload.mayNotPublish("ci.default.acme/web.new")

	// Another job of that alias gets the same, whatever else its token says and the
	// alias's metadata came to say.
	other := e.login("login", e.token(fields{"sub": "acme/web.app", "project": ">"}))
	require.Equal(t, e.mayPublish(job.client, "ci"), e.mayPublish(other.client, "ci"))
	preview := e.write("role/ci/preview", fields{"entity_id": job.Auth.EntityID}).Data
	require.Equal(t, true, preview["allowed"])
	given, err := json.Marshal(e.user(lease.JWT).User)
	require.NoError(t, err)
	shown, err := json.Marshal(preview["user"].(map[string]any)["nats"])
	require.NoError(t, err)
	require.JSONEq(t, string(given), string(shown))

	// The same name by another issuer is another alias.
	inProd := e.login("prod-login", e.token(fields{"sub": "acme/web.app"}))
	require.Equal(t, "ci.prod.acme/web%2Eapp.>", e.mayPublish(inProd.client, "prod"))
	e.readRefused(inProd.client, "ci", `is of the issuer "prod"`, "bound_issuers")
	e.readRefused(job.client, "prod", `the issuer "default"`, "bound_issuers")
	stranger := e.login("prod-login", e.token(fields{"sub": "other/web"}))
	e.readRefused(stranger.client, "prod", `"other/web"`, "bound_aliases")

	// A token that was made with a job's is of its entity, too.
	child, err := job.client.Logical().WriteWithContext(e.ctx(), "auth/token/create", fields{"policies": []string{e.mount + "-reader"}})
	if err == nil { // unless the default policy of the server does not let it
		client, err := e.vault.Client()
		require.NoError(t, err)
		client.SetToken(child.Auth.ClientToken)
		require.Equal(t, e.mayPublish(job.client, "ci"), e.mayPublish(client, "ci"))
	}

	// A name of several claims is one whoever they are.
	e.reader("branches", fields{"user_claim": nil, "alias_name": "{{claim(project)}}:{{claim(ref)}}"})
	branch := e.login("branches", e.token(fields{"project": "acme/web", "ref": "fix/a:b"}))
	require.Equal(t, "acme/web:fix/a%3Ab", e.alias(branch)["name"])
	require.Equal(t, "ci.default.acme/web:fix/a%253Ab.>", e.mayPublish(branch.client, "ci"))
	same := e.login("branches", e.token(fields{"project": "acme/web:fix/a", "ref": "b"}))
	require.Equal(t, "acme/web%3Afix/a:b", e.alias(same)["name"])
	require.NotEqual(t, branch.Auth.EntityID, same.Auth.EntityID)

	e.cli("lease", "revoke", lease.LeaseID)
	e.isCutOff(workload)
	_, err = job.client.Logical().ReadWithDataWithContext(e.ctx(), e.path("creds/ci"), map[string][]string{"jwt": {e.token(nil)}})
	e.isStatus(err, http.StatusBadRequest, "jwt is given", "type vault")
}

func TestTokensWithoutAnEntityGetWhatNeedsNone(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.vaultRole("ci", nil)
	e.vaultRole("batch", fields{"user_name": "batch", "user_template": `{"pub":{"allow":["batch.{{name()}}.>"]},"sub":{"allow":["_INBOX.>"]}}`})
	e.readRefused(e.client, "ci", "{{alias-name()|escape}} asks for the caller's Vault entity, and this Vault token has none")
	policy := e.policy("reader", map[string]string{"creds/*": `"read"`})
	for name, kind := range map[string]string{"a service token": "service", "a batch token": "batch"} {
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			secret, err := e.client.Logical().WriteWithContext(e.ctx(), "auth/token/create-orphan", fields{"policies": []string{policy}, "type": kind, "ttl": "10m"})
			require.NoError(t, err)
			require.Empty(t, secret.Auth.EntityID)
			client, err := e.vault.Client()
			require.NoError(t, err)
			client.SetToken(secret.Auth.ClientToken)
			lease, err := e.readCreds(client, "batch")
			require.NoError(t, err)
			workload := e.connect(lease.Creds)
			workload.publishes("batch.batch.x")
			workload.mayNotPublish("batch.other.x")
			e.readRefused(client, "ci", "asks for the caller's Vault entity")
			e.cli("lease", "revoke", lease.LeaseID)
			e.isCutOff(workload)
		})
	}
	lease, err := e.readCreds(e.client, "batch")
	require.NoError(t, err, "the root token has no entity either")
	require.Equal(t, "batch", e.user(lease.JWT).Name)
}

// What becomes of an alias, its entity and its mount, and what a plain read then gives.
func TestAnAliasIsWhoItsMountSaysWhateverBecomesOfIt(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.reader("login", nil)
	e.vaultRole("ci", nil)
	job := func(e *env, subject string) *login { return e.login("login", e.token(fields{"sub": subject})) }

	t.Run("an entity that is merged into another", func(t *testing.T) {
		e := e.in(t)
		first := job(e, "merged")
		human, person := e.userpass(e.mount + "-reader")
		e.readRefused(human, "ci", "the caller's entity has no alias of this mount")
		e.identity("entity/merge", fields{"from_entity_ids": first.Auth.EntityID, "to_entity_id": person})
		// Whoever logs in as that entity by any of its aliases is the entity.
		require.Equal(t, "ci.default.merged.>", e.mayPublish(human, "ci"))
		again := job(e, "merged")
		require.Equal(t, person, again.Auth.EntityID)
		require.Equal(t, "ci.default.merged.>", e.mayPublish(again.client, "ci"))
		e.readRefused(first.client, "ci", "the Vault entity does not exist in this namespace: it was deleted, or merged into another")

		e.vaultRole("elsewhere", fields{"user_template": `{"pub":{"allow":["at.{{alias-name(` + e.accessor(e.mount+"-userpass") + `)}}"]}}`})
		require.Equal(t, "at.ann", e.mayPublish(human, "elsewhere"))
		e.readRefused(job(e, "other").client, "elsewhere", "alias-name(auth_userpass_", "no alias of that mount")
	})
	t.Run("two aliases of one mount that are merged", func(t *testing.T) {
		e := e.in(t)
		for _, keepsTheOther := range []bool{false, true} {
			from, to := job(e, fmt.Sprint("from-", keepsTheOther)), job(e, fmt.Sprint("to-", keepsTheOther))
			merge := fields{"from_entity_ids": from.Auth.EntityID, "to_entity_id": to.Auth.EntityID}
			_, err := e.client.Logical().WriteWithContext(e.ctx(), "identity/entity/merge", merge)
			require.ErrorContains(t, err, "conflict")
			merge["conflicting_alias_ids_to_keep"] = e.alias(from)["id"]
			if keepsTheOther {
				merge["conflicting_alias_ids_to_keep"] = e.alias(to)["id"]
			}
			e.identity("entity/merge", merge)
			// Vault itself leaves both if the other is to be kept, and OpenBao always.
			secret, err := e.client.Logical().ReadWithContext(e.ctx(), "identity/entity/id/"+to.Auth.EntityID)
			require.NoError(t, err)
			aliases := secret.Data["aliases"].([]any)
			if len(aliases) > 1 {
				e.readRefused(to.client, "ci", "several aliases of this mount, and none of them says who it is")
				continue
			}
			require.Equal(t, "ci.default."+aliases[0].(fields)["name"].(string)+".>", e.mayPublish(to.client, "ci"))
		}
	})
	t.Run("an alias that is deleted and made again", func(t *testing.T) {
		e := e.in(t)
		first := job(e, "again")
		_, err := e.client.Logical().DeleteWithContext(e.ctx(), "identity/entity-alias/id/"+e.alias(first)["id"].(string))
		require.NoError(t, err)
		e.readRefused(first.client, "ci", "no alias of this mount")
		second := job(e, "again")
		require.NotEqual(t, first.Auth.EntityID, second.Auth.EntityID)
		require.Equal(t, "ci.default.again.>", e.mayPublish(second.client, "ci"))
		e.readRefused(first.client, "ci", "no alias of this mount")
	})
	t.Run("an alias that somebody wrote by hand", func(t *testing.T) {
		e := e.in(t)
		entity := e.identity("entity", fields{"name": e.mount + "-hand"}).Data["id"]
		e.identity("entity-alias", fields{"name": "ISSUER:prod:x", "canonical_id": entity, "mount_accessor": e.accessor(e.mount)})
		preview := e.write("role/ci/preview", fields{"entity_id": entity}).Data
		require.Equal(t, false, preview["allowed"])
		require.Contains(t, preview["errors"].([]any)[0], "is not one that this mount gives")
	})
	t.Run("names that differ in case alone", func(t *testing.T) {
		e := e.in(t)
		first, second := job(e, "Acme/Web"), job(e, "acme/web")
		require.Equal(t, first.Auth.EntityID, second.Auth.EntityID, "to Vault they are one")
		require.Equal(t, "ci.default.Acme/Web.>", e.mayPublish(second.client, "ci"), "in the spelling of the first login")
		e.vaultRole("cased", fields{"bound_aliases": "acme/*"})
		e.readRefused(second.client, "cased", "bound_aliases")
	})
	t.Run("an entity that is disabled", func(t *testing.T) {
		e := e.in(t)
		off := job(e, "off")
		e.identity("entity/id/"+off.Auth.EntityID, fields{"disabled": true})
		_, err := e.readCreds(off.client, "ci")
		e.isStatus(err, http.StatusForbidden)
	})
	t.Run("an alias that is local to the cluster", func(t *testing.T) {
		e := e.in(t)
		mount := e.mount + "-local"
		require.NoError(t, e.client.Sys().EnableAuthWithOptionsWithContext(e.ctx(), mount, &api.EnableAuthOptions{Type: "userpass", Local: true}))
		_, err := e.client.Logical().WriteWithContext(e.ctx(), "auth/"+mount+"/users/bob", fields{"password": "secret", "token_policies": e.mount + "-reader"})
		require.NoError(t, err)
		bob, _ := e.logInAt("auth/"+mount+"/login/bob", fields{"password": "secret"})
		e.vaultRole("local", fields{"user_template": `{"pub":{"allow":["at.{{alias-name(` + e.accessor(mount) + `)}}"]}}`})
		require.Equal(t, "at.bob", e.mayPublish(bob, "local"))
	})
	t.Run("a mount that is moved, and one that is made anew", func(t *testing.T) {
		e := e.in(t)
		mount := e.mount + "-moved"
		e.enableAuth(mount, "userpass")
		accessor := e.accessor(mount)
		logIn := func(mount string) *api.Client {
			_, err := e.client.Logical().WriteWithContext(e.ctx(), "auth/"+mount+"/users/eve", fields{"password": "secret", "token_policies": e.mount + "-reader"})
			require.NoError(t, err)
			client, _ := e.logInAt("auth/"+mount+"/login/eve", fields{"password": "secret"})
			return client
		}
		e.vaultRole("moved", fields{"user_template": `{"pub":{"allow":["at.{{alias-name(` + accessor + `)}}"]}}`})
		require.Equal(t, "at.eve", e.mayPublish(logIn(mount), "moved"))
		require.NoError(t, e.client.Sys().RemountWithContext(e.ctx(), "auth/"+mount, "auth/"+mount+"-on"))
		require.Equal(t, "at.eve", e.mayPublish(logIn(mount+"-on"), "moved"))
		e.enableAuth(mount, "userpass") // whoever makes it has other people in it
		e.readRefused(logIn(mount), "moved", "no alias of that mount")
		e.refused("role/moved", fields{"user_name": "{{alias-name(auth/" + mount + ")}}"}, "user_name", "is not the accessor of an auth mount")
	})
}

func TestThisMountsAliasesMoveWithIt(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.reader("login", nil)
	e.vaultRole("ci", fields{"bound_aliases": "acme/*"})
	accessor := e.accessor(e.mount)
	require.Equal(t, "ci.default.acme/web.>", e.mayPublish(e.login("login", e.token(fields{"sub": "acme/web"})).client, "ci"))

	moved := *e
	moved.mount = e.mount + "-moved"
	require.NoError(t, e.client.Sys().RemountWithContext(e.ctx(), "auth/"+e.mount, "auth/"+moved.mount))
	t.Cleanup(func() { require.NoError(t, e.client.Sys().DisableAuthWithContext(context.Background(), moved.mount)) })
	require.Equal(t, accessor, moved.accessor(moved.mount))
	moved.reader("login", nil)
	job := moved.login("login", e.token(fields{"sub": "acme/web"}))
	require.Equal(t, "ci.default.acme/web.>", moved.mayPublish(job.client, "ci"))

	// Another mount at the old path has other aliases, and the moved one takes none of them.
	require.NoError(t, e.vault.Enable(e.ctx(), e.mount))
	e.configure()
	e.account("orders", nil)
	policy := e.mount + "-both"
	require.NoError(t, e.client.Sys().PutPolicyWithContext(e.ctx(), policy, fmt.Sprintf("path %q { capabilities = [\"read\"] }", moved.path("creds/ci"))))
	e.reader("login", fields{"token_policies": policy})
	stranger := e.login("login", e.token(fields{"sub": "acme/web"}))
	require.NotEqual(t, job.Auth.EntityID, stranger.Auth.EntityID)
	moved.readRefused(stranger.client, "ci", "the caller's entity has no alias of this mount")
}

func TestPoliciesFollowFromClaims(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("dev", fields{"token_policies": "team/{{.project}},{{if eq .ref \"refs/heads/main\"}}main{{end}}", "token_policies_template_claims": true})
	policies := func(project, ref string) any {
		secret, err := e.login("dev", e.token(fields{"project": project, "ref": ref})).client.Auth().Token().LookupSelfWithContext(e.ctx())
		require.NoError(t, err)
		return secret.Data["policies"]
	}
	require.ElementsMatch(t, []any{"default", "team/web", "main"}, policies("web", "refs/heads/main"))
	require.ElementsMatch(t, []any{"default", "team/web"}, policies("Web", "refs/heads/x"))
	for _, project := range []string{"web/admin", "*", "../root", ""} {
		e.loginRefused("dev", e.token(fields{"project": project, "ref": "x"}), "token_policies[0] cannot be filled in")
	}
	e.loginRefused("dev", e.token(fields{"project": "web"}), "token_policies[1]", "ref")
}
