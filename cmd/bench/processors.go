package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// Vaults with more processors than this machine may have: their Go runtime believes that
// it has so many. That shows what its scheduler does then, and not what more of them
// would do.
var vaultProcessors = []int{runtime.NumCPU(), 4, 16}

// A pluginProcessors is how many of Vault's processors the plugin's process uses.
type pluginProcessors struct {
	name string
	of   func(vault int) int
}

var pluginShares = []pluginProcessors{
	{"half, as by default", func(vault int) int { return (vault + 1) / 2 }},
	{"all", func(vault int) int { return vault }},
	{"one", func(int) int { return 1 }},
}

// benchProcessors measures what it does to logins how many processors the plugin's
// process uses.
func benchProcessors(ctx context.Context, b *bench) error {
	rates := map[string][]float64{}
	for range scale(b, busyRounds, 1) {
		for _, processors := range vaultProcessors {
			if err := processorsRound(ctx, b, processors, rates); err != nil {
				return fmt.Errorf("%d processors: %w", processors, err)
			}
		}
	}
	t := table{
		Title:   "Logins a second by the processors that Vault and the plugin use",
		Columns: []string{"clients", "Vault's", "the plugin's", "logins a second", "to those by default"},
		Notes: []string{fmt.Sprintf("ES256, service tokens, Vault in dev mode. GOMAXPROCS of Vault and of the plugin are set by hand; the machine has %d.", runtime.NumCPU()) +
			" More than the machine has shows what their schedulers do, and not what more processors would do."},
	}
	for _, clients := range []int{goalClients, busyClients} {
		for _, processors := range vaultProcessors {
			for _, share := range pluginShares {
				at := processorsCell(clients, processors, share.name)
				t.Rows = append(t.Rows, []string{
					fmt.Sprint(clients), fmt.Sprint(processors), share.name,
					number(b.report.measured("processors", at, "logins/s", rates[at])),
					number(median(ratios(rates[at], rates[processorsCell(clients, processors, pluginShares[0].name)]))),
				})
			}
		}
	}
	b.show(t)
	return nil
}

func processorsCell(clients, processors int, share string) string {
	return fmt.Sprintf("%d clients, %d processors, plugin: %s", clients, processors, share)
}

// processorsRound measures the shares in turn on one Vault.
func processorsRound(ctx context.Context, b *bench, processors int, rates map[string][]float64) (err error) {
	w, err := newWorldWith(ctx, func(ctx context.Context, w *world) (err error) {
		env := []string{fmt.Sprintf("GOMAXPROCS=%d", processors)}
		w.vault, err = stack.StartVault(ctx, stack.VaultConfig{LogLevel: "warn", Env: env})
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.client.Sys().PutPolicyWithContext(ctx, "bench", `path "secret/*" { capabilities = ["read"] }`); err != nil {
		return err
	}
	for i, share := range pluginShares {
		if err := w.enableShare(ctx, b, shareMount(i), share, processors); err != nil {
			return err
		}
	}
	if err := w.startNATS(ctx, "auth/"+shareMount(0)); err != nil {
		return err
	}
	tokens, err := w.tokens(jose.ES256, busyClients)
	if err != nil {
		return err
	}
	for _, clients := range []int{goalClients, busyClients} {
		for _, i := range rand.Perm(len(pluginShares)) {
			tasks, err := loginsAt(shareMount(i), tokens[:clients])
			if err != nil {
				return err
			}
			burst, err := hammer(ctx, w.target(), tasks, scale(b, time.Second, 400*time.Millisecond))
			if err != nil {
				return err
			}
			at := processorsCell(clients, processors, pluginShares[i].name)
			rates[at] = append(rates[at], burst.rate)
		}
	}
	return nil
}

func shareMount(i int) string { return fmt.Sprintf("share-%d", i) }

// enableShare enables the plugin as one of its own, with so many processors.
func (w *world) enableShare(ctx context.Context, b *bench, mount string, share pluginProcessors, processors int) error {
	program := filepath.Join(b.dir, mount)
	if err := os.Link(b.program, program); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	env := fmt.Sprintf("GOMAXPROCS=%d", share.of(processors))
	return errors.Join(
		w.install(ctx, program, api.PluginTypeCredential, env),
		w.enable(ctx, mount, mount, "service"),
		w.configure(ctx, "auth/"+mount),
		w.write(ctx, write{"auth/" + mount + "/role/bench", natsRole()}),
	)
}
