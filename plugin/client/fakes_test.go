package client

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

const (
	workloadToken = "the-workloads-token"
	serverURL     = "nats://127.0.0.1:4222"
)

// fakeVault answers as the mount auth/nats does. It is the transport of an HTTP client,
// so that the tests can run in a synctest bubble, whose time passes at once.
type fakeVault struct {
	t       *testing.T
	account nkeys.KeyPair

	mu           sync.Mutex
	ttl          time.Duration // of a NATS user JWT
	tokenTTL     time.Duration
	entity       string        // ID of the Vault entity of every token
	noCreds      bool          // credentials_on_login=false
	noTTL        bool          // in answers with a NATS user JWT
	ahead        time.Duration // of the clock that a NATS user JWT is issued, as after a revocation
	answers      []any         // to be given instead, first come first served: an error, a status or a body
	forbidden    string        // a path
	delay        time.Duration // before an answer
	down         bool
	requests     []asked
	tokens       map[string]bool // Vault tokens that are valid
	changeClaims func(*jwt.UserClaims)
}

// asked is a request that the fake got.
type asked struct {
	method, path, token, namespace string
	body                           map[string]any
}

func newFakeVault(t *testing.T) *fakeVault {
	t.Helper()
	account, err := nkeys.CreateAccount()
	must(t, err)
	return &fakeVault{
		t: t, account: account, ttl: time.Hour, tokenTTL: 2 * time.Hour, entity: "entity-1",
		tokens: map[string]bool{"the-callers-token": true},
	}
}

// client returns a client of the fake that holds the caller's token.
func (v *fakeVault) client() *api.Client {
	v.t.Helper()
	config := api.DefaultConfig()
	must(v.t, config.Error)
	config.Address = "http://vault.invalid"
	config.HttpClient = &http.Client{Transport: v}
	config.MaxRetries = 0
	client, err := api.NewClient(config)
	must(v.t, err)
	client.SetToken("the-callers-token")
	return client
}

