package plugin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
)

// From when on an operator is told. The rules of docs/monitoring/alerts.yaml have the
// same thresholds, which a test holds, and those of chain.NearlyFull and of clock_skew.
const (
	pendingTooLong  = 10 * time.Minute
	missingTooLong  = 15 * time.Minute
	comparedTooLong = 2 * time.Hour // twice the longest rest between two comparisons
	keysTooLong     = 10 * time.Minute

	// failingShare is how many of the logins of failingWindow may fail for want of an
	// issuer, or of the mount.
	failingShare  = 0.05
	failingWindow = 10 * time.Minute
)

// warnings are what sync tells of beside its answer: what the alert rules tell of. told
// are the accounts, by public key, of which it is told already that they are nearly full.
func (b *backend) warnings(ctx context.Context, s logical.Storage, state delivery.State, told map[string]bool, now time.Time) ([]string, error) {
	warnings, err := b.clockWarnings(ctx, s, state)
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, deliveryWarnings(state, now)...)
	if id, share := b.chain.Fullest(); share > chain.NearlyFull && !told[id] {
		name, _, err := b.chain.Known(ctx, s, id)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, fmt.Sprintf("the JWT of account %q takes %.0f %% of what nats-server takes of one; beyond that changes are refused, and revocations cut off others too", name, 100*share))
	}
	fetches := b.metrics.issuers.fetches()
	for _, name := range slices.Sorted(maps.Keys(fetches)) {
		if f := fetches[name]; isFailing(f, now) && now.Sub(f.FailingSince) > keysTooLong {
			warnings = append(warnings, fmt.Sprintf("the keys of issuer %q cannot be fetched since %s: logins go on with those that are held, and with none that it has begun to use since", name, f.FailingSince.UTC().Format(time.RFC3339)))
		}
	}
	if share := b.metrics.window.failing(); share > failingShare {
		warnings = append(warnings, fmt.Sprintf("%.0f %% of the logins of the last %s failed for want of an issuer, or of the mount: see the log", 100*share, failingWindow))
	}
	return warnings, nil
}

func deliveryWarnings(state delivery.State, now time.Time) (warnings []string) {
	if !state.Connected {
		warnings = append(warnings, "there is no connection to NATS: "+state.Error)
	}
	if since := state.PendingSince; since != nil && now.Sub(*since) > pendingTooLong {
		warnings = append(warnings, fmt.Sprintf("%d accounts are not delivered, one of them since %s: read sync with pending=true", state.Pending, since.UTC().Format(time.RFC3339)))
	}
	if since := missingSince(state); !since.IsZero() && now.Sub(since) > missingTooLong {
		warnings = append(warnings, fmt.Sprintf("a NATS server does not answer since %s: it is not brought up to date, and deletions wait for it", since.UTC().Format(time.RFC3339)))
	}
	if last := state.LastSync; last != nil && now.Sub(last.Started) > comparedTooLong {
		warnings = append(warnings, fmt.Sprintf("servers and mount were last compared at %s", last.Started.UTC().Format(time.RFC3339)))
	}
	return warnings
}

// loginWindow is what logins came to in the last failingWindow, on a node that leads.
type loginWindow struct {
	mu      sync.Mutex
	samples []loginSample // by time
}

type loginSample struct {
	at  time.Time
	sum [outcomes]uint64
}

// note is called about once a minute.
func (w *loginWindow) note(now time.Time, sum [outcomes]uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples = append(w.samples, loginSample{now, sum})
	// One that is older stays, to count from.
	for len(w.samples) > 2 && now.Sub(w.samples[1].at) >= failingWindow {
		w.samples = slices.Delete(w.samples, 0, 1)
	}
}

// failing is which share of the logins failed through no fault of who logged in.
func (w *loginWindow) failing() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.samples) < 2 {
		return 0
	}
	first, last := w.samples[0].sum, w.samples[len(w.samples)-1].sum
	var all, failing float64
	for i := range last {
		grown := max(0, float64(last[i])-float64(first[i])) // the counts of a role may have gone
		all += grown
		if outcome(i) == unavailable || outcome(i) == failed {
			failing += grown
		}
	}
	if all == 0 {
		return 0
	}
	return failing / all
}
