package cluster

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What may not be; each has its column in the table.
const (
	lost     = "lost"      // of what was acknowledged
	letIn    = "let in"    // who was revoked
	refused  = "refused"   // who is good
	wentBack = "went back" // a server's version of an account
	lied     = "lied"      // the mount, of what was delivered
)

var kinds = []string{lost, letIn, refused, wentBack, lied}

// An outcome is what came of one fault.
type outcome struct {
	fault  string
	found  map[string]int // what may not be, by kind
	writes int            // that were acknowledged

	// For how long there were no logins, and no plain requests; how long it took until the
	// servers had what the mount has, once nobody wrote any more; and all of it.
	logins, plain, converged, took time.Duration
}

// table shows the outcomes of each fault, in the order in which they first came, in
// Markdown. Of times it has the median and the longest.
func table(outcomes []outcome) string {
	heads := slices.Concat([]string{"what happened", "times"}, kinds, []string{"writes", "no login", "no plain request", "servers agree after"})
	var lines []string
	line := func(cells []string) { lines = append(lines, "| "+strings.Join(cells, " | ")+" |") }
	line(heads)
	line(slices.Repeat([]string{"---"}, len(heads)))
	var names []string
	byName := map[string][]outcome{}
	for _, o := range outcomes {
		if byName[o.fault] == nil {
			names = append(names, o.fault)
		}
		byName[o.fault] = append(byName[o.fault], o)
	}
	for _, name := range names {
		line(row(name, byName[name]))
	}
	return strings.Join(lines, "\n")
}

func row(name string, of []outcome) []string {
	sum := func(figure func(outcome) int) string {
		n := 0
		for _, o := range of {
			n += figure(o)
		}
		return strconv.Itoa(n)
	}
	cells := []string{name, strconv.Itoa(len(of))}
	for _, kind := range kinds {
		cells = append(cells, sum(func(o outcome) int { return o.found[kind] }))
	}
	return append(cells,
		sum(func(o outcome) int { return o.writes }),
		times(of, func(o outcome) time.Duration { return o.logins }),
		times(of, func(o outcome) time.Duration { return o.plain }),
		times(of, func(o outcome) time.Duration { return o.converged }),
	)
}

func times(of []outcome, figure func(outcome) time.Duration) string {
	var all []time.Duration
	for _, o := range of {
		all = append(all, figure(o))
	}
	slices.Sort(all)
	longest := fmt.Sprintf("%.1f s", all[len(all)-1].Seconds())
	if len(all) == 1 {
		return longest
	}
	return fmt.Sprintf("%.1f s, %s", all[len(all)/2].Seconds(), longest)
}
