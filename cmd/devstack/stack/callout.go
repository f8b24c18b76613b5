package stack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// CalloutName is the name of the program that answers auth callouts.
const CalloutName = "nats-callout"

// BuildCallout builds nats-callout into a folder, and returns its path.
func BuildCallout(ctx context.Context, dir string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, CalloutName)
	if err := goBuild(ctx, root, "./cmd/"+CalloutName, flavour{}, path, nil); err != nil {
		return "", err
	}
	return path, nil
}

// CalloutConfig says what a nats-callout answers.
type CalloutConfig struct {
	Program    string // its path
	Vault      *Vault
	VaultToken string
	Mount      string // auth/nats for one
	Callout    string // its name
	NATS       string // URLs of the servers
	Args       []string
}

// Callout is a nats-callout, running or not.
type Callout struct {
	URL string // http://127.0.0.1:port, with /healthz and /metrics
	Dir string // its folder; gone after Close

	process *process
}

// StartCallout starts a nats-callout, and returns when it answers.
func StartCallout(ctx context.Context, config CalloutConfig) (*Callout, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := makeDir("callout")
	if err != nil {
		return nil, err
	}
	c := &Callout{URL: "http://" + loopback(port), Dir: dir}
	args := append([]string{"-callout", config.Callout, "-mount", config.Mount, "-nats", config.NATS, "-listen", loopback(port)}, config.Args...)
	env := []string{"VAULT_ADDR=" + config.Vault.Addr, "VAULT_TOKEN=" + config.VaultToken}
	c.process, err = startProcess(dir, CalloutName, env, config.Program, args...)
	if err == nil {
		err = c.process.ready(ctx, func() error { return c.healthy(ctx) })
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Callout) healthy(ctx context.Context) error {
	response, err := get(ctx, c.URL+"/healthz")
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// Stop ends it in good order.
func (c *Callout) Stop() { c.process.stop() }

// Kill ends it at once, as kill -9 does.
func (c *Callout) Kill() { c.process.kill() }

// Hang has it do nothing, and keep its connections.
func (c *Callout) Hang() { c.process.signal(syscall.SIGSTOP) }

// Log is all that it has logged.
func (c *Callout) Log() string { return c.process.output() }

// Close ends it and removes its folder.
func (c *Callout) Close() error {
	if c.process != nil {
		c.process.signal(syscall.SIGCONT) // one that hangs would not end
		c.process.stop()
	}
	return os.RemoveAll(c.Dir)
}
