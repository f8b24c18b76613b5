package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
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

func (n *nscHome) lose(key nkeys.KeyPair) {
	n.t.Helper()
	public := n.public(key)
	require.NoError(n.t, os.Remove(filepath.Join(n.dir, "keys", "keys", public[:1], public[1:3], public+".nk")))
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
	return n.issue(name, n.key(nkeys.CreateUser), n.plain, nil)
}

// issue has nsc write a user of orders, for the first time or once more, and returns
// its creds file.
func (n *nscHome) issue(name string, key, signer nkeys.KeyPair, change func(*natsjwt.UserClaims)) string {
	n.t.Helper()
	claims := natsjwt.NewUserClaims(n.public(key))
	claims.Name, claims.IssuerAccount = name, n.orders
	if signer == n.scoped {
		claims.UserPermissionLimits = natsjwt.UserPermissionLimits{}
	}
	if change != nil {
		change(claims)
	}
	text := n.encode(claims, signer)
	n.write(text, "stores", "ACME", "accounts", "orders", "users", name+".jwt")
	n.keep(key)
	creds, err := natsjwt.FormatUserConfig(text, []byte(n.seeds[n.public(key)]))
	require.NoError(n.t, err)
	return string(creds)
}

// editOrders has nsc write the account orders once more.
func (n *nscHome) editOrders(change func(*natsjwt.AccountClaims)) {
	n.t.Helper()
	claims, err := natsjwt.DecodeAccountClaims(n.ordersJWT)
	require.NoError(n.t, err)
	change(claims)
	n.ordersJWT = n.encode(claims, n.signing)
	n.write(n.ordersJWT, "stores", "ACME", "accounts", "orders", "orders.jwt")
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

// program builds nsc-import.
func (n *nscHome) program() string {
	n.t.Helper()
	program := filepath.Join(n.dir, "nsc-import")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	root, err := stack.Root()
	require.NoError(n.t, err)
	build := exec.CommandContext(buildContext(n.t), "go", "build", "-o", program, "./cmd/nsc-import")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(n.t, err, "%s", out)
	return program
}

// run runs nsc-import against the test's mount.
func (n *nscHome) run(e *env, flags ...string) string {
	n.t.Helper()
	out, err := n.tryRun(e, flags...)
	require.NoError(n.t, err, "%s", out)
	return out
}

// tryRun runs it where it may fail, and checks that it shows no seed.
func (n *nscHome) tryRun(e *env, flags ...string) (string, error) {
	n.t.Helper()
	command := exec.CommandContext(e.ctx(), n.program(), append(flags, "-stores", filepath.Join(n.dir, "stores"), "-keystore", filepath.Join(n.dir, "keys"), "-mount", "auth/"+e.mount)...)
	command.Env = []string{"VAULT_ADDR=" + e.vault.Addr, "VAULT_TOKEN=" + e.vault.Token}
	out, err := command.CombinedOutput()
	for _, seed := range n.seeds {
		require.NotContains(n.t, string(out), seed)
	}
	return string(out), err
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
	require.Empty(t, e.list("jwt"))
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

// What was done in the mount since an import stays, and so does what nsc has done: a
// key that leaked is good on neither way.
func TestAnImportThatIsRepeatedBringsNothingBack(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	n := newNscHome(t, e.nats.URL)
	deleted, changed := n.key(nkeys.CreateUser), n.key(nkeys.CreateUser)
	deletedCreds := n.issue("deleted", deleted, n.plain, nil)
	n.issue("changed", changed, n.plain, nil)
	n.startServer(e)
	n.run(e)
	e.waitForDelivery("orders")
	cutOff := e.connect(deletedCreds)
	e.remove("jwt/orders.deleted")
	e.isCutOff(cutOff)
	e.write("jwt/orders.changed", fields{"config": fields{"pub": fields{"allow": []string{"less"}}}})
	for _, flags := range [][]string{{"-n"}, nil} {
		out := n.run(e, flags...)
		require.Contains(t, out, "1 left out, 0 failed")
		require.Contains(t, out, "left out: user_jwt is of user "+n.public(deleted)+", who was revoked or deleted: ")
	}
	e.connectRefused(deletedCreds)
	e.absent("jwt/orders.deleted")
	require.Equal(t, natsjwt.StringList{"less"}, userClaims(e, e.read("jwt/orders.changed")["jwt"].(string)).Pub.Allow)

	// The plain key leaks, and nsc takes another.
	leaked := n.plain
	n.plain = n.key(nkeys.CreateAccount)
	n.keep(n.plain)
	e.write("config", fields{"oidc_discovery_url": e.issuer.URL})
	e.role("dev", fields{"user_template": devTemplate})
	thief := e.connect(e.login("dev", e.token(fields{"project": "shop"})).Creds)
	n.editOrders(func(c *natsjwt.AccountClaims) {
		delete(c.SigningKeys, n.public(leaked))
		c.SigningKeys.Add(n.public(n.plain))
	})
	out := n.run(e)
	require.Contains(t, out, `warning: account_jwt does not list signing key "default" (`+n.public(leaked)+`) any more, so it is gone, and whom it signed is cut off`)
	e.isCutOff(thief)
	require.NotContains(t, e.accountJWT("orders").SigningKeys, n.public(leaked))
	require.Equal(t, n.public(n.plain), userClaims(e, e.login("dev", e.token(fields{"project": "shop"})).JWT).Issuer)

	// One that is rotated away in the mount stays away.
	e.write("jwt/orders/rotate", fields{"overlap": 0})
	n.editOrders(func(c *natsjwt.AccountClaims) { c.Limits.Conn = 50 })
	require.Contains(t, n.run(e), "signing key "+n.public(n.plain)+" was taken out of the account here, and stays out")
	require.EqualValues(t, 50, e.accountJWT("orders").Limits.Conn)
	require.NotContains(t, e.accountJWT("orders").SigningKeys, n.public(n.plain))
}

// A user of nsc is the same in the mount: its name, which the scope of its key may
// have in a subject, its start and end, and its key, wherever that is.
func TestAnImportedUserIsWhoItWas(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	n := newNscHome(t, e.nats.URL)
	n.editOrders(func(c *natsjwt.AccountClaims) {
		scope := natsjwt.NewUserScope()
		scope.Key, scope.Role = n.public(n.scoped), "reader"
		scope.Template.Pub.Allow.Add("orders.{{name()}}")
		c.SigningKeys.AddScopedSigner(scope)
	})
	ends := time.Now().Add(10 * time.Minute).Unix()
	named, away, later := n.key(nkeys.CreateUser), n.key(nkeys.CreateUser), n.key(nkeys.CreateUser)
	n.issue("tm", named, n.scoped, func(c *natsjwt.UserClaims) { c.Expires = ends })
	n.issue("away", away, n.scoped, nil)
	n.lose(away)
	n.issue("later", later, n.plain, func(c *natsjwt.UserClaims) { c.NotBefore = ends })
	n.issue("gone", n.key(nkeys.CreateUser), n.plain, func(c *natsjwt.UserClaims) { c.Expires = 1 })
	n.issue("widens", n.key(nkeys.CreateUser), n.scoped, func(c *natsjwt.UserClaims) { c.Name = ">" })
	n.startServer(e)

	dry, err := n.tryRun(e, "-n")
	require.Error(t, err)
	out, err := n.tryRun(e)
	require.Error(t, err)
	for _, out := range []string{dry, out} {
		require.Contains(t, out, "user orders/gone: left out: it has ended at 1970-01-01T00:00:01Z")
		require.Contains(t, out, `failed: nats_name is ">"`)
		require.Contains(t, out, "imported, 1 left out, 1 failed")
	}
	e.waitForDelivery("orders")

	tm := e.read("jwt/orders.tm")
	require.Equal(t, ends, userClaims(e, tm["jwt"].(string)).Expires)
	connected, err := e.dial(nats.UserJWT(func() (string, error) { return tm["jwt"].(string), nil },
		func(nonce []byte) ([]byte, error) { return e.signature("orders.tm", nonce) }))
	require.NoError(t, err)
	connected.publishes("orders.tm")
	connected.mayNotPublish("orders.orders.tm")

	e.refused("jwt/orders.away/sign", fields{"nonce": "x"}, "made of a public key alone")
	connected, err = e.connectWithKey(e.read("jwt/orders.away")["jwt"].(string), away)
	require.NoError(t, err)
	connected.publishes("orders.away")
	_, err = e.connectWithKey(e.read("jwt/orders.later")["jwt"].(string), later)
	require.Error(t, err, "its time has not come")
}

// nsc adds the operator from the mount's own copy of nats-account-server, without a
// token, and a user that the mount creates is given out once.
func TestWhoComesFromOutsideNeedsNothingOfTheMountButAnURL(t *testing.T) {
	t.Parallel()
	e := start(t)
	answer, err := http.Get(e.vault.Addr + "/v1/" + e.path("jwt/v1/operator"))
	require.NoError(t, err)
	defer answer.Body.Close()
	require.Equal(t, http.StatusOK, answer.StatusCode)
	require.Equal(t, "application/jwt", answer.Header.Get("Content-Type"))
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, e.read("config")["operator_jwt"], string(body))

	e.account("orders", nil)
	creds := e.write("jwt/worker", fields{"type": "user", "account": "orders", "creds": true}).Data["creds"].(string)
	e.connect(creds).publishes("orders.new")
	e.refused("jwt/worker", fields{"creds": true}, "creds can be given only as the user is created")
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
