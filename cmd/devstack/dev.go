package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// dev runs the servers, ready to try, until the context ends.
func dev(ctx context.Context, out io.Writer) (err error) {
	servers, err := startServers(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.close()) }()
	if err := servers.makeReady(ctx); err != nil {
		return err
	}
	servers.printNext(out)
	<-ctx.Done()
	fmt.Fprintln(out, "\nstopping")
	return nil
}

// makeReady brings the mount to where the demo has it before its first login.
func (s *servers) makeReady(ctx context.Context) error {
	if err := s.vault.Install(ctx, filepath.Join(s.vault.PluginDir, stack.PluginName)); err != nil {
		return err
	}
	if err := s.vault.Enable(ctx, "nats"); err != nil {
		return err
	}
	client, err := s.vault.Client()
	if err != nil {
		return err
	}
	for _, write := range []struct {
		path string
		data map[string]any
	}{
		{"config", map[string]any{
			"oidc_discovery_url":     s.issuer.URL,
			"account_jwt_server_url": s.nats.URL,
			"service_url":            s.nats.URL,
		}},
		{"jwt/orders", map[string]any{"type": "account"}},
		{"jwt/callout", map[string]any{"type": "account"}},
		{"role/dev", map[string]any{
			"account": "orders", "bound_audiences": "vault", "user_claim": "sub",
			"token_policies": "default", "token_ttl": "10m",
			"user_template": `{"pub":{"allow":["orders.{{claim(project_path)|escape}}.>"]},` +
				`"sub":{"allow":["orders.{{claim(project_path)|escape}}.>"]}}`,
		}},
		{"callout/edge", map[string]any{"account": "callout", "roles": "dev", "default_role": "dev"}},
	} {
		if _, err := client.Logical().WriteWithContext(ctx, "auth/nats/"+write.path, write.data); err != nil {
			return err
		}
	}
	secret, err := client.Logical().ReadWithContext(ctx, "auth/nats/config/server")
	config, err := field(secret, err, "auth/nats/config/server", "config")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "nats-server.conf"), []byte(config), 0o600); err != nil {
		return err
	}
	return s.startNATS(ctx)
}

// printNext prints what a person needs to go on.
func (s *servers) printNext(out io.Writer) {
	fmt.Fprintln(out, "Vault, nats-server and an OIDC issuer are running; Ctrl-C stops them. In another terminal:")
	fmt.Fprintln(out)
	for _, variable := range s.environment() {
		fmt.Fprintln(out, "  export "+variable)
	}
	fmt.Fprintln(out, "  export PATH="+s.binDir()+":$PATH")
	fmt.Fprint(out, `
  vault read auth/nats/config
  devstack token aud=vault sub=me project_path=acme/shop > me.jwt
  vault write auth/nats/login role=dev jwt=@me.jwt
  vault write -field=creds auth/nats/login role=dev jwt=@me.jwt > me.creds
  devstack sub -creds me.creds 'orders.acme/shop.>' &
  devstack pub -creds me.creds 'orders.acme/shop.new' 'two apples'
  vault path-help auth/nats

A token alone is enough, while the callout answers (docs/callout.md):

  nats-callout -callout edge -nats $NATS_URL -listen= &
  devstack pub -token me.jwt 'orders.acme/shop.new' 'three pears'
`)
}
