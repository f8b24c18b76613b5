package main

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// aloneFigures are those of the plugin's Go benchmarks, by benchmark/algorithm.
type aloneFigures struct{ nanoseconds, bytes, allocations map[string][]float64 }

// benchAlone runs the plugin's Go benchmarks: a login through HandleRequest, and the
// sum of what no login can do without.
func benchAlone(ctx context.Context, b *bench) error {
	program := filepath.Join(b.dir, "plugin.test")
	if err := b.goIn(ctx, ".", "test", "-c", "-o", program, "./plugin"); err != nil {
		return err
	}
	root, err := stack.Root()
	if err != nil {
		return err
	}
	figures := aloneFigures{map[string][]float64{}, map[string][]float64{}, map[string][]float64{}}
	for range scale(b, 7, 1) {
		for _, alg := range algorithms {
			cmd := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench=^BenchmarkLogin(Parts)?$/^"+string(alg)+"$",
				"-test.benchmem", "-test.cpu=1", "-test.benchtime="+scale(b, "1s", "50ms"))
			cmd.Dir = filepath.Join(root, "plugin")
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			if err := figures.parse(string(out)); err != nil {
				return err
			}
		}
	}
	return figures.report(b)
}

// parse reads lines such as
//
//	BenchmarkLogin/RS256 	   10000	    136454 ns/op	   18062 B/op	     133 allocs/op
func (f *aloneFigures) parse(out string) error {
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 8 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		for i, to := range map[int]map[string][]float64{2: f.nanoseconds, 4: f.bytes, 6: f.allocations} {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return fmt.Errorf("%q: %w", lines.Text(), err)
			}
			to[fields[0]] = append(to[fields[0]], value)
		}
	}
	return lines.Err()
}

// firstAllocations is how many a login made when it was first measured.
var firstAllocations = map[string]float64{"RS256": 133, "ES256": 145, "EdDSA": 122}

func (f *aloneFigures) report(b *bench) error {
	t := table{
		Title:   "The plugin alone: a login through HandleRequest",
		Columns: []string{"algorithm", "login", "unavoidable parts", "ratio", "bytes", "allocations", "first measured", "of the parts"},
		Notes: []string{"The unavoidable parts are, each with the library that everyone has for it: the workload's token decoded (base64, JSON) and its signature checked, " +
			"an Ed25519 key made, the user JWT encoded and signed with an expanded key."},
	}
	var worst, most float64
	for _, alg := range algorithms {
		login, parts := "BenchmarkLogin/"+string(alg), "BenchmarkLoginParts/"+string(alg)
		if len(f.nanoseconds[login]) == 0 || len(f.nanoseconds[login]) != len(f.nanoseconds[parts]) {
			return fmt.Errorf("the benchmarks of %s did not say how long they took", alg)
		}
		whole := b.report.measured("alone", login, "ns", f.nanoseconds[login])
		sum := b.report.measured("alone", parts, "ns", f.nanoseconds[parts])
		ratio := median(ratios(f.nanoseconds[login], f.nanoseconds[parts]))
		allocations := b.report.measured("alone", "allocations: "+login, "1", f.allocations[login])
		first := firstAllocations[string(alg)]
		t.Rows = append(t.Rows, []string{
			string(alg), number(whole/1e3) + " µs", number(sum/1e3) + " µs", number(ratio),
			number(b.report.measured("alone", "bytes: "+login, "B", f.bytes[login])),
			number(allocations), number(first), number(median(f.allocations[parts])),
		})
		worst, most = max(worst, ratio), max(most, allocations/first)
	}
	b.show(t)
	b.report.Goals = append(b.report.Goals,
		goal{What: "plugin-alone login time to its unavoidable parts", Most: true, Want: 1.3, Got: worst, Where: "the worst algorithm"},
		goal{What: "allocations of a login to those first measured", Most: true, Want: 0.5, Got: most, Where: "the worst algorithm"},
	)
	return nil
}
