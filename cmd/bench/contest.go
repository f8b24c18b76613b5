package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// shuffled returns the contenders in an order of chance. What one leaves behind, as
// garbage that Vault collects in the next one's time, meets another each round then.
func shuffled[T any](contenders []T) []T {
	order := slices.Clone(contenders)
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// A contest has contenders do the same thing in turn, round after round, with some
// numbers of clients.
type contest struct {
	section    string
	what       string // what is done, once: "a login"
	contenders []string
	clients    []int
	figures    map[entrant]*entrantFigures
}

// An entrant is a contender with so many clients.
type entrant struct {
	name    string
	clients int
}

func (e entrant) String() string { return fmt.Sprintf("%s, %d clients", e.name, e.clients) }

// entrantFigures have one figure a round: the rate, latencies in seconds, and the
// processor time in seconds that Vault and its plugins spend on each.
type entrantFigures struct{ rates, p50, p99, vault, plugins []float64 }

func newContest(section, what string, contenders []string, clients []int) *contest {
	c := &contest{section: section, what: what, contenders: contenders, clients: clients, figures: map[entrant]*entrantFigures{}}
	for _, n := range clients {
		for _, name := range contenders {
			c.figures[entrant{name, n}] = &entrantFigures{}
		}
	}
	return c
}

// round has each contender do its tasks for so long, once with each number of clients.
// tasks makes one for each client; after is told what was done, and may be nil.
func (c *contest) round(ctx context.Context, w *world, length time.Duration,
	tasks func(name string, clients int) ([]task, error), after func(name string, done int) error,
) error {
	for _, n := range c.clients {
		for _, name := range shuffled(c.contenders) {
			all, err := tasks(name, n)
			if err != nil {
				return err
			}
			done, err := c.figures[entrant{name, n}].measure(ctx, w, all, length)
			if err != nil {
				return fmt.Errorf("%s: %w", entrant{name, n}, err)
			}
			if after == nil {
				continue
			}
			if err := after(name, done); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure has clients do their tasks for so long, and says how many were done.
func (f *entrantFigures) measure(ctx context.Context, w *world, tasks []task, length time.Duration) (done int, err error) {
	before, err := usageOf(w.vault.Dir)
	if err != nil {
		return 0, err
	}
	burst, err := hammer(ctx, w.target(), tasks, length)
	if err != nil {
		return 0, err
	}
	after, err := usageOf(w.vault.Dir)
	if err != nil {
		return 0, err
	}
	f.rates = append(f.rates, burst.rate)
	f.p50 = append(f.p50, percentile(burst.latencies, 50))
	f.p99 = append(f.p99, percentile(burst.latencies, 99))
	f.vault = append(f.vault, (after.vault-before.vault)/float64(burst.done))
	f.plugins = append(f.plugins, (after.plugins-before.plugins)/float64(burst.done))
	return burst.done, nil
}

// ratio is that of a contender's rate to another's.
func (c *contest) ratio(of, to string, clients int) float64 {
	return median(ratios(c.figures[entrant{of, clients}].rates, c.figures[entrant{to, clients}].rates))
}

// table shows each contender with each number of clients, and the ratio of the first
// one to it.
func (c *contest) table(b *bench, title string, notes ...string) table {
	t := table{
		Title:   title,
		Columns: []string{"clients", "contender", "a second", c.contenders[0] + " to it", "median / p99 in ms", "Vault + plugins, µs"},
		Notes: append([]string{"The last column is the processor time of " + c.what + ". Ratios are medians of the rounds' ratios."},
			notes...),
	}
	measured := func(e entrant, name, unit string, rounds []float64) float64 {
		return b.report.measured(c.section, fmt.Sprintf("%s: %s", name, e), unit, rounds)
	}
	for _, n := range c.clients {
		for _, name := range c.contenders {
			e := entrant{name, n}
			f := c.figures[e]
			t.Rows = append(t.Rows, []string{
				strconv.Itoa(n), name, number(measured(e, "rate", "1/s", f.rates)), number(c.ratio(c.contenders[0], name, n)),
				number(measured(e, "median", "s", f.p50)*1e3) + " / " + number(measured(e, "99th percentile", "s", f.p99)*1e3),
				fmt.Sprintf("%.0f + %.0f", measured(e, "processor time of Vault", "s", f.vault)*1e6, measured(e, "processor time of plugins", "s", f.plugins)*1e6),
			})
		}
	}
	return t
}
