package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

func TestAConfigWrittenBeforeNATSIsUpIsDeliveredOnceItIs(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	answer := e.write("config", fields{
		"oidc_discovery_url": e.issuer.URL, "account_jwt_server_url": e.nats.URL, "service_url": e.nats.URL,
		"operator_name": "ACME", "tags": "staging,eu",
	})
	operator, err := natsjwt.DecodeOperatorClaims(answer.Data["operator_jwt"].(string))
	require.NoError(t, err)
	require.Equal(t, "ACME", operator.Name)
	require.ElementsMatch(t, []string{"staging", "eu"}, []string(operator.Tags))
	system, err := natsjwt.DecodeAccountClaims(answer.Data["system_account_jwt"].(string))
	require.NoError(t, err)
	require.Equal(t, operator.SystemAccount, system.Subject)
	account := e.account("orders", nil)
	require.NotEmpty(t, account.Warnings, "a NATS that is not up is told in a warning")

	require.NoError(t, e.nats.Start(e.ctx(), e.serverConfig()))
	e.role("dev", nil)
	creds := e.login("dev", e.token(nil)).Creds
	e.waitFor("the account to be delivered", func() error {
		workload, err := e.tryConnect(creds)
		if err != nil {
			return err
		}
		workload.publishes("anything")
		return nil
	})
}

func TestALaterConfigChangesOnlyWhatItGives(t *testing.T) {
	t.Parallel()
	e := start(t)
	first := e.read("config")
	e.write("config", fields{"default_role": "dev", "bound_issuer": []string{e.issuer.URL, "https://old.example.com"}})
	second := e.read("config")
	require.Equal(t, e.issuer.URL+",https://old.example.com", second["bound_issuer"])
	maps.DeleteFunc(first, func(name string, _ any) bool { return name == "default_role" || name == "bound_issuer" })
	for name, value := range first {
		require.Equal(t, value, second[name], "%s changed", name)
	}
	again := e.write("config", fields{"operator_name": "renamed"})
	operator, err := natsjwt.DecodeOperatorClaims(again.Data["operator_jwt"].(string))
	require.NoError(t, err)
	require.Equal(t, "renamed", operator.Name)
	e.account("orders", nil)
	e.role("dev", nil)
	e.connect(e.login("dev", e.token(nil)).Creds).publishes("anything")
}

func TestTheSeedsSpellingOfTheServerURLIsTaken(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	e.write("config", fields{"account_jwt_url": "nats://127.0.0.1:1"})
	require.Equal(t, "nats://127.0.0.1:1", e.read("config")["account_jwt_server_url"])
	require.Equal(t, "nats://127.0.0.1:4222", e.read("config")["service_url"])
}

// A named user's key stays in Vault: the client has its JWT, and Vault signs the
// server's nonce.
func TestAConnectionIsSignedInVault(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	user := e.write("jwt/worker", fields{"type": "user", "account": "orders", "config": `{"pub":{"allow":["orders.>"]}}`})
	workload, err := e.dial(nats.UserJWT(
		func() (string, error) { return user.Data["jwt"].(string), nil },
		func(nonce []byte) ([]byte, error) {
			answer, err := e.try("jwt/worker/sign", fields{"nonce": string(nonce)})
			if err != nil {
				return nil, err
			}
			return base64.StdEncoding.DecodeString(answer.Data["signed_nonce"].(string))
		}))
	require.NoError(t, err)
	workload.publishes("orders.new")
	workload.mayNotPublish("billing.new")

	withNonce := e.write("jwt/worker", fields{"type": "user", "account": "orders", "config": fields{"pub": fields{"allow": []string{"orders.>"}}}, "nonce": "abc"})
	require.NotEmpty(t, withNonce.Data["signed_nonce"])
	require.Equal(t, user.Data["public_key"], withNonce.Data["public_key"], "a later write keeps the key")
}

