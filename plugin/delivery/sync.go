package delivery

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// inFlight bounds how many accounts of a comparison are being delivered or wait
	// for it: enough that no worker is without, and few, since one that changes
	// meanwhile waits behind them.
	inFlight = workers + workers/4

	// maxFailures bounds the failures that a Report spells out.
	maxFailures = 100

	// samples is how many accounts are looked up to see whether the servers
	// still have the files of what they say they hold.
	samples = 32

	// The first comparison leaves a starting Vault some air. After that, one that
	// time brings waits for syncRest times as long as the last took, within
	// bounds; one that an event brings, as long as the last took.
	firstSync = 10 * time.Second
	syncRest  = 50
	minSync   = time.Minute
	maxSync   = time.Hour
	eventSync = time.Second
)

// Options say what Sync does beyond delivering.
type Options struct {
	Unknown bool // look for accounts that servers hold and the source does not know
	Prune   bool // and remove them

	since time.Time // if set, a comparison that began after it will do
}

// A Report is what a comparison found and did.
type Report struct {
	Started   time.Time      `json:"started"`
	Seconds   float64        `json:"seconds"`
	Accounts  int            `json:"accounts"`           // that the source knows
	Delivered int            `json:"delivered"`          // of these, that the servers agree on
	Failed    int            `json:"failed"`             // of these, the pruned and the removed; they are tried again
	Failures  []AccountState `json:"failures,omitempty"` // the first of them
	Rewritten bool           `json:"rewritten"`          // servers had lost files, and were made to write all anew
	Unknown   []Unknown      `json:"unknown,omitempty"`  // sorted by account
	Pruned    int            `json:"pruned"`
	Foreign   int            `json:"foreign"` // accounts that a server holds and another operator signed
	Servers   []ServerState  `json:"servers"`

	began time.Time // once it was known which servers are there
}

// Unknown is an account of the operator's that servers hold and the source does not
// know.
type Unknown struct {
	Account string `json:"account"`
	Pruned  bool   `json:"pruned"`
}

// Sync brings the servers all accounts of the source. To push one that they hold
// costs them no more than to say so, and what they say of themselves is not taken
// for granted: some accounts are looked up again, and if a file is not there,
// everything is written anew.
//
// Accounts that could not be delivered are in the report and tried again in the
// background; an error means that the comparison was not finished.
func (r *Reconciler) Sync(ctx context.Context, o Options) (*Report, error) {
	select {
	case r.syncing <- struct{}{}:
		defer func() { <-r.syncing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if last := r.lastReport(); !o.since.IsZero() && last != nil && last.began.After(o.since) {
		return last, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(errClosed) })()

	run := &syncRun{Reconciler: r, cancel: cancel, slots: make(chan struct{}, inFlight), report: Report{Started: time.Now()}}
	if err := run.all(ctx, o); err != nil {
		return nil, fmt.Errorf("synchronizing: %w", err)
	}
	report := run.report
	report.Seconds = time.Since(report.Started).Seconds()
	report.Servers = r.fleet.state()
	r.mu.Lock()
	r.lastSync = &report
	r.mu.Unlock()
	return &report, nil
}

func (r *Reconciler) lastReport() *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastSync
}

// A syncRun is one comparison under way.
type syncRun struct {
	*Reconciler
	cancel  context.CancelCauseFunc
	slots   chan struct{}
	posting bool // to account servers only

	// pending are the accounts that the source has as such when the comparison begins,
	// and that it has not come to yet. A write that died half way leaves some that
	// nobody asks for.
	pending map[string]bool

	mu     sync.Mutex
	report Report
	sum    [sha256.Size]byte // of all that was delivered, as a server sums up its directory
	some   []string          // ids, chosen by chance

	revoking []string // ids of accounts that revoke somebody
}

func (s *syncRun) all(ctx context.Context, o Options) error {
	if err := s.reach(ctx); err != nil {
		if s.accountServers == nil || time.Now().Before(s.nextPost) {
			return err
		}
		return errors.Join(err, s.postAll(ctx))
	}
	s.report.began = time.Now()
	if err := s.removeAgain(ctx); err != nil {
		return err
	}
	if err := s.listPending(ctx); err != nil {
		return err
	}
	if err := s.deliverAll(ctx, false); err != nil {
		return err
	}
	if err := s.deliverPending(ctx); err != nil {
		return err
	}
	if s.link == nil {
		return nil
	}
	lost, err := s.filesLost(ctx)
	if err != nil {
		return err
	}
	if lost && s.futile != s.fleet.arrivals() {
		s.logger.Warn("a NATS server has lost account files, and is made to write them anew")
		s.report = Report{Started: s.report.Started, Rewritten: true, began: s.report.began}
		s.sum, s.some, s.revoking = [sha256.Size]byte{}, nil, nil
		if err := s.deliverAll(ctx, true); err != nil {
			return err
		}
		if lost, err = s.filesLost(ctx); err != nil {
			return err
		}
		if lost {
			s.logger.Warn("a NATS server still has not all account files, and is not made to write them again before a server comes")
			s.futile = s.fleet.arrivals()
		}
	}
	s.lookAtLoaded()
	if o.Unknown || o.Prune {
		return s.unknown(ctx, o.Prune)
	}
	return nil
}

