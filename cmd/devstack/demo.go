package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// demo runs the whole story, and fails at the first step that is not as it should be.
func demo(ctx context.Context, out io.Writer) (err error) {
	began := time.Now()
	servers, err := startServers(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.close()) }()
	d := newStory(servers, out)
	if err := tell(ctx, d.enable, d.configure, d.defineRole, d.defineCallout, d.bootNATS, d.login, d.talk, d.namedUser, d.callout); err != nil {
		return err
	}
	d.say("That was all of it, in %.1f seconds.", time.Since(began).Seconds())
	return nil
}

// tell tells chapters of the story one after another.
func tell(ctx context.Context, chapters ...func(context.Context) error) error {
	for _, chapter := range chapters {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

// story is the demo under way.
type story struct {
	*servers
	*shell
}

func newStory(servers *servers, out io.Writer) *story {
	return &story{servers: servers, shell: &shell{dir: servers.dir, env: servers.commandEnvironment(), out: out}}
}

func (d *story) enable(ctx context.Context) error {
	d.say("A Vault runs in dev mode, with the plugin's program in its plugin directory.")
	for _, variable := range d.environment() {
		d.show("export " + variable)
	}
	register := fmt.Sprintf("vault plugin register -sha256=%s auth %s", d.sha256, stack.PluginName)
	if err := d.run(ctx, register, "Success!"); err != nil {
		return err
	}
	return d.run(ctx, "vault auth enable -path=nats "+stack.PluginName, "Success!")
}

func (d *story) configure(ctx context.Context) error {
	d.say("The mount becomes a NATS operator, and trusts the issuer of the workloads' tokens.\n" +
		"# No nats-server runs yet: the answer warns of what is still to be delivered.")
	return d.run(ctx, "vault write auth/nats/config oidc_discovery_url=$ISSUER"+
		" account_jwt_server_url=$NATS_URL service_url=$NATS_URL", "operator_jwt", "system_account_jwt")
}

func (d *story) defineRole(ctx context.Context) error {
	d.say("Two accounts, the second for a callout, and a role whose workloads get what their token's project_path earns.")
	account := `vault write auth/nats/jwt/orders type=account config='{"description":"orders of the shop"}'`
	if err := d.run(ctx, account, "public_key"); err != nil {
		return err
	}
	if err := d.run(ctx, "vault write auth/nats/jwt/callout type=account", "public_key"); err != nil {
		return err
	}
	return d.run(ctx, `vault write auth/nats/role/dev account=orders bound_audiences=vault user_claim=sub \
    token_policies=default token_ttl=10m user_template='{
      "pub": {"allow": ["orders.{{claim(project_path)|escape}}.>"]},
      "sub": {"allow": ["orders.{{claim(project_path)|escape}}.>"]}}'`)
}

func (d *story) defineCallout(ctx context.Context) error {
	d.say("A client that cannot run Vault's sends its token as its password, and nats-server asks a callout who it is:\n" +
		"# three commands. This is the first; the servers' configuration has a line of it.")
	return d.run(ctx, "vault write auth/nats/callout/edge account=callout roles=dev default_role=dev", "callout-edge")
}

func (d *story) bootNATS(ctx context.Context) error {
	d.say("A nats-server boots from what the mount says, and trusts it from then on.")
	if err := d.run(ctx, "vault read -field=config auth/nats/config/server > nats-server.conf"); err != nil {
		return err
	}
	d.show("nats-server --config nats-server.conf --addr 127.0.0.1 --port " + d.natsPort() + " &")
	if err := d.startNATS(ctx); err != nil {
		return err
	}
	return d.eventually(ctx, "vault read -field=delivered auth/nats/jwt/orders", "true")
}

func (d *story) login(ctx context.Context) error {
	d.say("A CI job has a token from its platform. It logs in with that and nothing else.")
	if err := d.run(ctx, "devstack token aud=vault sub=job-4711 project_path=acme/web.shop > job.jwt"); err != nil {
		return err
	}
	if err := d.run(ctx, "VAULT_TOKEN= vault write auth/nats/login role=dev jwt=@job.jwt",
		"BEGIN NATS USER JWT", "account_public_key", "token_meta_role", "orders"); err != nil {
		return err
	}
	d.say("The token is Vault's, as any other.")
	if err := d.run(ctx, "VAULT_TOKEN= vault write -field=token auth/nats/login role=dev jwt=@job.jwt > job.token"); err != nil {
		return err
	}
	return d.run(ctx, "VAULT_TOKEN=$(cat job.token) vault token lookup", "auth/nats/login", "user_public_key")
}

func (d *story) talk(ctx context.Context) error {
	d.say("The creds are NATS's. With them a message flows under the permissions of the claims.\n" +
		"# A dot in a claim would begin another subject token; escape keeps it one.")
	if err := d.run(ctx, "VAULT_TOKEN= vault write -field=creds auth/nats/login role=dev jwt=@job.jwt > job.creds"); err != nil {
		return err
	}
	listener, err := d.background(ctx, "devstack sub -creds job.creds -count 1 'orders.acme/web%2Eshop.>'", "subscribed")
	if err != nil {
		return err
	}
	if err := d.run(ctx, "devstack pub -creds job.creds 'orders.acme/web%2Eshop.new' 'two apples'", "published"); err != nil {
		return err
	}
	if err := d.finish(ctx, listener, "two apples"); err != nil {
		return err
	}
	d.say("The orders of another project are none of its business: nats-server refuses.")
	return d.fails(ctx, "devstack pub -creds job.creds 'orders.acme/bank.new' 'all the money'", "Permissions Violation")
}

func (d *story) namedUser(ctx context.Context) error {
	d.say("A named user's key never leaves the mount: Vault signs the nonce of nats-server.")
	user := `vault write auth/nats/jwt/billing type=user account=orders config='{"pub":{"allow":["orders.billing.>"]}}'`
	if err := d.run(ctx, user, "public_key"); err != nil {
		return err
	}
	if err := d.run(ctx, "vault write auth/nats/jwt/billing/sign nonce=PXoWU7zWAMt75FY", "signed_nonce"); err != nil {
		return err
	}
	if err := d.run(ctx, "devstack pub -vault auth/nats/jwt/billing orders.billing.report 'paid'", "published"); err != nil {
		return err
	}
	return d.fails(ctx, "devstack pub -vault auth/nats/jwt/billing orders.other 'paid'", "Permissions Violation")
}

func (d *story) callout(ctx context.Context) error {
	d.say("The callout's second command answers nats-servers, and its third is a client with nothing but its token.")
	if _, err := d.background(ctx, "nats-callout -callout edge -nats $NATS_URL -listen=", "answering"); err != nil {
		return err
	}
	if err := d.run(ctx, "devstack pub -token job.jwt 'orders.acme/web%2Eshop.new' 'three pears'", "published"); err != nil {
		return err
	}
	d.say("Without a token there is no way in, and with one no further than before.")
	if err := d.fails(ctx, "devstack pub 'orders.acme/web%2Eshop.new' 'no pears'", "Authorization Violation"); err != nil {
		return err
	}
	return d.fails(ctx, "devstack pub -token job.jwt 'orders.acme/bank.new' 'all the money'", "Permissions Violation")
}
