// Nsc-import moves an operator with its accounts and users from nsc's store into
// a mount of the NATS auth method. All keys keep their identity: nats-servers
// that run on the nsc configuration go on without a restart, and JWTs that were
// issued before stay good.
//
// It reads files only, and writes through Vault's API. Seeds are sent to Vault
// and shown nowhere. To run it again is harmless.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/cliconfig"
)

const usage = `Usage: nsc-import [-n] [options]

Imports an nsc operator with its accounts, users and keys into a mount of the
NATS auth method: config, jwt/<account> and jwt/<account>.<user>. The seeds that
the keystore has are imported; what is missing or left out is said. The operator's
identity key may be missing, and stay offline.

What nsc keeps is found as nsc finds it: by NSC_HOME, NKEYS_PATH, XDG_CONFIG_HOME,
XDG_DATA_HOME, the working directory, and what "nsc env" has set.

Vault is reached as with the vault command: VAULT_ADDR, VAULT_TOKEN (or the token
of its token helper), VAULT_NAMESPACE, VAULT_CACERT and so on.

Options:
`

type options struct {
	all, config, stores, keystore string // directories
	operator, mount               string
	dry                           bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "nsc-import:", withoutSeeds(err.Error()))
		os.Exit(1)
	}
}

func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("nsc-import", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.BoolVar(&o.dry, "n", false, "ask the mount what it would take, and write nothing")
	flags.StringVar(&o.all, "H", "", "`directory` for all that nsc has, as its -H")
	flags.StringVar(&o.config, "config", "", "nsc's configuration `directory`, which has nsc.json")
	flags.StringVar(&o.stores, "stores", "", "nsc's stores `directory`, which has one per operator")
	flags.StringVar(&o.keystore, "keystore", "", "nsc's keystore `directory`, which has keys/ and creds/")
	flags.StringVar(&o.operator, "operator", "", "`name` of the operator (default the only one, or else the one that nsc works on)")
	flags.StringVar(&o.mount, "mount", "auth/nats", "`path` of the mount")
	flags.Usage = func() {
		_, _ = fmt.Fprint(out, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		_, _ = fmt.Fprintf(out, "unexpected argument: %s\n", flags.Arg(0))
		flags.Usage()
		return o, errors.New("unexpected argument")
	}
	o.mount = strings.Trim(o.mount, "/")
	return o, nil
}

func run(ctx context.Context, o options, out io.Writer) error {
	p, err := o.locate()
	if err != nil {
		return err
	}
	t, err := readTree(p.stores, o.operator, p.operator)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "operator %s of %s, with the keys of %s\n", t.name, p.stores, p.keystore)
	steps, err := newPlan(t, keystore(p.keystore))
	if err != nil {
		return err
	}
	client, err := vault()
	if err != nil {
		return err
	}
	i := importer{vault: client, mount: o.mount, dry: o.dry, out: out}
	done := "imported"
	if o.dry {
		done = "would be imported"
	}
	count, err := i.run(ctx, steps)
	_, _ = fmt.Fprintf(out, "%d %s, %d left out, %d failed\n", count.done, done, count.skipped, count.failed)
	if err == nil && count.failed > 0 {
		err = fmt.Errorf("%d could not be imported; run it again when the cause is gone", count.failed)
		if o.dry {
			err = fmt.Errorf("%d could not be imported", count.failed)
		}
	}
	return err
}

func vault() (*api.Logical, error) {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	if client.Token() != "" {
		return client.Logical(), nil
	}
	helper, err := cliconfig.DefaultTokenHelper()
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	token, err := helper.Get()
	token = strings.TrimSpace(token)
	switch {
	case err != nil:
		return nil, fmt.Errorf("vault's token helper: %w", err)
	case token == "":
		return nil, errors.New("VAULT_TOKEN is not set, and vault's token helper has no token: log in to Vault first")
	}
	client.SetToken(token)
	return client.Logical(), nil
}
