package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// cli is a run of `vault login` that waits for a person to log in.
type cli struct {
	e      *env
	cmd    *exec.Cmd
	stdout buffer
	stderr buffer
	done   chan error

	URL  string // where the person logs in
	Home string // the person's home, where the token is stored
}

// vaultLogin starts `vault login -method=oidc` with these arguments as a person does who
// has no token, and returns when it waits. It listens on a port of its own: Vault's, 8250,
// may be taken.
func (e *env) vaultLogin(args ...string) *cli {
	e.t.Helper()
	port, err := stack.FreePort()
	require.NoError(e.t, err)
	e.allow("http://localhost:" + strconv.Itoa(port) + "/oidc/callback")
	options := []string{"login", "-method=oidc", "-path=" + e.mount}
	fields := []string{"skip_browser=true", "port=" + strconv.Itoa(port)}
	for _, arg := range args {
		if strings.HasPrefix(arg, "-") {
			options = append(options, arg)
		} else {
			fields = append(fields, arg)
		}
	}
	run := &cli{e: e, done: make(chan error, 1), Home: e.t.TempDir()}
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	run.cmd = exec.CommandContext(ctx, e.vault.Program(), append(options, fields...)...)
	run.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + run.Home, "VAULT_ADDR=" + e.vault.Addr}
	run.cmd.Stdout, run.cmd.Stderr = &run.stdout, &run.stderr
	require.NoError(e.t, run.cmd.Start())
	go func() { run.done <- run.cmd.Wait() }()
	e.t.Cleanup(func() {
		cancel()
		_ = run.wait() // however it ended
	})
	link := regexp.MustCompile(`(?m)^ +(http\S+)$`)
	e.waitFor("the link that vault login shows", func() error {
		match := link.FindStringSubmatch(run.stderr.String())
		if match == nil {
			return errors.New(run.stderr.String())
		}
		run.URL = match[1]
		return nil
	})
	return run
}

// wait returns how the run ended.
func (c *cli) wait() error {
	err := <-c.done
	c.done <- err
	return err
}

// prints waits for the end of a login that works, and returns what it printed.
func (c *cli) prints() string {
	c.e.t.Helper()
	require.NoError(c.e.t, c.wait(), "%s", c.stderr.String())
	return c.stdout.String()
}

// answer waits for the end of a login with -format=json.
func (c *cli) answer() *api.Secret {
	c.e.t.Helper()
	var secret api.Secret
	require.NoError(c.e.t, json.Unmarshal([]byte(c.prints()), &secret))
	return &secret
}

// fails waits for the end of a login that is refused, and returns what it said.
func (c *cli) fails() string {
	c.e.t.Helper()
	require.Error(c.e.t, c.wait(), "%s", c.stdout.String())
	require.NoFileExists(c.e.t, filepath.Join(c.Home, ".vault-token"))
	return c.stderr.String()
}

// buffer is a bytes.Buffer that is read while it is written.
type buffer struct {
	mutex sync.Mutex
	bytes bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.bytes.Write(p)
}

func (b *buffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.bytes.String()
}
