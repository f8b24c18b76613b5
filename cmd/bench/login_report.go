package main

import (
	"fmt"
	"slices"
	"strconv"
)

// goalClients is with how many clients the goals of logins are measured.
const goalClients = 8

// compared are the peers that a login is held against.
var compared = []string{noop, least, externalJWT, twoSteps}

// reportLogins shows what logins in the laboratory came to.
func (f *loginFigures) reportLogins(b *bench) {
	f.report(b, "login", "on a real Vault")
	few, busy := f.ratiosAt(goalClients), f.ratiosAt(busyClients)
	b.report.Goals = append(b.report.Goals,
		f.goal(fmt.Sprintf("login rate to %s, %d clients, the worst row", noop, goalClients), 0.95, slices.Min(few[noop]), few[noop]),
		f.goal(fmt.Sprintf("login rate to %s, %d clients", noop, busyClients), 0.95, median(busy[noop]), busy[noop]),
		f.goal(fmt.Sprintf("login rate to %s, %d clients", externalJWT, goalClients), 1.4, median(few[externalJWT]), few[externalJWT]),
		f.goal(fmt.Sprintf("login rate to %s, %d clients", twoSteps, goalClients), 2.2, median(few[twoSteps]), few[twoSteps]),
	)
	f.chart(b, "login.png", fmt.Sprintf("Logins on a real Vault, %d clients", goalClients))
}

// report shows the tables of logins somewhere.
func (f *loginFigures) report(b *bench, section, where string) {
	rates := table{
		Title: "Logins a second " + where, Columns: append([]string{"clients", "algorithm", "token"}, contenders...),
		Notes: []string{
			"The ratios are of this plugin to the peer: medians of the rounds' ratios. Two steps are a login with the built-in JWT method and then a read of credentials from a stand-in " +
				"for a NATS secrets engine, which does the least that such an engine must do.",
		},
	}
	latencies := table{
		Title: "Time of a login " + where + ", median / 99th percentile in ms", Columns: append([]string{"clients", "algorithm", "token"}, contenders...),
	}
	processor := table{
		Title:   fmt.Sprintf("Processor time of a login %s with %d clients: Vault + plugins, in µs", where, goalClients),
		Columns: append([]string{"algorithm", "token"}, contenders...),
	}
	for _, peer := range compared {
		rates.Columns = append(rates.Columns, "to "+peer)
	}
	for _, cell := range f.cells {
		first := []string{strconv.Itoa(cell.clients), string(cell.alg), cell.tokenType}
		rate, latency, spent := slices.Clone(first), slices.Clone(first), slices.Clone(first[1:])
		for _, name := range contenders {
			what := fmt.Sprintf("%s, %s", name, cell)
			rate = append(rate, number(b.report.measured(section, "rate: "+what, "logins/s", f.rates[cell][name])))
			p50 := b.report.measured(section, "median: "+what, "s", f.p50[cell][name])
			p99 := b.report.measured(section, "99th percentile: "+what, "s", f.p99[cell][name])
			latency = append(latency, number(p50*1e3)+" / "+number(p99*1e3))
			vault := b.report.measured(section, "processor time of Vault: "+what, "s", f.vault[cell][name])
			plugins := b.report.measured(section, "processor time of plugins: "+what, "s", f.plugins[cell][name])
			spent = append(spent, fmt.Sprintf("%.0f + %.0f", vault*1e6, plugins*1e6))
		}
		for _, peer := range compared {
			rate = append(rate, number(f.ratio(cell, peer)))
		}
		if cell.clients == goalClients {
			processor.Rows = append(processor.Rows, spent)
		}
		rates.Rows, latencies.Rows = append(rates.Rows, rate), append(latencies.Rows, latency)
	}
	b.show(rates)
	b.show(latencies)
	b.show(processor)
}

// ratio is that of the plugin's rate to a peer's.
func (f *loginFigures) ratio(at cell, peer string) float64 {
	return median(ratios(f.rates[at][ours], f.rates[at][peer]))
}

// ratiosAt are the ratios of all cells with so many clients, by peer.
func (f *loginFigures) ratiosAt(clients int) map[string][]float64 {
	all := map[string][]float64{}
	for _, cell := range f.cells {
		if cell.clients == clients {
			for _, peer := range compared {
				all[peer] = append(all[peer], f.ratio(cell, peer))
			}
		}
	}
	return all
}

// goal shows the range of what a figure is of.
func (f *loginFigures) goal(what string, want, got float64, all []float64) goal {
	return goal{
		What: what, Want: want, Got: got,
		Where: fmt.Sprintf("%s to %s over algorithms and token types", number(slices.Min(all)), number(slices.Max(all))),
	}
}

// chart draws the rates with a few clients.
func (f *loginFigures) chart(b *bench, file, title string) {
	drawn := chart{File: file, Title: title, YLabel: "logins a second"}
	for _, cell := range f.cells {
		if cell.clients == goalClients {
			drawn.Groups = append(drawn.Groups, fmt.Sprintf("%s %s", cell.alg, cell.tokenType))
		}
	}
	for _, name := range contenders {
		bars := series{Name: name}
		for _, cell := range f.cells {
			if cell.clients == goalClients {
				bars.Values = append(bars.Values, median(f.rates[cell][name]))
			}
		}
		drawn.Series = append(drawn.Series, bars)
	}
	b.report.Charts = append(b.report.Charts, drawn)
}
