package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Two accounts share a stream and a service, for which the importer needs a token of the
// exporter's.
func TestAnAccountImportsWhatAnotherExports(t *testing.T) {
	t.Parallel()
	e := start(t)
	shop := e.account("shop", fields{"exports": []fields{
		{"name": "events", "subject": "events.>", "type": "stream"},
		{"name": "prices", "subject": "prices.*", "type": "service", "token_req": true},
	}}).Data["public_key"]
	e.account("billing", nil)
	service := fields{"account": shop, "subject": "prices.get", "type": "service"}
	config := fields{"imports": []fields{
		{"account": shop, "subject": "events.>", "type": "stream", "to": "shop.events"},
		service,
	}}
	e.refused("jwt/billing", fields{"config": config}, "imports[1] needs a token", "jwt/shop/activation")
	e.refused("jwt/shop/activation", fields{"account": "billing", "subject": "secrets.get", "type": "service"}, "subject", "secrets.get")
	service["token"] = e.write("jwt/shop/activation", fields{"account": "billing", "subject": "prices.get", "type": "service"}).Data["token"]
	e.writeNow("jwt/billing", fields{"config": config})

	e.role("seller", fields{"account": "shop"})
	e.role("biller", fields{"account": "billing"})
	seller := e.connect(e.login("seller", e.token(nil)).Creds)
	biller := e.connect(e.login("biller", e.token(nil)).Creds)
	events := biller.subscribes("shop.events.>")
	prices := seller.subscribes("prices.get")
	seller.publishes("events.sold")
	require.Equal(t, "shop.events.events.sold", biller.receives(events).Subject)
	answers := biller.subscribes("_INBOX.prices")
	require.NoError(t, biller.PublishRequest("prices.get", "_INBOX.prices", []byte("apples")))
	require.NoError(t, seller.receives(prices).Respond([]byte("2")))
	require.Equal(t, "2", string(biller.receives(answers).Data))

	// A token that is revoked in the export is good no longer.
	billing := id(e, "billing")
	_, err := e.client.Logical().JSONMergePatch(e.ctx(), e.path("jwt/shop"), fields{"config": fields{"exports": []fields{
		{"name": "events", "subject": "events.>", "type": "stream"},
		{"name": "prices", "subject": "prices.*", "type": "service", "token_req": true, "revocations": fields{billing: time.Now().Unix()}},
	}}})
	require.NoError(t, err)
	require.NoError(t, biller.PublishRequest("prices.get", "_INBOX.prices", []byte("apples")))
	require.NoError(t, biller.FlushTimeout(patience))
	seller.publishes("events.again")
	require.Equal(t, "shop.events.events.again", biller.receives(events).Subject, "the stream needs no token")
	pending, _, err := prices.Pending()
	require.NoError(t, err)
	require.Zero(t, pending, "the request of an importer whose token is revoked was passed on")
}

