package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/vault/api"
)

func (v *Vault) serverConfigPath() string { return filepath.Join(v.Dir, "vault.hcl") }

// isOpenBao asks the program what it is.
func isOpenBao(ctx context.Context, bin string) (bool, error) {
	out, err := exec.CommandContext(ctx, bin, "version").Output()
	if err != nil {
		return false, fmt.Errorf("%s version: %w", bin, err)
	}
	return bytes.HasPrefix(out, []byte("OpenBao")), nil
}

// writeServerConfig writes the configuration of a server with storage, and of one in
// dev mode an empty one, for what is added to it.
func (v *Vault) writeServerConfig() error {
	if v.config.Storage == "" {
		return os.WriteFile(v.serverConfigPath(), nil, 0o600)
	}
	clusterPort, err := FreePort()
	if err != nil {
		return err
	}
	data := filepath.Join(v.Dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	listener, err := v.listenerTLS()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`storage %q {
  path                   = %q
  node_id                = %q
  performance_multiplier = 1
}
listener "tcp" {
  address         = %q
  cluster_address = %q
%s}
api_addr         = %q
cluster_addr     = %q
plugin_directory = %q
disable_mlock    = true
`, v.config.Storage, data, filepath.Base(v.Dir), loopback(v.port), loopback(clusterPort), listener, v.Addr, "https://"+loopback(clusterPort), v.PluginDir)
	return os.WriteFile(v.serverConfigPath(), []byte(text), 0o600)
}

// listenerTLS is what a listener's configuration says of TLS.
func (v *Vault) listenerTLS() (string, error) {
	if v.config.TLS == nil {
		return "  tls_disable     = true\n", nil
	}
	certificate, key, err := v.config.TLS.ServerPEM()
	if err != nil {
		return "", err
	}
	certificatePath, keyPath := filepath.Join(v.Dir, "tls.crt"), filepath.Join(v.Dir, "tls.key")
	return fmt.Sprintf("  tls_cert_file   = %q\n  tls_key_file    = %q\n", certificatePath, keyPath),
		errors.Join(os.WriteFile(certificatePath, certificate, 0o600), os.WriteFile(keyPath, key, 0o600))
}

// initialize makes the server's root token and its only unseal key.
func (v *Vault) initialize(ctx context.Context) error {
	client, err := v.Client()
	if err != nil {
		return err
	}
	keys, err := client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("initialize Vault: %w", err)
	}
	v.Token, v.unsealKey = keys.RootToken, keys.KeysB64[0]
	return v.Unseal(ctx)
}

// Seal seals the server.
func (v *Vault) Seal(ctx context.Context) error {
	client, err := v.Client()
	if err != nil {
		return err
	}
	return client.Sys().SealWithContext(ctx)
}

// Unseal unseals the server and returns when it is active, or a standby that knows
// which node is.
func (v *Vault) Unseal(ctx context.Context) error {
	client, err := v.Client()
	if err != nil {
		return err
	}
	if _, err := client.Sys().UnsealWithContext(ctx, v.unsealKey); err != nil {
		return fmt.Errorf("unseal Vault: %w", err)
	}
	return v.process.ready(ctx, func() error {
		health, err := client.Sys().HealthWithContext(ctx)
		if err != nil {
			return err
		}
		if health.Sealed || !health.Initialized {
			return errors.New("still sealed")
		}
		if !health.Standby {
			return nil
		}
		leader, err := client.Sys().LeaderWithContext(ctx)
		if err != nil {
			return err
		}
		if leader.LeaderAddress == "" {
			return errors.New("no node is active yet")
		}
		return nil
	})
}

// AddStandby starts one more node of the cluster that a server with storage "raft" is
// the leader of. It has the same plugins, token and unseal key, and is unsealed.
func (v *Vault) AddStandby(ctx context.Context) (*Vault, error) {
	standby, err := newVault(v.bin, v.config)
	if err != nil {
		return nil, err
	}
	standby.PluginDir, standby.Token, standby.unsealKey, standby.openBao = v.PluginDir, v.Token, v.unsealKey, v.openBao
	if err := standby.join(ctx, v.Addr); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	return standby, nil
}

func (v *Vault) join(ctx context.Context, leader string) error {
	if err := v.writeServerConfig(); err != nil {
		return err
	}
	if err := v.start(ctx); err != nil {
		return err
	}
	client, err := v.Client()
	if err != nil {
		return err
	}
	joined, err := client.Sys().RaftJoinWithContext(ctx, &api.RaftJoinRequest{LeaderAPIAddr: leader, LeaderCACert: v.leaderCA()})
	if err != nil {
		return fmt.Errorf("join the cluster of %s: %w", leader, err)
	}
	if !joined.Joined {
		return fmt.Errorf("%s does not join the cluster of %s", v.Addr, leader)
	}
	return v.Unseal(ctx)
}

// leaderCA is what a node that joins trusts the leader by.
func (v *Vault) leaderCA() string {
	if v.config.TLS == nil {
		return ""
	}
	return v.config.TLS.PEM
}

// StepDown has another node of the cluster take over from its leader, which it does
// once both have a vote: a node that has joined gets its own after some seconds.
func (v *Vault) StepDown(ctx context.Context) error {
	client, err := v.Client()
	if err != nil {
		return err
	}
	if err := v.waitForVotes(ctx, client); err != nil {
		return err
	}
	return client.Sys().StepDownWithContext(ctx)
}

// Audit switches on a file audit device and returns the file's path. OpenBao takes
// audit devices from its configuration only.
func (v *Vault) Audit(ctx context.Context) (string, error) {
	client, err := v.Client()
	if err != nil {
		return "", err
	}
	path := filepath.Join(v.Dir, "audit.log")
	if v.openBao {
		return path, v.declareAudit(ctx, client, path)
	}
	err = client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": path},
	})
	if err != nil {
		return "", fmt.Errorf("enable auditing: %w", err)
	}
	return path, nil
}

// declareAudit adds the audit device to the configuration, which the server then reads
// again.
func (v *Vault) declareAudit(ctx context.Context, client *api.Client, path string) error {
	text, err := os.ReadFile(v.serverConfigPath())
	if err != nil {
		return err
	}
	text = fmt.Appendf(text, "audit \"file\" \"file\" {\n  options {\n    file_path = %q\n  }\n}\n", path)
	if err := os.WriteFile(v.serverConfigPath(), text, 0o600); err != nil {
		return err
	}
	v.process.signal(syscall.SIGHUP)
	return v.process.ready(ctx, func() error {
		devices, err := client.Sys().ListAuditWithContext(ctx)
		if err != nil {
			return err
		}
		if devices["file/"] == nil {
			return errors.New("no audit device yet")
		}
		return nil
	})
}
