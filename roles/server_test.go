package roles

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// A natsAccount is an account on a running nats-server, with a plain signing
// key and one whose scope is a role's.
type natsAccount struct {
	Account
	url           string
	options       *server.Options
	plain, scoped nkeys.KeyPair
}

// runServer starts a nats-server that knows one account, which holds the scope
// of a role. The server and the account may be changed before.
func runServer(t *testing.T, scope *jwt.UserPermissionLimits, changes ...func(*server.Options, *jwt.AccountClaims)) *natsAccount {
	t.Helper()
	operator, err := nkeys.CreateOperator()
	require.NoError(t, err)
	operatorClaims := jwt.NewOperatorClaims(publicKey(t, operator))

	identity, err := nkeys.CreateAccount()
	require.NoError(t, err)
	a := &natsAccount{Account: Account{Name: "orders", PublicKey: publicKey(t, identity), Tags: []string{"region:eu"}}}
	a.IssuerAccount = a.PublicKey
	a.plain, err = nkeys.CreateAccount()
	require.NoError(t, err)
	a.scoped, err = nkeys.CreateAccount()
	require.NoError(t, err)

	accountClaims := jwt.NewAccountClaims(a.PublicKey)
	accountClaims.Name = a.Name
	accountClaims.Tags.Add(a.Tags...)
	accountClaims.SigningKeys.Add(publicKey(t, a.plain))
	if scope != nil {
		userScope := jwt.NewUserScope()
		userScope.Key, userScope.Template = publicKey(t, a.scoped), *scope
		accountClaims.SigningKeys.AddScopedSigner(userScope)
	}
	resolver := &server.MemAccResolver{}
	options := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		TrustedOperators: []*jwt.OperatorClaims{operatorClaims}, AccountResolver: resolver,
	}
	for _, change := range changes {
		change(options, accountClaims)
	}
	store := func(account *jwt.AccountClaims) {
		encoded, err := account.Encode(operator)
		require.NoError(t, err)
		require.NoError(t, resolver.Store(account.Subject, encoded))
	}
	store(accountClaims)
	system, err := nkeys.CreateAccount()
	require.NoError(t, err)
	options.SystemAccount = publicKey(t, system)
	store(jwt.NewAccountClaims(options.SystemAccount))

	s, err := server.NewServer(options)
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(10*time.Second))
	a.url, a.options = s.ClientURL(), options
	return a
}

func publicKey(t *testing.T, key nkeys.KeyPair) string {
	t.Helper()
	public, err := key.PublicKey()
	require.NoError(t, err)
	return public
}

// A login is what a workload has got to connect with.
type login struct {
	jwt string
	key nkeys.KeyPair
}

// login issues the user that the role renders for the claims.
func (a *natsAccount) login(t *testing.T, c *Compiled, p *claims.Profile) (*login, error) {
	t.Helper()
	key, err := nkeys.CreateUser()
	require.NoError(t, err)
	b, err := c.Bind(p, now)
	require.NoError(t, err)
	u, err := c.Render(b, a.Account, publicKey(t, key))
	if err != nil {
		return nil, err
	}
	return a.issue(t, u, key, c.Scope() != nil), nil
}

// issue signs a user's JWT with one of the account's keys.
func (a *natsAccount) issue(t *testing.T, u *User, key nkeys.KeyPair, scoped bool) *login {
	t.Helper()
	user := jwt.NewUserClaims(publicKey(t, key))
	user.User = jwt.User{}
	user.Name = u.Name
	require.NoError(t, json.Unmarshal(u.NATS, &user.User))
	signer := a.plain
	if scoped {
		signer = a.scoped
	}
	encoded, err := user.Encode(signer)
	require.NoError(t, err)
	return &login{encoded, key}
}

