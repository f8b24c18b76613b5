package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// A nscHome is what nsc has on a disk: an operator with strict_signing_key_usage, its
// system account, and the account orders with a plain and a scoped signing key.
type nscHome struct {
	t        *testing.T
	dir      string
	seeds    map[string]string // by public key
	operator nkeys.KeyPair     // its identity, which is not in the keystore
	signing  nkeys.KeyPair

	operatorJWT, systemJWT, ordersJWT string
	system, orders                    string // public keys of the accounts
	plain, scoped                     nkeys.KeyPair
}

func newNscHome(t *testing.T, natsURL string) *nscHome {
	t.Helper()
	n := &nscHome{t: t, dir: t.TempDir(), seeds: map[string]string{}}
	n.operator, n.signing = n.key(nkeys.CreateOperator), n.key(nkeys.CreateOperator)
	system, systemSigning := n.key(nkeys.CreateAccount), n.key(nkeys.CreateAccount)
	orders := n.key(nkeys.CreateAccount)
	n.plain, n.scoped = n.key(nkeys.CreateAccount), n.key(nkeys.CreateAccount)
	n.system, n.orders = n.public(system), n.public(orders)

	claims := natsjwt.NewOperatorClaims(n.public(n.operator))
	claims.Name, claims.SystemAccount, claims.StrictSigningKeyUsage = "ACME", n.system, true
	claims.AccountServerURL = natsURL
	claims.OperatorServiceURLs.Add(natsURL)
	claims.SigningKeys.Add(n.public(n.signing))
	n.operatorJWT = n.encode(claims, n.operator)
	n.write(n.operatorJWT, "stores", "ACME", "ACME.jwt")

	n.systemJWT = n.account("SYS", n.system, func(c *natsjwt.AccountClaims) { c.SigningKeys.Add(n.public(systemSigning)) })
	n.ordersJWT = n.account("orders", n.orders, func(c *natsjwt.AccountClaims) {
		c.Limits.Conn = 100
		c.SigningKeys.Add(n.public(n.plain))
		scope := natsjwt.NewUserScope()
		scope.Key, scope.Role = n.public(n.scoped), "reader"
		scope.Template.Sub.Allow.Add("orders.{{tag(team)}}.>", "_INBOX.>")
		scope.Template.Pub.Deny.Add(">")
		c.SigningKeys.AddScopedSigner(scope)
	})
	for _, key := range []nkeys.KeyPair{n.signing, system, systemSigning, orders, n.plain, n.scoped} {
		n.keep(key)
	}
	return n
}

func (n *nscHome) key(create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	n.t.Helper()
	key, err := create()
	require.NoError(n.t, err)
	seed, err := key.Seed()
	require.NoError(n.t, err)
	n.seeds[n.public(key)] = string(seed)
	return key
}

func (n *nscHome) public(key nkeys.KeyPair) string {
	n.t.Helper()
	public, err := key.PublicKey()
	require.NoError(n.t, err)
	return public
}

func (n *nscHome) encode(claims natsjwt.Claims, signer nkeys.KeyPair) string {
	n.t.Helper()
	text, err := claims.Encode(signer)
	require.NoError(n.t, err)
	return text
}

