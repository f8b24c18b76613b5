package plugin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/callout"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A calloutMount is a mount with the callout "edge", which a nats-server of the
// test's asks.
type calloutMount struct {
	*loginMount
	t testing.TB
	*asker
}

func newCalloutMount(t testing.TB, config map[string]any) *calloutMount {
	t.Helper()
	m := &calloutMount{loginMount: newLoginMount(t, newWorkloads(t)[2]), t: t, asker: newAsker(t)}
	m.write("jwt/auth", map[string]any{"type": "account"})
	all := map[string]any{"account": "auth", "roles": "dev", "default_role": "dev"}
	maps.Copy(all, config)
	m.write("callout/edge", all)
	m.learn()
	return m
}

// learn has the server take the account's JWT as it is now.
func (m *calloutMount) learn() {
	m.t.Helper()
	m.account = m.accountClaims("auth")
}

func (m *calloutMount) accountClaims(name string) *natsjwt.AccountClaims {
	m.t.Helper()
	claims, err := natsjwt.DecodeAccountClaims(m.get("jwt/" + name)["jwt"].(string))
	require.NoError(m.t, err)
	return claims
}

func (m *calloutMount) try(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	resp, err := m.HandleRequest(context.Background(), &logical.Request{
		Operation: operation, Path: path, Data: maps.Clone(data), Storage: m.storage, MountPoint: "auth/nats/",
	})
	shown, encodeErr := json.Marshal(resp)
	require.NoError(m.t, encodeErr)
	require.Empty(m.t, seedForm.FindAll(shown, -1), "a seed in the answer of %s", path)
	return resp, err
}

func (m *calloutMount) get(path string) map[string]any {
	m.t.Helper()
	resp, err := m.try(logical.ReadOperation, path, nil)
	require.NoError(m.t, err)
	require.NotNil(m.t, resp, path)
	require.NoError(m.t, resp.Error())
	return resp.Data
}

// refused makes a request that is answered with status 400 and changes nothing.
func (m *calloutMount) refused(operation logical.Operation, path string, data map[string]any, text string) {
	m.t.Helper()
	before := m.storage.Writes.Load()
	resp, err := m.try(operation, path, data)
	require.NoError(m.t, err)
	require.NotNil(m.t, resp, "nothing was refused")
	require.ErrorContains(m.t, resp.Error(), text)
	require.Equal(m.t, before, m.storage.Writes.Load(), "a refused request writes")
}

// authorize brings the question to the mount.
func (m *calloutMount) authorize(q question) (*logical.Response, error) {
	m.t.Helper()
	return m.try(logical.UpdateOperation, "callout/edge/authorize", map[string]any{
		"request": base64.StdEncoding.EncodeToString(q.raw), "server_xkey": q.header,
	})
}

// ask asks about a client, and returns the user that the server makes of it.
func (m *calloutMount) ask(options natsjwt.ConnectOptions, changes ...func(*natsjwt.AuthorizationRequestClaims)) (*natsjwt.UserClaims, error) {
	m.t.Helper()
	q := m.question(options, changes...)
	resp, err := m.authorize(q)
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	user, refusal := m.open(q, resp.Data["response"].(string))
	require.Equal(m.t, refusal == nil, resp.Data["allowed"])
	return user, refusal
}

// client is what the mount's workload sends.
func (m *calloutMount) client() natsjwt.ConnectOptions {
	return natsjwt.ConnectOptions{Username: "dev", Password: m.workload.token}
}

func TestAClientIsLetInAsItsRoleSays(t *testing.T) {
	for name, sealed := range map[string]bool{"sealed": true, "in the clear": false} {
		t.Run(name, func(t *testing.T) {
			m := newCalloutMount(t, map[string]any{"xkey": sealed})
			require.Equal(t, sealed, m.account.Authorization.XKey != "")
			user, err := m.ask(m.client())
			require.NoError(t, err)
			require.Equal(t, natsjwt.StringList{"orders.shop.>"}, user.Pub.Allow)
			orders := m.accountClaims("orders")
			require.Equal(t, orders.Subject, user.IssuerAccount)
			require.Contains(t, orders.SigningKeys, user.Issuer)
			require.WithinDuration(t, time.Now().Add(10*time.Minute), time.Unix(user.Expires, 0), 5*time.Second)
			require.Equal(t, m.user().Name, user.Name)
		})
	}
}