// reach makes sure that there is a connection to NATS, where one is needed, and that
// it is known which servers are there.
func (s *syncRun) reach(ctx context.Context) error {
	if s.link == nil {
		return nil
	}
	if err := s.link.ready(ctx); err != nil {
		return err
	}
	return s.rollCall()
}

// postAll gives the account servers everything while no NATS server can be reached.
// One that fetches from them may not be reachable for that very reason: without the
// system account it lets nobody in.
func (s *syncRun) postAll(ctx context.Context) error {
	s.posting = true
	if err := s.deliverAll(ctx, false); err != nil {
		return err
	}
	s.nextPost = time.Now().Add(restAfter(time.Since(s.report.Started)))
	return nil
}

// removeAgain removes the accounts that were removed of late, if a server has
// come since that was last done: it may have been away then, and that it was is
// forgotten when the process ends. Servers that fetch from an account server
// have no accounts of their own to give to others.
func (s *syncRun) removeAgain(ctx context.Context) error {
	ids, err := s.source.Removed(ctx)
	if err != nil {
		return fmt.Errorf("listing the removed accounts: %w", err)
	}
	arrivals := s.fleet.arrivals()
	if s.accountServers != nil || arrivals == s.swept {
		return nil
	}
	for _, id := range ids {
		if err := s.deliver(ctx, id, false, func(outcome) {}); err != nil {
			return err
		}
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	s.swept = arrivals // what failed is kept in mind as undone
	return nil
}

func (s *syncRun) listPending(ctx context.Context) error {
	ids, err := s.source.Pending(ctx)
	if err != nil {
		return fmt.Errorf("listing the pending accounts: %w", err)
	}
	s.pending = make(map[string]bool, len(ids))
	for _, id := range ids {
		s.pending[id] = true
	}
	return nil
}

// deliverPending delivers what is pending and was not among all accounts: those
// that are gone.
func (s *syncRun) deliverPending(ctx context.Context) error {
	for id := range s.pending {
		if err := s.deliver(ctx, id, false, func(outcome) {}); err != nil {
			return err
		}
	}
	return s.settle(ctx)
}

// deliverAll delivers every account of the source, and notes the sum of what it
// delivered and some of its ids.
func (s *syncRun) deliverAll(ctx context.Context, rewrite bool) error {
	for id, err := range s.source.All(ctx) {
		if err != nil {
			return fmt.Errorf("listing the accounts: %w", err)
		}
		s.report.Accounts++
		if len(s.some) < samples {
			s.some = append(s.some, id)
		} else if i := rand.IntN(s.report.Accounts); i < samples {
			s.some[i] = id
		}
		err := s.deliver(ctx, id, rewrite, func(o outcome) {
			s.report.Delivered++
			if revokes(o.accountJWT) {
				s.revoking = append(s.revoking, id)
			}
			if o.accountJWT != "" {
				sum := sha256.Sum256([]byte(o.accountJWT))
				subtle.XORBytes(s.sum[:], s.sum[:], sum[:])
			}
		})
		if err != nil {
			return err
		}
	}
	return s.settle(ctx)
}

// deliver has the reconciler deliver one account, and settle its change if that is
// pending; done is called, under the lock, if it succeeds.
func (s *syncRun) deliver(ctx context.Context, id string, rewrite bool, done func(outcome)) error {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	pending := s.pending[id]
	delete(s.pending, id)
	s.want(id, func(u *undone) {
		u.rewrite = u.rewrite || rewrite
		if pending {
			u.changed = u.wishes
		}
		u.waiting = append(u.waiting, waiter{u.wishes, func(o outcome, err error) {
			s.mu.Lock()
			switch {
			case err == nil:
				done(o)
			case s.posting && errors.Is(err, errNotConnected): // the account servers have it
			case errors.Is(err, errNotProven):
				s.cancel(err)
			case errors.Is(err, errNotConnected), s.posting && errors.Is(err, errNoAccountServer):
				s.cancel(err) // the next connect, or the next attempt, brings the next comparison
			default:
				s.failed(id, o, err)
			}
			s.mu.Unlock()
			<-s.slots
		}})
	})
	return nil
}

func (s *syncRun) failed(id string, o outcome, err error) {
	s.report.Failed++
	if len(s.report.Failures) < maxFailures {
		state := AccountState{Account: id, Wanted: version(o.accountJWT), Pending: true, Servers: o.servers, Error: err.Error()}
		s.report.Failures = append(s.report.Failures, state)
	}
}

// settle waits until every account handed to deliver was attempted.
func (s *syncRun) settle(ctx context.Context) error {
	for range cap(s.slots) {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for range cap(s.slots) {
		<-s.slots
	}
	return nil
}