func (v *fakeVault) set(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

// requested returns the requests of a path so far.
func (v *fakeVault) requested(path string) []asked {
	v.mu.Lock()
	defer v.mu.Unlock()
	var found []asked
	for _, r := range v.requests {
		if r.path == path {
			found = append(found, r)
		}
	}
	return found
}

func (v *fakeVault) RoundTrip(r *http.Request) (*http.Response, error) {
	got := asked{
		method: r.Method, path: strings.TrimPrefix(r.URL.Path, "/v1/"),
		token: r.Header.Get("X-Vault-Token"), namespace: r.Header.Get("X-Vault-Namespace"), body: map[string]any{},
	}
	if r.Body != nil {
		body := json.NewDecoder(r.Body)
		body.UseNumber()
		if err := body.Decode(&got.body); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	for name, values := range r.URL.Query() {
		got.body[name] = values[0]
	}
	v.mu.Lock()
	v.requests = append(v.requests, got)
	delay, answer := v.delay, any(nil)
	if len(v.answers) > 0 {
		answer, v.answers = v.answers[0], v.answers[1:]
	}
	if v.down {
		answer = errors.New("connection refused")
	}
	v.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if answer == nil {
		answer = v.answer(got)
	}
	switch answer := answer.(type) {
	case error:
		return nil, answer
	case int:
		body := fmt.Sprintf(`{"errors":["refused with %d"]}`, answer)
		return &http.Response{StatusCode: answer, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	default:
		body, err := json.Marshal(answer)
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, err
	}
}

func (v *fakeVault) answer(r asked) any {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case r.path == "auth/nats/login":
		token := fmt.Sprintf("token-%d", len(v.requests))
		v.tokens[token] = true
		answer := map[string]any{"auth": map[string]any{
			"client_token": token, "lease_duration": int(v.tokenTTL.Seconds()), "metadata": map[string]string{"role": "dev"},
		}}
		if !v.noCreds {
			answer["data"] = v.user(r.body)
		}
		return answer
	case !v.tokens[r.token], r.path == v.forbidden:
		return http.StatusForbidden
	case r.path == "auth/token/revoke-self":
		delete(v.tokens, r.token)
		return map[string]any{}
	case r.path == "auth/token/lookup-self":
		return map[string]any{"data": map[string]any{"entity_id": v.entity}}
	case r.path == "auth/nats/creds/dev":
		return map[string]any{"lease_id": "auth/nats/creds/dev/1", "lease_duration": int(v.ttl.Seconds()), "data": v.user(r.body)}
	}
	return http.StatusNotFound
}

// user issues a NATS user JWT, whose times are cut off to seconds as the plugin's are.
func (v *fakeVault) user(body map[string]any) map[string]any {
	public, _ := body["user_public_key"].(string)
	claims := jwt.NewUserClaims(public)
	now := time.Now()
	claims.Expires = now.Add(v.ttl).Unix()
	if v.changeClaims != nil {
		v.changeClaims(claims)
	}
	text, err := claims.Encode(v.account)
	if err != nil {
		v.t.Errorf("encoding a user JWT: %v", err)
	}
	if v.ahead > 0 {
		text = v.issuedAt(text, now.Add(v.ahead))
	}
	answer := map[string]any{"jwt": text, "url": serverURL, "ttl": int64(time.Unix(claims.Expires, 0).Sub(now) / time.Second)}
	if v.noTTL {
		delete(answer, "ttl")
	}
	return answer
}

// issuedAt is the JWT with another time of issue: jwt/v2 writes its own.
func (v *fakeVault) issuedAt(text string, at time.Time) string {
	parts := strings.Split(text, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(v.t, err)
	var claims map[string]any
	must(v.t, json.Unmarshal(payload, &claims))
	claims["iat"] = at.Unix()
	payload, err = json.Marshal(claims)
	must(v.t, err)
	text = parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := v.account.Sign([]byte(text))
	must(v.t, err)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// proven checks the proof of possession that came with a request: a signature of what
// is claimed at this time.
func proven(t *testing.T, body map[string]any, c claim) {
	t.Helper()
	signature, err := base64.StdEncoding.DecodeString(body["user_key_signature"].(string))
	must(t, err)
	c.user = body["user_public_key"].(string)
	c.time, err = strconv.ParseInt(fmt.Sprint(body["user_key_time"]), 10, 64)
	must(t, err)
	if off := time.Since(time.Unix(c.time, 0)); off.Abs() > time.Minute {
		t.Errorf("the proof is of %s ago", off)
	}
	key, err := nkeys.FromPublicKey(c.user)
	must(t, err)
	must(t, key.Verify([]byte(c.text()), signature))
}

// fakeNATS speaks as much of NATS's protocol as a client needs to connect, flush and subscribe.
// Like nats-server it ends a connection whose user JWT has ended, and one that says
// nothing for two seconds.
type fakeNATS struct {
	t *testing.T

	mu        sync.Mutex
	shown     []string // the user JWT of each connection
	expired   int      // connections that the server has ended
	published []string
	open      map[net.Conn]bool
}

func newFakeNATS(t *testing.T) *fakeNATS {
	return &fakeNATS{t: t, open: map[net.Conn]bool{}}
}

// InProcessConn is what nats.InProcessServer takes.
func (n *fakeNATS) InProcessConn() (net.Conn, error) {
	client, server := net.Pipe()
	go n.serve(server)
	return client, nil
}

func (n *fakeNATS) serve(conn net.Conn) {
	defer conn.Close()
	nonce := rand.Text()
	if _, err := fmt.Fprintf(conn, `INFO {"server_id":"N","version":"2.12.0","proto":1,"headers":true,"max_payload":1048576,"auth_required":true,"nonce":%q}`+"\r\n", nonce); err != nil {
		return
	}
	inTime := time.AfterFunc(2*time.Second, func() { conn.Close() })
	defer inTime.Stop()
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "CONNECT":
			inTime.Stop()
			if !n.accept(conn, nonce, rest) {
				_, _ = io.WriteString(conn, "-ERR 'Authorization Violation'\r\n")
				return
			}
		case "PING":
			_, err = io.WriteString(conn, "PONG\r\n")
		case "SUB": // its first message comes at once
			fields := strings.Fields(rest)
			_, err = fmt.Fprintf(conn, "MSG %s %s 1\r\nx\r\n", fields[0], fields[1])
		case "PUB":
			_, err = lines.ReadString('\n')
			n.mu.Lock()
			n.published = append(n.published, strings.Fields(rest)[0])
			n.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// accept checks what a client shows, and ends the connection when that ends.
func (n *fakeNATS) accept(conn net.Conn, nonce, text string) bool {
	var connect struct{ JWT, Sig string }
	if err := json.Unmarshal([]byte(text), &connect); err != nil {
		return false
	}
	claims, err := jwt.DecodeUserClaims(connect.JWT)
	if err != nil || claims.Expires <= time.Now().Unix() {
		return false
	}
	key, err := nkeys.FromPublicKey(claims.Subject)
	if err != nil {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(connect.Sig)
	if err != nil || key.Verify([]byte(nonce), signature) != nil {
		return false
	}
	n.mu.Lock()
	n.shown = append(n.shown, connect.JWT)
	n.open[conn] = true
	n.mu.Unlock()
	time.AfterFunc(time.Until(time.Unix(claims.Expires, 0)), func() {
		if _, err := io.WriteString(conn, "-ERR 'User Authentication Expired'\r\n"); err == nil {
			n.mu.Lock()
			n.expired++
			n.mu.Unlock()
		}
		conn.Close()
	})
	return true
}

// drop cuts all connections.
func (n *fakeNATS) drop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for conn := range n.open {
		conn.Close()
	}
	clear(n.open)
}

// seen returns the user JWTs that were shown, and how many connections outlived theirs.
func (n *fakeNATS) seen() (shown []string, expired int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append(shown, n.shown...), n.expired
}

func (n *fakeNATS) connect(c *Client, opts ...nats.Option) *nats.Conn {
	n.t.Helper()
	opts = append([]nats.Option{nats.InProcessServer(n), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}, opts...)
	conn, err := nats.Connect(c.URL(), append(opts, c.Option())...)
	must(n.t, err)
	n.t.Cleanup(conn.Close)
	return conn
}

// inBubble runs a test that connects in a bubble, in which time passes at once. nats.go
// keeps timers for reuse, and those of another bubble must not be used in this one: two
// garbage collections empty a sync.Pool.
func inBubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	synctest.Test(t, test)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func unique(values []string) int {
	set := map[string]bool{}
	for _, value := range values {
		set[value] = true
	}
	return len(set)
}