// All that clients of NATS, MQTT and WebSocket have fields for.
func TestAClientSaysItsRoleAndItsTokenInManyWays(t *testing.T) {
	m := newCalloutMount(t, nil)
	token := m.workload.token
	for name, options := range map[string]natsjwt.ConnectOptions{
		"user and password":             {Username: "dev", Password: token},
		"a password alone":              {Password: token},
		"a token alone":                 {Token: token},
		"a token after its role":        {Token: "dev:" + token},
		"a password after its role":     {Password: "dev:" + token},
		"MQTT, whose password is both":  {Username: "dev", Password: token, Token: token},
		"a role in capitals, as login":  {Username: "DEV", Password: token},
		"a user beside a token, unread": {Username: "dev", Token: token},
	} {
		t.Run(name, func(t *testing.T) {
			m := &calloutMount{m.loginMount, t, m.asker}
			_, err := m.ask(options)
			require.NoError(t, err)
		})
	}
	for name, options := range map[string]natsjwt.ConnectOptions{
		"nothing":             {},
		"a role alone":        {Username: "dev"},
		"an empty token":      {Token: "dev:"},
		"two tokens":          {Username: "dev", Password: token, Token: "other"},
		"the sentinel":        {JWT: m.get("callout/edge")["sentinel"].(string)},
		"a token as user":     {Username: token},
		"a token in no field": {JWT: token},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			m := &calloutMount{m.loginMount, t, m.asker}
			_, err := m.ask(options)
			require.Error(t, err)
		})
	}
	m.write("callout/edge", map[string]any{"default_role": ""})
	_, err := m.ask(natsjwt.ConnectOptions{Token: token})
	require.ErrorContains(t, err, "role is missing")
}

// What is refused at a login is refused with the same words, and what the callout
// does not take looks like what does not exist.
func TestAClientLearnsNoMoreThanAtALogin(t *testing.T) {
	m := newCalloutMount(t, nil)
	m.write("role/ops", map[string]any{"account": "orders", "bound_audiences": "vault", "user_claim": "sub"})
	m.write("role/other", map[string]any{
		"account": "orders", "bound_audiences": "vault", "user_claim": "sub", "bound_claims": map[string]any{"namespace_path": "bank"},
	})
	m.write("callout/edge", map[string]any{"roles": "dev,oth*,gone"})
	for name, options := range map[string]natsjwt.ConnectOptions{
		"a role that does not exist":        {Username: "gone", Password: m.workload.token},
		"another workload's role":           {Username: "other", Password: m.workload.token},
		"a token that does not verify":      {Username: "dev", Password: m.workload.token + "x"},
		"no token at all":                   {Username: "dev", Password: "x"},
		"a name that is too long for roles": {Username: "oth" + strings.Repeat("x", 300), Password: m.workload.token},
	} {
		t.Run(name, func(t *testing.T) {
			m := &calloutMount{m.loginMount, t, m.asker}
			login, err := m.tryLogin(logical.UpdateOperation, map[string]any{"role": options.Username, "jwt": options.Password})
			require.NoError(t, err)
			_, refusal := m.ask(options)
			require.EqualError(t, refusal, login.Error().Error())
		})
	}
	_, refusal := m.ask(natsjwt.ConnectOptions{Username: "ops", Password: m.workload.token})
	require.EqualError(t, refusal, `role "ops" could not be found`, "a role that is not among the callout's")
	for _, own := range []string{"callout-edge", "edge", "callout edge", "../role/dev", "dev\x00", "*", ">"} {
		_, refusal := m.ask(natsjwt.ConnectOptions{Username: own, Password: m.workload.token})
		require.ErrorContains(t, refusal, "could not be found", "the callout's own users cannot be asked for")
	}
}

