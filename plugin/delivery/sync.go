package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// listTimeout is how long servers may take to list what they hold: they
	// read every file.
	listTimeout = time.Minute
	listSettle  = 2 * time.Second

	// inFlight bounds how many accounts of a comparison wait to be delivered,
	// so that one that changes meanwhile does not wait long behind them.
	inFlight = 4 * workers

	// maxFailures bounds the failures that a Report spells out.
	maxFailures = 100

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
	Prune bool // remove the accounts that servers hold and the source does not know
}

// A Report is what a comparison found and did.
type Report struct {
	Started   time.Time      `json:"started"`
	Seconds   float64        `json:"seconds"`
	Accounts  int            `json:"accounts"`           // that the source knows
	Delivered int            `json:"delivered"`          // of these, that the servers agree on
	Failed    int            `json:"failed"`             // of these and the pruned; they are tried again
	Failures  []AccountState `json:"failures,omitempty"` // the first of them
	Unknown   []Unknown      `json:"unknown,omitempty"`  // sorted by account
	Pruned    int            `json:"pruned"`
	Servers   []ServerState  `json:"servers"`
}

// Unknown is an account that servers hold and the source does not know.
type Unknown struct {
	Account string `json:"account"`
	Servers int    `json:"servers"` // how many hold it
	Pruned  bool   `json:"pruned"`
}

// Sync compares the servers with the source, for all accounts, and delivers what
// differs. Accounts that could not be delivered are in the report and tried again
// in the background; an error means that the comparison was not finished.
func (r *Reconciler) Sync(ctx context.Context, o Options) (*Report, error) {
	select {
	case r.syncing <- struct{}{}:
		defer func() { <-r.syncing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(errClosed) })()

	started := time.Now()
	held, err := r.held(ctx)
	if err != nil {
		return nil, err
	}
	run := &syncRun{Reconciler: r, cancel: cancel, slots: make(chan struct{}, inFlight), report: Report{Started: started}}
	err = run.all(ctx, held)
	if err == nil {
		err = run.unknown(ctx, held, o.Prune)
	}
	if err != nil {
		return nil, fmt.Errorf("synchronizing: %w", err)
	}
	report := run.report
	report.Seconds = time.Since(started).Seconds()
	report.Servers = r.fleet.state()
	for _, id := range held.from {
		r.fleet.note(id, func(s *server) { s.compared = true })
	}
	r.mu.Lock()
	r.lastSync = &report
	r.mu.Unlock()
	return &report, nil
}

// holdings is what servers with a directory say that they hold.
type holdings struct {
	from     []string // ids of the servers that said it
	accounts map[string]holders

	// veterans is how many of these are expected to have every account: no
	// cache, and there at an earlier comparison. If one of them lacks an
	// account, it has lost the file.
	veterans int
}

type holders struct{ servers, veterans int }

func (r *Reconciler) held(ctx context.Context) (*holdings, error) {
	held := &holdings{accounts: make(map[string]holders)}
	if r.link == nil {
		return held, nil
	}
	if err := r.link.ready(ctx); err != nil {
		return nil, err
	}
	if err := r.rollCall(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	waiting := r.fleet.present()
	err := r.link.ask(ctx, listSubject, nil, listSettle, func(data []byte) bool {
		var list listReply
		if json.Unmarshal(data, &list) != nil || slices.Contains(held.from, list.Server.ID) {
			return false
		}
		held.add(list, r.fleet.veteran(list.Server.ID))
		delete(waiting, list.Server.ID)
		return len(waiting) == 0
	})
	switch {
	case errors.Is(err, nats.ErrNoResponders): // memory and URL resolvers list nothing
		return held, nil
	case errors.Is(err, context.DeadlineExceeded) && len(held.from) > 0:
		return held, nil
	case err != nil:
		return nil, fmt.Errorf("asking what the servers hold: %w", err)
	}
	return held, nil
}

func (h *holdings) add(list listReply, veteran bool) {
	h.from = append(h.from, list.Server.ID)
	if veteran {
		h.veterans++
	}
	for _, id := range list.Data {
		n := h.accounts[id]
		n.servers++
		if veteran {
			n.veterans++
		}
		h.accounts[id] = n
	}
}

// A syncRun is one comparison under way.
type syncRun struct {
	*Reconciler
	cancel context.CancelCauseFunc
	slots  chan struct{}

	mu     sync.Mutex
	report Report
}

// all delivers every account of the source, and takes it out of held.
func (s *syncRun) all(ctx context.Context, held *holdings) error {
	for id, err := range s.source.All(ctx) {
		if err != nil {
			return fmt.Errorf("listing the accounts: %w", err)
		}
		lost := held.accounts[id].veterans < held.veterans
		delete(held.accounts, id)
		s.report.Accounts++
		err := s.deliver(ctx, id, lost, func() { s.report.Delivered++ })
		if err != nil {
			return err
		}
	}
	return s.settle(ctx)
}

// deliver has the reconciler deliver one account; done is called, under the
// lock, if it succeeds.
func (s *syncRun) deliver(ctx context.Context, id string, lost bool, done func()) error {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.want(id, func(u *undone) {
		u.rewrite = u.rewrite || lost
		u.waiting = append(u.waiting, waiter{u.wishes, func(err error) {
			s.mu.Lock()
			switch {
			case err == nil:
				done()
			case errors.Is(err, errNotConnected):
				s.cancel(err) // the next connect brings the next comparison
			default:
				s.failed(id, err)
			}
			s.mu.Unlock()
			<-s.slots
		}})
	})
	return nil
}

func (s *syncRun) failed(id string, err error) {
	s.report.Failed++
	if len(s.report.Failures) < maxFailures {
		s.report.Failures = append(s.report.Failures, AccountState{Account: id, Pending: true, Error: err.Error()})
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

// unknown reports what is left in held, and removes it if asked.
func (s *syncRun) unknown(ctx context.Context, held *holdings, prune bool) error {
	unknown := make(map[string]*Unknown)
	for id, holders := range held.accounts {
		if s.leaving(id) {
			continue
		}
		// It may have been made after the source was listed.
		_, ok, err := s.source.Wanted(ctx, id)
		if err != nil {
			return fmt.Errorf("reading an account: %w", err)
		}
		if !ok {
			unknown[id] = &Unknown{Account: id, Servers: holders.servers}
		}
	}
	if prune {
		for id, u := range unknown {
			err := s.deliver(ctx, id, false, func() { u.Pruned = true; s.report.Pruned++ })
			if err != nil {
				return err
			}
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
	}
	for _, u := range unknown {
		s.report.Unknown = append(s.report.Unknown, *u)
	}
	slices.SortFunc(s.report.Unknown, func(a, b Unknown) int { return strings.Compare(a.Account, b.Account) })
	return nil
}

// leaving reports that an account is being removed, or that its last JWT is
// about to expire.
func (r *Reconciler) leaving(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.undone[id] != nil {
		return true
	}
	until, ok := r.farewells[id]
	return ok && time.Now().Before(until)
}

func (r *Reconciler) compareSoon() {
	select {
	case r.compares <- struct{}{}:
	default:
	}
}
