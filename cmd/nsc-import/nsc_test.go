package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// A home has the stores and the keystore that nsc would have made.
type home struct {
	t        *testing.T
	dir      string
	stores   string // in dir
	operator nkeys.KeyPair
	claims   *jwt.OperatorClaims
	signer   nkeys.KeyPair // of the operator
	seeds    []string      // of every key, whether the keystore has it or not
}

func newHome(t *testing.T) *home {
	h := &home{t: t, dir: t.TempDir(), stores: "stores"}
	h.operator, h.signer = h.key(nkeys.CreateOperator), h.key(nkeys.CreateOperator)
	h.claims = jwt.NewOperatorClaims(h.public(h.operator))
	h.claims.Name = "ACME"
	h.claims.SigningKeys.Add(h.public(h.signer))
	h.keep(h.operator)
	h.keep(h.signer)
	return h
}

func (h *home) key(create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	key, err := create()
	require.NoError(h.t, err)
	seed, err := key.Seed()
	require.NoError(h.t, err)
	h.seeds = append(h.seeds, string(seed))
	return key
}

func (h *home) public(key nkeys.KeyPair) string {
	public, err := key.PublicKey()
	require.NoError(h.t, err)
	return public
}

func (h *home) seed(key nkeys.KeyPair) string {
	seed, err := key.Seed()
	require.NoError(h.t, err)
	return string(seed)
}

