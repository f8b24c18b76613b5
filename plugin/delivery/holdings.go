package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// packTimeout is how long a server may take until it sends the first, or the
// next, of what it holds.
const packTimeout = 30 * time.Second

// filesLost reports whether a server with a full resolver has no file of an
// account that it was just given. A server compares what it is given with what
// it remembers, and not with its directory; a lookup reads the file.
func (s *syncRun) filesLost(ctx context.Context) (bool, error) {
	var lost atomic.Bool
	group, ctx := errgroup.WithContext(ctx)
	for _, id := range s.some {
		group.Go(func() error {
			// One that cannot be read is in the report already.
			if _, ok, err := s.source.Wanted(ctx, id); err == nil && ok && !s.leaving(id) {
				missing, err := s.lookup(ctx, id)
				if missing {
					lost.Store(true)
				}
				return err
			}
			return ctx.Err()
		})
	}
	err := group.Wait()
	return lost.Load(), err
}

// lookup asks all servers with a full resolver for an account's file, and
// reports whether one has none.
func (s *syncRun) lookup(ctx context.Context, id string) (missing bool, err error) {
	copies, err := s.copies(ctx, id, settle)
	return slices.Contains(copies, ""), err
}

// copies are the files that servers with a full resolver have of an account, those
// of other operators included, and an empty text for each that has none. Without
// a quiet time it waits as long as a server may take to answer.
func (r *Reconciler) copies(ctx context.Context, id string, quiet time.Duration) ([]string, error) {
	expected := len(r.fleet.present()) + r.fleet.foreigners()
	var copies []string
	err := r.link.ask(ctx, request{subject: lookupSubject(id), servers: expected, quiet: quiet}, func(data []byte) bool {
		copies = append(copies, strings.TrimSpace(string(data)))
		return len(copies) == expected
	})
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, errNoAnswer) {
		return copies, nil // no server has a full resolver, or they are slow
	}
	return copies, err
}

// unknown reports what servers with a full resolver hold beyond what was
// delivered, and removes it if asked. Servers exchange accounts with each other,
// so one of them is asked: it answers with nothing if the sum of what it holds
// is the one it is given, and with all that it holds otherwise.
//
// Linked servers of another operator give theirs to ours, and the one that answers
// may be theirs. What no key of ours has signed is none of our business.
func (s *syncRun) unknown(ctx context.Context, prune bool) error {
	known := make(map[string]bool)
	for id, err := range s.source.All(ctx) {
		if err != nil {
			return fmt.Errorf("listing the accounts: %w", err)
		}
		known[id] = true
	}
	held := make(map[string]bool)
	err := s.link.pack(ctx, s.sum[:], func(id, accountJWT string) {
		switch {
		case known[id]:
		case s.config.Ours(accountJWT):
			held[id] = true
		default:
			s.report.Foreign++
		}
	})
	if err != nil {
		return fmt.Errorf("asking what a server holds: %w", err)
	}
	for id := range held {
		if s.leaving(id) {
			continue
		}
		// It may have been made after the source was listed.
		_, ok, err := s.source.Wanted(ctx, id)
		if err == nil && !ok {
			s.report.Unknown = append(s.report.Unknown, Unknown{Account: id})
		}
	}
	slices.SortFunc(s.report.Unknown, func(a, b Unknown) int { return strings.Compare(a.Account, b.Account) })
	if !prune {
		return nil
	}
	for i := range s.report.Unknown {
		u := &s.report.Unknown[i]
		err := s.deliver(ctx, u.Account, false, func(outcome) { u.Pruned = true; s.report.Pruned++ })
		if err != nil {
			return err
		}
	}
	return s.settle(ctx)
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

// pack hands each account that one server holds to take, or none if sum is that of
// all of them.
func (l *link) pack(ctx context.Context, sum []byte, take func(id, accountJWT string)) error {
	l.mu.Lock()
	conn, down := l.conn, l.down
	l.mu.Unlock()
	if down == nil {
		return errNotConnected
	}
	inbox := conn.NewInbox()
	answers, err := conn.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = answers.Unsubscribe() }()
	// They may come faster than they are read.
	if err := answers.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	if err := conn.PublishRequest(packSubject, inbox, sum); err != nil {
		return fmt.Errorf("%w: %w", errNotConnected, err)
	}
	for {
		msg, err := nextOf(ctx, answers)
		switch {
		case errors.Is(err, nats.ErrNoResponders): // only full resolvers answer
			return nil
		case err != nil:
			return err
		case len(msg.Data) == 0:
			return nil
		}
		for line := range strings.Lines(string(msg.Data)) {
			if id, accountJWT, ok := strings.Cut(strings.TrimSpace(line), "|"); ok {
				take(id, accountJWT)
			}
		}
	}
}

func nextOf(ctx context.Context, answers *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, packTimeout)
	defer cancel()
	return answers.NextMsgWithContext(ctx)
}
