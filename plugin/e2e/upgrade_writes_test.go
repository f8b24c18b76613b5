package e2e

import (
	"testing"

	"github.com/go-jose/go-jose/v4"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// ownWrites are those of a mount with an operator of its own, in which the tenant's
// account, whose public key is given, and roles are: of all kinds that there are.
func (e *env) ownWrites(orders any) []kept {
	e.t.Helper()
	writes := e.writesOfIssuers()
	writes = append(writes, e.writesOfAccounts(orders)...)
	writes = append(writes, writesOfRoles()...)
	writes = append(writes, e.writesOfConfig()...)
	return append(writes, writesOfDeletions()...)
}

// writesOfConfig are those of the operator and of what all of the mount has. They come
// last: roles and accounts are named here.
func (e *env) writesOfConfig() []kept {
	return []kept{
		{"post", "config", fields{
			"account_jwt_server_url": e.nats.URL, "account_jwt_url": e.nats.URL, "service_url": e.nats.URL,
			"operator_name": "acme", "tags": "eu,prod", "strict_signing_key_usage": false,
			"default_role": "dev", "default_account": "orders", "clock_skew": "2s",
		}, fields{"tags": "eu,later", "clock_skew": "3s", "service_url": e.nats.URL + ",nats://nats.example.com"}, fields{"clock_skew": "2s"}},
		// Once only, as the nats-server of the test has the next key of when it was started.
		{"post", "config/rotate", nil, fields{"overlap": "100h"}, nil},
	}
}

// writesOfIssuers are of each source of keys that an issuer can have.
func (e *env) writesOfIssuers() []kept {
	e.t.Helper()
	ca, err := stack.NewCA()
	require.NoError(e.t, err)
	key, err := stack.NewSigningKey(jose.ES256)
	require.NoError(e.t, err)
	another, err := stack.NewSigningKey(jose.RS256)
	require.NoError(e.t, err)
	const away = "https://127.0.0.1:1" // nothing is there
	return []kept{
		{"post", "issuer/discovered", fields{"oidc_discovery_url": e.issuer.URL, "bound_issuer": e.issuer.URL, "jwt_supported_algs": "ES256,RS256"}, fields{"jwt_supported_algs": "ES256"}, fields{"jwt_supported_algs": "ES256,EdDSA"}},
		{"post", "issuer/set", fields{"jwks_url": e.issuer.JWKSURL()}, fields{"bound_issuer": e.issuer.URL}, fields{"jwt_supported_algs": "ES256"}},
		{"post", "issuer/sets", fields{"jwks_pairs": []fields{{"jwks_url": e.issuer.JWKSURL()}}}, fields{"bound_issuer": e.issuer.URL}, fields{"jwt_supported_algs": "ES256"}},
		{"post", "issuer/static", fields{"jwt_validation_pubkeys": e.issuer.PublicKeys()}, fields{"bound_issuer": e.issuer.URL}, fields{"jwt_supported_algs": "ES256"}},
		{"post", "issuer/guarded", fields{
			"jwks_url": away, "jwks_ca_pem": ca.PEM, "override_allowed_server_names": "keys.example.com",
			"unsupported_critical_cert_extensions": "1.2.3.4", "skip_jwks_validation": true,
		}, fields{"override_allowed_server_names": "other.example.com", "skip_jwks_validation": true}, nil},
		{"post", "issuer/people", fields{
			"oidc_discovery_url": away, "oidc_discovery_ca_pem": ca.PEM, "oidc_client_id": "vault", "oidc_client_secret": "former",
			"oidc_response_mode": "form_post", "oidc_response_types": "code", "namespace_in_state": false, "skip_jwks_validation": true,
			"provider_config": fields{"provider": "okta", "fetch_groups": true, "api_token": "former", "groups_filter": "^nats-"},
		}, fields{"oidc_client_secret": "later", "oidc_response_mode": "query", "skip_jwks_validation": true}, fields{"namespace_in_state": true, "skip_jwks_validation": true}},
		{"post", "issuer/cluster", fields{
			"kubernetes_host": away, "kubernetes_ca_cert": ca.PEM, "token_reviewer_jwt": reviewerJWT, "disable_local_ca_jwt": true, "disable_iss_validation": false,
			"issuer": "https://kubernetes.default.svc", "pem_keys": []string{key.PublicPEM}, "use_annotations_as_alias_metadata": true, "skip_jwks_validation": true,
		}, fields{"pem_keys": []string{another.PublicPEM}, "skip_jwks_validation": true}, fields{"disable_iss_validation": true, "skip_jwks_validation": true}},
		{"post", "issuer/scratch", fields{"jwks_url": e.issuer.JWKSURL()}, fields{"jwks_url": e.issuer.JWKSURL()}, nil},
	}
}

// reviewerJWT has the form of a token that nobody asks to review anything.
const reviewerJWT = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"

// writesOfAccounts are those of accounts, their keys, named users and callouts.
func (e *env) writesOfAccounts(orders any) []kept {
	e.t.Helper()
	hosted, hostedKey, own := e.newKey(nkeys.CreateAccount), e.newKey(nkeys.CreateAccount), e.newKey(nkeys.CreateAccount)
	user, elsewhere := e.newKey(nkeys.CreateUser), e.newKey(nkeys.CreateUser)
	limits := func(connections int) fields {
		return fields{
			"description": "everything", "tags": []string{"eu"}, "limits": fields{"conn": connections, "subs": 20, "disk_storage": 1 << 20, "streams": 3},
			"exports":  []fields{{"name": "prices", "subject": "prices.>", "type": "stream", "token_req": true}},
			"imports":  []fields{{"name": "time", "subject": "time", "account": orders, "type": "service"}},
			"mappings": fields{"old.>": []fields{{"subject": "new.>", "weight": 100}}},
		}
	}
	return []kept{
		{"post", "jwt/hosted", fields{"type": "account", "public_key": hosted.public, "signing_seeds": []string{hostedKey.seed}}, nil, nil},
		{"post", "jwt/orders", fields{"config": fields{"exports": []fields{{"subject": "time", "type": "service"}}}}, nil, nil},
		{"post", "jwt/full", fields{"type": "account", "nats_name": "Full", "config": limits(10)}, fields{"config": limits(11)}, fields{"nats_name": "Full again"}},
		{"patch", "jwt/full", fields{"config": fields{"limits": fields{"conn": 12}}}, fields{"config": fields{"limits": fields{"conn": 13}}}, fields{"config": fields{"limits": fields{"conn": 14}}}},
		{"post", "jwt/auth", fields{"type": "account"}, nil, nil},
		{"post", "jwt/gate", fields{"type": "account"}, nil, nil},
		{"post", "jwt/scratch", fields{"type": "account"}, fields{"type": "account"}, fields{"type": "account"}},
		{"post", "jwt/orders/keys/reader", fields{"config": scope("former.>"), "seed": own.seed}, fields{"config": scope("later.>")}, fields{"config": scope("again.>")}},
		{"post", "jwt/orders/keys/scratch", fields{}, fields{}, nil},
		{"post", "jwt/orders/rotate", fields{"overlap": "100h", "seed": e.newKey(nkeys.CreateAccount).seed}, fields{"overlap": "100h"}, fields{"overlap": "100h"}},
		{"post", "jwt/full/rotate", fields{"key": "default", "overlap": 0}, fields{"overlap": 0}, nil},

		{"post", "jwt/bob", fields{
			"type": "user", "account": "orders", "signing_key": "reader", "nats_name": "Bob", "ttl": "10m", "expiration": "2100-01-01T00:00:00Z", "not_before": "2020-01-01T00:00:00Z",
			"seed": user.seed, "config": fields{},
		}, fields{"ttl": "11m", "nats_name": "Robert"}, fields{"ttl": "12m"}},
		{"post", "jwt/carol", fields{"type": "user", "account": "orders", "config": fields{"pub": fields{"allow": []string{"jobs.>"}}, "tags": []string{"eu"}}}, fields{"config": fields{"pub": fields{"allow": []string{"later.>"}}}}, fields{"expiration": "2100-01-01T00:00:00Z"}},
		{"post", "jwt/elsewhere", fields{"type": "user", "account": "orders", "public_key": elsewhere.public}, fields{"ttl": "11m"}, nil},
		{"post", "jwt/carol/revoke", fields{}, fields{}, nil},
		{"post", "jwt/orders/revoke", fields{"user_public_key": elsewhere.public}, fields{"user_public_key": user.public}, fields{"user_public_key": e.newKey(nkeys.CreateUser).public}},
		{"post", "jwt/full/revoke", fields{"everyone": true}, fields{"everyone": true}, nil},

		{"post", "callout/spare", fields{"account": "auth", "roles": "dev,full", "default_role": "dev", "allowed_accounts": "orders", "xkey": true, "user": "answerer"}, fields{"roles": "dev"}, fields{"default_role": "dev"}},
		{"post", "callout/edge", fields{"account": "gate", "roles": "*"}, fields{"allowed_accounts": "orders"}, fields{"xkey": false}},
		{"post", "callout/spare/rotate", fields{"overlap": "100h"}, fields{"overlap": "100h"}, fields{"overlap": "100h"}},
	}
}

// writesOfRoles are of each type that a role can have.
func writesOfRoles() []kept {
	template := fields{
		"pub": fields{"allow": []string{"orders.{{claim(project)|escape}}.>"}, "deny": []string{"orders.secret"}}, "sub": fields{"allow": []string{"_INBOX.>"}},
		"resp": fields{"max": 1, "ttl": 1000000000}, "subs": 10, "data": -1, "payload": 1024, "src": []string{"127.0.0.0/8"},
		"allowed_connection_types": []string{"STANDARD"}, "tags": []string{"team:{{claim(project)}}"},
	}
	return []kept{
		{"post", "role/full", fields{
			"issuer": "static", "role_type": "jwt", "account": "orders", "bound_audiences": "vault,other", "bound_subject": "workload", "user_claim": "sub",
			"bound_claims": fields{"project": []string{"sh*"}}, "bound_claims_type": "glob", "bound_expression": `claims.project != "x"`,
			"claim_mappings": fields{"project": "project"}, "groups_claim": "groups", "alias_metadata": fields{"made": "by the former"},
			"clock_skew_leeway": 70, "expiration_leeway": 80, "not_before_leeway": 90, "max_age": "1h",
			"user_template": template, "user_name": "{{claim(project)}}-{{claim(sub)}}", "user_ttl": "10m", "user_key": "any", "user_key_proof": false,
			"credentials_on_login": true, "signing_key": "role", "allow_system_account": false, "scoped": false,
			"token_policies": "project-{{.project}}", "token_policies_template_claims": true, "token_ttl": "20m", "token_max_ttl": "30m", "token_explicit_max_ttl": "40m",
			"token_bound_cidrs": "127.0.0.0/8", "token_no_default_policy": true, "token_num_uses": 7, "token_type": "service", "token_period": 0,
		}, fields{"user_ttl": "11m", "bound_audiences": "vault", "token_num_uses": 8}, fields{"user_ttl": "12m"}},
		{"post", "role/discovered", roleFields(fields{"issuer": "discovered"}), roleFields(fields{"issuer": "discovered", "token_period": "1h"}), fields{"user_ttl": "12m"}},
		{"post", "role/set", roleFields(fields{"issuer": "set", "user_key": "client", "user_key_proof": true, "credentials_on_login": false}), fields{"user_ttl": "11m"}, fields{"user_ttl": "12m"}},
		{"post", "role/sets", roleFields(fields{"issuer": "sets", "user_claim": "/who/name", "user_claim_json_pointer": true}), fields{"user_ttl": "11m"}, fields{"user_ttl": "12m"}},
		{"post", "role/combined", roleFields(fields{"user_claim": nil, "alias_name": "{{claim(project)}}:{{claim(sub)}}"}), fields{"user_ttl": "11m"}, fields{"user_ttl": "12m"}},
		{"post", "role/scoped", roleFields(fields{"scoped": true, "user_template": `{"pub":{"allow":["former.>"]},"sub":{"allow":["_INBOX.>"]}}`}), fields{"user_template": `{"pub":{"allow":["later.>"]},"sub":{"allow":["_INBOX.>"]}}`}, fields{"user_template": `{"pub":{"allow":["again.>"]},"sub":{"allow":["_INBOX.>"]}}`}},
		{"post", "role/hosted", roleFields(fields{"account": "hosted"}), fields{"user_ttl": "11m"}, fields{"user_ttl": "12m"}},
		{"post", "role/system", roleFields(fields{"account": "SYS", "allow_system_account": true}), fields{"user_ttl": "11m"}, fields{"user_ttl": "12m"}},
		{"post", "role/person", fields{
			"role_type": "oidc", "issuer": "people", "account": "orders", "user_claim": "sub", "allowed_redirect_uris": "http://localhost:8250/oidc/callback",
			"oidc_scopes": "email,profile", "callback_mode": "direct", "poll_interval": 7, "verbose_oidc_logging": true,
		}, fields{"poll_interval": 8}, fields{"poll_interval": 9}},
		{"post", "role/pod", fields{
			"issuer": "cluster", "account": "orders", "audience": "vault", "alias_name_source": "serviceaccount_name", "bound_service_account_names": "api,web*",
			"bound_service_account_namespaces": "shop", "bound_service_account_namespace_selector": `{"matchLabels":{"team":"shop"}}`,
		}, fields{"bound_service_account_names": "api"}, fields{"bound_service_account_names": "web"}},
		{"post", "role/ops", fields{"role_type": "vault", "account": "orders", "bound_issuers": "default", "bound_aliases": "work*"}, fields{"bound_aliases": "workload"}, fields{"user_ttl": "12m"}},
		{"post", "role/scratch", roleFields(fields{"scoped": true}), roleFields(fields{"scoped": true}), roleFields(fields{"scoped": true})},
		{"post", "jwt/orders/revoke", fields{"role": "full"}, fields{"role": "full"}, fields{"role": "full"}},
	}
}

// writesOfDeletions delete what was made for it.
func writesOfDeletions() []kept {
	done := fields{}
	return []kept{
		{"delete", "role/scratch", done, done, done},
		{"delete", "issuer/scratch", done, done, nil},
		{"delete", "jwt/orders/keys/scratch", done, done, nil},
		{"delete", "jwt/scratch", done, done, done},
		{"post", "jwt/doors", fields{"type": "account"}, fields{"type": "account"}, nil},
		{"post", "callout/scratch", fields{"account": "doors", "roles": "dev"}, fields{"account": "doors", "roles": "dev"}, nil},
		{"delete", "callout/scratch", done, done, nil},
	}
}

// importedWrites are those of a mount that took over what nsc had made.
func (n *nscHome) importedWrites(issuer string) []kept {
	n.t.Helper()
	app := n.key(nkeys.CreateUser)
	user, err := natsjwt.ParseDecoratedJWT([]byte(n.issue("app", app, n.plain, func(c *natsjwt.UserClaims) { c.Pub.Allow.Add("orders.>") })))
	require.NoError(n.t, err)
	ca, err := stack.NewCA()
	require.NoError(n.t, err)
	certificate, key, err := ca.ClientPEM("vault")
	require.NoError(n.t, err)
	return []kept{
		{"post", "config", fields{
			"operator_jwt": n.operatorJWT, "operator_signing_seeds": []string{n.seeds[n.public(n.signing)]}, "operator_seed": n.seeds[n.public(n.operator)],
			"oidc_discovery_url": issuer, "nats_ca_pem": ca.PEM, "nats_client_cert_pem": string(certificate), "nats_client_key_pem": string(key),
		}, fields{"tags": "later"}, fields{"tags": "again"}},
		{"post", "config/rotate", fields{"overlap": "100h", "force": true}, fields{"overlap": "100h", "force": true}, fields{"overlap": "100h", "force": true}},
		{"post", "jwt/orders", fields{"type": "account", "account_jwt": n.ordersJWT, "signing_seeds": []string{n.seeds[n.public(n.plain)], n.seeds[n.public(n.scoped)]}}, nil, nil},
		{"patch", "jwt/orders", nil, fields{"config": fields{"limits": fields{"conn": 12}}}, fields{"config": fields{"limits": fields{"conn": 13}}}},
		{"post", "jwt/app", fields{"type": "user", "account": "orders", "user_jwt": user, "seed": n.seeds[n.public(app)]}, fields{"ttl": "11m"}, fields{"ttl": "12m"}},
		{"post", "jwt/orders/revoke", fields{"everyone": true, "before": "2020-01-01T00:00:00Z"}, nil, nil},
		{"post", "role/dev", roleFields(fields{"user_template": devTemplate}), fields{"user_ttl": "11m"}, fields{"user_ttl": "12m"}},
	}
}

// hostedWrites are those of a mount at a NATS that someone else operates.
func (n *nscHome) hostedWrites(issuer string) []kept {
	return []kept{
		{"post", "config", fields{"no_operator": true, "oidc_discovery_url": issuer}, fields{"default_account": "orders"}, fields{"default_role": "dev"}},
		{"post", "jwt/orders", fields{"type": "account", "public_key": n.orders, "signing_seeds": []string{n.seeds[n.public(n.plain)]}}, nil, nil},
		{"post", "role/dev", roleFields(fields{"user_template": devTemplate}), fields{"user_ttl": "11m"}, fields{"user_ttl": "12m"}},
	}
}

// An upgradeKey is a key that is brought along.
type upgradeKey struct{ seed, public string }

func (e *env) newKey(create func() (nkeys.KeyPair, error)) upgradeKey {
	e.t.Helper()
	pair, err := create()
	require.NoError(e.t, err)
	seed, err := pair.Seed()
	require.NoError(e.t, err)
	public, err := pair.PublicKey()
	require.NoError(e.t, err)
	return upgradeKey{seed: string(seed), public: public}
}

func scope(subject string) fields {
	return fields{"description": "reads", "template": fields{"sub": fields{"allow": []string{subject}}}}
}

// What is not in the tables of an upgrade's writes is not known to survive one.
func TestEveryWriteIsMadeInAnUpgrade(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	n := newNscHome(t, e.nats.URL)
	writes := append(e.ownWrites(""), n.importedWrites(e.issuer.URL)...)
	isCompleteFor(t, e.operations(), append(writes, n.hostedWrites(e.issuer.URL)...))
}
