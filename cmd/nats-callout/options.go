package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nats.go"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/nats-callout/responder"
)

const usage = `Usage: nats-callout -callout NAME -nats URL [options]

Answers what nats-servers ask an auth callout about their clients, by having the
mount of the NATS auth method in Vault do so. It holds no key, and several may run.

Vault is reached as with the vault command: VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT
and so on. Its token comes from -token-file (the sink of a Vault Agent), from a login
with -jwt-file and -role, from VAULT_TOKEN, or from the Vault Agent at VAULT_ADDR.

The token needs:
  update  MOUNT/callout/NAME/authorize
  read    MOUNT/jwt/callout-NAME
  update  MOUNT/jwt/callout-NAME/sign

Each option can be given as a variable of the environment instead: NATS_CALLOUT_ and
its name in capitals, such as NATS_CALLOUT_TOKEN_FILE.

Options:
`

type options struct {
	place                    responder.Place
	login                    responder.Login
	nats, ca, cert, key      string
	listen, logFormat, level string
	concurrency              int
	timeout                  time.Duration
	version                  bool
}

func parse(args []string, env func(string) string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("nats-callout", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.place.Callout, "callout", "", "`name` of the auth callout in the mount")
	flags.StringVar(&o.place.Mount, "mount", "auth/nats", "`path` of the mount")
	flags.StringVar(&o.place.User, "user", "", "`name` of the callout's user (default callout- and the callout's name)")
	flags.StringVar(&o.nats, "nats", "", "`URLs` of the nats-servers, with commas between them (default NATS_URL)")
	flags.StringVar(&o.ca, "nats-ca", "", "`file` with the certificates that the nats-servers' are signed by")
	flags.StringVar(&o.cert, "nats-cert", "", "`file` with a certificate for the nats-servers")
	flags.StringVar(&o.key, "nats-key", "", "`file` with its key")
	flags.StringVar(&o.login.TokenFile, "token-file", "", "`file` with a Vault token, which others keep fresh")
	flags.StringVar(&o.login.JWTFile, "jwt-file", "", "`file` with a workload token with which to log in to the mount")
	flags.StringVar(&o.login.Role, "role", "", "`role` of that login (default the mount's default_role)")
	flags.IntVar(&o.concurrency, "concurrency", 256, "how many requests are dealt with at a `time`; more are turned away")
	flags.DurationVar(&o.timeout, "timeout", 1800*time.Millisecond, "how long a request may take: less than authorization.timeout of the nats-servers, which is 2s by default")
	flags.StringVar(&o.listen, "listen", ":8080", "`address` for /healthz and /metrics; empty for none")
	flags.StringVar(&o.logFormat, "log-format", "text", "text or json")
	flags.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	flags.BoolVar(&o.version, "version", false, "print the version and exit")
	flags.Usage = func() {
		_, _ = fmt.Fprint(out, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	err := fromEnvironment(flags, env)
	if o.nats == "" {
		o.nats = env("NATS_URL")
	}
	if o.place.User == "" {
		o.place.User = "callout-" + o.place.Callout
	}
	o.place.Mount = strings.Trim(o.place.Mount, "/")
	if err == nil && !o.version {
		err = o.check(flags.Args())
	}
	if err != nil {
		_, _ = fmt.Fprintf(out, "nats-callout: %s; see nats-callout -help\n", err)
	}
	return o, err
}

// fromEnvironment sets the options that were not given.
func fromEnvironment(flags *flag.FlagSet, env func(string) string) error {
	var given []string
	flags.Visit(func(f *flag.Flag) { given = append(given, f.Name) })
	var faults []error
	flags.VisitAll(func(f *flag.Flag) {
		variable := "NATS_CALLOUT_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value := env(variable); value != "" && !slices.Contains(given, f.Name) {
			if err := flags.Set(f.Name, value); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", variable, err))
			}
		}
	})
	return errors.Join(faults...)
}

func (o *options) check(rest []string) error {
	var level slog.Level
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument: %s", rest[0])
	case o.place.Callout == "":
		return errors.New("-callout is missing")
	case strings.Contains(o.place.Callout+o.place.User, "/"):
		return errors.New("-callout and -user are names, without a slash")
	case o.nats == "":
		return errors.New("-nats is missing")
	case o.login.TokenFile != "" && o.login.JWTFile != "":
		return errors.New("-token-file and -jwt-file are given: which is it?")
	case o.login.Role != "" && o.login.JWTFile == "":
		return errors.New("-role is given without -jwt-file")
	case (o.cert == "") != (o.key == ""):
		return errors.New("-nats-cert and -nats-key go together")
	case o.concurrency < 1 || o.timeout <= 0:
		return errors.New("-concurrency and -timeout have to be positive")
	case o.logFormat != "text" && o.logFormat != "json":
		return fmt.Errorf("-log-format is %q: text or json", o.logFormat)
	}
	return level.UnmarshalText([]byte(o.level))
}

func (o *options) logHandler(out io.Writer) slog.Handler {
	var level slog.Level
	_ = level.UnmarshalText([]byte(o.level)) // check has looked at it
	handlerOptions := &slog.HandlerOptions{Level: level}
	if o.logFormat == "json" {
		return slog.NewJSONHandler(out, handlerOptions)
	}
	return slog.NewTextHandler(out, handlerOptions)
}

func (o *options) natsOptions() []nats.Option {
	var all []nats.Option
	if o.ca != "" {
		all = append(all, nats.RootCAs(o.ca))
	}
	if o.cert != "" {
		all = append(all, nats.ClientCert(o.cert, o.key))
	}
	return all
}

// vault is the callout, reached with a connection for each request that may be with
// Vault at a time: else most of them would begin with a handshake.
func (o *options) vault() (*responder.Vault, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, fmt.Errorf("vault: %w", config.Error)
	}
	if transport, ok := config.HttpClient.Transport.(*http.Transport); ok {
		transport.MaxIdleConns = 0
		transport.MaxIdleConnsPerHost = o.concurrency + 4
	}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return responder.NewVault(client, o.place, o.login), nil
}