func TestBadConfigAndRolesAreRefusedAndChangeNothing(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.write("jwt/worker", fields{"type": "user", "account": "orders", "config": fields{}})
	e.role("dev", fields{"user_template": devTemplate})
	config, role, account := e.read("config"), e.read("role/dev"), e.read("jwt/orders")

	for name, test := range map[string]struct {
		path  string
		data  fields
		texts []string
	}{
		"two key sources":                     {"config", fields{"jwks_url": e.issuer.JWKSURL(), "oidc_discovery_url": e.issuer.URL}, []string{"jwks_url", "exactly one"}},
		"no such discovery document":          {"config", fields{"oidc_discovery_url": e.issuer.URL + "/nothing"}, []string{"oidc_discovery_url"}},
		"a key that is no key":                {"config", fields{"jwt_validation_pubkeys": "nonsense"}, []string{"jwt_validation_pubkeys"}},
		"an algorithm that is symmetric":      {"config", fields{"jwt_supported_algs": "HS256"}, []string{"jwt_supported_algs", "HS256"}},
		"a server URL of another scheme":      {"config", fields{"account_jwt_server_url": "ftp://example.com"}, []string{"account_jwt_server_url"}},
		"a service URL that is no URL":        {"config", fields{"service_url": "::"}, []string{"service_url"}},
		"a role without account":              {"role/new", roleFields(fields{"account": nil}), []string{"account"}},
		"a role of an unknown account":        {"role/new", roleFields(fields{"account": "nothing"}), []string{"account", "nothing"}},
		"a role of an unknown issuer":         {"role/new", roleFields(fields{"issuer": "nothing"}), []string{"issuer", "nothing"}},
		"a role of another issuer's type":     {"role/new", roleFields(fields{"role_type": "kubernetes"}), []string{"role_type"}},
		"a role that binds nothing":           {"role/new", roleFields(fields{"bound_audiences": nil}), []string{"bound"}},
		"a role without user claim":           {"role/new", roleFields(fields{"user_claim": nil}), []string{"user_claim"}},
		"a template that is no JSON":          {"role/dev", fields{"user_template": "{"}, []string{"user_template"}},
		"a template with an unknown key":      {"role/dev", fields{"user_template": fields{"pubs": fields{}}}, []string{"user_template", "pubs"}},
		"a template with an unknown function": {"role/dev", fields{"user_template": `{"pub":{"allow":["a.{{claims(x)}}"]}}`}, []string{"user_template", "claims"}},
		"a template with an unclosed brace":   {"role/dev", fields{"user_template": `{"pub":{"allow":["a.{{claim(x)"]}}`}, []string{"user_template"}},
		"a template with a bad subject":       {"role/dev", fields{"user_template": `{"pub":{"allow":["a..b"]}}`}, []string{"user_template"}},
		"a negative user_ttl":                 {"role/dev", fields{"user_ttl": -5}, []string{"user_ttl"}},
		"an overlong user_ttl":                {"role/dev", fields{"user_ttl": "100000h"}, []string{"user_ttl"}},
		"a negative token_ttl":                {"role/dev", fields{"token_ttl": "-5s"}, []string{"token_ttl"}},
		"a token_ttl beyond token_max_ttl":    {"role/dev", fields{"token_ttl": "2h", "token_max_ttl": "1h"}, []string{"token_ttl"}},
		"a period beyond the mount's maximum": {"role/dev", fields{"token_period": "100000h"}, []string{"token_period"}},
		"a bad bound_claims_type":             {"role/dev", fields{"bound_claims_type": "regex"}, []string{"bound_claims_type"}},
		"a bad CIDR":                          {"role/dev", fields{"token_bound_cidrs": "300.1.1.1/8"}, []string{"300.1.1.1"}},
		"a role name with a slash":            {"role/a/b", roleFields(nil), []string{"name", "a/b"}},
		"an account name with a slash":        {"jwt/a/b", fields{"type": "account"}, []string{"name", "a/b"}},
		"an unknown key in an account":        {"jwt/orders", fields{"type": "account", "config": fields{"limit": fields{}}}, []string{"config", "limit"}},
		"an unknown key deep in an account":   {"jwt/orders", fields{"type": "account", "config": `{"limits":{"connections":1}}`}, []string{"config", "connections"}},
		"an unknown key in a user":            {"jwt/worker", fields{"type": "user", "account": "orders", "config": fields{"publish": 1}}, []string{"config", "publish"}},
		"an account that becomes a user":      {"jwt/orders", fields{"type": "user", "account": "orders", "config": fields{}}, []string{"type"}},
		"an unknown type":                     {"jwt/new", fields{"type": "operator", "config": fields{}}, []string{"type", "operator"}},
		"no type":                             {"jwt/new", fields{"config": fields{}}, []string{"type"}},
		"a user of an unknown account":        {"jwt/new", fields{"type": "user", "account": "nothing", "config": fields{}}, []string{"account", "nothing"}},
		"a user without account":              {"jwt/new", fields{"type": "user", "config": fields{}}, []string{"account"}},
		"a signature for an account":          {"jwt/orders/sign", fields{"nonce": "abc"}, []string{"orders", "account"}},
		"a signature without nonce":           {"jwt/worker/sign", fields{}, []string{"nonce"}},
		"a signature of an unknown user":      {"jwt/nobody/sign", fields{"nonce": "abc"}, []string{"nobody"}},
	} {
		t.Run(name, func(t *testing.T) { e.in(t).refused(test.path, test.data, test.texts...) })
	}
	require.Equal(t, config, e.read("config"))
	require.Equal(t, role, e.read("role/dev"))
	require.Equal(t, account, e.read("jwt/orders"))
	e.absent("role/new")
	e.absent("jwt/new")
}

func TestARoleIsReadBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	written := fields{
		"role_type": "jwt", "issuer": "default", "account": "orders",
		"bound_audiences": []any{"vault", "nats"}, "bound_subject": "job", "bound_claims_type": "glob",
		"bound_claims": map[string]any{"env": "prod*", "/nested/team": []any{"a", "b"}},
		"user_claim":   "sub", "user_claim_json_pointer": false, "groups_claim": "groups",
		"claim_mappings":    map[string]any{"project": "project"},
		"expiration_leeway": json.Number("-1"), "not_before_leeway": json.Number("10"), "clock_skew_leeway": json.Number("20"),
		"max_age":       json.Number("3600"),
		"user_template": map[string]any{"pub": map[string]any{"allow": []any{"orders.{{claim(project)}}.>"}}, "subs": json.Number("10")},
		"user_name":     "ci-{{claim(project)}}", "user_ttl": json.Number("600"),
		"bound_expression": `claims.project != ""`,
		"token_policies":   []any{"p1", "p2"}, "token_ttl": json.Number("900"), "token_max_ttl": json.Number("1800"),
		"token_num_uses": json.Number("3"), "token_no_default_policy": true, "token_type": "service",
		"token_bound_cidrs": []any{"127.0.0.0/8"}, "token_explicit_max_ttl": json.Number("3600"), "token_period": json.Number("0"),
	}
	e.write("role/whole", written)
	read := e.read("role/whole")
	for name, value := range written {
		require.Equal(t, value, read[name], "%s", name)
	}
	e.write("role/whole", fields{"user_ttl": "300s"})
	again := e.read("role/whole")
	require.Equal(t, json.Number("300"), again["user_ttl"])
	delete(again, "user_ttl")
	delete(read, "user_ttl")
	require.Equal(t, read, again, "a later write changes only what it gives")

	for name, more := range map[string]fields{
		"named":   {"bound_audiences": []any{"vault"}, "alias_name": "{{claim(a)}}:{{claim(b)}}", "token_policies": []any{"p-{{.a}}"}, "token_policies_template_claims": true},
		"aliases": {"role_type": "vault", "bound_issuers": []any{"default", "prod-*"}, "bound_aliases": []any{"acme/*", "a,b"}, "user_name": "{{alias-name()|escape}}"},
	} {
		more["account"] = "orders"
		e.write("role/"+name, more)
		read := e.read("role/" + name)
		for field, value := range more {
			require.Equal(t, value, read[field], "%s of %s", field, name)
		}
		e.remove("role/" + name)
	}

	e.role("older", fields{"policies": "p1", "ttl": "5m", "max_ttl": "10m", "num_uses": 2, "bound_cidrs": "127.0.0.0/8"})
	older := e.read("role/older")
	want := fields{
		"policies": []any{"p1"}, "token_policies": []any{"p1"}, "ttl": json.Number("300"), "token_ttl": json.Number("300"),
		"max_ttl": json.Number("600"), "num_uses": json.Number("2"), "token_num_uses": json.Number("2"), "bound_cidrs": []any{"127.0.0.0/8"},
	}
	for name, value := range want {
		require.Equal(t, value, older[name], "%s", name)
	}
	for _, path := range []string{"role", "roles", "role/", "roles/"} {
		require.Equal(t, []string{"older", "whole"}, e.list(path), path)
	}
	e.remove("role/older")
	e.absent("role/older")
	require.Equal(t, []string{"whole"}, e.list("roles"))
}