func TestARequestThatIsNoServersOrNotForTheCalloutIsRefused(t *testing.T) {
	m := newCalloutMount(t, nil)
	other := m.get("jwt/orders")["public_key"].(string)
	stranger, err := nkeys.CreateServer()
	require.NoError(t, err)
	strangerKey, err := stranger.PublicKey()
	require.NoError(t, err)
	curve, err := nkeys.CreateCurveKeys()
	require.NoError(t, err)
	curveKey, err := curve.PublicKey()
	require.NoError(t, err)
	account := newKey(t, trust.Account)

	changed := func(change func(*natsjwt.AuthorizationRequestClaims)) question { return m.question(m.client(), change) }
	for name, made := range map[string]struct {
		question question
		fault    string
	}{
		"for another audience": {changed(func(c *natsjwt.AuthorizationRequestClaims) { c.Audience = "vault" }), "not for an auth callout"},
		"without an audience":  {changed(func(c *natsjwt.AuthorizationRequestClaims) { c.Audience = "" }), "not for an auth callout"},
		"about another account": {changed(func(c *natsjwt.AuthorizationRequestClaims) { c.Subject = other }),
			"not the callout's"},
		"of another server": {changed(func(c *natsjwt.AuthorizationRequestClaims) { c.Server.ID = strangerKey }), "another has signed it"},
		"of another curve key than the header": {changed(func(c *natsjwt.AuthorizationRequestClaims) { c.Server.XKey = curveKey }),
			"another xkey"},
		"without an end": {changed(func(c *natsjwt.AuthorizationRequestClaims) { c.Expires = 0 }), "has no end"},
		"too old": {changed(func(c *natsjwt.AuthorizationRequestClaims) {
			c.Expires = time.Now().Add(-callout.Leeway - 2*time.Second).Unix()
		}),
			"has ended"},
		"for no user":         {changed(func(c *natsjwt.AuthorizationRequestClaims) { c.UserNkey = "" }), "user_nkey"},
		"for a user's seed":   {changed(func(c *natsjwt.AuthorizationRequestClaims) { c.UserNkey = newKey(t, trust.User).Seed() }), "user_nkey"},
		"for an account":      {changed(func(c *natsjwt.AuthorizationRequestClaims) { c.UserNkey = account.Public() }), "user_nkey"},
		"signed by no server": {m.signedBy(account), "no authorization request"},
		"altered":             {m.altered(), "no authorization request"},
		"altered when sealed": {m.alteredSeal(), "sealed for a key"},
		"sealed by another":   {question{raw: m.question(m.client()).raw, header: curveKey}, "not by the server of its header"},
		"without its header":  {question{raw: m.question(m.client()).raw}, "without its header"},
		"not sealed":          {question{raw: m.plain(m.client())}, "is not sealed"},
		"a user JWT":          {m.sealText(m.user().String()), "no authorization request"},
		"a token":             {m.sealText(m.workload.token), "no authorization request"},
		"empty":               {question{}, "is not what a nats-server has sent"},
		"of another kind":     {question{raw: []byte("hello")}, "is not sealed"},
		"too large":           {question{raw: make([]byte, callout.MaxRequest+1)}, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &calloutMount{m.loginMount, t, m.asker}
			resp, err := m.authorize(made.question)
			require.NoError(t, err)
			require.ErrorContains(t, resp.Error(), made.fault)
			require.NotContains(t, resp.Error().Error(), m.workload.token[:40])
			require.Nil(t, resp.Data["response"])
		})
	}
	m.refused(logical.UpdateOperation, "callout/edge/authorize", map[string]any{"request": "%%%"}, "base64")
	m.refused(logical.UpdateOperation, "callout/other/authorize", map[string]any{"request": "aGVsbG8="}, "not a callout")
}

// Whoever answers an old request once more makes a JWT for a key that only the server
// has had, for one connection; after a while not even that.
func TestARequestThatIsAnsweredTwiceIsForTheSameKey(t *testing.T) {
	m := newCalloutMount(t, nil)
	q := m.question(m.client())
	for range 2 {
		resp, err := m.authorize(q)
		require.NoError(t, err)
		user, refusal := m.open(q, resp.Data["response"].(string))
		require.NoError(t, refusal)
		require.Equal(t, q.user, user.Subject)
		require.Equal(t, q.user, resp.Data["user_public_key"])
	}
}

func TestWhoCarriesASealedRequestSeesNothingOfIt(t *testing.T) {
	m := newCalloutMount(t, nil)
	q := m.question(m.client())
	resp, err := m.authorize(q)
	require.NoError(t, err)
	message, err := base64.StdEncoding.DecodeString(resp.Data["response"].(string))
	require.NoError(t, err)
	shown, err := json.Marshal(resp.Data)
	require.NoError(t, err)
	for _, seen := range []string{string(q.raw), string(message), string(shown)} {
		for part := range strings.SplitSeq(m.workload.token, ".") {
			require.NotContains(t, seen, part)
		}
		require.NotContains(t, seen, "eyJ")
	}
}

