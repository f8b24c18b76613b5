package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/errgroup"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// startLimit bounds the start of a server, but not what builds it first.
const startLimit = time.Minute

// servers is what demo and dev work with: a Vault in dev mode with the plugin's
// program where Vault looks for it, a nats-server that does not run yet, an issuer, and
// a folder to work in.
type servers struct {
	vault  *stack.Vault
	nats   *stack.NATS
	issuer *stack.Issuer
	dir    string
	sha256 string // of the plugin's program
}

// startServers starts all of them, or none.
func startServers(ctx context.Context) (*servers, error) {
	s := &servers{}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *servers) start(ctx context.Context) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "devstack-"); err != nil {
		return err
	}
	program, err := s.build(ctx)
	if err != nil {
		return err
	}
	if s.issuer, err = stack.StartIssuer(nil, jose.RS256, jose.EdDSA, jose.ES256); err != nil {
		return err
	}
	if s.nats, err = stack.NewNATS(); err != nil {
		return err
	}
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if s.vault, err = stack.StartVault(starting, stack.VaultConfig{}); err != nil {
		return err
	}
	if err := os.Rename(program, filepath.Join(s.vault.PluginDir, stack.PluginName)); err != nil {
		return err
	}
	return s.linkPrograms()
}

// build builds all programs that are not there yet, at the same time: one is downloaded or linked while another is
// compiled. It returns the plugin's.
func (s *servers) build(ctx context.Context) (plugin string, err error) {
	if err := stack.PreferOpenBao(ctx); err != nil {
		return "", err
	}
	if err := os.Mkdir(s.binDir(), 0o755); err != nil {
		return "", err
	}
	builds, ctx := errgroup.WithContext(ctx)
	for _, tool := range []stack.Tool{stack.VaultTool, stack.NATSTool} {
		builds.Go(func() error {
			_, err := tool.Path(ctx)
			return err
		})
	}
	builds.Go(func() error {
		_, err := stack.BuildCallout(ctx, s.binDir())
		return err
	})
	builds.Go(func() (err error) {
		if plugin, err = stack.BuildPlugin(ctx, s.dir, "v0.1.0-dev"); err != nil {
			return err
		}
		s.sha256, err = stack.SHA256(plugin)
		return err
	})
	err = builds.Wait()
	return plugin, err
}

// linkPrograms adds vault and devstack to the folder for PATH by these names.
func (s *servers) linkPrograms() error {
	own, err := os.Executable()
	if err != nil {
		return err
	}
	for name, program := range map[string]string{"vault": s.vault.Program(), "devstack": own} {
		if err := os.Symlink(program, filepath.Join(s.binDir(), name)); err != nil {
			return err
		}
	}
	return nil
}

func (s *servers) binDir() string { return filepath.Join(s.dir, "bin") }

// environment is what a person would export to work with the servers.
func (s *servers) environment() []string {
	return []string{
		"VAULT_ADDR=" + s.vault.Addr,
		"VAULT_TOKEN=" + s.vault.Token,
		"NATS_URL=" + s.nats.URL,
		"ISSUER=" + s.issuer.URL,
	}
}

// commandEnvironment is environment and what a shell needs beside it. The home is the
// working folder, so that no file of the user's is read or written.
func (s *servers) commandEnvironment() []string {
	return append(s.environment(),
		"PATH="+s.binDir()+string(os.PathListSeparator)+os.Getenv("PATH"),
		"HOME="+s.dir,
	)
}

// startNATS starts nats-server with the configuration that the mount gave out, and
// returns when the mount has found it.
func (s *servers) startNATS(ctx context.Context) error {
	config, err := os.ReadFile(filepath.Join(s.dir, "nats-server.conf"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := s.nats.Start(ctx, string(config)); err != nil {
		return err
	}
	return s.nats.WaitForClient(ctx)
}

// natsPort is the port of NATS_URL.
func (s *servers) natsPort() string {
	return s.nats.URL[strings.LastIndex(s.nats.URL, ":")+1:]
}

// close stops what was started.
func (s *servers) close() error {
	var failures []error
	if s.nats != nil {
		failures = append(failures, s.nats.Close())
	}
	if s.vault != nil {
		failures = append(failures, s.vault.Close())
	}
	if s.issuer != nil {
		failures = append(failures, s.issuer.Close())
	}
	if s.dir != "" {
		failures = append(failures, os.RemoveAll(s.dir))
	}
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("stop the servers: %w", err)
	}
	return nil
}
