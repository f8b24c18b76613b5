package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

const (
	sustainedClients = 8
	// sustainedTTL is short: tokens, leases and revocations come and go many times in
	// the load, so that what is not let go shows.
	sustainedTTL = 15 * time.Second
	// sustainedStart is how long the load lasts before it counts: the mount keeps a
	// revocation a minute longer than the token could have lived, and drops those that
	// are over once a minute.
	sustainedStart = sustainedTTL + time.Minute
)

// benchSustained puts a mixed load on a mount and watches the plugin's memory and
// goroutines.
func benchSustained(ctx context.Context, b *bench) (err error) {
	w, observed, err := b.observedWorld(ctx)
	if w != nil {
		defer func() { err = errors.Join(err, w.close()) }()
	}
	if err != nil {
		return err
	}
	length := scale(b, 2*time.Minute, 8*time.Second)
	begin := time.Now().Add(scale(b, sustainedStart, 0))
	users := make([]*user, sustainedClients)
	var wait sync.WaitGroup
	running, cancel := context.WithDeadline(ctx, begin.Add(length))
	defer cancel()
	for i := range users {
		if users[i], err = w.newUser(i, begin); err != nil {
			return err
		}
		wait.Add(1)
		go func() {
			defer wait.Done()
			users[i].work(running)
		}()
	}
	samples, err := watch(running, begin, w, observed)
	wait.Wait()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	return reportSustained(b, length, users, samples)
}

// observedWorld is a Vault whose plugin can be watched, at the URL returned.
func (b *bench) observedWorld(ctx context.Context) (*world, string, error) {
	port, err := stack.FreePort()
	if err != nil {
		return nil, "", err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	built, err := b.buildIn(ctx, ".", "./cmd/bench/observed")
	if err != nil {
		return nil, "", err
	}
	dir := filepath.Join(b.dir, "observed-as")
	program := filepath.Join(dir, stack.PluginName)
	if err := errors.Join(os.Mkdir(dir, 0o750), os.Rename(built, program)); err != nil {
		return nil, "", err
	}
	w, err := newWorld(ctx)
	if err != nil {
		return w, "", err
	}
	err = errors.Join(
		w.install(ctx, program, api.PluginTypeCredential, "BENCH_OBSERVED="+address),
		w.enable(ctx, "nats", stack.PluginName, "service"),
		w.configure(ctx, "auth/nats"),
		w.client.Sys().PutPolicyWithContext(ctx, "bench", `path "auth/nats/creds/*" { capabilities = ["update"] }`),
	)
	if err == nil {
		err = w.startNATS(ctx, "auth/nats")
	}
	for i := range sustainedClients {
		name := fmt.Sprintf("role-%d", i)
		role := natsRole()
		role["account"], role["token_ttl"] = fmt.Sprintf("account-%d", i), sustainedTTL.String()
		err = errors.Join(err, w.write(ctx,
			write{fmt.Sprintf("auth/nats/jwt/account-%d", i), map[string]any{"type": "account"}},
			write{"auth/nats/role/" + name, role},
		))
	}
	return w, "http://" + address, err
}

// A user is a client that does all that clients do, in some mix.
type user struct {
	vault     target
	rootToken string
	role      string
	jwt       string
	tokens    []liveToken // the oldest first
	edits     int
	begin     time.Time // when it begins to count
	latencies map[string][]float64
	failures  []error
}

type liveToken struct {
	token string
	since time.Time
}

func (w *world) newUser(i int, begin time.Time) (*user, error) {
	minted, err := w.tokens(jose.EdDSA, i+1)
	if err != nil {
		return nil, err
	}
	return &user{
		vault: w.target(), rootToken: w.vault.Token, role: fmt.Sprintf("role-%d", i), jwt: minted[i],
		begin: begin, latencies: map[string][]float64{},
	}, nil
}

// The mix, in percent.
var mix = []struct {
	name  string
	share int
	do    func(*user, *conn) error
}{
	{"login", 55, (*user).logIn},
	{"token renewal", 15, (*user).renew},
	{"creds", 15, (*user).creds},
	{"token revocation", 10, (*user).revoke},
	{"role edit", 5, (*user).edit},
}

// work does what the mix says until the context ends. A failure does not end it.
func (u *user) work(ctx context.Context) {
	c, err := dial(u.vault)
	if err != nil {
		u.failures = append(u.failures, err)
		return
	}
	for ctx.Err() == nil {
		u.dropOld()
		pick := rand.IntN(100)
		for _, part := range mix {
			if pick -= part.share; pick >= 0 {
				continue
			}
			began := time.Now()
			if err := part.do(u, c); err != nil {
				u.failures = append(u.failures, fmt.Errorf("%s: %w", part.name, err))
			}
			if began.After(u.begin) {
				u.latencies[part.name] = append(u.latencies[part.name], time.Since(began).Seconds())
			}
			break
		}
	}
	if err := c.close(); err != nil {
		u.failures = append(u.failures, err)
	}
}

// dropOld forgets tokens that are about to expire.
func (u *user) dropOld() {
	for len(u.tokens) > 0 && time.Since(u.tokens[0].since) > sustainedTTL/2 {
		u.tokens = u.tokens[1:]
	}
}

func (u *user) logIn(c *conn) error {
	body, err := u.send(c, "auth/nats/login", "", map[string]any{"role": u.role, "jwt": u.jwt})
	if err != nil {
		return err
	}
	token, err := clientToken(body)
	u.tokens = append(u.tokens, liveToken{token, time.Now()})
	return err
}

// oldest is the token that is revoked next; there is none in the beginning.
func (u *user) oldest(c *conn) (string, error) {
	if len(u.tokens) == 0 {
		if err := u.logIn(c); err != nil {
			return "", err
		}
	}
	return u.tokens[0].token, nil
}

func (u *user) renew(c *conn) error {
	token, err := u.oldest(c)
	if err == nil {
		_, err = u.send(c, "auth/token/renew-self", token, nil)
	}
	return err
}

func (u *user) creds(c *conn) error {
	token, err := u.oldest(c)
	if err == nil {
		_, err = u.send(c, "auth/nats/creds/"+u.role, token, map[string]any{"jwt": u.jwt})
	}
	return err
}

// revoke revokes the oldest token, and with it the leases of its credentials.
func (u *user) revoke(c *conn) error {
	token, err := u.oldest(c)
	if err != nil {
		return err
	}
	u.tokens = u.tokens[1:]
	_, err = u.send(c, "auth/token/revoke-self", token, nil)
	return err
}

// edit changes the role's template to and fro.
func (u *user) edit(c *conn) error {
	u.edits++
	template := userTemplate
	if u.edits%2 == 1 {
		template = strings.ReplaceAll(userTemplate, "orders.", "returns.")
	}
	_, err := u.send(c, "auth/nats/role/"+u.role, u.rootToken, map[string]any{"user_template": template})
	return err
}

func (u *user) send(c *conn, path, token string, data map[string]any) ([]byte, error) {
	text, err := request("PUT", path, token, data)
	if err != nil {
		return nil, err
	}
	return c.do(text)
}

// A sample is what the plugin used at a moment of the load.
type sample struct {
	Goroutines float64 `json:"goroutines"`
	Heap       float64 `json:"heap"` // bytes that the last garbage collection left
	resident   float64 // bytes
}

// watch takes samples from the beginning until the context ends.
func watch(ctx context.Context, begin time.Time, w *world, url string) ([]sample, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var samples []sample
	for {
		select {
		case <-ctx.Done():
			return samples, nil
		case now := <-tick.C:
			if now.Before(begin) {
				continue
			}
		}
		s, err := takeSample(w, url)
		if err != nil {
			return nil, err
		}
		samples = append(samples, s)
	}
}

func takeSample(w *world, url string) (s sample, err error) {
	response, err := http.Get(url)
	if err != nil {
		return s, err
	}
	err = json.NewDecoder(response.Body).Decode(&s)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return s, err
	}
	used, err := usageOf(w.vault.Dir)
	s.resident = used.memory[stack.PluginName]
	return s, err
}

