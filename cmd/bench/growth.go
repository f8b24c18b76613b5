package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// benchGrowth measures what a mount's size does to it: in this process with its storage
// in memory, and nats-servers of its own that the account changes are delivered to.
func benchGrowth(ctx context.Context, b *bench) error {
	if err := growthOfMount(ctx, b); err != nil {
		return err
	}
	if err := growthOfRevocations(ctx, b); err != nil {
		return err
	}
	return growthOnVault(ctx, b)
}

// An operation is measured on mounts, or accounts, of several sizes in turn.
type operation struct {
	name  string
	times int // a round
	do    func(ctx context.Context, size int) error
}

// growthFigures holds the seconds an operation took, one a round, by operation and size.
type growthFigures map[string]map[int][]float64

// take measures each operation at each size, round after round.
func (f growthFigures) take(ctx context.Context, rounds int, sizes []int, operations []operation) error {
	for range rounds {
		for _, operation := range operations {
			for _, size := range sizes {
				began := time.Now()
				for range operation.times {
					if err := operation.do(ctx, size); err != nil {
						return fmt.Errorf("%s at %d: %w", operation.name, size, err)
					}
				}
				f.add(operation.name, size, time.Since(began).Seconds()/float64(operation.times))
			}
		}
	}
	return nil
}

func (f growthFigures) add(name string, size int, value float64) {
	if f[name] == nil {
		f[name] = map[int][]float64{}
	}
	f[name][size] = append(f[name][size], value)
}

// row shows an operation: its time at each size, and that at the largest size to that
// at the smallest.
func (f growthFigures) row(b *bench, of, name string, sizes []int) []string {
	row := []string{name}
	for _, size := range sizes {
		row = append(row, milliseconds(b.report.measured("growth", fmt.Sprintf("%s at %d %s", name, size, of), "s", f[name][size])))
	}
	return append(row, number(f.growth(name, sizes)))
}

func (f growthFigures) growth(name string, sizes []int) float64 {
	return median(ratios(f[name][sizes[len(sizes)-1]], f[name][sizes[0]]))
}

func sizeColumns(first string, sizes []int) []string {
	columns := []string{first}
	for _, size := range sizes {
		columns = append(columns, strconv.Itoa(size))
	}
	return append(columns, "largest to smallest")
}

// The operations whose growth has a goal.
const (
	opLogin   = "login"
	opStart   = "start-up to first login"
	opChange  = "account change, delivered"
	opSize    = "account JWT"
	opMemory  = "memory of the mount after a login"
	opRestart = "plugin reload to first login"
)

func growthOfMount(ctx context.Context, b *bench) (err error) {
	defer asPlugin()()
	sizes := scale(b, []int{10, 1000, 100_000}, []int{10, 100, 1000})
	mounts := map[int]*populated{}
	defer func() {
		for _, m := range mounts {
			err = errors.Join(err, m.close())
		}
	}()
	key, token, err := newWorkload()
	if err != nil {
		return err
	}
	figures := growthFigures{}
	for _, size := range sizes {
		b.progress("filling a mount with %d roles and accounts", size)
		if mounts[size], err = populate(ctx, size, key, token); err != nil {
			return err
		}
	}
	rounds := scale(b, 15, 3)
	for range rounds {
		for _, size := range sizes {
			if err := figures.starts(ctx, mounts[size]); err != nil {
				return err
			}
		}
	}
	for _, size := range sizes {
		if err := deliverAll(ctx, b, mounts[size]); err != nil {
			return err
		}
	}
	err = errors.Join(
		figures.take(ctx, scale(b, 150, 10), sizes, []operation{loginOperation(mounts)}),
		figures.take(ctx, rounds, sizes, mountOperations(mounts)),
		figures.take(ctx, scale(b, 2, 1), sizes, []operation{syncOperation(mounts)}),
	)
	if err != nil {
		return err
	}
	figures.report(b, sizes)
	return nil
}

// starts measures the time from the start of a mount that has been there before to its
// first login, and the memory that it has then.
func (f growthFigures) starts(ctx context.Context, p *populated) (err error) {
	storage, token := p.storage, p.token
	p.mount.close()
	p.mount = nil // else what it held would be counted as in use before
	before := heap()
	began := time.Now()
	if p.mount, err = openMount(ctx, storage, token, true); err != nil {
		return err
	}
	if err := p.login(ctx, "role-0"); err != nil {
		return err
	}
	f.add(opStart, p.size, time.Since(began).Seconds())
	f.add(opMemory, p.size, heap()-before)
	return nil
}

