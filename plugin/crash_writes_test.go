package plugin

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A crashWrite is a write that is broken at each of its operations in turn.
type crashWrite struct {
	first bool                // it finds an empty mount; else what crashBase makes
	given func(m *chainMount) // what else it finds

	// It is a request, or what the mount does by itself.
	operation logical.Operation
	path      string
	data      map[string]any
	itself    func(m *chainMount, s logical.Storage) error

	// between is what may be left of it, besides nothing and all: a step that is a
	// write by itself.
	between func(m *chainMount)

	counts   bool   // made twice it does more than once
	quiet    bool   // the servers are not told of it
	unseen   bool   // nobody sees what it changes
	repeated string // what it is refused with once it is done
}

func (w crashWrite) do(m *chainMount, s logical.Storage) (*logical.Response, error) {
	if w.itself != nil {
		return nil, w.itself(m, s)
	}
	return m.HandleRequest(m.t.Context(), &logical.Request{Operation: w.operation, Path: w.path, Data: maps.Clone(w.data), Storage: s, MountPoint: "auth/nats/"})
}

// crashBase is what most writes find: an operator, accounts, users and roles, all
// delivered.
func crashBase(m *chainMount) {
	type fields = map[string]any
	m.write("config", nil)
	m.write("config", fields{"jwks_url": "https://127.0.0.1:1", "skip_jwks_validation": true, "default_role": "web"})
	m.write("issuer/other", fields{"jwks_url": "https://127.0.0.1:2", "skip_jwks_validation": true})
	for _, account := range []string{"orders", "billing", "unused"} {
		m.write("jwt/"+account, fields{"type": "account"})
	}
	m.write("jwt/alice", fields{"type": "user", "account": "orders"})
	m.write("role/web", fields{"account": "orders", "bound_audiences": "vault", "user_claim": "sub"})
	m.write("role/dev", scopedRole("a"))
	m.deliverPending()
}

func scopedRole(subject string) map[string]any {
	return map[string]any{"role_type": "vault", "account": "orders", "scoped": true, "user_template": fmt.Sprintf(`{"pub":{"allow":[%q]},"sub":{"allow":["a"]}}`, subject)}
}