func TestJSONIsTakenFromTheBodyAndFromTheCLI(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.cli("write", e.path("jwt/orders"), "type=account", `config={"limits":{"conn":5},"description":"from the CLI"}`)
	fromCLI := e.read("jwt/orders")["config"]
	e.write("jwt/copy", fields{"type": "account", "config": fields{"limits": fields{"conn": 5}, "description": "from the CLI"}})
	require.Equal(t, fromCLI, e.read("jwt/copy")["config"])
	e.cli("write", e.path("role/dev"), "account=orders", "bound_audiences=vault", "user_claim=sub", "user_template="+devTemplate, `bound_claims={"env":["a","b"]}`)
	fromCLI = e.read("role/dev")["user_template"]
	var template fields
	require.NoError(t, json.Unmarshal([]byte(devTemplate), &template))
	e.role("copy", fields{"user_template": template, "bound_claims": fields{"env": []string{"a", "b"}}})
	require.Equal(t, fromCLI, e.read("role/copy")["user_template"])
	require.Equal(t, e.read("role/dev")["bound_claims"], e.read("role/copy")["bound_claims"])
}

func TestARoleThatGrantsEverythingIsWarnedAbout(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	require.Contains(t, strings.Join(e.role("all", nil).Warnings, "\n"), "grants every subject")
	require.Nil(t, e.role("some", fields{"user_template": devTemplate}), "no warning, so no content")
}

// Everything is in Vault's storage: the operator, accounts, roles and users are
// the same after a restart, sealed and unsealed, killed, and after the plugin
// was reloaded, and logins go on.
func TestEverythingSurvivesARestart(t *testing.T) {
	t.Parallel()
	vault := ownVault(t, stack.VaultConfig{Storage: "raft"})
	e := start(t, onVault(vault))
	e.account("orders", nil)
	e.write("jwt/worker", fields{"type": "user", "account": "orders", "config": fields{}})
	e.role("dev", fields{"user_template": devTemplate})
	state := func() []fields {
		user := e.read("jwt/worker")
		delete(user, "jwt") // made anew at every read
		delete(user, "expiration")
		return []fields{e.read("config"), e.read("config/server"), e.read("jwt/orders"), user, e.read("role/dev")}
	}
	e.waitFor("the account to be delivered", func() error {
		if delivered := e.read("jwt/orders")["delivered"]; delivered != true {
			return fmt.Errorf("delivered is %v", delivered)
		}
		return nil
	})
	before := state()
	held := e.login("dev", e.token(fields{"project": "shop"}))
	check := func(what string) {
		require.Equal(t, before, state(), "after "+what)
		e.connect(held.Creds).publishes("orders.shop.new")
		e.connect(e.login("dev", e.token(fields{"project": "shop"})).Creds).publishes("orders.shop.new")
	}
	e.cli("plugin", "reload", "-plugin", "vault-plugin-auth-nats")
	check("a plugin reload")
	vault.Stop()
	require.NoError(t, vault.Start(e.ctx()))
	check("a restart")
	vault.Kill()
	require.NoError(t, vault.Start(e.ctx()))
	check("a kill")
}
