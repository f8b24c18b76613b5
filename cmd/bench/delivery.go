package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/nats-io/nats.go"
)

// benchDelivery measures how fast account JWTs reach a real nats-server, and how fast a
// revocation ends a connection.
func benchDelivery(ctx context.Context, b *bench) error {
	if err := reconcileRate(ctx, b); err != nil {
		return err
	}
	return revokeToDisconnect(ctx, b)
}

// reconcileRate has a mount bring all its accounts to an empty nats-server, in turn with
// a bare client that pushes the same JWTs.
func reconcileRate(ctx context.Context, b *bench) (err error) {
	size := scale(b, 10_000, 500)
	key, token, err := newWorkload()
	if err != nil {
		return err
	}
	p, err := populate(ctx, size, key, token)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := deliverAll(ctx, b, p); err != nil {
		return err
	}
	pusher, err := newPusher(ctx, p)
	if err != nil {
		return err
	}
	contenders := []struct {
		name string
		fill func(ctx context.Context) (time.Duration, error)
	}{
		{"sync of the mount", func(ctx context.Context) (time.Duration, error) { defer asPlugin()(); return p.timeSync(ctx) }},
		{"bare nats.go client", pusher.pushAll},
		{"bare client, runtime of the plugin", func(ctx context.Context) (time.Duration, error) { defer asPlugin()(); return pusher.pushAll(ctx) }},
	}
	rates := make([][]float64, len(contenders))
	for range scale(b, 15, 1) {
		for _, i := range rand.Perm(len(contenders)) {
			if err := p.emptyNATS(ctx); err != nil {
				return err
			}
			took, err := contenders[i].fill(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", contenders[i].name, err)
			}
			rates[i] = append(rates[i], float64(size)/took.Seconds())
		}
	}
	t := table{
		Title:   fmt.Sprintf("Delivery of %d accounts to an empty nats-server, accounts a second", size),
		Columns: []string{"who", "accounts a second", "the mount to it"},
		Notes: []string{"The clients push the same JWTs with the same parallelism and wait for each answer. The mount makes the JWTs, compares and keeps account as well. " +
			"It runs as in the plugin's own process, on half of the processors; the first client as Go programs do, the second as the plugin does."},
	}
	for i, c := range contenders {
		rate := number(b.report.measured("delivery", c.name, "accounts/s", rates[i]))
		t.Rows = append(t.Rows, []string{c.name, rate, number(median(ratios(rates[0], rates[i])))})
	}
	b.show(t)
	b.report.Goals = append(b.report.Goals, goal{
		What: "full reconcile to a bare client that pushes the same", Want: 0.9, Got: median(ratios(rates[0], rates[1])), Where: fmt.Sprintf("%d accounts, one process", size),
	})
	return nil
}

// emptyNATS has nats-server forget everything, while the mount is closed.
func (p *populated) emptyNATS(ctx context.Context) error {
	p.mount.close()
	p.nats.Stop()
	if err := p.nats.Wipe(); err != nil {
		return err
	}
	return p.nats.Restart(ctx)
}

// timeSync opens the mount and measures how long it takes to fill nats-server.
func (p *populated) timeSync(ctx context.Context) (time.Duration, error) {
	if err := p.reopen(ctx, false); err != nil {
		return 0, err
	}
	began := time.Now()
	err := p.sync(ctx)
	return time.Since(began), err
}

// A pusher does with nats.go alone what delivery comes down to.
type pusher struct {
	url  string
	user nats.Option
	jwts map[string]string // by the account's public key
	ids  []string
}

// newPusher makes a user of the system account, and asks the mount for all JWTs.
func newPusher(ctx context.Context, p *populated) (*pusher, error) {
	role := natsRole()
	role["account"], role["allow_system_account"] = "SYS", true
	role["user_template"] = `{"pub":{"allow":[">"]},"sub":{"allow":[">"]}}`
	if _, err := p.write(ctx, "role/system", role); err != nil {
		return nil, err
	}
	answer, err := p.write(ctx, "login", map[string]any{"role": "system", "jwt": p.token})
	if err != nil {
		return nil, err
	}
	all := &pusher{url: p.nats.URL, user: nats.UserCredentialBytes([]byte(answer["creds"].(string))), jwts: map[string]string{}, ids: p.ids}
	for i, id := range p.ids {
		account, err := p.read(ctx, fmt.Sprintf("jwt/account-%d", i))
		if err != nil {
			return nil, err
		}
		all.jwts[id] = account["jwt"].(string)
	}
	return all, nil
}

