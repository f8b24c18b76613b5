package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// growthOnVault measures on real Vaults what can be filled in some minutes.
func growthOnVault(ctx context.Context, b *bench) (err error) {
	sizes := scale(b, []int{10, 10_000}, []int{10, 200})
	worlds := map[int]*world{}
	defer func() {
		for _, w := range worlds {
			err = errors.Join(err, w.close())
		}
	}()
	for _, size := range sizes {
		b.progress("filling a Vault with %d roles and accounts", size)
		if worlds[size], err = filledWorld(ctx, b.program, "batch", size); err != nil {
			return err
		}
	}
	figures := growthFigures{}
	if err := figures.onVaults(ctx, b, sizes, worlds); err != nil {
		return err
	}
	t := table{
		Title: "Growth with roles and accounts, on real Vaults", Columns: sizeColumns("roles and accounts", sizes),
		Notes: []string{"Logins of ten roles, with 8 clients. A plugin reload ends the plugin's process and starts a new one."},
	}
	for _, name := range []string{opLogin, opRestart} {
		t.Rows = append(t.Rows, figures.row(b, "roles and accounts on Vault", name, sizes))
	}
	memory := []string{"plugin's memory after its start"}
	for _, size := range sizes {
		memory = append(memory, number(b.report.measured("growth", fmt.Sprintf("plugin's memory at %d on Vault", size), "B", figures[opMemory][size])/(1<<20))+" MiB")
	}
	t.Rows = append(t.Rows, append(memory, number(figures.growth(opMemory, sizes))))
	b.show(t)
	return nil
}

// filledWorld is a Vault whose mount auth/nats has so many accounts and roles, named as
// those of a populated mount, and gives tokens of a type.
func filledWorld(ctx context.Context, program, tokenType string, size int) (w *world, err error) {
	if w, err = newWorld(ctx); err != nil {
		return w, err
	}
	const mount = "auth/nats"
	err = errors.Join(
		w.install(ctx, program, api.PluginTypeCredential),
		w.enable(ctx, "nats", stack.PluginName, tokenType),
		w.configure(ctx, mount),
	)
	if err == nil {
		err = w.startNATS(ctx, mount)
	}
	if err == nil {
		err = inParallel(ctx, size, func(ctx context.Context, i int) error {
			role := natsRole()
			role["account"] = fmt.Sprintf("account-%d", i)
			return w.write(ctx,
				write{fmt.Sprintf("%s/jwt/account-%d", mount, i), map[string]any{"type": "account"}},
				write{fmt.Sprintf("%s/role/role-%d", mount, i), role},
			)
		})
	}
	return w, err
}

func (f growthFigures) onVaults(ctx context.Context, b *bench, sizes []int, worlds map[int]*world) error {
	for range scale(b, 7, 1) {
		for _, size := range sizes {
			w := worlds[size]
			tasks, err := w.roleLogins(goalClients)
			if err != nil {
				return err
			}
			burst, err := hammer(ctx, w.target(), tasks, scale(b, 2*time.Second, 200*time.Millisecond))
			if err != nil {
				return err
			}
			f.add(opLogin, size, median(burst.latencies))
			began := time.Now()
			if err := w.vault.ReloadPlugin(ctx); err != nil {
				return err
			}
			if err := once(w.target(), tasks[0]); err != nil {
				return err
			}
			f.add(opRestart, size, time.Since(began).Seconds())
			used, err := usageOf(w.vault.Dir)
			if err != nil {
				return err
			}
			f.add(opMemory, size, used.memory[stack.PluginName])
		}
	}
	return nil
}

// roleLogins are logins of some clients, each of a role of its own.
func (w *world) roleLogins(count int) ([]task, error) {
	tokens, err := w.tokens(jose.EdDSA, count)
	if err != nil {
		return nil, err
	}
	var tasks []task
	for i, token := range tokens {
		text, err := request("PUT", "auth/nats/login", "", map[string]any{"role": "role-" + strconv.Itoa(i), "jwt": token})
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, func(c *conn) error { _, err := c.do(text); return err })
	}
	return tasks, nil
}