func reportSustained(b *bench, length time.Duration, users []*user, samples []sample) error {
	load := table{
		Title:   fmt.Sprintf("Sustained load: %d clients for %s", sustainedClients, length),
		Columns: []string{"operation", "done", "a second", "median", "99th percentile", "longest"},
		Notes:   []string{fmt.Sprintf("Tokens and leases live %s, so that in the load they come and go many times. Each revocation is delivered to nats-server. The load began %s before it counted.", sustainedTTL, sustainedStart)},
	}
	var failures []error
	for _, part := range mix {
		var all []float64
		for _, u := range users {
			all = append(all, u.latencies[part.name]...)
		}
		load.Rows = append(load.Rows, []string{
			part.name, fmt.Sprint(len(all)), number(float64(len(all)) / length.Seconds()),
			milliseconds(median(all)), milliseconds(b.report.measured("sustained", "99th percentile: "+part.name, "s", []float64{percentile(all, 99)})),
			milliseconds(percentile(all, 100)),
		})
	}
	for _, u := range users {
		failures = append(failures, u.failures...)
	}
	if len(failures) > 0 {
		load.Notes = append(load.Notes, "The first failure: "+failures[0].Error())
	}
	b.show(load)
	if len(samples) < 4 {
		return fmt.Errorf("only %d samples were taken", len(samples))
	}
	growth := showSamples(b, samples)
	b.report.Goals = append(b.report.Goals,
		goal{What: "errors under sustained load", Most: true, Want: 0, Got: float64(len(failures)), Where: fmt.Sprintf("%d clients, %s", sustainedClients, length)},
		goal{What: "plugin's live heap, second half to first", Most: true, Want: 1.1, Got: growth.Heap},
		goal{What: "plugin's goroutines, second half to first", Most: true, Want: 1.1, Got: growth.Goroutines},
	)
	return nil
}

// showSamples shows the medians of each quarter of the load, and returns those of the
// second half to those of the first. In two minutes each half holds one of the times at
// which the mount drops what is over, once a minute, and all that comes before it.
func showSamples(b *bench, samples []sample) sample {
	t := table{
		Title:   "Sustained load: what the plugin uses, medians of each quarter",
		Columns: []string{"quarter", "goroutines", "live heap", "resident memory"},
	}
	for i := range 4 {
		q := medians(part(samples, i, 4))
		t.Rows = append(t.Rows, []string{
			fmt.Sprint(i + 1), number(q.Goroutines), number(q.Heap/(1<<20)) + " MiB", number(q.resident/(1<<20)) + " MiB",
		})
	}
	b.show(t)
	first, second := medians(part(samples, 0, 2)), medians(part(samples, 1, 2))
	return sample{Goroutines: second.Goroutines / first.Goroutines, Heap: second.Heap / first.Heap}
}

// part is the ith of so many equal parts.
func part(samples []sample, i, parts int) []sample {
	return samples[i*len(samples)/parts : (i+1)*len(samples)/parts]
}

func medians(samples []sample) sample {
	var goroutines, heap, resident []float64
	for _, s := range samples {
		goroutines, heap, resident = append(goroutines, s.Goroutines), append(heap, s.Heap), append(resident, s.resident)
	}
	return sample{Goroutines: median(goroutines), Heap: median(heap), resident: median(resident)}
}