// crashWrites are all kinds of writes of every path, and what the mount stores of its
// own accord.
func crashWrites(t *testing.T) map[string]crashWrite {
	type fields = map[string]any
	const write, create, patch, remove = logical.UpdateOperation, logical.CreateOperation, logical.PatchOperation, logical.DeleteOperation
	n, user := newTree(t, true), newKey(t, trust.User).Public()
	account, key := newKey(t, trust.Account), newKey(t, trust.Account)
	legacy := (&nscUser{n: n, key: newKey(t, trust.User), name: "app"}).issue(n.ordersPlain, nil)
	imported := func(m *chainMount) { n.importOperator(m); n.importAccounts(m) }
	hosted := fields{"type": "account", "public_key": account.Public(), "signing_seeds": key.Seed()}
	keys := fields{"jwks_url": "https://127.0.0.1:3", "skip_jwks_validation": true}
	peopleKeys := fields{"oidc_discovery_url": "https://127.0.0.1:3", "skip_jwks_validation": true, "oidc_client_id": "vault", "oidc_client_secret": "secret"}
	and := func(more fields) fields {
		all := maps.Clone(keys)
		maps.Copy(all, more)
		return all
	}
	writes := map[string]crashWrite{
		"the first write of config":   {operation: write, path: "config", data: and(fields{"operator_name": "acme", "default_role": "web"})},
		"a mount without an operator": {operation: write, path: "config", data: and(fields{"no_operator": true, "default_role": "web"})},
		"an operator comes to a mount without": {given: func(m *chainMount) { m.write("config", fields{"no_operator": true}) },
			operation: write, path: "config", data: and(fields{"no_operator": false, "default_role": "web"})},
		"an operator is imported": {operation: write, path: "config", data: and(fields{"operator_jwt": n.operatorJWT, "operator_signing_seeds": n.signing.Seed()})},
		"a system account is imported": {given: func(m *chainMount) { n.importOperator(m) },
			operation: create, path: "jwt/SYS", data: fields{"type": "account", "account_jwt": n.systemJWT, "signing_seeds": n.systemSigning.Seed()}},
		"an account is imported once more": {given: func(m *chainMount) {
			imported(m)
			m.write("jwt/orders/revoke", fields{"everyone": true})
			m.must(remove, "jwt/orders", nil)
		},
			operation: create, path: "jwt/orders", data: fields{"type": "account", "account_jwt": n.ordersJWT, "signing_seeds": n.ordersPlain.Seed(), "force": true}},
		"an imported account is deleted": {given: imported, operation: remove, path: "jwt/orders"},
		"a user is imported":             {given: imported, operation: create, path: "jwt/orders.app", data: legacy.fields()},
	}
	for name, write := range writes {
		write.first = true
		writes[name] = write
	}
	maps.Copy(writes, map[string]crashWrite{
		"config in all its parts":          {operation: write, path: "config", data: and(fields{"operator_name": "acme", "default_role": "dev"})},
		"config of the operator":           {operation: write, path: "config", data: fields{"tags": "eu"}},
		"config of the issuer":             {operation: write, path: "config", data: keys},
		"config of settings":               {operation: write, path: "config", data: fields{"default_role": "dev", "default_account": "orders"}},
		"config of issuer and settings":    {operation: write, path: "config", data: and(fields{"default_account": "orders"})},
		"the operator's key is rotated":    {operation: write, path: "config/rotate", counts: true, data: fields{"overlap": 3600}},
		"an issuer is made":                {operation: create, path: "issuer/new", data: keys},
		"an issuer for people is made":     {operation: create, path: "issuer/new", data: peopleKeys},
		"an issuer comes to log people in": {operation: write, path: "issuer/other", data: peopleKeys},
		"a role for people is made": {given: func(m *chainMount) { m.write("issuer/other", peopleKeys) }, operation: create, path: "role/new",
			data: fields{"issuer": "other", "account": "unused", "user_claim": "sub", "allowed_redirect_uris": peopleRedirect}},
		"an issuer is written":           {operation: write, path: "issuer/other", data: keys},
		"an issuer is deleted":           {operation: remove, path: "issuer/other"},
		"the default issuer is written":  {operation: write, path: "issuer/default", data: keys},
		"an account is made":             {operation: create, path: "jwt/new", data: fields{"type": "account"}},
		"an account of someone else's":   {operation: create, path: "jwt/hosted", data: hosted},
		"an account is written":          {operation: write, path: "jwt/orders", data: fields{"config": `{"limits":{"conn":7}}`}},
		"an account is patched":          {operation: patch, path: "jwt/orders", data: fields{"config": `{"limits":{"conn":7}}`}},
		"an account is deleted":          {operation: remove, path: "jwt/unused"},
		"a used account is deleted":      {operation: remove, path: "jwt/orders", data: fields{"force": true}},
		"a user is made":                 {operation: create, path: "jwt/bob", data: fields{"type": "user", "account": "unused"}},
		"a user is written":              {operation: write, path: "jwt/alice", data: fields{"ttl": 60}},
		"a user is deleted":              {operation: remove, path: "jwt/alice", between: func(m *chainMount) { m.write("jwt/alice/revoke", nil) }},
		"a key is added":                 {operation: write, path: "jwt/orders/keys/second", data: fields{"seed": key.Seed()}},
		"a key is removed":               {operation: remove, path: "jwt/orders/keys/default"},
		"a key is rotated":               {operation: write, path: "jwt/orders/rotate", counts: true, data: fields{"overlap": 3600}},
		"a key is rotated at once":       {operation: write, path: "jwt/orders/rotate", counts: true, data: fields{"overlap": 0}},
		"a user is revoked":              {operation: write, path: "jwt/orders/revoke", data: fields{"user_public_key": user}},
		"everyone is revoked":            {operation: write, path: "jwt/orders/revoke", data: fields{"everyone": true}},
		"a named user is revoked":        {operation: write, path: "jwt/alice/revoke"},
		"a role's users are revoked":     {operation: write, path: "jwt/orders/revoke", data: fields{"role": "dev"}},
		"a role is made":                 {operation: create, path: "role/new", data: fields{"role_type": "vault", "account": "unused"}},
		"a role of an issuer is made":    {operation: create, path: "role/new", data: fields{"issuer": "other", "account": "unused", "bound_audiences": "vault", "user_claim": "sub"}},
		"a scoped role is made":          {operation: create, path: "role/new", data: scopedRole("a")},
		"a role is written":              {operation: write, path: "role/web", data: fields{"bound_audiences": "other"}},
		"a role's scope changes":         {operation: write, path: "role/dev", data: scopedRole("b")},
		"a role gets a plain key":        {operation: write, path: "role/dev", data: fields{"scoped": false, "signing_key": "role"}},
		"a role gives its key up":        {operation: write, path: "role/dev", data: fields{"scoped": false}},
		"a role becomes scoped":          {operation: write, path: "role/web", data: fields{"scoped": true, "user_template": `{"pub":{"allow":["b"]},"sub":{"allow":["a"]}}`}},
		"a scoped role goes elsewhere":   {operation: write, path: "role/dev", data: fields{"account": "billing"}},
		"a plain role goes elsewhere":    {operation: write, path: "role/web", data: fields{"account": "billing", "issuer": "other"}},
		"a role goes and becomes scoped": {operation: write, path: "role/web", data: fields{"account": "billing", "scoped": true, "user_template": `{"pub":{"allow":["b"]},"sub":{"allow":["a"]}}`}},
		"a role is deleted":              {operation: remove, path: "role/web"},
		"a scoped role is deleted":       {operation: remove, path: "role/dev"},
		"a revocation is undone": {given: func(m *chainMount) { m.write("jwt/alice/revoke", nil) },
			operation: write, path: "jwt/alice/revoke", data: fields{"undo": true}, repeated: "is not revoked"},
	})
	maps.Copy(writes, crashWritesOfCallouts())
	maps.Copy(writes, crashWritesByItself(user))
	return writes
}

