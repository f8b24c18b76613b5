package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is all that a run has found. It is written as JSON.
type report struct {
	Machine machine   `json:"machine"`
	Started time.Time `json:"started"`
	Quick   bool      `json:"quick"`
	Goals   []goal    `json:"goals"`
	Tables  []table   `json:"tables"`
	Charts  []chart   `json:"charts"`
	Figures []figure  `json:"figures"`
}

// A figure is one thing that was measured, once a round.
type figure struct {
	Section string    `json:"section"`
	Name    string    `json:"name"`
	Unit    string    `json:"unit"`
	Rounds  []float64 `json:"rounds"`
}

// A table is shown on the screen and in docs/performance.md.
type table struct {
	Title   string     `json:"title"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
	Notes   []string   `json:"notes,omitempty"`
}

// A chart is drawn by testdata/bench/plot.
type chart struct {
	File   string   `json:"file"` // name of the PNG
	Title  string   `json:"title"`
	YLabel string   `json:"y_label"`
	Groups []string `json:"groups"` // along the x axis
	Series []series `json:"series"` // bars side by side in each group
}

type series struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"` // one a group
}

// A goal is a figure that the project has set itself.
type goal struct {
	What  string  `json:"what"`
	Most  bool    `json:"most"` // the figure may be at most Want; else at least
	Want  float64 `json:"want"`
	Got   float64 `json:"got"`
	Where string  `json:"where,omitempty"` // what Got was measured on
}

func (g goal) met() bool {
	if g.Most {
		return g.Got <= g.Want
	}
	return g.Got >= g.Want
}

func newReport(quick bool) *report {
	return &report{Machine: thisMachine(), Started: time.Now().UTC().Truncate(time.Second), Quick: quick}
}

// measured keeps the raw figures of something and returns their median.
func (r *report) measured(section, name, unit string, rounds []float64) float64 {
	r.Figures = append(r.Figures, figure{Section: section, Name: name, Unit: unit, Rounds: rounds})
	return median(rounds)
}

// show keeps a table and prints it.
func (b *bench) show(t table) {
	b.report.Tables = append(b.report.Tables, t)
	t.print(b.out)
}

func (t table) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s\n\n", t.Title)
	columns := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(columns, strings.Join(t.Columns, "\t")+"\t")
	for _, row := range t.Rows {
		fmt.Fprintln(columns, strings.Join(row, "\t")+"\t")
	}
	_ = columns.Flush() // to the screen
	for _, note := range t.Notes {
		fmt.Fprintln(out, "\n"+note)
	}
}

// markdown is the table as docs/performance.md has it.
func (t table) markdown(out io.Writer) {
	fmt.Fprintf(out, "\n### %s\n\n| %s |\n|%s\n", t.Title, strings.Join(t.Columns, " | "), strings.Repeat(" --- |", len(t.Columns)))
	for _, row := range t.Rows {
		fmt.Fprintf(out, "| %s |\n", strings.Join(row, " | "))
	}
	for _, note := range t.Notes {
		fmt.Fprintln(out, "\n"+note)
	}
}

func (r *report) goalTable() table {
	t := table{Title: "Goals", Columns: []string{"figure", "goal", "measured", "met", "where"}}
	for _, g := range r.Goals {
		bound, met := "at least ", "no"
		if g.Most {
			bound = "at most "
		}
		if g.met() {
			met = "yes"
		}
		t.Rows = append(t.Rows, []string{g.What, bound + number(g.Want), number(g.Got), met, g.Where})
	}
	return t
}

func (r *report) printGoals(out io.Writer) {
	if len(r.Goals) > 0 {
		r.goalTable().print(out)
	}
	if r.Quick {
		fmt.Fprintln(out, "\nA quick run shows that the benchmarks work. Its figures say little.")
	}
}

// number shows three significant digits, and all digits before the point.
func number(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	return fmt.Sprintf("%.*f", digits, v)
}

// milliseconds shows a duration given in seconds.
func milliseconds(seconds float64) string { return number(seconds*1e3) + " ms" }
