package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/vault/api"
)

func (v *Vault) serverConfigPath() string { return filepath.Join(v.Dir, "vault.hcl") }

// writeServerConfig writes the configuration of a server with storage.
func (v *Vault) writeServerConfig() error {
	clusterPort, err := FreePort()
	if err != nil {
		return err
	}
	data := filepath.Join(v.Dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	storage := fmt.Sprintf("storage %q {\n  path = %q\n", v.config.Storage, data)
	if v.config.Storage == "raft" {
		storage += "  node_id = \"one\"\n  performance_multiplier = 1\n"
	}
	text := fmt.Sprintf(`%s}
listener "tcp" {
  address         = %q
  cluster_address = %q
  tls_disable     = true
}
api_addr         = %q
cluster_addr     = %q
plugin_directory = %q
disable_mlock    = true
`, storage, loopback(v.port), loopback(clusterPort), v.Addr, "https://"+loopback(clusterPort), v.PluginDir)
	return os.WriteFile(v.serverConfigPath(), []byte(text), 0o600)
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

// Unseal unseals the server and returns when it is active.
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
		if health.Sealed || health.Standby {
			return errors.New("not active yet")
		}
		return nil
	})
}

// Audit switches on a file audit device and returns the file's path.
func (v *Vault) Audit(ctx context.Context) (string, error) {
	client, err := v.Client()
	if err != nil {
		return "", err
	}
	path := filepath.Join(v.Dir, "audit.log")
	err = client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": path},
	})
	if err != nil {
		return "", fmt.Errorf("enable auditing: %w", err)
	}
	return path, nil
}
