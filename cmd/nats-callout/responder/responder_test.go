package responder

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/callout"
)

// A fakeVault answers as the mount does. Tests change what it does.
type fakeVault struct {
	t      *testing.T
	server *httptest.Server
	logins atomic.Int64
	most   atomic.Int64 // requests in one batch

	mu        sync.Mutex
	token     string // that it takes
	life      time.Duration
	authorize func(asked map[string]string) (status int, answer map[string]any)
}

func newFakeVault(t *testing.T) *fakeVault {
	t.Helper()
	v := &fakeVault{t: t, token: "first", life: time.Hour}
	v.answers(func(map[string]string) (int, map[string]any) {
		return 200, map[string]any{"response": base64.StdEncoding.EncodeToString([]byte("answer")), "allowed": true}
	})
	v.server = httptest.NewServer(v)
	t.Cleanup(v.server.Close)
	return v
}

func (v *fakeVault) answers(authorize func(map[string]string) (int, map[string]any)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.authorize = authorize
}

func (v *fakeVault) takes(token string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.token = token
}

func (v *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	token, authorize, life := v.token, v.authorize, v.life
	v.mu.Unlock()
	answer := func(status int, body map[string]any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	if r.URL.Path == "/v1/auth/nats/login" {
		v.logins.Add(1)
		answer(200, map[string]any{"auth": map[string]any{"client_token": token, "lease_duration": 3600}})
		return
	}
	if r.Header.Get("X-Vault-Token") != token {
		answer(403, map[string]any{"errors": []string{"permission denied"}})
		return
	}
	switch r.URL.Path {
	case "/v1/auth/nats/jwt/callout-edge":
		answer(200, map[string]any{"data": map[string]any{"jwt": "eyJ", "expiration": time.Now().Add(life).Format(time.RFC3339Nano)}})
	case "/v1/auth/nats/jwt/callout-edge/sign":
		answer(200, map[string]any{"data": map[string]any{"signed_nonce": "YQ=="}})
	case "/v1/auth/nats/callout/edge/authorize":
		var asked struct {
			Batch []map[string]string `json:"batch_input"`
		}
		_ = json.NewDecoder(r.Body).Decode(&asked)
		results := make([]map[string]any, len(asked.Batch))
		whole := make([]int, len(asked.Batch)) // statuses that Vault itself answers with
		var group sync.WaitGroup
		for i, one := range asked.Batch {
			group.Go(func() {
				status, data := authorize(one)
				switch {
				case status == 200:
					results[i] = data
				case len(asked.Batch) == 1 && status != 400:
					whole[i] = status
				default:
					results[i] = map[string]any{"status": status, "error": "no"}
				}
			})
		}
		group.Wait()
		if len(whole) == 1 && whole[0] != 0 {
			answer(whole[0], map[string]any{"errors": []string{"no"}})
			return
		}
		v.most.Store(max(v.most.Load(), int64(len(results))))
		answer(200, map[string]any{"data": map[string]any{"batch_results": results}})
	default:
		answer(404, map[string]any{"errors": []string{}})
	}
}

// world is a responder between a nats-server and the fake Vault.
type world struct {
	*Responder
	t        *testing.T
	vault    *fakeVault
	asking   *nats.Conn // where a nats-server would ask
	registry *prometheus.Registry
	stop     func()
}

func newWorld(t *testing.T, vault *fakeVault, login Login, changes ...func(*Config)) *world {
	t.Helper()
	running, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true})
	require.NoError(t, err)
	running.Start()
	t.Cleanup(running.Shutdown)
	require.True(t, running.ReadyForConnections(10*time.Second))
	config := api.DefaultConfig()
	config.Address = vault.server.URL
	client, err := api.NewClient(config)
	require.NoError(t, err)
	client.SetToken("first")
	made := Config{
		Vault: NewVault(client, Place{Mount: "auth/nats", Callout: "edge", User: "callout-edge"}, login),
		NATS:  running.ClientURL(), Concurrency: 4, Timeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&made)
	}
	w := &world{t: t, vault: vault, registry: prometheus.NewRegistry()}
	w.Responder, err = New(made, w.registry)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	w.stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(w.stop)
	w.asking, err = nats.Connect(running.ClientURL())
	require.NoError(t, err)
	t.Cleanup(w.asking.Close)
	require.Eventually(t, func() bool { return w.Healthy() == nil }, 10*time.Second, time.Millisecond)
	return w
}

func (w *world) ask(data string) (string, error) {
	w.t.Helper()
	message := &nats.Msg{Subject: callout.Subject, Data: []byte(data), Header: nats.Header{callout.XKeyHeader: []string{"XABC"}}}
	answer, err := w.asking.RequestMsg(message, 10*time.Second)
	if err != nil {
		return "", err
	}
	return string(answer.Data), nil
}

