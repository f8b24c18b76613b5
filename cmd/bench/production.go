package main

import (
	"context"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// productionNodes is how many nodes the cluster has.
const productionNodes = 3

// benchProduction measures logins where Vault is as in production: three nodes on Raft,
// with storage on disk, a listener with TLS and a file audit device. All nodes run on
// this machine, and the requests go to the leader.
func benchProduction(ctx context.Context, b *bench) error {
	programs, err := b.buildPeers(ctx)
	if err != nil {
		return err
	}
	figures := newLoginFigures(cells([]int{goalClients, busyClients}, jose.ES256))
	for round := range scale(b, busyRounds, 1) {
		if err := figures.round(ctx, b, round, programs, newProduction, scale(b, 1500*time.Millisecond, 500*time.Millisecond)); err != nil {
			return err
		}
	}
	figures.report(b, "production", fmt.Sprintf("on %d nodes with Raft, TLS and an audit device", productionNodes))
	figures.chart(b, "production.png", fmt.Sprintf("Logins on %d nodes with Raft, TLS and auditing, %d clients", productionNodes, goalClients))
	few := figures.ratiosAt(goalClients)
	b.report.Goals = append(b.report.Goals,
		figures.goal(fmt.Sprintf("login rate to %s in production, %d clients", noop, goalClients), 0.95, median(few[noop]), few[noop]),
	)
	return nil
}

func newProduction(ctx context.Context) (*world, error) {
	return newWorldWith(ctx, func(ctx context.Context, w *world) (err error) {
		if w.ca, err = stack.NewCA(); err != nil {
			return err
		}
		nodes, err := stack.StartVaultCluster(ctx, productionNodes, stack.VaultConfig{LogLevel: "warn", TLS: w.ca})
		if err != nil {
			return err
		}
		w.vault, w.standbys = nodes[0], nodes[1:]
		_, err = w.vault.Audit(ctx)
		return err
	})
}
