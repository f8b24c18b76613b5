package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/vault/api"
)

// PluginName is the name of the plugin's program and of the plugin in Vault's catalog.
const PluginName = "vault-plugin-auth-nats"

// SHA256 returns the checksum of a file as `vault plugin register` takes it.
func SHA256(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// Install copies a plugin's program to where Vault looks for plugins, unless it was
// built there, and registers it under its file's name.
func (v *Vault) Install(ctx context.Context, program string) error {
	name := filepath.Base(program)
	installed := filepath.Join(v.PluginDir, name)
	if installed != program {
		text, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		if err := os.WriteFile(installed, text, 0o755); err != nil {
			return err
		}
	}
	sum, err := SHA256(installed)
	if err != nil {
		return err
	}
	client, err := v.Client()
	if err != nil {
		return err
	}
	err = client.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: name, Type: api.PluginTypeCredential, Command: name, SHA256: sum,
	})
	if err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	return nil
}

// Enable enables the plugin at auth/<path>, tuned so that the account endpoint can
// take If-None-Match and answer with ETag.
func (v *Vault) Enable(ctx context.Context, path string) error {
	client, err := v.Client()
	if err != nil {
		return err
	}
	err = client.Sys().EnableAuthWithOptionsWithContext(ctx, path, &api.EnableAuthOptions{
		Type: PluginName,
		Config: api.AuthConfigInput{
			PassthroughRequestHeaders: []string{"If-None-Match"},
			AllowedResponseHeaders:    []string{"ETag"},
		},
	})
	if err != nil {
		return fmt.Errorf("enable auth/%s: %w", path, err)
	}
	return nil
}

// ReloadPlugin has Vault end the plugin's process and start a new one.
func (v *Vault) ReloadPlugin(ctx context.Context) error {
	client, err := v.Client()
	if err != nil {
		return err
	}
	if _, err := client.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{Plugin: PluginName}); err != nil {
		return fmt.Errorf("reload the plugin: %w", err)
	}
	return nil
}
