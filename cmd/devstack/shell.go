package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// stepLimit is how long one command may take.
const stepLimit = 30 * time.Second

// A shell runs commands as a person would type them, and shows them with what they
// print.
type shell struct {
	dir string
	env []string
	out io.Writer
}

// say shows a line that is not a command.
func (s *shell) say(format string, args ...any) {
	fmt.Fprintf(s.out, "\n# "+format+"\n", args...)
}

// show shows a command.
func (s *shell) show(line string) { fmt.Fprintln(s.out, "$ "+line) }

// run runs a command that must succeed, and whose output must have all the texts in it.
func (s *shell) run(ctx context.Context, line string, texts ...string) error {
	out, err := s.execute(ctx, line)
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return contains(line, out, texts)
}

// eventually repeats a command until its output has a text, and shows its last run.
func (s *shell) eventually(ctx context.Context, line, text string) error {
	s.show(line)
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	return stack.WaitFor(ctx, line, func() error {
		out, err := s.command(ctx, line).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if err := contains(line, string(out), []string{text}); err != nil {
			return err
		}
		fmt.Fprintln(s.out, strings.TrimSpace(string(out)))
		return nil
	})
}

// fails runs a command that must fail, and whose output must have all the texts in it.
func (s *shell) fails(ctx context.Context, line string, texts ...string) error {
	out, err := s.execute(ctx, line)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("%s: it must fail, but ended with: %v", line, err)
	}
	return contains(line, out, texts)
}

// execute shows a command, runs it and shows what it prints.
func (s *shell) execute(ctx context.Context, line string) (string, error) {
	s.show(line)
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	var out bytes.Buffer
	cmd := s.command(ctx, line)
	cmd.Stdout = io.MultiWriter(s.out, &out)
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	return out.String(), err
}

func (s *shell) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.WaitDelay = time.Second
	return cmd
}

// A job is a command in the background.
type job struct {
	line string
	path string     // of its output
	done chan error // how it ended
}

// background shows a command and leaves it running until the context ends; it returns
// when the command has printed a text.
func (s *shell) background(ctx context.Context, line, text string) (*job, error) {
	s.show(line + " &")
	file, err := os.CreateTemp(s.dir, "job-")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	j := &job{line: line, path: file.Name(), done: make(chan error, 1)}
	// exec replaces the shell, so that what ends the shell ends the command.
	cmd := s.command(ctx, "exec "+line)
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { j.done <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	err = stack.WaitFor(ctx, line, func() error {
		out, err := os.ReadFile(j.path)
		if err != nil {
			return err
		}
		return contains(line, string(out), []string{text})
	})
	return j, err
}

// finish waits for the job to end in success, and shows what it printed.
func (s *shell) finish(ctx context.Context, j *job, texts ...string) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	var ended error
	select {
	case ended = <-j.done:
	case <-ctx.Done():
		ended = ctx.Err()
	}
	out, err := os.ReadFile(j.path)
	if err != nil {
		return err
	}
	fmt.Fprint(s.out, string(out))
	if ended != nil {
		return fmt.Errorf("%s: %w", j.line, ended)
	}
	return contains(j.line, string(out), texts)
}

func contains(line, out string, texts []string) error {
	for _, text := range texts {
		if !strings.Contains(out, text) {
			return fmt.Errorf("%s: its output has no %q: %s", line, text, out)
		}
	}
	return nil
}
