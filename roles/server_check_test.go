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
