package roles

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// foreign issues a user of the account with claims that no role would give, to
// show why not.
func (a *natsAccount) foreign(t *testing.T, natsJSON string) *login {
	t.Helper()
	key, err := nkeys.CreateUser()
	require.NoError(t, err)
	user := jwt.NewUserClaims("x").User // without limits
	require.NoError(t, json.Unmarshal([]byte(natsJSON), &user))
	user.IssuerAccount = a.PublicKey
	raw, err := json.Marshal(user)
	require.NoError(t, err)
	return a.issue(t, &User{Name: "foreign", NATS: raw}, key, false)
}

// These are why a template that spells them is refused: no user of the role
// could ever connect. Should one fail, nats-server has come to let them in.
func TestNATSServerLetsNobodyInWhoseTemplateHas(t *testing.T) {
	a := runServer(t, nil)
	t.Run("no subscriptions", func(t *testing.T) {
		closed := make(chan struct{})
		nc, err := a.dial(t, a.foreign(t, `{"subs": 0}`), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
		if err == nil { // it may have been let in for a moment
			select {
			case <-closed:
				err = nc.LastError()
			case <-time.After(10 * time.Second):
			}
		}
		require.Error(t, err)
		nc, err = a.dial(t, a.foreign(t, `{"subs": 1}`))
		require.NoError(t, err)
		_, err = nc.SubscribeSync("a")
		require.NoError(t, err)
		require.NoError(t, nc.Flush())
	})
	t.Run("a time that ends when it starts", func(t *testing.T) {
		for _, at := range []string{"00:00:00", "12:00:00", "23:59:59"} {
			_, err := a.dial(t, a.foreign(t, fmt.Sprintf(`{"subs": -1, "times": [{"start": %q, "end": %q}]}`, at, at)))
			require.ErrorContains(t, err, "Authorization Violation")
		}
	})
	t.Run("only MQTT, where a client cannot sign", func(t *testing.T) {
		a := runServer(t, nil, func(o *server.Options, account *jwt.AccountClaims) {
			o.ServerName, o.JetStream, o.StoreDir = "mqtt", true, t.TempDir()
			o.MQTT = server.MQTTOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT}
			account.Limits.JetStreamLimits = jwt.JetStreamLimits{
				MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
			}
		})
		const template = `{"subs": -1, "payload": -1, "data": -1, "allowed_connection_types": ["MQTT", "MQTT_WS"], "bearer_token": %t}`
		require.Equal(t, mqttNotAuthorized, a.dialMQTT(t, a.foreign(t, fmt.Sprintf(template, false))))
		require.Equal(t, mqttAccepted, a.dialMQTT(t, a.foreign(t, fmt.Sprintf(template, true))))
	})
}

// The return codes of MQTT 3.1.1, section 3.2.2.3.
const (
	mqttAccepted      = byte(0)
	mqttNotAuthorized = byte(5)
)

// dialMQTT connects with the JWT for a password, as nats-server wants it, and
// returns the code of the answer.
func (a *natsAccount) dialMQTT(t *testing.T, l *login) byte {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort(a.options.MQTT.Host, strconv.Itoa(a.options.MQTT.Port)))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	text := func(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }
	body := append(text("MQTT"), 4, 0b11000010, 0, 0) // level, user name with password and clean session, no keep alive
	for _, s := range []string{"client", "user", l.jwt} {
		body = append(body, text(s)...)
	}
	packet := binary.AppendUvarint([]byte{0x10}, uint64(len(body)))
	_, err = conn.Write(append(packet, body...))
	require.NoError(t, err)
	var answer [4]byte
	_, err = io.ReadFull(conn, answer[:])
	require.NoError(t, err)
	require.Equal(t, byte(0x20), answer[0], "a CONNACK")
	return answer[3]
}

// nats-server counts every placeholder for itself, also two of one spelling,
// and refuses the connection of whom it would expand too much for.
func TestWhatAScopedLoginTakesNATSServerExpands(t *testing.T) {
	for name, test := range map[string]struct {
		subjects string
		groups   int
	}{
		"one list":                          {`"a.{{tag(g)}}"`, maxSubjects},
		"a list twice, as far as it goes":   {`"a.{{tag(g)}}.{{tag(g)}}"`, 64},
		"a list twice, and one more":        {`"a.{{tag(g)}}.{{tag(g)}}"`, 65},
		"a list twice, and another subject": {`"b", "a.{{tag(g)}}.{{tag(g)}}"`, 64},
		"another subject after them":        {`"a.{{tag(g)}}.{{tag(g)}}", "b"`, 64},
		"a list four times":                 {`"a.{{tag(g)}}.{{tag(g)}}-{{tag(g)}}.{{tag(g)}}"`, 9},
		"a list and a name many times":      {`"a.{{name()}}.{{tag(g)}}.{{name()}}.{{account-tag(region)}}"`, 200},
	} {
		t.Run(name, func(t *testing.T) {
			for _, list := range []string{`"pub": {"allow": [%s]}`, `"sub": {"deny": [%s]}`} {
				c := compile(t, jwtRole(func(r *Role) {
					r.Scoped, r.UserTemplate = true, fmt.Sprintf(`{`+list+`, "tags": ["g:{{claim(g)}}"]}`, test.subjects)
				}))
				a := runServer(t, c.Scope(), func(o *server.Options, _ *jwt.AccountClaims) { o.MaxControlLine = 1 << 20 })
				groups := make([]string, test.groups)
				for i := range groups {
					groups[i] = strconv.Itoa(i)
				}
				l, err := a.login(t, c, token(t, `{"g": ["`+strings.Join(groups, `", "`)+`"]}`))
				if err != nil {
					require.ErrorContains(t, err, "nats-server")
					continue
				}
				_, err = a.dial(t, l)
				require.NoError(t, err, "a login took it")
			}
		})
	}
}