func (a *natsAccount) dial(t *testing.T, l *login, options ...nats.Option) (*nats.Conn, error) {
	t.Helper()
	nc, err := nats.Connect(a.url, append(options,
		nats.UserJWT(func() (string, error) { return l.jwt, nil }, l.key.Sign),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // they are read from LastError
		nats.MaxReconnects(0))...)
	if err == nil {
		t.Cleanup(nc.Close)
	}
	return nc, err
}

// connect connects as the user that the role renders for the claims.
func (a *natsAccount) connect(t *testing.T, c *Compiled, claimsJSON string) *nats.Conn {
	t.Helper()
	l, err := a.login(t, c, token(t, claimsJSON))
	require.NoError(t, err)
	nc, err := a.dial(t, l)
	require.NoError(t, err)
	return nc
}

// refused says whether the server answered an operation with a violation of
// permissions, which it does before it answers the flush.
func refused(t *testing.T, nc *nats.Conn, operation func() error) bool {
	t.Helper()
	before := nc.LastError()
	require.NoError(t, operation())
	require.NoError(t, nc.Flush())
	after := nc.LastError()
	return after != nil && after != before //nolint:errorlint // the question is whether it is another one
}

func TestNATSServerAllowsWhatTheTemplateSpells(t *testing.T) {
	const permissions = `
		"pub": {"allow": ["orders.%[1]s.{{tag(group)}}.>", "at.{{account-tag(region)}}.{{name()}}.*"], "deny": ["orders.%[1]s.*.secret"]},
		"sub": {"allow": ["in.%[1]s.*"]}`
	templates := map[string]*Role{
		"in the user JWT": jwtRole(func(r *Role) {
			r.UserTemplate = fmt.Sprintf(`{%s, "tags": ["group:{{claim(groups)}}"]}`, fmt.Sprintf(permissions, "{{claim(project)}}"))
		}),
		"in a scope": jwtRole(func(r *Role) {
			r.Scoped = true
			r.UserTemplate = fmt.Sprintf(`{%s, "tags": ["project:{{claim(project)}}", "group:{{claim(groups)}}"]}`, fmt.Sprintf(permissions, "{{tag(project)}}"))
		}),
	}
	for name, role := range templates {
		t.Run(name, func(t *testing.T) {
			c := compile(t, role)
			a := runServer(t, c.Scope())
			nc := a.connect(t, c, `{"project": "Web", "groups": ["dev", "ops"]}`)
			for subject, allowed := range map[string]bool{
				"orders.Web.dev.x":      true,
				"orders.Web.ops.x.y":    true,
				"orders.web.dev.x":      false, // a value keeps its case
				"orders.Web.qa.x":       false,
				"orders.Web.dev":        false,
				"orders.Web.dev.secret": false,
				"orders.Other.dev.x":    false,
				"at.eu.runner.x":        true,
				"at.us.runner.x":        false,
				"at.eu.other.x":         false,
				"in.Web.x":              false,
			} {
				require.Equal(t, !allowed, refused(t, nc, func() error { return nc.Publish(subject, nil) }), "publish to %s", subject)
			}
			for subject, allowed := range map[string]bool{
				"in.Web.x": true, "in.Web.*": true, "in.*.x": false, "in.>": false, "in.Other.x": false, ">": false,
			} {
				require.Equal(t, !allowed, refused(t, nc, func() error {
					_, err := nc.SubscribeSync(subject)
					return err
				}), "subscribe to %s", subject)
			}
		})
	}
}

