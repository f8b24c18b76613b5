package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// What make soak gives.
var (
	soak = flag.Duration("soak", 0, "how long faults come by chance; without, each comes once")
	seed = flag.Uint64("seed", 0, "of the order in which they come; without, a new one")
)

// plan is what happens: every fault once but the rare ones, or what comes by chance for as long as a soak
// is to take. In the second half of a soak the leader's plugin stays the same process, of
// which the figures are taken.
func (r *trial) plan() iter.Seq[fault] {
	if *soak == 0 {
		return slices.Values(slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return f.rare }))
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	r.t.Logf("%s of faults by chance, -seed %d", *soak, *seed)
	chance := rand.New(rand.NewPCG(*seed, 0))
	return func(yield func(fault) bool) {
		choose := func(from []fault, until time.Time) (more bool) {
			for more = true; more && time.Now().Before(until); {
				more = yield(from[chance.IntN(len(from))])
			}
			return more
		}
		began := time.Now()
		if !choose(faults, began.Add(*soak/2)) {
			return
		}
		gentle := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return f.restarts })
		end := r.sample()
		choose(gentle, began.Add(*soak))
		r.flat(end())
	}
}

// figures are those of a process.
type figures struct {
	at                          time.Duration
	memory                      int64 // resident, in bytes
	threads, files, connections int
	goroutines                  int
}

// sampleEvery is how often the figures of the plugin are taken.
const sampleEvery = 2 * time.Second

// sample takes the figures of the leader's plugin until end is called.
func (r *trial) sample() (end func() []figures) {
	r.t.Helper()
	leader := r.waitForLeader()
	plugins, err := r.vaults[leader].PluginProcesses()
	require.NoError(r.t, err)
	require.Len(r.t, plugins, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var taken []figures
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(sampleEvery)
		defer ticker.Stop()
		for began := time.Now(); ; {
			f, err := figuresOf(plugins[0])
			if err == nil {
				f.goroutines, err = r.goroutines(ctx, leader)
			}
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				r.t.Errorf("the plugin's figures: %s", err)
				return
			}
			f.at = time.Since(began)
			taken = append(taken, f)
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
	return func() []figures {
		cancel()
		<-ended
		return taken
	}
}

// goroutines reads how many the plugin of a node has.
func (r *trial) goroutines(ctx context.Context, node int) (int, error) {
	resp, err := r.clients[node].Logical().ReadRawWithContext(ctx, r.path("metrics"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return 0, err
	}
	for _, metric := range families["go_goroutines"].GetMetric() {
		return int(metric.GetGauge().GetValue()), nil
	}
	return 0, errors.New("the mount's metrics have no go_goroutines")
}

// flat checks that what the process has in the last quarter of the samples is what it had
// in the second, when it was warm.
func (r *trial) flat(taken []figures) {
	r.t.Helper()
	quarter := len(taken) / 4
	require.Positive(r.t, quarter, "the soak is too short for figures")
	lines := []string{"", "| of the plugin's process | memory | goroutines | threads | files | connections |", "| --- | --- | --- | --- | --- | --- |"}
	var quarters [4]figures
	for i := range quarters {
		quarters[i] = median(taken[i*quarter : (i+1)*quarter])
		f := quarters[i]
		lines = append(lines, fmt.Sprintf("| minutes %.1f to %.1f | %.1f MB | %d | %d | %d | %d |", taken[i*quarter].at.Minutes(),
			taken[(i+1)*quarter-1].at.Minutes(), float64(f.memory)/(1<<20), f.goroutines, f.threads, f.files, f.connections))
	}
	r.t.Log(strings.Join(lines, "\n"))
	warm, last := quarters[1], quarters[3]
	require.Less(r.t, last.memory, warm.memory+warm.memory/4+8<<20, "bytes of memory, which were %d", warm.memory)
	require.LessOrEqual(r.t, last.goroutines, warm.goroutines+warm.goroutines/10+4, "goroutines")
	require.LessOrEqual(r.t, last.threads, warm.threads+4, "threads")
	require.LessOrEqual(r.t, last.files, warm.files+4, "files")
	require.LessOrEqual(r.t, last.connections, warm.connections+4, "connections")
}

// median has of each figure the one in the middle.
func median(of []figures) figures {
	middle := func(figure func(figures) int64) int64 {
		var all []int64
		for _, f := range of {
			all = append(all, figure(f))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return figures{
		memory:      middle(func(f figures) int64 { return f.memory }),
		threads:     int(middle(func(f figures) int64 { return int64(f.threads) })),
		files:       int(middle(func(f figures) int64 { return int64(f.files) })),
		connections: int(middle(func(f figures) int64 { return int64(f.connections) })),
		goroutines:  int(middle(func(f figures) int64 { return int64(f.goroutines) })),
	}
}