// What an answer to the role's write says of it has to be what nats-server does.
func TestTheWarningsSayWhatNATSServerAllows(t *testing.T) {
	list := func(subjects ...string) jwt.Permission { return jwt.Permission{Allow: subjects} }
	for name, test := range map[string]struct {
		template string
		defaults jwt.Permissions
		pub, sub bool // whether every subject is allowed
	}{
		"nothing":          {``, jwt.Permissions{}, true, true},
		"a limit":          {`{"payload": 10}`, jwt.Permissions{}, true, true},
		"pub":              {`{"pub": {"allow": ["a"]}}`, jwt.Permissions{}, false, true},
		"sub":              {`{"sub": {"allow": ["a"]}}`, jwt.Permissions{}, true, false},
		"a denied subject": {`{"pub": {"deny": ["a"]}, "sub": {"deny": ["b"]}}`, jwt.Permissions{}, false, false},
		"full wildcards":   {`{"pub": {"allow": ["a", ">"]}, "sub": {"allow": [">"]}}`, jwt.Permissions{}, true, true},
		"responses, without which nothing is sent":    {`{"resp": {"max": 1}}`, jwt.Permissions{}, false, true},
		"responses beside a denied subject":           {`{"resp": {"max": 1}, "pub": {"deny": ["a"]}}`, jwt.Permissions{}, false, true},
		"responses beside a full wildcard":            {`{"resp": {"max": 1}, "pub": {"allow": [">"]}}`, jwt.Permissions{}, true, true},
		"defaults for nothing":                        {``, jwt.Permissions{Pub: list("a"), Sub: list("a")}, false, false},
		"defaults for a limit":                        {`{"payload": 10}`, jwt.Permissions{Pub: list("a"), Sub: list("a")}, false, false},
		"defaults for empty lists":                    {`{"pub": {"allow": []}, "sub": {}}`, jwt.Permissions{Pub: list("a"), Sub: list("a")}, false, false},
		"defaults for pub alone":                      {``, jwt.Permissions{Pub: list("a")}, false, true},
		"defaults for sub alone":                      {``, jwt.Permissions{Sub: list("a")}, true, false},
		"defaults for responses":                      {``, jwt.Permissions{Resp: &jwt.ResponsePermission{MaxMsgs: 1}}, false, true},
		"defaults that allow everything":              {``, jwt.Permissions{Pub: list(">")}, true, true},
		"defaults, which pub turns off for sub":       {`{"pub": {"allow": ["a"]}}`, jwt.Permissions{Pub: list("a"), Sub: list("a")}, false, true},
		"defaults, which sub turns off for pub":       {`{"sub": {"allow": ["a"]}}`, jwt.Permissions{Pub: list("a"), Sub: list("a")}, true, false},
		"defaults, which responses turn off for both": {`{"resp": {"max": 1}}`, jwt.Permissions{Pub: list("a"), Sub: list("a")}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, scoped := range []bool{false, true} {
				c := compile(t, jwtRole(func(r *Role) { r.Scoped, r.UserTemplate = scoped, test.template }))
				var account jwt.Account
				a := runServer(t, c.Scope(), func(_ *server.Options, claims *jwt.AccountClaims) {
					claims.DefaultPermissions = test.defaults
					account = claims.Account
				})
				nc := a.connect(t, c, `{}`)
				pub, sub := true, true
				for _, subject := range []string{"a", "b", "z"} {
					pub = pub && !refused(t, nc, func() error { return nc.Publish(subject, nil) })
					sub = sub && !refused(t, nc, func() error {
						_, err := nc.SubscribeSync(subject)
						return err
					})
				}
				require.Equal(t, [2]bool{test.pub, test.sub}, [2]bool{pub, sub}, "what nats-server allows to pub and sub")

				warned := strings.Join(c.Warnings(&account), "\n")
				require.Equal(t, test.pub && test.sub, strings.Contains(warned, "grants every subject"), warned)
				require.Equal(t, test.pub && !test.sub, strings.Contains(warned, "publish to every subject"), warned)
				require.Equal(t, test.sub && !test.pub, strings.Contains(warned, "subscribe to every subject"), warned)
			}
		})
	}
}