func TestRolesThatACalloutCannotServe(t *testing.T) {
	m := newCalloutMount(t, map[string]any{"roles": "*"})
	m.write("jwt/billing", map[string]any{"type": "account"})
	role := func(fields map[string]any) map[string]any {
		all := map[string]any{"account": "orders", "bound_audiences": "vault", "user_claim": "sub"}
		maps.Copy(all, fields)
		return all
	}
	for name, refused := range map[string]struct {
		role    map[string]any
		callout map[string]any
		fault   string
	}{
		"with a limit of subscriptions":  {role: map[string]any{"user_template": `{"subs":3}`}, fault: "subs"},
		"with a limit of the payload":    {role: map[string]any{"user_template": `{"payload":3}`}, fault: "payload"},
		"scoped, with a limit":           {role: map[string]any{"scoped": true, "user_template": `{"payload":3}`}, fault: "payload"},
		"without credentials at a login": {role: map[string]any{"credentials_on_login": false}, fault: "credentials_on_login"},
		"whose keys prove themselves":    {role: map[string]any{"user_key_proof": true, "user_key": "client"}, fault: "user_key_proof"},
		"of an account that is not allowed": {role: map[string]any{"account": "billing"},
			callout: map[string]any{"allowed_accounts": "orders"}, fault: "allowed_accounts"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &calloutMount{m.loginMount, t, m.asker}
			m.write("role/odd", role(refused.role))
			m.write("callout/edge", map[string]any{"allowed_accounts": ""})
			if refused.callout != nil {
				m.write("callout/edge", refused.callout)
			}
			odd := natsjwt.ConnectOptions{Username: "odd", Password: m.workload.token}
			_, refusal := m.ask(odd)
			require.EqualError(t, refusal, `role "odd" cannot be used through the callout`)
			odd.Password += "x"
			_, refusal = m.ask(odd)
			require.ErrorContains(t, refusal, "error validating token", "who has proven nothing is told nothing of the role")
			m.refused(logical.UpdateOperation, "callout/edge", map[string]any{"roles": "odd", "default_role": ""}, refused.fault)
			_, err := m.try(logical.DeleteOperation, "role/odd", nil)
			require.NoError(t, err)
		})
	}
	m.write("role/callers", map[string]any{"account": "orders", "role_type": "vault"})
	_, refusal := m.ask(natsjwt.ConnectOptions{Username: "callers", Password: m.workload.token})
	require.ErrorContains(t, refusal, "type vault")
	m.refused(logical.UpdateOperation, "callout/edge", map[string]any{"roles": "callers", "default_role": ""}, "type vault")
}

// The addresses are those of the client, as the nats-server sees them, and not the
// responder's. nats-server does not look at src here.
func TestAClientFromElsewhereIsRefused(t *testing.T) {
	m := newCalloutMount(t, nil)
	from := func(host string) error {
		_, refusal := m.ask(m.client(), func(c *natsjwt.AuthorizationRequestClaims) { c.ClientInformation.Host = host })
		return refusal
	}
	for name, fields := range map[string]map[string]any{
		"token_bound_cidrs": {"token_bound_cidrs": "10.0.0.0/8"},
		"src":               {"user_template": `{"src":["10.0.0.0/8"]}`},
		"src of a scope":    {"scoped": true, "user_template": `{"src":["10.0.0.0/8"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			m.write("role/dev", map[string]any{"token_bound_cidrs": "", "scoped": false, "user_template": "{}"})
			require.NoError(t, from("192.168.0.1"))
			m.write("role/dev", fields)
			require.NoError(t, from("10.1.2.3"))
			for _, host := range []string{"192.168.0.1", "", "somewhere", "::1"} {
				require.ErrorContains(t, from(host), "permission denied", host)
			}
		})
	}
}

func TestACalloutNeitherReadsNorWritesStorage(t *testing.T) {
	m := newCalloutMount(t, nil)
	_, err := m.ask(m.client())
	require.NoError(t, err)
	before := m.storage.All()
	for range 20 {
		_, err := m.ask(m.client())
		require.NoError(t, err)
	}
	require.Equal(t, before, m.storage.All())
}

// BenchmarkAuthorize is what a callout costs in the plugin, beside BenchmarkLogin.
func BenchmarkAuthorize(b *testing.B) {
	for name, sealed := range map[string]bool{"sealed": true, "in the clear": false} {
		b.Run(name, func(b *testing.B) {
			m := newCalloutMount(b, map[string]any{"xkey": sealed})
			q := m.question(m.client(), func(c *natsjwt.AuthorizationRequestClaims) { c.Expires = time.Now().Add(time.Hour).Unix() })
			data := map[string]any{"request": base64.StdEncoding.EncodeToString(q.raw), "server_xkey": q.header}
			b.ReportAllocs()
			for b.Loop() {
				resp, err := m.HandleRequest(context.Background(), &logical.Request{
					Operation: logical.UpdateOperation, Path: "callout/edge/authorize", Storage: m.storage, Data: data,
				})
				if err != nil || resp.Data["allowed"] != true {
					b.Fatal(resp, err)
				}
			}
		})
	}
}
