package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

const plotModule = "testdata/bench/plot"

// save writes the results: the report as JSON, its tables as Markdown, and its charts;
// with docs also into docs/performance.md.
func (b *bench) save(ctx context.Context, dir string, docs bool) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	text, err := json.MarshalIndent(b.report, "", "  ")
	if err != nil {
		return err
	}
	var tables bytes.Buffer
	fmt.Fprintf(&tables, "%s, on %s.\n", b.report.Started.Format("2 January 2006"), b.report.Machine)
	b.report.goalTable().markdown(&tables)
	for _, table := range b.report.Tables {
		table.markdown(&tables)
	}
	results := filepath.Join(dir, "results.json")
	if err := errors.Join(
		os.WriteFile(results, append(text, '\n'), 0o600),
		os.WriteFile(filepath.Join(dir, "tables.md"), tables.Bytes(), 0o600),
	); err != nil {
		return err
	}
	if err := b.goIn(ctx, plotModule, "run", ".", results); err != nil {
		return err
	}
	b.progress("the results are in %s", dir)
	if !docs {
		return nil
	}
	return b.document(dir, tables.Bytes())
}

// resultsMark is where in docs/performance.md the results of the last run begin. What
// is after it is replaced.
const resultsMark = "<!-- The rest is written by bench -docs. -->\n"

// document puts the tables into docs/performance.md, and the charts beside it, which its
// beginning shows.
func (b *bench) document(dir string, tables []byte) error {
	root, err := stack.Root()
	if err != nil {
		return err
	}
	page := filepath.Join(root, "docs", "performance.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, _, found := bytes.Cut(text, []byte(resultsMark))
	if !found {
		return fmt.Errorf("%s has no line %q", page, resultsMark)
	}
	after := bytes.NewBuffer(append(before, resultsMark+"\n"...))
	for _, c := range b.report.Charts {
		drawn, err := os.ReadFile(filepath.Join(dir, c.File))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, "docs", "performance-"+c.File), drawn, 0o600); err != nil {
			return err
		}
	}
	after.Write(tables)
	return os.WriteFile(page, after.Bytes(), 0o600)
}