func (n *nscHome) write(text string, path ...string) {
	n.t.Helper()
	file := filepath.Join(append([]string{n.dir}, path...)...)
	require.NoError(n.t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(n.t, os.WriteFile(file, []byte(text), 0o600))
}

// keep puts a key into the keystore.
func (n *nscHome) keep(key nkeys.KeyPair) {
	n.t.Helper()
	public := n.public(key)
	n.write(n.seeds[public], "keys", "keys", public[:1], public[1:3], public+".nk")
}

func (n *nscHome) account(name, public string, change func(*natsjwt.AccountClaims)) string {
	n.t.Helper()
	claims := natsjwt.NewAccountClaims(public)
	claims.Name = name
	change(claims)
	text := n.encode(claims, n.signing)
	n.write(text, "stores", "ACME", "accounts", name, name+".jwt")
	return text
}

// user is the creds file of a user of orders that nsc made.
func (n *nscHome) user(name string) string {
	n.t.Helper()
	key := n.key(nkeys.CreateUser)
	claims := natsjwt.NewUserClaims(n.public(key))
	claims.Name, claims.IssuerAccount = name, n.orders
	text := n.encode(claims, n.plain)
	n.write(text, "stores", "ACME", "accounts", "orders", "users", name+".jwt")
	n.keep(key)
	creds, err := natsjwt.FormatUserConfig(text, []byte(n.seeds[n.public(key)]))
	require.NoError(n.t, err)
	return string(creds)
}

// startServer runs nats-server on the configuration that nsc generates, with the
// accounts that nsc has pushed.
func (n *nscHome) startServer(e *env) {
	n.t.Helper()
	jwts := filepath.Join(e.nats.Dir, "jwt")
	require.NoError(n.t, os.Mkdir(jwts, 0o700))
	require.NoError(n.t, os.WriteFile(filepath.Join(jwts, n.orders+".jwt"), []byte(n.ordersJWT), 0o600))
	require.NoError(n.t, e.nats.Start(e.ctx(), fmt.Sprintf(`
operator: %s
system_account: %s
resolver { type: full, dir: './jwt', allow_delete: false, interval: "2m", limit: 1000 }
resolver_preload: { %s: %s }
`, n.operatorJWT, n.system, n.system, n.systemJWT)))
}

// run runs nsc-import against the test's mount, and checks that it shows no seed.
func (n *nscHome) run(e *env, flags ...string) string {
	n.t.Helper()
	program := filepath.Join(n.dir, "nsc-import")
	if _, err := os.Stat(program); err != nil {
		root, err := stack.Root()
		require.NoError(n.t, err)
		build := exec.CommandContext(buildContext(n.t), "go", "build", "-o", program, "./cmd/nsc-import")
		build.Dir = root
		out, err := build.CombinedOutput()
		require.NoError(n.t, err, "%s", out)
	}
	command := exec.CommandContext(e.ctx(), program, append(flags, "-stores", filepath.Join(n.dir, "stores"), "-keystore", filepath.Join(n.dir, "keys"), "-mount", "auth/"+e.mount)...)
	command.Env = []string{"VAULT_ADDR=" + e.vault.Addr, "VAULT_TOKEN=" + e.vault.Token}
	out, err := command.CombinedOutput()
	require.NoError(n.t, err, "%s", out)
	for _, seed := range n.seeds {
		require.NotContains(n.t, string(out), seed)
	}
	return string(out)
}

// serverRun names the run of the test's nats-server.
func (e *env) serverRun() string {
	e.t.Helper()
	var status struct {
		ID string `json:"server_id"`
	}
	require.NoError(e.t, e.nats.Status(e.ctx(), "varz", &status))
	require.NotEmpty(e.t, status.ID)
	return status.ID
}

// A NATS that nsc made comes under the mount while it runs and is used. The operator's
// identity key stays where it is.
func TestAnNscOperatorComesUnderTheMountWhileItsServersAreUsed(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	n := newNscHome(t, e.nats.URL)
	legacy := n.user("legacy")
	n.startServer(e)
	run := e.serverRun()
	client := e.connect(legacy)
	messages := client.subscribes("orders.>")
	goesOn := func() {
		t.Helper()
		client.publishes("orders.new")
		client.receives(messages)
		e.connect(legacy).publishes("orders.new")
		client.receives(messages)
	}
	goesOn()

	require.Contains(t, n.run(e, "-n"), "4 would be imported, 0 left out, 0 failed")
	e.absent("config")
	require.Contains(t, n.run(e), "4 imported, 0 left out, 0 failed")
	goesOn()
	config := e.read("config")
	require.Equal(t, n.operatorJWT, config["operator_jwt"])
	require.Equal(t, false, config["operator_seed_set"])

	// The server has the accounts as the mount has them now: the same, signed anew.
	e.waitForDelivery("orders")
	e.waitForDelivery("SYS")
	require.Equal(t, map[string]string{n.system: e.read("jwt/SYS")["jwt"].(string), n.orders: e.read("jwt/orders")["jwt"].(string)}, e.files(e.nats))
	before, err := natsjwt.DecodeAccountClaims(n.ordersJWT)
	require.NoError(t, err)
	after, err := natsjwt.DecodeAccountClaims(e.read("jwt/orders")["jwt"].(string))
	require.NoError(t, err)
	require.Equal(t, before.Account, after.Account)
	require.Equal(t, before.Subject, after.Subject)
	require.Greater(t, after.IssuedAt, before.IssuedAt-1)

	// Logins get users of the imported keys, plain and scoped.
	e.write("config", fields{"oidc_discovery_url": e.issuer.URL})
	e.role("dev", fields{"user_template": devTemplate})
	login := e.login("dev", e.token(fields{"project": "shop"}))
	require.Equal(t, n.public(n.plain), userClaims(e, login.JWT).Issuer)
	workload := e.connect(login.Creds)
	workload.publishes("orders.shop.new")
	workload.mayNotPublish("orders.other.new")
	client.receives(messages)
	reader := e.write("jwt/bob", fields{"type": "user", "account": "orders", "signing_key": "reader", "config": fields{"tags": []string{"team:shop"}}})
	require.Equal(t, n.public(n.scoped), userClaims(e, reader.Data["jwt"].(string)).Issuer)

	// What changes in the mount is felt on the server, by users from before too.
	e.writeNow("jwt/orders/rotate", fields{"overlap": "1h"})
	goesOn()
	e.connect(e.login("dev", e.token(fields{"project": "shop"})).Creds).publishes("orders.shop.new")
	client.receives(messages)
	require.Zero(t, client.Stats().Reconnects)
	_, err = e.client.Logical().JSONMergePatch(e.ctx(), e.path("jwt/orders"), fields{"config": fields{"revocations": fields{"*": before.IssuedAt + 1}}})
	require.NoError(t, err)
	e.isCutOff(client)
	e.connectRefused(legacy)
	require.Equal(t, run, e.serverRun(), "the server was started anew")

	require.Contains(t, n.run(e), "4 imported, 0 left out, 0 failed", "to import once more is harmless")
}

func userClaims(e *env, token string) *natsjwt.UserClaims {
	e.t.Helper()
	claims, err := natsjwt.DecodeUserClaims(token)
	require.NoError(e.t, err)
	return claims
}

// hosted starts a mount without an operator, and a NATS that someone else operates.
func hosted(t *testing.T) (*env, *nscHome) {
	e := start(t, unconfigured)
	n := newNscHome(t, e.nats.URL)
	n.startServer(e)
	e.write("config", fields{"no_operator": true, "oidc_discovery_url": e.issuer.URL, "service_url": e.nats.URL})
	return e, n
}

// pushedNothing checks that the server's accounts are as they were, and that nobody but
// the test's own clients has connected.
func (n *nscHome) pushedNothing(e *env) {
	n.t.Helper()
	require.Equal(n.t, n.ordersJWT, e.files(e.nats)[n.orders])
	var status struct {
		Connections []struct {
			Account string `json:"account"`
		} `json:"connections"`
	}
	require.NoError(n.t, e.nats.Status(e.ctx(), "connz?auth=true&state=all", &status))
	for _, connection := range status.Connections {
		require.NotEqual(n.t, n.system, connection.Account)
	}
	secret, err := e.client.Logical().ReadWithContext(e.ctx(), e.path("sync"))
	require.Nil(n.t, secret)
	e.isStatus(err, 400, "nothing is delivered")
}

func TestAnAccountOfSomeoneElsesNATSNeedsOnlyItsSigningSeed(t *testing.T) {
	t.Parallel()
	e, n := hosted(t)
	e.write("jwt/orders", fields{"type": "account", "public_key": n.orders, "signing_seeds": n.seeds[n.public(n.plain)]})
	e.role("dev", fields{"user_template": devTemplate})
	workload := e.connect(e.login("dev", e.token(fields{"project": "shop"})).Creds)
	workload.publishes("orders.shop.new")
	workload.mayNotPublish("orders.other.new")

	account := e.read("jwt/orders")
	require.Equal(t, true, account["external"])
	require.NotContains(t, account, "jwt", "its JWT is not the mount's to make")
	e.refused("jwt/orders", fields{"config": fields{"limits": fields{"conn": 1}}}, "config", "someone else operates")
	e.refused("jwt/other", fields{"type": "account"}, "needs an operator in the mount")
	n.pushedNothing(e)
}

// Who hosts an account may give out only a scoped key of it. The scope is theirs; the
// role says only who the workload is.
func TestAScopedKeyOfSomeoneElsesNATSSignsForScopedRoles(t *testing.T) {
	t.Parallel()
	e, n := hosted(t)
	e.write("jwt/orders", fields{"type": "account", "public_key": n.orders})
	e.refused("role/reader", roleFields(fields{"scoped": true, "user_template": `{"tags":["team:{{claim(project)}}"]}`}), "no scoped signing key", "jwt/orders/keys/reader")
	e.write("jwt/orders/keys/default", fields{"seed": n.seeds[n.public(n.scoped)], "config": "{}"})
	e.refused("role/reader", roleFields(fields{"scoped": true, "user_template": `{"sub":{"allow":["orders.>"]}}`}), "user_template", "they set the scope")
	e.role("reader", fields{"scoped": true, "user_template": `{"tags":["team:{{claim(project)}}"]}`})
	workload := e.connect(e.login("reader", e.token(fields{"project": "shop"})).Creds)
	workload.subscribes("orders.shop.new")
	workload.mayNotSubscribe("orders.other.new")
	workload.mayNotPublish("orders.shop.new")

	e.refused("role/dev", roleFields(fields{"user_template": devTemplate}), "only scoped signing keys")
	n.pushedNothing(e)
}