func TestARoleIsRefusedInAnAccountWhereNATSServerRefusesItsUsers(t *testing.T) {
	const permissions = `"pub": {"allow": ["a"]}, "sub": {"allow": ["a"]}`
	for name, test := range map[string]struct {
		template string
		account  func(*jwt.Account)
		fault    string // empty: they connect
	}{
		"a bearer token":                         {`{"bearer_token": true}`, func(*jwt.Account) {}, ""},
		"a bearer token where it is forbidden":   {`{"bearer_token": true}`, func(a *jwt.Account) { a.Limits.DisallowBearer = true }, "disallow_bearer"},
		"no bearer token where it is forbidden":  {`{}`, func(a *jwt.Account) { a.Limits.DisallowBearer = true }, ""},
		"more subscriptions than the account's":  {`{"subs": 10}`, func(a *jwt.Account) { a.Limits.Subs = 5 }, ""},
		"a larger payload than the account's":    {`{"payload": 10}`, func(a *jwt.Account) { a.Limits.Payload = 5 }, ""},
		"permissions where others have defaults": {`{` + permissions + `}`, func(a *jwt.Account) { a.DefaultPermissions.Pub.Allow.Add("b") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, scoped := range []bool{false, true} {
				c := compile(t, jwtRole(func(r *Role) { r.Scoped, r.UserTemplate = scoped, test.template }))
				var account jwt.Account
				a := runServer(t, c.Scope(), func(_ *server.Options, claims *jwt.AccountClaims) {
					test.account(&claims.Account)
					account = claims.Account
				})
				l, err := a.login(t, c, token(t, `{}`))
				require.NoError(t, err)
				_, connected := a.dial(t, l)
				fault := c.CheckAccount(&account)
				if test.fault == "" {
					require.NoError(t, connected)
					require.NoError(t, fault)
					continue
				}
				require.Error(t, connected)
				require.IsType(t, &FieldError{}, fault)
				require.ErrorContains(t, fault, test.fault)
			}
		})
	}
	require.NoError(t, compile(t, jwtRole(template(`{"bearer_token": true}`))).CheckAccount(nil), "an account of which nothing is known")
}

// An account that is closed for now is no fault of the role.
func TestARoleIsWarnedOfInAnAccountWhereNATSServerRefusesItsUsers(t *testing.T) {
	const (
		closed = "nats-server lets none of the role's users connect"
		asked  = "nats-server asks the account's auth callout"
	)
	for name, test := range map[string]struct {
		types   string
		account func(*jwt.Account)
		warning string // empty for none
		refused bool
	}{
		"an open account":                      {``, func(*jwt.Account) {}, "", false},
		"an account without connections":       {``, func(a *jwt.Account) { a.Limits.Conn = 0 }, "", true}, // leafnodes may
		"the same for clients":                 {`"STANDARD"`, func(a *jwt.Account) { a.Limits.Conn = 0 }, closed, true},
		"the same for leafnodes":               {`"LEAFNODE"`, func(a *jwt.Account) { a.Limits.Conn = 0 }, "", true},
		"an account without leafnodes":         {``, func(a *jwt.Account) { a.Limits.LeafNodeConn = 0 }, "", false},
		"the same for leafnodes alone":         {`"LEAFNODE", "LEAFNODE_WS"`, func(a *jwt.Account) { a.Limits.LeafNodeConn = 0 }, closed, true},
		"an account without any":               {``, func(a *jwt.Account) { a.Limits.Conn, a.Limits.LeafNodeConn = 0, 0 }, closed, true},
		"an account without subscriptions":     {``, func(a *jwt.Account) { a.Limits.Subs = 0 }, closed, true},
		"an account that asks about its users": {``, func(a *jwt.Account) { a.Authorization.AuthUsers.Add(userKey) }, asked, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, jwtRole(template(`{"pub": {"allow": ["a"]}, "sub": {"allow": ["a"]}, "allowed_connection_types": [`+test.types+`]}`)))
			var account jwt.Account
			a := runServer(t, nil, func(o *server.Options, claims *jwt.AccountClaims) {
				o.AuthTimeout = 0.2 // seconds that nobody answers a callout
				test.account(&claims.Account)
				account = claims.Account
			})
			require.NoError(t, c.CheckAccount(&account))
			if test.warning == "" {
				require.Empty(t, c.Warnings(&account))
			} else {
				require.Len(t, c.Warnings(&account), 1)
				require.Contains(t, c.Warnings(&account)[0], test.warning)
			}
			l, err := a.login(t, c, token(t, `{}`))
			require.NoError(t, err)
			closed := make(chan struct{})
			nc, err := a.dial(t, l, nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
			if err == nil && test.refused {
				select {
				case <-closed:
					err = nc.LastError()
				case <-time.After(10 * time.Second):
				}
			}
			require.Equal(t, test.refused, err != nil, "%v", err)
		})
	}
}
