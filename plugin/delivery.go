package plugin

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
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
	settings   *chain.DeliverySettings // that the reconciler was made with
}

// startDelivery starts delivering, or starts anew where the settings have
// changed.
func (b *backend) startDelivery(ctx context.Context, s logical.Storage) error {
	b.delivery.mu.Lock()
	defer b.delivery.mu.Unlock()
	if b.dry || b.background.Err() != nil || !b.writesAllowed() {
		return nil
	}
	settings, err := b.chain.DeliverySettings(ctx, s)
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
	source := b.chain.Source(s)
	config := b.chain.DeliveryConfig(s, settings)
	config.Pushed = b.metrics.pushes.pushed
	reconciler, err := delivery.New(config, source)
	if err != nil {
		return fmt.Errorf("starting the delivery of account JWTs: %w", err)
	}
	b.delivery.reconciler, b.delivery.source, b.delivery.settings = reconciler, source, settings
	return nil
}

// keepLead runs about once a minute, so that the next node that leads knows what the
// clock of this one says.
func (b *backend) keepLead(ctx context.Context, s logical.Storage) error {
	if b.delivery.running() == nil {
		return nil
	}
	_, err := b.chain.Lead(ctx, s)
	return err
}

// farewellWait is how long a mount that is closed waits for what its servers do
// not have yet. Once it is disabled nobody else can bring it to them.
const farewellWait = 3 * time.Second

// deliverLast brings what is pending to the servers before the mount is closed. On a
// node that leads no more nothing is: it cannot show that it does.
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

// deliver has accounts, by public key, brought to the servers: the chain calls it
// for whatever it has stored. It does not wait for them.
func (b *backend) deliver(ctx context.Context, s logical.Storage, paced bool, ids ...string) {
	if err := b.startDelivery(ctx, s); err != nil {
		b.Logger().Warn("accounts are stored, but not delivered yet", "accounts", fault.ShortList(ids), "error", err)
	}
	if paced && len(ids) == 1 {
		b.pacer.update(ids[0], func(done func()) {
			reconciler := b.delivery.running()
			if reconciler == nil {
				done()
				return
			}
			reconciler.Changed(ids...)
			reconciler.Attempted(ids[0], done)
		})
		return
	}
	if reconciler := b.delivery.running(); reconciler != nil {
		reconciler.Changed(ids...)
	}
}

// delivered waits a while for accounts that were changed to be on the servers,
// and says what is still to be delivered.
func (b *backend) delivered(ctx context.Context, s logical.Storage, ids ...string) []string {
	return b.untilDelivered(ctx, s, ids, (*delivery.Reconciler).Wait)
}

// deletionDelivered is delivered for a deletion. One that found nothing may be one that
// Vault asks for again, because the plugin's process ended during the first: what that
// left is among all that is pending.
func (b *backend) deletionDelivered(ctx context.Context, s logical.Storage, found bool, ids ...string) []string {
	if !found {
		return b.deliverAll(ctx, s)
	}
	return b.delivered(ctx, s, ids...)
}

// deliverNow has everything that is pending brought to the servers, and waits for
// it as delivered does. Where nothing is, it says whether NATS can be reached, for
// where that is may just have been changed.
func (b *backend) deliverNow(ctx context.Context, s logical.Storage) []string {
	pending, err := b.chain.Source(s).Pending(ctx)
	if err != nil {
		return []string{notDelivered(err)}
	}
	if warnings := b.untilDelivered(ctx, s, pending, (*delivery.Reconciler).Deliver); len(warnings) > 0 {
		return warnings
	}
	reconciler := b.delivery.running()
	if reconciler == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deliveryWait)
	defer cancel()
	if err := reconciler.Reach(ctx); err != nil {
		return []string{fmt.Sprintf("stored, but NATS cannot be reached, which is tried until it succeeds (see sync): %s", err)}
	}
	return nil
}

func (b *backend) untilDelivered(ctx context.Context, s logical.Storage, ids []string, wait func(*delivery.Reconciler, context.Context, ...string) error) []string {
	if err := b.startDelivery(ctx, s); err != nil {
		return []string{notDelivered(err)}
	}
	reconciler := b.delivery.running()
	if reconciler == nil || len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deliveryWait)
	defer cancel()
	if err := wait(reconciler, ctx, ids...); err != nil {
		return []string{fmt.Sprintf("stored, but not delivered to the NATS servers yet, which is tried until it succeeds (see sync): %s", err)}
	}
	return nil
}

func notDelivered(err error) string {
	return "stored, but not delivered to the NATS servers yet: " + err.Error()
}

// fewAccounts is how many accounts a request waits for to be delivered.
const fewAccounts = 100

// deliverAll waits for every account to be delivered, if they are few.
func (b *backend) deliverAll(ctx context.Context, s logical.Storage) []string {
	ids, err := b.chain.Source(s).Pending(ctx)
	if err != nil {
		return []string{notDelivered(err)}
	}
	if len(ids) <= fewAccounts {
		return b.delivered(ctx, s, ids...)
	}
	return []string{fmt.Sprintf("%d accounts are being delivered to the NATS servers (see sync)", len(ids))}
}

// retireKeys runs about once a minute on the node that may write.
func (b *backend) retireKeys(ctx context.Context, s logical.Storage) error {
	if !b.writesAllowed() {
		return nil
	}
	b.writing.Lock()
	changed, err := b.chain.Retire(ctx, s, time.Now())
	b.writing.Unlock()
	for _, warning := range b.delivered(ctx, s, changed...) {
		b.Logger().Warn("an account without its former signing key is " + warning)
	}
	return err
}

// pruneRevocations runs about once a minute on the node that may write. It drops
// what is over, and tells the operator of accounts that have little room left.
func (b *backend) pruneRevocations(ctx context.Context, s logical.Storage) error {
	if !b.writesAllowed() {
		return nil
	}
	warnings, err := b.chain.PruneRevocations(ctx, s, time.Now())
	for account, warning := range warnings {
		b.Logger().Warn(warning, "account", account)
	}
	return err
}