// crashWritesOfCallouts are those of auth callouts.
func crashWritesOfCallouts() map[string]crashWrite {
	type fields = map[string]any
	given := func(m *chainMount) {
		m.write("callout/edge", fields{"account": "unused", "roles": "web"})
		m.deliverPending()
	}
	return map[string]crashWrite{
		"a callout is made":    {operation: logical.CreateOperation, path: "callout/edge", data: fields{"account": "unused", "roles": "web"}},
		"a callout is written": {given: given, operation: logical.UpdateOperation, path: "callout/edge", data: fields{"allowed_accounts": "orders", "xkey": false}},
		"a callout is rotated": {given: given, counts: true, operation: logical.UpdateOperation, path: "callout/edge/rotate"},
		"a callout is deleted": {given: given, operation: logical.DeleteOperation, path: "callout/edge"},
	}
}

// crashWritesByItself are those of which no request is the cause, or one that Vault
// makes.
func crashWritesByItself(user string) map[string]crashWrite {
	type fields = map[string]any
	soon := func(do func(m *chainMount, s logical.Storage, now time.Time) error) func(m *chainMount, s logical.Storage) error {
		return func(m *chainMount, s logical.Storage) error { return do(m, s, time.Now().Add(100*time.Hour)) }
	}
	retire := soon(func(m *chainMount, s logical.Storage, now time.Time) error {
		_, err := m.chain.Retire(m.t.Context(), s, now)
		return err
	})
	return map[string]crashWrite{
		"a lease is revoked": {itself: func(m *chainMount, s logical.Storage) error {
			secret := &logical.Secret{InternalData: map[string]any{"secret_type": secretUser, "account_public_key": m.public("orders"), "user_public_key": user,
				"issued": time.Now().Unix(), "expires": time.Now().Add(time.Hour).Unix()}}
			_, err := m.HandleRequest(m.t.Context(), &logical.Request{Operation: logical.RevokeOperation, Path: "creds/x", Storage: s, Secret: secret})
			return err
		}},
		"keys are retired":          {given: func(m *chainMount) { m.write("jwt/orders/rotate", fields{"overlap": 60}) }, itself: retire},
		"operator keys are retired": {given: func(m *chainMount) { m.write("config/rotate", fields{"overlap": 60}) }, itself: retire},
		"revocations are pruned": {given: func(m *chainMount) { m.write("jwt/alice/revoke", nil) }, quiet: true,
			itself: soon(func(m *chainMount, s logical.Storage, now time.Time) error {
				_, err := m.chain.PruneRevocations(m.t.Context(), s, now)
				return err
			})},
		"all accounts are delivered": {unseen: true, itself: crashDelivery,
			given: func(m *chainMount) { m.write("config/rotate", fields{"overlap": 3600}) }},
		"accounts are delivered, one to go": {unseen: true, itself: crashDelivery,
			given: func(m *chainMount) {
				m.write("jwt/new", fields{"type": "account"})
				m.must(logical.DeleteOperation, "jwt/unused", nil)
			}},
	}
}

