package plugin

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
)

// deliveryWait is how long a write waits for the servers to have it. What takes
// longer goes on in the background.
const deliveryWait = 5 * time.Second

// deliverer holds the mount's reconciler while it runs. It runs on the node
// that may write to storage, once there is an operator.
type deliverer struct {
	mu         sync.Mutex
	reconciler *delivery.Reconciler
	source     delivery.Source
	settings   *deliverySettings // that the reconciler was made with
}

// startDelivery starts delivering, or starts anew where the settings have
// changed.
func (b *backend) startDelivery(ctx context.Context, s logical.Storage) error {
	b.delivery.mu.Lock()
	defer b.delivery.mu.Unlock()
	if b.background.Err() != nil || !b.writesAllowed() {
		return nil
	}
	settings, err := b.chain.deliverySettings(ctx, s)
	if settings == nil || err != nil {
		return err
	}
	if b.delivery.reconciler != nil {
		if reflect.DeepEqual(settings, b.delivery.settings) {
			return nil
		}
		b.delivery.reconciler.Close()
		b.delivery.reconciler = nil
	}
	source := b.chain.source(s)
	reconciler, err := delivery.New(b.chain.deliveryConfig(s, settings), source)
	if err != nil {
		return fmt.Errorf("starting the delivery of account JWTs: %w", err)
	}
	b.delivery.reconciler, b.delivery.source, b.delivery.settings = reconciler, source, settings
	return nil
}

// farewellWait is how long a mount that is closed waits for what its servers do
// not have yet. Once it is disabled nobody else can bring it to them.
const farewellWait = 3 * time.Second

// deliverLast brings what is pending to the servers before the mount is closed.
func (b *backend) deliverLast() {
	b.delivery.mu.Lock()
	reconciler, source := b.delivery.reconciler, b.delivery.source
	b.delivery.mu.Unlock()
	if reconciler == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), farewellWait)
	defer cancel()
	pending, err := source.Pending(ctx)
	if err == nil && len(pending) > 0 {
		err = reconciler.Deliver(ctx, pending...)
	}
	if err != nil {
		b.Logger().Warn("the mount is closed with accounts that are not delivered", "error", err)
	}
}

func (b *backend) stopDelivery() {
	b.delivery.mu.Lock()
	defer b.delivery.mu.Unlock()
	if b.delivery.reconciler != nil {
		b.delivery.reconciler.Close()
		b.delivery.reconciler = nil
	}
}

// running returns the reconciler, nil where there is none.
func (d *deliverer) running() *delivery.Reconciler {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reconciler
}

// deliver brings accounts, by public key, to the servers, and says what is
// still to be delivered. The writer has marked them as pending.
func (b *backend) deliver(ctx context.Context, s logical.Storage, ids ...string) []string {
	if err := b.startDelivery(ctx, s); err != nil {
		return []string{"stored, but not delivered to the NATS servers yet: " + err.Error()}
	}
	reconciler := b.delivery.running()
	if reconciler == nil || len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deliveryWait)
	defer cancel()
	if err := reconciler.Deliver(ctx, ids...); err != nil {
		return []string{fmt.Sprintf("stored, but not delivered to the NATS servers yet, which is tried until it succeeds (see sync): %s", err)}
	}
	return nil
}

// deliverNow brings everything pending to the servers.
func (b *backend) deliverNow(ctx context.Context, s logical.Storage) []string {
	pending, err := b.chain.source(s).Pending(ctx)
	if err != nil {
		return []string{"stored, but not delivered to the NATS servers yet: " + err.Error()}
	}
	return b.deliver(ctx, s, pending...)
}

// revoke stores a revocation, which is durable when revoke returns, and has it
// brought to the servers, which is tried until it succeeds. It does not wait for
// them: of many that come together, few are updates.
func (b *backend) revoke(ctx context.Context, s logical.Storage, account string, wanted revocation) error {
	if err := b.chain.revocations.add(ctx, s, account, wanted, b.asChange(s, account)); err != nil {
		return err
	}
	if err := b.startDelivery(ctx, s); err != nil {
		b.Logger().Warn("a revocation is stored, but not delivered yet", "account", account, "error", err)
		return nil
	}
	b.pacer.update(account, func() {
		if reconciler := b.delivery.running(); reconciler != nil {
			reconciler.Changed(account)
		}
	})
	return nil
}

// asChange has a change of an account's revocations delivered: it is marked
// before it is stored.
func (b *backend) asChange(s logical.Storage, account string) around {
	return func(ctx context.Context, write func() error) error {
		if err := b.chain.markPending(ctx, s, account); err != nil {
			return err
		}
		defer b.chain.changed(account)
		return write()
	}
}
