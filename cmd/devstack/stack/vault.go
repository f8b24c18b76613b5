package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/hashicorp/vault/api"
)

// RootToken is the root token of a Vault that runs in dev mode.
const RootToken = "root"

// VaultConfig says what kind of Vault to start.
type VaultConfig struct {
	// Storage is "" for dev mode: in memory, unsealed, with RootToken. With "raft", the
	// one storage of Vault's minimal build that lasts, it is a server as in production,
	// that can be sealed and restarted.
	Storage string
	// LogLevel is the server's; "info" when empty.
	LogLevel string
	// Env is added to the server's environment, which is otherwise all but empty.
	Env []string
	// TLS has a server with storage serve TLS, with a certificate of this authority.
	TLS *CA
}

// Vault is a running server.
type Vault struct {
	Addr      string // http://127.0.0.1:port
	Token     string // the root token
	Dir       string // its folder; gone after Close
	PluginDir string // where plugins are built to or copied to before they are registered

	bin       string
	openBao   bool // the program is OpenBao's
	config    VaultConfig
	port      int
	process   *process
	unsealKey string // of a server with storage
}

// StartVault starts a Vault that is ready for use: initialized and unsealed.
func StartVault(ctx context.Context, config VaultConfig) (*Vault, error) {
	bin, err := VaultTool.Path(ctx)
	if err != nil {
		return nil, err
	}
	if config.LogLevel == "" {
		config.LogLevel = "info"
	}
	v, err := newVault(bin, config)
	if err != nil {
		return nil, err
	}
	if err := v.setUp(ctx); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// newVault prepares a server, but for its configuration.
func newVault(bin string, config VaultConfig) (*Vault, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := makeDir("vault")
	if err != nil {
		return nil, err
	}
	scheme := "http://"
	if config.TLS != nil {
		scheme = "https://"
	}
	return &Vault{
		Addr: scheme + loopback(port), Token: RootToken, Dir: dir, PluginDir: filepath.Join(dir, "plugins"),
		bin: bin, config: config, port: port,
	}, nil
}

func (v *Vault) setUp(ctx context.Context) error {
	if err := os.Mkdir(v.PluginDir, 0o755); err != nil {
		return err
	}
	var err error
	if v.openBao, err = isOpenBao(ctx, v.bin); err != nil {
		return err
	}
	if err := v.writeServerConfig(); err != nil {
		return err
	}
	if v.config.Storage == "" {
		return v.Start(ctx)
	}
	if err := v.start(ctx); err != nil {
		return err
	}
	return v.initialize(ctx)
}

// Start starts a server that was stopped or killed, and unseals it.
func (v *Vault) Start(ctx context.Context) error {
	if err := v.start(ctx); err != nil {
		return err
	}
	if v.config.Storage == "" {
		return nil
	}
	return v.Unseal(ctx)
}

// start returns when the server answers, sealed or not.
func (v *Vault) start(ctx context.Context) error {
	args := []string{"server", "-log-level=" + v.config.LogLevel, "-config=" + v.serverConfigPath()}
	if v.config.Storage == "" {
		args = append(args, "-dev", "-dev-no-store-token", "-dev-root-token-id="+RootToken,
			"-dev-listen-address="+loopback(v.port), "-dev-plugin-dir="+v.PluginDir)
	}
	var err error
	v.process, err = startProcess(v.Dir, "vault", v.config.Env, v.bin, args...)
	if err != nil {
		return err
	}
	client, err := v.Client()
	if err != nil {
		return err
	}
	return v.process.ready(ctx, func() error {
		health, err := client.Sys().HealthWithContext(ctx)
		if err != nil {
			return err
		}
		if v.config.Storage == "" && health.Sealed {
			return errors.New("still sealed")
		}
		return nil
	})
}

// Stop ends the server in good order; its storage stays, unless it is in memory.
func (v *Vault) Stop() { v.process.stop() }

// Kill ends the server and its plugins at once, as kill -9 does.
func (v *Vault) Kill() { v.process.kill() }

// Close stops the server and removes its folder.
func (v *Vault) Close() error {
	v.Stop()
	return os.RemoveAll(v.Dir)
}

// Log returns all that the server and its plugins have logged since StartVault.
func (v *Vault) Log() string { return v.process.output() }

// Program returns the path of Vault's program, which is its CLI too.
func (v *Vault) Program() string { return v.bin }

// Client returns a new client that holds the root token. It is not affected by the
// VAULT_* variables of the environment and does not repeat failed requests.
func (v *Vault) Client() (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address = v.Addr
	if v.config.TLS != nil {
		if err := config.ConfigureTLS(&api.TLSConfig{CACertBytes: []byte(v.config.TLS.PEM)}); err != nil {
			return nil, err
		}
	}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	if err := client.SetAddress(v.Addr); err != nil {
		return nil, err
	}
	client.ClearNamespace()
	client.SetMaxRetries(0)
	client.SetToken(v.Token)
	return client, nil
}

// Command returns a run of Vault's CLI against this server, with the root token. Its
// home is the server's folder, so that no token of the user's is read or replaced.
// OpenBao's CLI knows these variables too; its own, BAO_ADDR and the like, would win
// over what a command sets for itself.
func (v *Vault) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, v.bin, args...)
	cmd.Env = []string{
		"PATH=" + filepath.Dir(v.bin) + string(os.PathListSeparator) + os.Getenv("PATH"),
		"HOME=" + v.Dir, "VAULT_ADDR=" + v.Addr, "VAULT_TOKEN=" + v.Token,
	}
	return cmd
}

// CLI runs Vault's CLI and returns what it printed. The error has that text too.
func (v *Vault) CLI(ctx context.Context, args ...string) (string, error) {
	out, err := v.Command(ctx, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("vault %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