func (w *world) count(outcome string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	require.NoError(w.t, err)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if family.GetName() == "nats_callout_requests_total" && label.GetValue() == outcome {
					return metric.GetCounter().GetValue()
				}
			}
		}
	}
	w.t.Fatalf("no count of %s", outcome)
	return 0
}

func TestARequestAndItsAnswerAreCarriedAsTheyStand(t *testing.T) {
	vault := newFakeVault(t)
	w := newWorld(t, vault, Login{})
	vault.answers(func(asked map[string]string) (int, map[string]any) {
		request, err := base64.StdEncoding.DecodeString(asked["request"])
		if err != nil {
			return 400, nil
		}
		answer := fmt.Sprintf("%s by %s\x00", request, asked["server_xkey"])
		return 200, map[string]any{"response": base64.StdEncoding.EncodeToString([]byte(answer)), "allowed": string(request) != "no"}
	})
	answer, err := w.ask("xkv1\x00\xff")
	require.NoError(t, err)
	require.Equal(t, "xkv1\x00\xff by XABC\x00", answer)
	answer, err = w.ask("no")
	require.NoError(t, err)
	require.Equal(t, "no by XABC\x00", answer)
	require.Eventually(t, func() bool { return w.count(allowed) == 1 && w.count(refused) == 1 }, 10*time.Second, time.Millisecond)
}

func TestARequestIsBroughtAgainUntilVaultAnswers(t *testing.T) {
	vault := newFakeVault(t)
	w := newWorld(t, vault, Login{})
	var tries atomic.Int64
	vault.answers(func(map[string]string) (int, map[string]any) {
		if tries.Add(1) < 3 {
			return 503, nil
		}
		return 200, map[string]any{"response": "YQ=="}
	})
	answer, err := w.ask("x")
	require.NoError(t, err)
	require.Equal(t, "a", answer)
	require.EqualValues(t, 3, tries.Load())
}

// The server need not wait for what will not come.
func TestWhatVaultDoesNotAnswerIsTurnedAwayAtOnceOrInTime(t *testing.T) {
	vault := newFakeVault(t)
	w := newWorld(t, vault, Login{}, func(c *Config) { c.Timeout = 300 * time.Millisecond })
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	for name, answers := range map[string]func(map[string]string) (int, map[string]any){
		"it is no request for the callout": func(map[string]string) (int, map[string]any) { return 400, nil },
		"it is not allowed":                func(map[string]string) (int, map[string]any) { return 403, nil },
		"it is sealed":                     func(map[string]string) (int, map[string]any) { return 503, nil },
		"it hangs": func(map[string]string) (int, map[string]any) {
			<-hang
			return 200, nil
		},
		"it answers with nothing": func(map[string]string) (int, map[string]any) { return 200, map[string]any{} },
	} {
		t.Run(name, func(t *testing.T) {
			before := w.count(failed)
			vault.answers(answers)
			began := time.Now()
			answer, err := w.ask("x")
			require.NoError(t, err)
			require.Empty(t, answer)
			require.Less(t, time.Since(began), 900*time.Millisecond)
			require.Eventually(t, func() bool { return w.count(failed) == before+1 }, 10*time.Second, time.Millisecond)
		})
	}
}

func TestMoreThanFitsIsTurnedAwayAtOnce(t *testing.T) {
	vault := newFakeVault(t)
	w := newWorld(t, vault, Login{})
	open := make(chan struct{})
	vault.answers(func(map[string]string) (int, map[string]any) {
		<-open
		return 200, map[string]any{"response": "YQ=="}
	})
	const all = 20
	answers := make(chan string, all)
	for range all {
		go func() {
			answer, err := w.ask("x")
			if err != nil {
				answer = err.Error()
			}
			answers <- answer
		}()
	}
	for range all - 4 {
		require.Empty(t, <-answers)
	}
	close(open)
	for range 4 {
		require.Equal(t, "a", <-answers)
	}
	require.Eventually(t, func() bool { return w.count(overloaded) == all-4 }, 10*time.Second, time.Millisecond)
}

func TestWhatHasComeIsAnsweredBeforeTheEnd(t *testing.T) {
	vault := newFakeVault(t)
	w := newWorld(t, vault, Login{})
	came, open := make(chan struct{}, 10), make(chan struct{})
	vault.answers(func(map[string]string) (int, map[string]any) {
		came <- struct{}{}
		<-open
		return 200, map[string]any{"response": "YQ=="}
	})
	answers := make(chan string, 4)
	for range 4 {
		go func() {
			answer, err := w.ask("x")
			if err != nil {
				answer = err.Error()
			}
			answers <- answer
		}()
	}
	for range 4 {
		<-came
	}
	ended := make(chan struct{})
	go func() {
		w.stop()
		close(ended)
	}()
	close(open)
	for range 4 {
		require.Equal(t, "a", <-answers)
	}
	<-ended
	_, err := w.ask("x")
	require.ErrorIs(t, err, nats.ErrNoResponders)
}