func (h *home) write(data string, path ...string) {
	file := filepath.Join(append([]string{h.dir}, path...)...)
	require.NoError(h.t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(h.t, os.WriteFile(file, []byte(data), 0o600))
}

// keep puts a key into the keystore.
func (h *home) keep(key nkeys.KeyPair) {
	public := h.public(key)
	h.write(h.seed(key)+"\n", "keys", "keys", public[:1], public[1:3], public+".nk")
}

func (h *home) lose(key nkeys.KeyPair) {
	public := h.public(key)
	require.NoError(h.t, os.Remove(filepath.Join(h.dir, "keys", "keys", public[:1], public[1:3], public+".nk")))
}

// writeOperator stores the operator as h.claims are.
func (h *home) writeOperator() string {
	token, err := h.claims.Encode(h.operator)
	require.NoError(h.t, err)
	h.write(token, h.stores, "ACME", "ACME.jwt")
	return token
}

type testAccount struct {
	name           string
	id             string
	key            nkeys.KeyPair
	signer, scoped nkeys.KeyPair
	token          string
}

// account stores an account with a plain and a scoped signing key, all of them
// in the keystore.
func (h *home) account(name string, change func(*jwt.AccountClaims)) testAccount {
	a := testAccount{name: name, key: h.key(nkeys.CreateAccount), signer: h.key(nkeys.CreateAccount), scoped: h.key(nkeys.CreateAccount)}
	a.id = h.public(a.key)
	claims := jwt.NewAccountClaims(a.id)
	claims.Name = name
	claims.SigningKeys.Add(h.public(a.signer))
	scope := jwt.NewUserScope()
	scope.Key, scope.Role = h.public(a.scoped), "reader"
	scope.Template.Sub.Allow.Add("orders.>")
	claims.SigningKeys.AddScopedSigner(scope)
	if change != nil {
		change(claims)
	}
	var err error
	a.token, err = claims.Encode(h.signer)
	require.NoError(h.t, err)
	h.write(a.token, h.stores, "ACME", "accounts", name, strings.TrimSpace(name)+".jwt")
	for _, key := range []nkeys.KeyPair{a.key, a.signer, a.scoped} {
		h.keep(key)
	}
	return a
}

// user stores a user of the account, signed by the key.
func (h *home) user(a testAccount, name string, signer nkeys.KeyPair, change ...func(*jwt.UserClaims)) (nkeys.KeyPair, string) {
	key := h.key(nkeys.CreateUser)
	claims := jwt.NewUserClaims(h.public(key))
	claims.Name = name
	claims.Tags.Add("team:blue")
	if h.public(signer) != a.id {
		claims.IssuerAccount = a.id
	}
	if signer == a.scoped {
		claims.UserPermissionLimits = jwt.UserPermissionLimits{}
	} else {
		claims.Pub.Allow.Add("orders.new")
	}
	for _, change := range change {
		change(claims)
	}
	token, err := claims.Encode(signer)
	require.NoError(h.t, err)
	h.write(token, h.stores, "ACME", "accounts", a.name, "users", strings.TrimSpace(name)+".jwt")
	h.keep(key)
	return key, token
}

func (h *home) options(more ...string) options {
	o, err := parse(append([]string{"-stores", filepath.Join(h.dir, h.stores), "-keystore", filepath.Join(h.dir, "keys")}, more...), os.Stderr)
	require.NoError(h.t, err)
	return o
}

// acme is an operator with a system account and two accounts.
func acme(t *testing.T) (h *home, system, orders, billing testAccount) {
	h = newHome(t)
	orders = h.account("orders", func(c *jwt.AccountClaims) { c.Limits.Conn = 100 })
	billing = h.account("billing team", nil)
	system = h.account("SYS", nil)
	h.claims.SystemAccount = system.id
	h.writeOperator()
	return h, system, orders, billing
}

func plan(t *testing.T, h *home) []*step {
	o := h.options()
	read, err := readTree(o.stores, o.operator, "")
	require.NoError(t, err)
	steps, err := newPlan(read, keystore(o.keystore))
	require.NoError(t, err)
	return steps
}

func find(t *testing.T, steps []*step, name string) *step {
	for _, s := range steps {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("no step for %s", name)
	return nil
}

func TestThePlanHasTheOperatorFirstThenTheSystemAccountAndUsersLast(t *testing.T) {
	h, _, orders, _ := acme(t)
	h.user(orders, "app", orders.signer)
	var got []string
	for _, s := range plan(t, h) {
		got = append(got, s.kind+" "+s.name+" "+s.path)
	}
	require.Equal(t, []string{
		"operator ACME config",
		"account SYS jwt/SYS",
		"account billing team jwt/billing_team",
		"account orders jwt/orders",
		"user orders/app jwt/orders.app",
	}, got)
}

func TestWhatIsMissingIsLeftOutAndSaid(t *testing.T) {
	h, _, orders, billing := acme(t)
	gone, goneJWT := h.user(orders, "gone", orders.signer)
	h.lose(gone)
	unsigned, _ := h.user(orders, "unsigned", orders.scoped)
	h.lose(orders.scoped)
	stranger, _ := h.user(orders, "stranger", billing.signer)
	h.lose(orders.key)
	h.lose(h.operator)
	h.account("expiring", func(c *jwt.AccountClaims) { c.Expires = time.Now().Add(time.Hour).Unix() })
	signer, other := h.signer, newHome(t)
	h.signer = other.signer
	foreign := h.account("foreign", nil)
	h.user(foreign, "app", foreign.signer)
	_, _ = unsigned, stranger

	steps := plan(t, h)
	require.NotContains(t, find(t, steps, "ACME").data, "operator_seed")
	require.Equal(t, h.seed(signer), find(t, steps, "ACME").data["operator_signing_seeds"])
	require.NotContains(t, find(t, steps, "orders").data, "seed")
	require.Equal(t, h.seed(orders.signer), find(t, steps, "orders").data["signing_seeds"])
	require.Equal(t, "1 of 2 signing keys, no identity key", find(t, steps, "orders").holds)
	require.Equal(t, "public key alone, as its seed is not in the keystore, signed by a signing key", find(t, steps, "orders/gone").holds)
	require.Equal(t, map[string]any{"type": "user", "account": "orders", "user_jwt": goneJWT}, find(t, steps, "orders/gone").data)
	for name, reason := range map[string]string{
		"orders/unsigned": "the key that signed it is not in the keystore",
		"orders/stranger": "which is not a key of its account",
		"expiring":        "an expiry",
		"foreign":         "not signed by the operator",
		"foreign/app":     "its account is left out",
	} {
		require.Contains(t, find(t, steps, name).skip, reason, name)
	}
}

func TestNoNameKeepsAnAccountOrAUserFromBeingImported(t *testing.T) {
	h, _, _, _ := acme(t)
	require.NoError(t, os.Rename(filepath.Join(h.dir, "stores"), filepath.Join(h.dir, "st[o]res*")))
	h.stores = "st[o]res*"
	for _, name := range []string{"a[1]", "st*r", "q?x", ".hidden", " padded", `back\slash`, "[", "naïve"} {
		a := h.account(name, nil)
		for _, user := range []string{"app", "w[x]", "*", ".dot", " u ", "["} {
			h.user(a, user, a.signer)
		}
	}
	steps := plan(t, h)
	paths := map[string]bool{}
	for _, name := range []string{"a[1]", "st*r", "q?x", ".hidden", " padded", `back\slash`, "[", "naïve"} {
		for _, user := range []string{"", "/app", "/w[x]", "/*", "/.dot", "/u", "/["} {
			s := find(t, steps, name+user)
			require.Empty(t, s.skip, s.name)
			require.False(t, paths[s.path], "%s is given twice", s.path)
			paths[s.path] = true
		}
	}
}

func TestANameThatTheMountTakesAsItIsIsNotGivenToAnother(t *testing.T) {
	h, _, _, _ := acme(t)
	spaced, plain := h.account("a b", nil), h.account("a_b", nil)
	h.user(plain, "x y", plain.signer)
	h.user(plain, "x_y", plain.signer)
	steps := plan(t, h)
	require.Equal(t, "jwt/a_b", find(t, steps, "a_b").path)
	require.Equal(t, "jwt/a_b-"+strings.ToLower(spaced.id[len(spaced.id)-8:]), find(t, steps, "a b").path)
	require.Equal(t, "jwt/a_b.x_y", find(t, steps, "a_b/x_y").path)
}

func TestWhatCannotBeImportedIsSaid(t *testing.T) {
	h, _, orders, _ := acme(t)
	curve, err := nkeys.CreateCurveKeys()
	require.NoError(t, err)
	elsewhere, err := nkeys.CreateCurveKeys()
	require.NoError(t, err)
	h.keep(curve)
	auth := h.account("auth", func(c *jwt.AccountClaims) { c.Authorization.XKey = h.public(curve) })
	h.account("other", func(c *jwt.AccountClaims) { c.Authorization.XKey = h.public(elsewhere) })
	require.NoError(t, os.MkdirAll(filepath.Join(h.dir, h.stores, "ACME", "accounts", "gone", "users"), 0o700))
	h.user(orders, "expired", orders.signer, func(c *jwt.UserClaims) { c.Expires = time.Now().Add(-time.Hour).Unix() })
	h.user(orders, "limited", orders.signer, func(c *jwt.UserClaims) { c.NotBefore, c.Expires = 4102440000, 4102444800 })
	h.user(auth, "app", auth.signer)
	all := h.account("all", func(c *jwt.AccountClaims) { c.RevokeAt(jwt.All, time.Now().Add(time.Minute)) })
	h.user(all, "app", all.signer)
	steps := plan(t, h)
	for name, reason := range map[string]string{
		"auth/" + h.public(curve): "stays with the service that answers",
		"gone":                    "its directory holds no JWT of it",
		"orders/expired":          "it has ended at ",
		"all/app":                 "it is revoked",
	} {
		require.Contains(t, find(t, steps, name).skip, reason, name)
	}
	require.Equal(t, "identity key, signed by a signing key, starts at 2099-12-31T22:40:00Z, ends at 2100-01-01T00:00:00Z", find(t, steps, "orders/limited").holds)
	for _, s := range steps {
		require.NotContains(t, s.name, h.public(elsewhere), "there is nothing of it to import")
		require.NotContains(t, fmt.Sprint(s), h.seed(curve))
	}
}

func TestAUsersSeedIsFoundInItsCredsFile(t *testing.T) {
	h, _, orders, _ := acme(t)
	key, token := h.user(orders, "app", orders.signer)
	seed, err := key.Seed()
	require.NoError(t, err)
	h.lose(key)
	creds, err := jwt.FormatUserConfig(token, seed)
	require.NoError(t, err)
	h.write(string(creds), "keys", "creds", "ACME", "orders", "app.creds")
	require.Equal(t, string(seed), find(t, plan(t, h), "orders/app").data["seed"])
}

func TestFaultsInTheStoreAreNamedWithoutASeed(t *testing.T) {
	wrongSeed := func(h *home, _ testAccount) {
		public := h.public(h.signer)
		h.write(h.seeds[0], "keys", "keys", "O", public[1:3], public+".nk")
	}
	for name, test := range map[string]struct {
		spoil func(*home, testAccount)
		fault string
	}{
		"no operator": {func(h *home, _ testAccount) { require.NoError(h.t, os.RemoveAll(filepath.Join(h.dir, "stores"))) }, "holds no operator"},
		"several operators": {func(h *home, _ testAccount) {
			h.write("", "stores", "OTHER", "OTHER.jwt")
		}, "several operators, choose one with -operator: ACME, OTHER"},
		"no JWT":         {func(h *home, _ testAccount) { h.write("", h.stores, "ACME", "accounts", "orders", "orders.jwt") }, "orders.jwt"},
		"a broken JWT":   {func(h *home, _ testAccount) { h.write("eyJ.x.y", h.stores, "ACME", "ACME.jwt") }, "ACME.jwt"},
		"a wrong seed":   {wrongSeed, "holds the seed of another key"},
		"no seed":        {func(h *home, o testAccount) { h.write(h.seeds[0][:40], "keys", "keys", "A", o.id[1:3], o.id+".nk") }, "holds no seed"},
		"no keys at all": {func(h *home, _ testAccount) { require.NoError(h.t, os.RemoveAll(filepath.Join(h.dir, "keys"))) }, "none of its signing keys is in the keystore"},
		"only the identity key, which may not sign": {func(h *home, _ testAccount) {
			h.claims.StrictSigningKeyUsage = true
			h.writeOperator()
			h.lose(h.signer)
		}, "none of its signing keys is in the keystore"},
		"no system account": {func(h *home, _ testAccount) { h.claims.SystemAccount = ""; h.writeOperator() }, "names no system account"},
		"a system account that is not here": {func(h *home, _ testAccount) {
			require.NoError(h.t, os.RemoveAll(filepath.Join(h.dir, h.stores, "ACME", "accounts", "SYS")))
		}, "is not in the store"},
	} {
		t.Run(name, func(t *testing.T) {
			h, _, orders, _ := acme(t)
			test.spoil(h, orders)
			err := run(t.Context(), h.options("-n"), io.Discard)
			require.ErrorContains(t, err, test.fault)
			require.NotRegexp(t, seedForm, err.Error())
			require.NotContains(t, err.Error(), h.seeds[0][:40])
		})
	}
}

func TestNamesAreThoseThatTheMountTakesAndEachIsGivenOnce(t *testing.T) {
	p := planner{taken: map[string]bool{}}
	const key = "AAORI3BTSPWLCLOPCMXU6OZR4P6TFVOHF2RVWRJZISRNGM7TY6CGTP25"
	for i, test := range []struct{ nsc, want string }{
		{"orders", "orders"},
		{"orders", "orders-y6cgtp25"},
		{"my account/é", "my_account__"},
		{"w[x]*?", "w_x___"},
		{".hidden", "hidden"},
		{"orders..app", "orders.app"},
		{"-a.b-", "a.b"},
		{"...", "y6cgtp25"},
	} {
		require.Equal(t, test.want, p.freeName(test.nsc, key), fmt.Sprint(i))
	}
}
