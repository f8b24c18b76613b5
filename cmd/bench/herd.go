package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/nats-io/nats.go"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// herdSize is how many workloads come at once, as when a cluster restarts its pods.
const herdSize = 2000

// A herd comes when the plugin has just been started, which has the issuer's keys then,
// or, with a token of a key that the issuer has just made, has to fetch them.
const (
	keysKnown  = "keys known"
	keyRotated = "key just rotated"
)

// herdPause is a bit longer than the plugin waits from one fetch of an issuer's keys to
// the next.
const herdPause = 3500 * time.Millisecond

// The contenders of a herd. Those that give out no credentials of NATS's that this
// nats-server takes connect with credentials that are there already.
var (
	herdContenders = []string{ours, noop, least, externalJWT, twoSteps}
	herdKinds      = []string{keysKnown, keyRotated}
)

// herdToken is the type of the tokens: Vault's default, which costs it the most. It is
// also the mount whose accounts nats-server has.
const herdToken = "service"

// benchHerd measures how long workloads that come all at once take until they are on
// NATS, and how much memory the plugin takes for them.
func benchHerd(ctx context.Context, b *bench) error {
	programs, err := b.buildPeers(ctx)
	if err != nil {
		return err
	}
	f := &herdFigures{map[string][]float64{}, map[string][]float64{}, map[string][]float64{}, map[string][]float64{}, nil}
	size := scale(b, herdSize, 100)
	for range scale(b, rounds, 1) {
		if err := f.round(ctx, b, size, programs); err != nil {
			return err
		}
	}
	f.report(b, size)
	return nil
}

// herdFigures are, by herdCell, one figure a round: when half of the herd, 99 of 100 and
// all are on NATS, and how many have failed; and the most memory that the plugin had.
type herdFigures struct {
	half, most, all, failed map[string][]float64
	memory                  []float64
}

func herdCell(name, kind string) string { return name + ", " + kind }

// round has each contender's herd come, on a Vault that knows its members already: they
// were there before they were restarted.
func (f *herdFigures) round(ctx context.Context, b *bench, size int, programs peers) (err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.mountContenders(ctx, b.program, programs); err != nil {
		return err
	}
	tokens, err := w.tokens(jose.ES256, size)
	if err != nil {
		return err
	}
	ready, err := w.creds(tokens[0])
	if err != nil {
		return err
	}
	for _, name := range shuffled(herdContenders) {
		if err := w.introduce(ctx, name, tokens); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, kind := range herdKinds {
			if tokens, err = w.beforeHerd(ctx, name, kind, tokens); err != nil {
				return fmt.Errorf("%s, %s: %w", name, kind, err)
			}
			members, err := w.herd(name, tokens, ready)
			if err != nil {
				return err
			}
			if err := f.come(herdCell(name, kind), w.target(), members); err != nil {
				b.progress("one of the herd of %s, %s, failed: %v", name, kind, err)
			}
		}
	}
	used, err := w.usage()
	f.memory = append(f.memory, used.peak[stack.PluginName])
	return err
}

// creds are credentials of a workload's.
func (w *world) creds(token string) (creds []byte, err error) {
	login, err := loginForCreds(mountOf(ours, herdToken), token)
	if err != nil {
		return nil, err
	}
	err = once(w.target(), func(c *conn) error {
		creds, err = login(c)
		return err
	})
	return creds, err
}

// introduce logs every workload in once.
func (w *world) introduce(ctx context.Context, name string, tokens []string) error {
	tasks, err := w.loginTasks(name, herdToken, tokens)
	if err != nil {
		return err
	}
	return inParallel(ctx, len(tasks), func(_ context.Context, i int) error { return once(w.target(), tasks[i]) })
}