// Whatever is wrong with an account is told with its field; nothing is stored, and the
// server has what it had.
func TestABadAccountIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	e := start(t)
	own := newNscHome(t, e.nats.URL) // another operator, whose JWTs are not the mount's
	e.account("orders", fields{"exports": []fields{{"subject": "orders.>", "type": "stream"}}})
	e.write("jwt/worker", fields{"type": "user", "account": "orders"})
	orders := id(e, "orders")
	accountSeed, operatorSeed := own.seeds[own.orders], own.seeds[own.public(own.signing)]
	foreign := own.key(nkeys.CreateAccount)
	state := func() fields {
		stored := fields{"config": e.read("config"), "files": e.files(e.nats)}
		for _, name := range e.list("jwt") {
			read := e.read("jwt/" + name)
			delete(read, "expiration")
			if read["type"] == "user" {
				delete(read, "jwt") // made anew at every read
			}
			stored[name] = read
		}
		return stored
	}
	before := state()
	// Vault takes no string of a megabyte, so it is a long list.
	var exports []fields
	for i := range 150 { // OpenBao's listener takes at most 1,000 strings in nested JSON
		exports = append(exports, fields{"subject": fmt.Sprintf("a.%d", i), "type": "stream", "description": strings.Repeat("long ", 1600)})
	}

	for name, test := range map[string]struct {
		path  string
		data  fields
		texts []string
	}{
		"an account's seed for an operator's":      {"config", fields{"operator_jwt": own.operatorJWT, "operator_signing_seeds": accountSeed}, []string{"operator"}},
		"another operator":                         {"config", fields{"operator_jwt": own.operatorJWT, "operator_signing_seeds": operatorSeed}, []string{"operator_jwt", "an operator never changes"}},
		"an operator's seed for an account's key":  {"jwt/orders/keys/second", fields{"seed": operatorSeed}, []string{"seed is an operator seed where an account seed is wanted"}},
		"a public key for a seed":                  {"jwt/orders/keys/second", fields{"seed": own.orders}, []string{"seed is an account public key where an account seed is wanted"}},
		"an operator's seed to rotate to":          {"jwt/orders/rotate", fields{"seed": operatorSeed}, []string{"seed is an operator seed"}},
		"an account's seed for a user":             {"jwt/new", fields{"type": "user", "account": "orders", "seed": accountSeed}, []string{"seed is an account seed where a user seed is wanted"}},
		"an account of another operator":           {"jwt/new", fields{"type": "account", "account_jwt": own.ordersJWT}, []string{"account_jwt is signed by", "not a key of the mount's operator"}},
		"an operator's JWT":                        {"jwt/new", fields{"type": "account", "account_jwt": own.operatorJWT}, []string{"account_jwt is the JWT of an operator"}},
		"a JWT that was changed":                   {"jwt/new", fields{"type": "account", "account_jwt": own.ordersJWT[:len(own.ordersJWT)-8] + "AAAAAAAA"}, []string{"account_jwt is not a valid NATS JWT"}},
		"a public key that is a user's":            {"jwt/new", fields{"type": "account", "public_key": own.public(own.key(nkeys.CreateUser))}, []string{"public_key is a user public key"}},
		"a seed of another account":                {"jwt/new", fields{"type": "account", "public_key": own.orders, "seed": own.seeds[own.public(foreign)]}, []string{"seed is that of", "not of account " + own.orders}},
		"a name that an account has":               {"jwt/orders", fields{"type": "account", "public_key": own.orders, "signing_seeds": accountSeed}, []string{`name "orders" exists already`}},
		"a name that a user has":                   {"jwt/worker", fields{"type": "account"}, []string{"type is account", `"worker" is the name of an existing user`}},
		"a second name":                            {"jwt/new", fields{"type": "account", "public_key": orders}, []string{"second name of account " + orders}},
		"an import of an unknown export":           {"jwt/new", fields{"type": "account", "config": fields{"imports": []fields{{"account": orders, "subject": "billing.>", "type": "stream"}}}}, []string{"imports[0] names an unknown export", "billing.>"}},
		"an import of a service that is a stream":  {"jwt/new", fields{"type": "account", "config": fields{"imports": []fields{{"account": orders, "subject": "orders.new", "type": "service"}}}}, []string{"imports[0] names an unknown export"}},
		"an import from an unknown account":        {"jwt/new", fields{"type": "account", "config": fields{"imports": []fields{{"account": own.orders, "subject": "orders.>", "type": "stream"}}}}, []string{"imports[0]", "not in the mount"}},
		"more than a server takes":                 {"jwt/new", fields{"type": "account", "config": fields{"exports": exports}}, []string{"config is too large"}},
		"more than a server takes, of an old name": {"jwt/orders", fields{"config": fields{"exports": exports}}, []string{"config is too large"}},
		"a mapping that a server would drop":       {"jwt/new", fields{"type": "account", "config": fields{"mappings": fields{"a": []fields{{"subject": "b", "weight": 60}, {"subject": "c", "weight": 60}}}}}, []string{"config", "a"}},
		"a signing key twice":                      {"jwt/orders/keys/second", fields{"seed": "SA"}, []string{"seed is not an account seed"}},
		"a key that is not there":                  {"jwt/orders/rotate", fields{"key": "second"}, []string{`key "second" is not a signing key`}},
	} {
		t.Run(name, func(t *testing.T) { e.in(t).refused(test.path, test.data, test.texts...) })
	}
	after := state()
	for _, what := range []fields{before, after} {
		require.Contains(t, what, "orders")
	}
	require.True(t, maps.EqualFunc(before, after, func(a, b any) bool { return assert.ObjectsAreEqual(a, b) }), "before:\n%v\nafter:\n%v", before, after)
}

// What roles and users depend on is not deleted under them.
func TestAnAccountInUseIsDeletedOnlyByForce(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	deletionRefused := func(texts ...string) {
		t.Helper()
		_, err := e.client.Logical().DeleteWithContext(e.ctx(), e.path("jwt/orders"))
		e.isStatus(err, 400, texts...)
	}
	e.role("dev", nil)
	deletionRefused("roles depend on it (dev)", "force=true")
	e.remove("role/dev")
	e.write("jwt/worker", fields{"type": "user", "account": "orders"})
	deletionRefused("users depend on it (worker)")
	e.remove("jwt/worker")
	e.remove("jwt/orders")
	e.absent("jwt/orders")
	require.Len(t, e.files(e.nats), 1, "the server has its system account only")

	e.account("orders", nil)
	e.role("dev", nil)
	client := e.connect(e.login("dev", e.token(nil)).Creds)
	e.removeByForce("jwt/orders")
	e.isCutOff(client)
	_, err := e.tryLogin("dev", e.token(nil), nil)
	require.ErrorContains(t, err, "orders")
	require.Len(t, e.files(e.nats), 1)
}