// heap is what is in use of the heap, in bytes.
func heap() float64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers and pools held on to
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// deliverAll opens the mount for good and waits until nats-server has its accounts.
func deliverAll(ctx context.Context, b *bench, p *populated) error {
	if err := p.reopen(ctx, false); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	began := time.Now()
	err := stack.WaitFor(ctx, "delivery of all accounts", func() error {
		state, err := p.read(ctx, "sync")
		if err != nil {
			return err
		}
		if pending := fmt.Sprint(state["pending"]); pending != "0" {
			return errors.New(pending + " accounts are pending")
		}
		return nil
	})
	b.progress("delivered %d accounts in %s", p.size, time.Since(began).Round(time.Millisecond))
	if err != nil {
		return err
	}
	return p.sync(ctx) // so that no comparison is under way in what follows
}

// mountOperations are those that are measured on mounts of several sizes.
func mountOperations(mounts map[int]*populated) []operation {
	changes := 0
	name := func(kind string, below int) string { return kind + "-" + strconv.Itoa(rand.IntN(below)) }
	read := func(path func(*populated) string) func(context.Context, int) error {
		return func(ctx context.Context, size int) error {
			_, err := mounts[size].read(ctx, path(mounts[size]))
			return err
		}
	}
	write := func(path func(int) string, data func() map[string]any) func(context.Context, int) error {
		return func(ctx context.Context, size int) error {
			_, err := mounts[size].write(ctx, path(size), data())
			return err
		}
	}
	return []operation{
		{"login, of any role", 200, func(ctx context.Context, size int) error { return mounts[size].login(ctx, name("role", size)) }},
		{"creds/:role", 200, write(func(int) string { return "creds/" + name("role", 10) },
			func() map[string]any { return map[string]any{"jwt": mounts[10].token} })},
		{"role read", 200, read(func(p *populated) string { return "role/" + name("role", p.size) })},
		{"role change", 50, write(func(size int) string { return "role/" + name("role", size) },
			func() map[string]any { changes++; return map[string]any{"user_ttl": 600 + changes%2} })},
		{opChange, 20, write(func(size int) string { return "jwt/" + name("account", size) }, func() map[string]any {
			changes++
			return map[string]any{"type": "account", "config": fmt.Sprintf(`{"limits":{"conn":%d}}`, 100+changes)}
		})},
		{"account endpoint", 200, read(func(p *populated) string { return "jwt/v1/accounts/" + p.ids[rand.IntN(p.size)] })},
	}
}

// loginOperation is measured in many short rounds: its growth has a goal of a few percent.
func loginOperation(mounts map[int]*populated) operation {
	return operation{opLogin, 40, func(ctx context.Context, size int) error {
		return mounts[size].login(ctx, "role-"+strconv.Itoa(rand.IntN(10)))
	}}
}

// syncOperation takes long where there is much to compare.
func syncOperation(mounts map[int]*populated) operation {
	return operation{"sync, nothing to do", 1, func(ctx context.Context, size int) error {
		return mounts[size].sync(ctx)
	}}
}

func (f growthFigures) report(b *bench, sizes []int) {
	t := table{
		Title: "Growth with roles and accounts, in one process with storage in memory", Columns: sizeColumns("roles and accounts", sizes),
		Notes: []string{
			"Logins take place with ten roles that are in use, or with any of all, of which the mount keeps some thousands ready and reads the others from storage. " +
				"Account changes are delivered to a real nats-server, which answers before they end. sync asks nats-server for what it holds and compares all accounts.",
		},
	}
	for _, operation := range slices.Concat([]operation{loginOperation(nil)}, mountOperations(nil), []operation{syncOperation(nil)}) {
		t.Rows = append(t.Rows, f.row(b, "roles and accounts", operation.name, sizes))
	}
	t.Rows = append(t.Rows, f.row(b, "roles and accounts", opStart, sizes))
	memory := []string{opMemory}
	for _, size := range sizes {
		memory = append(memory, number(b.report.measured("growth", fmt.Sprintf("%s at %d roles and accounts", opMemory, size), "B", f[opMemory][size])/1024)+" KiB")
	}
	t.Rows = append(t.Rows, append(memory, number(f.growth(opMemory, sizes))))
	b.show(t)

	where := fmt.Sprintf("%d to %d, in one process", sizes[len(sizes)-1], sizes[0])
	b.report.Goals = append(b.report.Goals,
		goal{What: "login time at most to fewest roles and accounts", Most: true, Want: 1.05, Got: f.growth(opLogin, sizes), Where: where},
		goal{What: "start-up to first login at most to fewest accounts", Most: true, Want: 1.2, Got: f.growth(opStart, sizes), Where: where},
	)
	drawn := chart{File: "growth.png", Title: "Growth with roles and accounts", YLabel: "time, to that at the smallest size"}
	drawn.Groups = []string{opLogin, opStart, "role read", opChange, "account endpoint"}
	for _, size := range sizes {
		bars := series{Name: strconv.Itoa(size)}
		for _, name := range drawn.Groups {
			bars.Values = append(bars.Values, median(ratios(f[name][size], f[name][sizes[0]])))
		}
		drawn.Series = append(drawn.Series, bars)
	}
	b.report.Charts = append(b.report.Charts, drawn)
}
