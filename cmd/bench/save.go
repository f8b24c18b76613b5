package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const plotModule = "testdata/bench/plot"

// save writes the results: the report as JSON, its tables as Markdown, and its charts.
func (b *bench) save(ctx context.Context, dir string) error {
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
	return nil
}
