package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How a node that no longer leads is kept from undoing what its successor did.
//
// nats-server takes any account JWT of its operator, an older one too, and knows
// nothing of who leads. So a process that was frozen while another node took over,
// and wakes up with pushes in its hands, would undo what the other has pushed
// since, revocations above all. Three things stand against that:
//
//   - Nothing leaves that was not read, and proven to come from the node that
//     leads, within LeadTime before (hold). The time is taken before the proof is
//     asked for, and counts by the wall clock, which goes on while a process or its
//     machine is stopped. Another node leads at the earliest when Vault's storage
//     has not heard of the first for longer than that.
//   - What is in hand when the proof is over is proven and read again.
//   - A process can be frozen between its last look at the clock and the network.
//     So connections end that outlive that (awake.go), and each process hears what
//     others push, and pushes its own once more (others.go).
//
// model/fence.pml is this as a model for spin, which finds the fault once one of
// the three is left out.

// LeadTime is how long a proof of leading holds from the moment in which it was
// asked for. Vault's Raft looks for another leader after a second of silence where
// performance_multiplier is 1, as is advised for production, and after five by default;
// other storages after more.
const LeadTime = time.Second

// LeadHolds reports whether a proof of leading that was asked for at a time still
// holds. A clock that was set back says nothing, so then it does not.
func LeadHolds(asked time.Time) bool { return SinceAsked(asked) < LeadTime }

// SinceAsked is how long ago a proof was asked for, by the clock that says more: the
// monotonic one stands still while a machine sleeps, and the other can be set. Where
// that one was set back, it is for ever ago.
func SinceAsked(asked time.Time) time.Duration {
	now := time.Now()
	wall := now.Round(0).Sub(asked.Round(0))
	if wall < 0 {
		return 1<<63 - 1
	}
	return max(wall, now.Sub(asked))
}

// errNotProven is the state of every account while it cannot be shown that this node
// leads.
var errNotProven = errors.New("it cannot be shown that this node leads, and nothing is pushed before")

// errChanged ends an attempt whose account has become another one.
var errChanged = errors.New("the account has changed meanwhile")

// A hold is what one attempt has in hand: what the servers are to have of an
// account, and since when that is proven.
type hold struct {
	*Reconciler
	id         string
	accountJWT string // that is wanted
	wanted     bool   // false if the servers are to have no such account
	proven     time.Time
}

func (r *Reconciler) hold(ctx context.Context, id string) (*hold, error) {
	h := &hold{Reconciler: r, id: id}
	var err error
	if h.proven, err = r.config.Lead(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotProven, err)
	}
	if h.accountJWT, h.wanted, err = r.source.Wanted(ctx, id); err != nil {
		return nil, fmt.Errorf("reading the account: %w", err)
	}
	return h, nil
}

// good is called right before something leaves: it may not if what is in hand is no
// longer what is wanted.
func (h *hold) good(ctx context.Context) error {
	for range 3 {
		if LeadHolds(h.proven) {
			return nil
		}
		again, err := h.hold(ctx, h.id)
		if err != nil {
			return err
		}
		if again.wanted != h.wanted || again.accountJWT != h.accountJWT {
			return errChanged
		}
		h.proven = again.proven
	}
	return fmt.Errorf("%w: a proof takes longer than it holds (%s)", errNotProven, LeadTime)
}