// One request to Vault is much cheaper than many.
func TestWhatComesWhileVaultIsAskedGoesThereTogether(t *testing.T) {
	vault := newFakeVault(t)
	w := newWorld(t, vault, Login{}, func(c *Config) { c.Concurrency = 200 })
	came, open := make(chan struct{}, 200), make(chan struct{})
	vault.answers(func(asked map[string]string) (int, map[string]any) {
		came <- struct{}{}
		<-open
		return 200, map[string]any{"response": asked["request"]}
	})
	answers := make(chan error, 200)
	for i := range 200 {
		go func() {
			answer, err := w.ask(fmt.Sprint(i))
			if err == nil && answer != fmt.Sprint(i) {
				err = fmt.Errorf("%d is answered with %q", i, answer)
			}
			answers <- err
		}()
	}
	for range 200 {
		<-came
	}
	close(open)
	for range 200 {
		require.NoError(t, <-answers)
	}
	require.Greater(t, vault.most.Load(), int64(1))
	require.LessOrEqual(t, vault.most.Load(), int64(mostTogether))
}

// What the mount cannot answer together with others it is asked about alone, and what is
// no request spoils nothing for those that go with it.
func TestEachOfThoseThatGoTogetherHasItsOwnEnd(t *testing.T) {
	vault := newFakeVault(t)
	w := newWorld(t, vault, Login{}, func(c *Config) { c.Concurrency = 90 })
	var tries sync.Map
	vault.answers(func(asked map[string]string) (int, map[string]any) {
		text, _ := base64.StdEncoding.DecodeString(asked["request"])
		_, again := tries.LoadOrStore(string(text), true)
		switch {
		case strings.HasPrefix(string(text), "slow") && !again:
			return 503, nil
		case strings.HasPrefix(string(text), "none"):
			return 400, nil
		}
		return 200, map[string]any{"response": asked["request"]}
	})
	var group sync.WaitGroup
	for i := range 90 {
		group.Go(func() {
			text := fmt.Sprint([]string{"good", "slow", "none"}[i%3], i)
			answer, err := w.ask(text)
			want := text
			if i%3 == 2 {
				want = ""
			}
			if err != nil || answer != want {
				t.Errorf("%s is answered with %q, %v", text, answer, err)
			}
		})
	}
	group.Wait()
}

// A session ends before the JWT of its user does, and misses nothing.
func TestAnotherSessionTakesOverBeforeTheJWTEnds(t *testing.T) {
	vault := newFakeVault(t)
	vault.life = 200 * time.Millisecond
	w := newWorld(t, vault, Login{})
	seen := map[*session]bool{}
	for len(seen) < 4 {
		seen[w.session()] = true
		answer, err := w.ask("x")
		require.NoError(t, err)
		require.Equal(t, "answer", answer)
	}
}

func TestAnotherTokenIsReadWhereVaultTakesTheFormerNoMore(t *testing.T) {
	vault := newFakeVault(t)
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("first\n"), 0o600))
	w := newWorld(t, vault, Login{TokenFile: path})
	vault.takes("second")
	require.NoError(t, os.WriteFile(path, []byte("second"), 0o600))
	answer, err := w.ask("x")
	require.NoError(t, err)
	require.Equal(t, "answer", answer)
}

func TestTheResponderLogsInAsAWorkload(t *testing.T) {
	vault := newFakeVault(t)
	path := filepath.Join(t.TempDir(), "jwt")
	require.NoError(t, os.WriteFile(path, []byte("eyJ\n"), 0o600))
	w := newWorld(t, vault, Login{JWTFile: path, Role: "responder"})
	require.EqualValues(t, 1, vault.logins.Load())
	vault.takes("second")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			answer, err := w.ask("x")
			require.NoError(t, err)
			require.Equal(t, "answer", answer)
		})
	}
	group.Wait()
	require.EqualValues(t, 2, vault.logins.Load(), "all that found the token gone log in once")
}

func TestHealthAndMetricsAreServed(t *testing.T) {
	vault := newFakeVault(t)
	w := newWorld(t, vault, Login{})
	_, err := w.ask("x")
	require.NoError(t, err)
	get := func(path string) *httptest.ResponseRecorder {
		recorder := httptest.NewRecorder()
		w.Handler(w.registry).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
		return recorder
	}
	require.Equal(t, 200, get("/healthz").Code)
	require.Eventually(t, func() bool { return w.count(allowed) == 1 }, 10*time.Second, time.Millisecond)
	metrics := get("/metrics").Body.String()
	for _, line := range []string{`nats_callout_requests_total{outcome="allowed"} 1`, "nats_callout_healthy 1", `nats_callout_requests_total{outcome="late"} 0`} {
		require.Contains(t, metrics, line)
	}
	w.stop()
	unhealthy := get("/healthz")
	require.Equal(t, 503, unhealthy.Code)
	require.Equal(t, "not connected to NATS", strings.TrimSpace(unhealthy.Body.String()))
}
