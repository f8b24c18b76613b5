package main

import (
	"fmt"
	"slices"
	"strconv"
)

// goalClients is with how many clients the goals of logins are measured.
const goalClients = 8

// compared are the peers that a login is held against, and by how much.
var compared = []struct {
	peer string
	want float64
}{{noop, 0.90}, {externalJWT, 1.4}, {twoSteps, 2.2}}

func (f *loginFigures) report(b *bench) {
	rates := table{
		Title: "Logins a second on a real Vault", Columns: append([]string{"clients", "algorithm", "token"}, contenders...),
		Notes: []string{
			"The ratios are of this plugin to the peer: medians of the rounds' ratios. Two steps are a login with the built-in JWT method and then a read of credentials from a stand-in " +
				"for a NATS secrets engine, which does the least that such an engine must do.",
		},
	}
	latencies := table{
		Title: "Time of a login on a real Vault, median / 99th percentile in ms", Columns: append([]string{"clients", "algorithm", "token"}, contenders...),
	}
	processor := table{
		Title:   fmt.Sprintf("Processor time of a login with %d clients: Vault + plugins, in µs", goalClients),
		Columns: append([]string{"algorithm", "token"}, contenders...),
	}
	for _, c := range compared {
		rates.Columns = append(rates.Columns, "to "+c.peer)
	}
	atGoal := map[string][]float64{}
	for _, cell := range cells() {
		first := []string{strconv.Itoa(cell.clients), string(cell.alg), cell.tokenType}
		rate, latency, spent := slices.Clone(first), slices.Clone(first), slices.Clone(first[1:])
		for _, name := range contenders {
			what := fmt.Sprintf("%s, %s", name, cell)
			rate = append(rate, number(b.report.measured("login", "rate: "+what, "logins/s", f.rates[cell][name])))
			p50 := b.report.measured("login", "median: "+what, "s", f.p50[cell][name])
			p99 := b.report.measured("login", "99th percentile: "+what, "s", f.p99[cell][name])
			latency = append(latency, number(p50*1e3)+" / "+number(p99*1e3))
			vault := b.report.measured("login", "processor time of Vault: "+what, "s", f.vault[cell][name])
			plugins := b.report.measured("login", "processor time of plugins: "+what, "s", f.plugins[cell][name])
			spent = append(spent, fmt.Sprintf("%.0f + %.0f", vault*1e6, plugins*1e6))
		}
		for _, c := range compared {
			ratio := median(ratios(f.rates[cell][ours], f.rates[cell][c.peer]))
			rate = append(rate, number(ratio))
			if cell.clients == goalClients {
				atGoal[c.peer] = append(atGoal[c.peer], ratio)
			}
		}
		if cell.clients == goalClients {
			processor.Rows = append(processor.Rows, spent)
		}
		rates.Rows, latencies.Rows = append(rates.Rows, rate), append(latencies.Rows, latency)
	}
	b.show(rates)
	b.show(latencies)
	b.show(processor)
	f.goals(b, atGoal)
	f.chart(b)
}

// goals takes the median over the algorithms and token types, and shows their range.
func (f *loginFigures) goals(b *bench, atGoal map[string][]float64) {
	for _, c := range compared {
		all := atGoal[c.peer]
		b.report.Goals = append(b.report.Goals, goal{
			What: fmt.Sprintf("login rate to %s, %d clients", c.peer, goalClients), Want: c.want, Got: median(all),
			Where: fmt.Sprintf("%s to %s over algorithms and token types", number(slices.Min(all)), number(slices.Max(all))),
		})
	}
}

func (f *loginFigures) chart(b *bench) {
	drawn := chart{File: "login.png", Title: fmt.Sprintf("Logins on a real Vault, %d clients", goalClients), YLabel: "logins a second"}
	for _, cell := range cells() {
		if cell.clients == goalClients {
			drawn.Groups = append(drawn.Groups, fmt.Sprintf("%s %s", cell.alg, cell.tokenType))
		}
	}
	for _, name := range contenders {
		bars := series{Name: name}
		for _, cell := range cells() {
			if cell.clients == goalClients {
				bars.Values = append(bars.Values, median(f.rates[cell][name]))
			}
		}
		drawn.Series = append(drawn.Series, bars)
	}
	b.report.Charts = append(b.report.Charts, drawn)
}
