package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	// probePace is how long a probe waits after an answer.
	probePace = 50 * time.Millisecond

	// probeTime is how long a probe waits for a Vault before it asks the next one.
	probeTime = time.Second
)

// A probe makes one request again and again, at whichever Vault answers it, and knows for
// how long none did.
type probe struct {
	do func(*api.Client) error

	mutex sync.Mutex
	last  time.Time     // that one was answered
	worst time.Duration // between two that were
	err   error         // of the last, nil if it was answered
}

// probes are a login, and a plain request: a small write to Vault itself. A login is one
// for Vault too, as it stores a token.
func (r *trial) probes(ctx context.Context) (logins, plain *probe) {
	logins = &probe{do: func(client *api.Client) error {
		_, err := r.tryLogin(client, steady)
		return err
	}}
	plain = &probe{do: func(client *api.Client) error {
		_, err := client.Logical().WriteWithContext(ctx, "cubbyhole/probe", fields{"is": "there"})
		return err
	}}
	for _, p := range []*probe{logins, plain} {
		clients := make([]*api.Client, size)
		for i, vault := range r.vaults {
			client, err := vault.Client()
			if err != nil {
				r.t.Fatal(err)
			}
			client.SetClientTimeout(probeTime)
			clients[i] = client
		}
		p.begin()
		r.group.Go(func() { p.run(ctx, clients) })
	}
	return logins, plain
}

func (p *probe) run(ctx context.Context, clients []*api.Client) {
	ticker := time.NewTicker(probePace)
	defer ticker.Stop()
	for at := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := p.do(clients[at])
		if err != nil {
			at = (at + 1) % len(clients)
		}
		p.mutex.Lock()
		if p.err = err; err == nil {
			p.worst = max(p.worst, time.Since(p.last))
			p.last = time.Now()
		}
		p.mutex.Unlock()
	}
}

// begin forgets what was before.
func (p *probe) begin() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.last, p.worst = time.Now(), 0
}

// away is the longest time without an answer since begin.
func (p *probe) away() time.Duration {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return max(p.worst, time.Since(p.last))
}

func (p *probe) answers() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.err
}

// available returns nil if logins and plain requests are answered.
func (r *trial) available() error {
	if err := r.logins.answers(); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if err := r.plain.answers(); err != nil {
		return fmt.Errorf("a plain request: %w", err)
	}
	return nil
}
