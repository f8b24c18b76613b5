// Command bench measures the plugin side by side with its peers on real servers, and
// shows how it grows, delivers and holds under load. docs/performance.md says what is
// measured, and how.
//
//	bench [-quick] [-only SECTION,...] [-out bench-out] [-docs]
//
// It prints tables, and writes them with the raw figures as JSON and as plots (PNG)
// into the folder, and with -docs into docs/performance.md. The figures that are compared are measured in turn, round after
// round, in the same run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sections are what bench measures, in this order.
var sections = []struct {
	name string
	run  func(context.Context, *bench) error
}{
	{"login", benchLogin},
	{"production", benchProduction},
	{"herd", benchHerd},
	{"processors", benchProcessors},
	{"alone", benchAlone},
	{"growth", benchGrowth},
	{"delivery", benchDelivery},
	{"callout", benchCallout},
	{"creds", benchCreds},
	{"kubernetes", benchKubernetes},
	{"sustained", benchSustained},
}

func main() {
	only := flag.String("only", "", "measure only these sections, separated by commas")
	quick := flag.Bool("quick", false, "measure briefly and little: to see that it works")
	out := flag.String("out", "bench-out", "folder for the results")
	docs := flag.Bool("docs", false, "show the results in docs/performance.md too")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unknown argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only, *quick, *out, *docs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, quick bool, out string, docs bool) (err error) {
	wanted, err := selected(only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{dir: dir, quick: quick, out: os.Stdout, report: newReport(quick)}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	b.report.Machine.print(b.out)
	for _, section := range sections {
		if !slices.Contains(wanted, section.name) {
			continue
		}
		began := time.Now()
		b.progress("%s ...", section.name)
		if err := section.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
		b.progress("%s took %s", section.name, time.Since(began).Round(time.Second))
	}
	b.report.printGoals(b.out)
	return b.save(ctx, out, docs)
}

// selected names the sections to run: all of them, or those that only lists.
func selected(only string) ([]string, error) {
	var names []string
	for _, section := range sections {
		names = append(names, section.name)
	}
	if only == "" {
		return names, nil
	}
	wanted := strings.Split(only, ",")
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("-only: there is no section %q, only %s", name, strings.Join(names, ", "))
		}
	}
	return wanted, nil
}

// bench is one run.
type bench struct {
	dir     string // of programs and temporary files
	program string // the plugin
	quick   bool
	out     io.Writer
	report  *report
}

// scale is the full measure of something, or the quick one.
func scale[T any](b *bench, full, quick T) T {
	if b.quick {
		return quick
	}
	return full
}

// progress tells the person at the screen what goes on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