// beforeHerd starts the plugin anew, and has it hold the issuer's keys, or has the
// issuer make one more, with which the tokens that it returns are signed.
func (w *world) beforeHerd(ctx context.Context, name, kind string, tokens []string) ([]string, error) {
	if err := w.reload(ctx, mountOf(name, herdToken)); err != nil {
		return nil, err
	}
	tasks, err := w.loginTasks(name, herdToken, tokens[:1])
	if err != nil {
		return nil, err
	}
	if err := once(w.target(), tasks[0]); err != nil || kind == keysKnown {
		return tokens, err
	}
	select { // an issuer does not make a key right after the plugin has asked for its keys
	case <-time.After(herdPause):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if _, err := w.issuer.AddKey(jose.ES256); err != nil {
		return nil, err
	}
	return w.tokens(jose.ES256, len(tokens))
}

// reload starts the plugin of an auth method anew.
func (w *world) reload(ctx context.Context, mount string) error {
	return w.write(ctx, write{"sys/plugins/reload/backend", map[string]any{"mounts": []string{"auth/" + mount + "/"}}})
}

// herd is what each of a herd does.
func (w *world) herd(name string, tokens []string, ready []byte) ([]func(*conn) (*nats.Conn, error), error) {
	logins, err := w.loginTasks(name, herdToken, tokens)
	if err != nil {
		return nil, err
	}
	members := make([]func(*conn) (*nats.Conn, error), len(tokens))
	for i := range members {
		creds := ready
		login := logins[i]
		if name == ours {
			forCreds, err := loginForCreds(mountOf(name, herdToken), tokens[i])
			if err != nil {
				return nil, err
			}
			login = func(c *conn) (err error) {
				creds, err = forCreds(c)
				return err
			}
		}
		members[i] = func(c *conn) (*nats.Conn, error) {
			if err := login(c); err != nil {
				return nil, err
			}
			return w.connectAsOften(creds)
		}
	}
	return members, nil
}

// connectAsOften connects until the nats-server has time for it: it lets go of a client
// that has not said who it is after two seconds, and clients come again then.
func (w *world) connectAsOften(creds []byte) (conn *nats.Conn, err error) {
	for end := time.Now().Add(requestTimeout); time.Now().Before(end); {
		conn, err = nats.Connect(w.nats.URL, nats.UserCredentialBytes(creds), nats.NoReconnect(), nats.Timeout(requestTimeout))
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// come has all members come at once. Those that are on NATS stay until all are. The
// error is of the first that failed.
func (f *herdFigures) come(at string, vault target, members []func(*conn) (*nats.Conn, error)) (first error) {
	var wait sync.WaitGroup
	took := make([]float64, len(members))
	conns := make([]*nats.Conn, len(members))
	failures := make([]error, len(members))
	began := time.Now()
	for i, member := range members {
		wait.Go(func() {
			failures[i] = once(vault, func(c *conn) (err error) {
				conns[i], err = member(c)
				return err
			})
			took[i] = time.Since(began).Seconds()
		})
	}
	wait.Wait()
	failed := 0.0
	for i, conn := range conns {
		if conn != nil {
			conn.Close()
		}
		if failures[i] != nil {
			first = cmp.Or(first, failures[i])
			failed++
		}
	}
	f.half[at] = append(f.half[at], median(took))
	f.most[at] = append(f.most[at], percentile(took, 99))
	f.all[at] = append(f.all[at], slices.Max(took))
	f.failed[at] = append(f.failed[at], failed)
	return first
}

// chart draws how long nearly all of a herd take.
func (f *herdFigures) chart(size int) chart {
	drawn := chart{
		File: "herd.png", Title: fmt.Sprintf("%d workloads at once: 99 of 100 are on NATS", size), YLabel: "seconds", Groups: herdKinds,
	}
	for _, name := range herdContenders {
		bars := series{Name: name}
		for _, kind := range herdKinds {
			bars.Values = append(bars.Values, median(f.most[herdCell(name, kind)]))
		}
		drawn.Series = append(drawn.Series, bars)
	}
	return drawn
}

func (f *herdFigures) report(b *bench, size int) {
	t := table{
		Title:   fmt.Sprintf("A herd of %d workloads that log in and connect to NATS at once", size),
		Columns: []string{"keys", "way", "half are on NATS after", "99 of 100 after", "all after", "failed", "99 of 100, this plugin to it"},
		Notes: []string{"The plugin has just been started, and Vault knows the workloads. Each has a connection to Vault of its own, and a token of its own, of ES256, and gets a service token. " +
			"Who gets no credentials that this nats-server takes connects with credentials that were there before. Medians of the rounds; what failed is the sum."},
	}
	worst, failed := 0.0, 0.0
	for _, kind := range herdKinds {
		mine := f.most[herdCell(ours, kind)]
		for _, name := range herdContenders {
			at := herdCell(name, kind)
			var lost float64
			for _, n := range f.failed[at] {
				lost += n
			}
			ratio := median(ratios(mine, f.most[at]))
			t.Rows = append(t.Rows, []string{
				kind, name, milliseconds(b.report.measured("herd", "half: "+at, "s", f.half[at])),
				milliseconds(b.report.measured("herd", "99 of 100: "+at, "s", f.most[at])),
				milliseconds(b.report.measured("herd", "all: "+at, "s", f.all[at])), number(lost), number(ratio),
			})
			switch name {
			case ours:
				failed += lost
			case noop:
				worst = max(worst, ratio)
			}
		}
	}
	b.show(t)
	b.report.Charts = append(b.report.Charts, f.chart(size))
	memory := b.report.measured("herd", "most memory of the plugin", "B", f.memory)
	b.report.Goals = append(b.report.Goals,
		goal{What: fmt.Sprintf("workloads of a herd of %d that fail", size), Most: true, Want: 0, Got: failed},
		goal{What: "99 of 100 of a herd are on NATS, to " + noop, Most: true, Want: 1.1, Got: worst, Where: "the worse of keys known and a key just rotated"},
		goal{What: "most memory of the plugin in a herd, MB", Most: true, Want: 100, Got: memory / 1e6, Where: "VmHWM of its process, both of its mounts, after all herds of a round"},
	)
}