// pushAll pushes all JWTs, as many at a time as the mount does.
func (p *pusher) pushAll(ctx context.Context) (time.Duration, error) {
	conn, err := nats.Connect(p.url, p.user)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	began := time.Now()
	err = inParallel(ctx, len(p.ids), func(ctx context.Context, i int) error {
		_, err := conn.RequestWithContext(ctx, "$SYS.REQ.CLAIMS.UPDATE", []byte(p.jwts[p.ids[i]]))
		return err
	})
	return time.Since(began), err
}

// revokeToDisconnect measures, on a real Vault, from the call that revokes a Vault
// token to the end of the NATS connection that has its credentials.
func revokeToDisconnect(ctx context.Context, b *bench) (err error) {
	accounts := scale(b, 200, 5)
	w, err := filledWorld(ctx, b.program, "service", accounts)
	if w != nil {
		defer func() { err = errors.Join(err, w.close()) }()
	}
	if err != nil {
		return err
	}
	if err := w.client.Sys().PutPolicyWithContext(ctx, "bench", `path "auth/nats/creds/*" { capabilities = ["update"] }`); err != nil {
		return err
	}
	t := table{
		Title:   "From the revocation of a Vault token to the end of its NATS connection",
		Columns: []string{"revocations", "done", "median", "99th percentile", "longest"},
		Notes:   []string{"Revocations of one account that follow on each other are gathered for four times as long as an update takes, and for up to a second when many come, so that a thousand of them are a few updates of the account."},
	}
	for _, c := range []struct {
		name  string
		count int
		role  func(i int) string
	}{
		{"each in an account of its own", accounts, func(i int) string { return fmt.Sprintf("role-%d", i) }},
		{"one after the other in one account", scale(b, 30, 3), func(int) string { return "role-0" }},
	} {
		var times []time.Duration
		for i := range c.count {
			took, err := w.revokeOne(ctx, c.role(i))
			if err != nil {
				return err
			}
			times = append(times, took)
		}
		all := seconds(times)
		b.report.measured("delivery", "token revocation to disconnect, "+c.name, "s", all)
		t.Rows = append(t.Rows, []string{
			c.name, fmt.Sprint(len(all)), milliseconds(median(all)), milliseconds(percentile(all, 99)), milliseconds(percentile(all, 100)),
		})
	}
	b.show(t)
	return nil
}

// revokeOne logs a workload in, gets it credentials with a lease, connects it, revokes
// its token and waits for the connection to end.
func (w *world) revokeOne(ctx context.Context, role string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tokens, err := w.tokens(jose.EdDSA, 1)
	if err != nil {
		return 0, err
	}
	workload := map[string]any{"role": role, "jwt": tokens[0]}
	login, err := w.client.Logical().WriteWithContext(ctx, "auth/nats/login", workload)
	if err != nil {
		return 0, err
	}
	client, err := w.vault.Client()
	if err != nil {
		return 0, err
	}
	client.SetToken(login.Auth.ClientToken)
	creds, err := client.Logical().WriteWithContext(ctx, "auth/nats/creds/"+role, workload)
	if err != nil {
		return 0, err
	}
	ended := make(chan time.Time, 1)
	text, _ := creds.Data["creds"].(string)
	conn, err := nats.Connect(w.nats.URL, nats.UserCredentialBytes([]byte(text)), nats.NoReconnect(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
		nats.ClosedHandler(func(*nats.Conn) { ended <- time.Now() }))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	began := time.Now()
	if err := w.client.Auth().Token().RevokeTreeWithContext(ctx, login.Auth.ClientToken); err != nil {
		return 0, err
	}
	select {
	case at := <-ended:
		return at.Sub(began), nil
	case <-ctx.Done():
		return 0, errors.New("the connection did not end")
	}
}