// A scoped role's template holds for the JWTs that were issued before it was
// edited. Whatever a login took under one template must not begin a subject of
// NATS's own under another.
func TestAnEditOfAScopedRoleOpensNoSubjectOfNATSToOldJWTs(t *testing.T) {
	scoped := func(user string) *Compiled {
		return compile(t, jwtRole(func(r *Role) { r.Scoped, r.UserName, r.UserTemplate = true, "{{claim(n)}}", user }))
	}
	// Tags are for an edit to come, too: nothing reads u yet.
	const tags = `"tags": ["t:{{claim(t)}}", "u:{{claim(u)}}"]`
	before := scoped(`{"pub": {"allow": ["a.{{name()}}.>", "a-{{tag(t)}}.>"]}, ` + tags + `}`)
	after := scoped(`{"pub": {"allow": ["{{name()}}.>", "{{tag(t)}}.>", "{{tag(u)}}.>"]}, ` + tags + `}`)
	a := runServer(t, after.Scope())
	for _, value := range []string{"web", "-$JS", "a_b", "$JS", "$SYS", "_INBOX", "$", "_"} {
		for _, claim := range []string{"n", "t", "u"} {
			all := map[string]any{"sub": "runner", "n": "x", "t": "x", "u": "x"}
			all[claim] = value
			l, err := a.login(t, before, &claims.Profile{Issuer: DefaultIssuer, Kind: claims.KindJWT, Claims: all})
			if err != nil {
				require.ErrorContains(t, err, fmt.Sprintf(`claim(%s) %q cannot begin`, claim, value))
				require.Contains(t, "$_", value[:1], err)
				continue
			}
			nc, err := a.dial(t, l)
			require.NoError(t, err)
			require.NotContains(t, "$_", value[:1], "a login took it, and so the server does under the edited template")
			require.False(t, refused(t, nc, func() error { return nc.Publish(value+".x", nil) }))
		}
	}
}

// This is why a scoped role takes no such names and tags: nats-server looks at
// what it fills in no further than that subjects are well-formed. Should it
// fail, nats-server has become stricter.
func TestNATSServerLetsANameBeginASubjectOfItsOwn(t *testing.T) {
	c := compile(t, jwtRole(func(r *Role) { r.Scoped, r.UserTemplate = true, publish("{{name()}}.>") }))
	a := runServer(t, c.Scope())
	key, err := nkeys.CreateUser()
	require.NoError(t, err)
	user := &User{Name: "$JS", NATS: fmt.Appendf(nil, `{"pub": {}, "sub": {}, "issuer_account": %q, "type": "user", "version": 2}`, a.PublicKey)}
	nc, err := a.dial(t, a.issue(t, user, key, true))
	require.NoError(t, err)
	require.False(t, refused(t, nc, func() error { return nc.Publish("$JS.API.INFO", nil) }))
	require.True(t, refused(t, nc, func() error { return nc.Publish("a", nil) }))
}

func TestNATSServerKnowsQueueNames(t *testing.T) {
	c := compile(t, jwtRole(template(`{"sub": {"allow": ["jobs.{{claim(p)}} {{claim(p)}}-workers"]}}`)))
	nc := runServer(t, nil).connect(t, c, `{"p": "web"}`)
	for queue, allowed := range map[string]bool{"web-workers": true, "other-workers": false} {
		require.Equal(t, !allowed, refused(t, nc, func() error {
			_, err := nc.QueueSubscribeSync("jobs.web", queue)
			return err
		}), "the queue %s", queue)
	}
	require.True(t, refused(t, nc, func() error {
		_, err := nc.SubscribeSync("jobs.web")
		return err
	}), "a subscription without a queue")
}

// This is why a role with such a subscription gets a warning. Should it fail,
// nats-server has become stricter, and the warning can go.
func TestNATSServerTakesATrailingStarForMore(t *testing.T) {
	for name, test := range map[string]struct{ template, first string }{
		"without a deny, what is below comes too": {`{"sub": {"allow": ["in.*"]}}`, "in.a.b"},
		"with a deny, it does not":                {`{"sub": {"allow": ["in.*"], "deny": ["in.*.>"]}}`, "in.a"},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, jwtRole(template(test.template)))
			nc := runServer(t, nil).connect(t, c, `{}`)
			sub, err := nc.SubscribeSync("in.>")
			require.NoError(t, err)
			require.NoError(t, nc.Publish("in.a.b", nil))
			require.NoError(t, nc.Publish("in.a", nil))
			msg, err := sub.NextMsg(10 * time.Second)
			require.NoError(t, err)
			require.Equal(t, test.first, msg.Subject)
		})
	}
}
