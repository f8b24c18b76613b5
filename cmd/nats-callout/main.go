// Nats-callout answers what nats-servers ask about clients that present a workload's
// token and nothing else. It has the mount of the NATS auth method in Vault answer,
// and holds no key itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/nats-callout/responder"
)

// version and commit are stamped in by the linker.
var (
	version = "v0.0.0-dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Getenv, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	case o.version:
		fmt.Printf("nats-callout %s (%s)\n", version, commit)
		return
	}
	if err := run(ctx, o, os.Stderr); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "nats-callout:", err)
		os.Exit(1)
	}
}

// run answers until the context ends.
func run(ctx context.Context, o options, out io.Writer) error {
	log := slog.New(o.logHandler(out))
	vault, err := o.vault()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r, err := responder.New(responder.Config{
		Vault: vault, NATS: o.nats, Options: o.natsOptions(),
		Concurrency: o.concurrency, Timeout: o.timeout, Logger: log,
	}, registry)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	server := &http.Server{Addr: o.listen, Handler: r.Handler(registry), ReadHeaderTimeout: 5 * time.Second}
	if o.listen != "" {
		go func() {
			served <- server.ListenAndServe()
			stop()
		}()
	}
	r.Run(ctx)
	if o.listen == "" {
		return nil
	}
	err = server.Close()
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