// crashDelivery notes that the servers have what is pending.
func crashDelivery(m *chainMount, s logical.Storage) error {
	source := m.chain.Source(s)
	pending, err := source.Pending(m.t.Context())
	if err != nil {
		return err
	}
	for _, id := range pending {
		wanted, ok, err := source.Wanted(m.t.Context(), id)
		if err != nil {
			return err
		}
		if m.servers[id] = wanted; !ok {
			delete(m.servers, id)
		}
		if err := source.Delivered(m.t.Context(), id, wanted); err != nil {
			return err
		}
	}
	return nil
}

// public is the public key of an account.
func (m *chainMount) public(account string) string {
	m.t.Helper()
	named, err := m.chain.Named(m.t.Context(), m.storage, account)
	require.NoError(m.t, err)
	return named.PublicKey
}

// What is not in the table of writes has to be here, and says why.
func TestEveryWriteIsBrokenSomewhere(t *testing.T) {
	nothing := map[string]string{
		loginPattern:                      "stores nothing",
		authURLPattern:                    "stores nothing",
		callbackPattern:                   "stores nothing",
		pollPattern:                       "stores nothing",
		previewPattern:                    "stores nothing",
		authorizePattern:                  "stores nothing",
		signPattern:                       "stores nothing",
		"jwt/(?P<name>[^/]+)/activation$": "stores nothing",
		credsPattern:                      "stores, as whatever issues, the longest life of a JWT at most, which is one entry",
		"sync$":                           "stores what delivery stores, which is in the table by itself",
	}
	b := newBackend(&logical.BackendConfig{})
	patterns := map[*framework.Path]string{} // they are changed once a path is looked for
	for _, path := range b.Paths {
		patterns[path] = path.Pattern
	}
	broken := map[string][]logical.Operation{}
	for name, made := range crashWrites(t) {
		if made.itself == nil {
			route := b.Route(made.path)
			require.Contains(t, route.Operations, made.operation, name)
			broken[patterns[route]] = append(broken[patterns[route]], made.operation)
		}
	}
	for _, path := range b.Paths {
		for operation := range path.Operations {
			if _, exempt := nothing[patterns[path]]; isWrite(operation) && !exempt {
				require.Contains(t, broken[patterns[path]], operation, "%s of %s is missing from the table", operation, patterns[path])
			}
		}
	}
}
