package plugin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Revocations are stored by account in segments, each a storage entry that many
// share: a thousand that come at once cost a few writes, an account with ten
// thousand is read with ten reads, and no entry outgrows what a storage takes.
const (
	revokedPrefix = "revoked/"
	segmentSize   = 1000
)

// everyUser revokes all users of an account that were issued up to a time.
const everyUser = "*"

// A revocation refuses the user JWTs of one public key, or of everyUser, that
// were issued at or before a time.
type revocation struct {
	User  string `json:"user"`
	At    int64  `json:"at"`    // Unix time
	Until int64  `json:"until"` // Unix time by which those JWTs have expired; 0 if they do not
}

func (r revocation) over(now time.Time) bool { return r.Until != 0 && r.Until <= now.Unix() }

// revocations holds those of the accounts that have been asked for. Storage is
// the truth; forget makes it be read again.
type revocations struct {
	mu       sync.Mutex
	accounts map[string]*accountRevocations
}

// accountRevocations are those of one account.
type accountRevocations struct {
	// queue holds what callers want revoked and no one has written yet.
	queue struct {
		sync.Mutex
		waiting []*waitingRevocation
	}

	// mu is held by the caller who writes, for itself and all who wait.
	mu       sync.Mutex
	loaded   bool
	segments map[int][]revocation
}

// around does what a change of an account's revocations asks for before and
// after the write that it is given.
type around func(ctx context.Context, write func() error) error

type waitingRevocation struct {
	revocation
	written bool
	err     error
}

func newRevocations() *revocations {
	return &revocations{accounts: map[string]*accountRevocations{}}
}

func (r *revocations) of(account string) *accountRevocations {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.accounts[account]
	if !ok {
		a = &accountRevocations{}
		r.accounts[account] = a
	}
	return a
}

// invalidate forgets what was read of the account that a storage key belongs to.
func (r *revocations) invalidate(key string) {
	account, _, _ := strings.Cut(strings.TrimPrefix(key, revokedPrefix), "/")
	a := r.of(account)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loaded = false
}

// add stores a revocation; it is durable when add returns. Whoever comes while
// another writes is written together with all who came meanwhile; around is
// called once for all of them.
func (r *revocations) add(ctx context.Context, s logical.Storage, account string, wanted revocation, around around) error {
	a := r.of(account)
	mine := &waitingRevocation{revocation: wanted}
	a.queue.Lock()
	a.queue.waiting = append(a.queue.waiting, mine)
	a.queue.Unlock()

	a.mu.Lock()
	defer a.mu.Unlock()
	if mine.written {
		return mine.err
	}
	a.queue.Lock()
	batch := a.queue.waiting
	a.queue.waiting = nil
	a.queue.Unlock()

	// The write is for others too: it does not end with this caller's request.
	ctx = context.WithoutCancel(ctx)
	err := around(ctx, func() error { return a.write(ctx, s, account, batch) })
	for _, waiting := range batch {
		waiting.written, waiting.err = true, err
	}
	return err
}

func (a *accountRevocations) write(ctx context.Context, s logical.Storage, account string, batch []*waitingRevocation) error {
	if err := a.load(ctx, s, account); err != nil {
		return err
	}
	changed := map[int][]revocation{}
	for _, wanted := range batch {
		a.place(changed, wanted.revocation)
	}
	return a.store(ctx, s, account, changed)
}

// place puts a revocation where its key already is, else into the last segment
// that has room, in a copy of that segment under changed.
func (a *accountRevocations) place(changed map[int][]revocation, wanted revocation) {
	segment := func(number int) []revocation {
		if list, ok := changed[number]; ok {
			return list
		}
		return a.segments[number]
	}
	last := 0
	for number := range a.segments {
		last = max(last, number)
	}
	for number := range changed {
		last = max(last, number)
	}
	for number := 0; number <= last; number++ {
		if i := slices.IndexFunc(segment(number), func(r revocation) bool { return r.User == wanted.User }); i >= 0 {
			list := slices.Clone(segment(number))
			list[i].At = max(list[i].At, wanted.At)
			if list[i].Until = max(list[i].Until, wanted.Until); wanted.Until == 0 {
				list[i].Until = 0
			}
			changed[number] = list
			return
		}
	}
	if len(segment(last)) >= segmentSize {
		last++
	}
	changed[last] = append(slices.Clone(segment(last)), wanted)
}

// store writes segments and then takes them over; empty ones are deleted.
func (a *accountRevocations) store(ctx context.Context, s logical.Storage, account string, changed map[int][]revocation) error {
	for number, list := range changed {
		key := segmentKey(account, number)
		var err error
		if len(list) == 0 {
			err = s.Delete(ctx, key)
		} else {
			err = writeEntry(ctx, s, key, list)
		}
		if err != nil {
			a.loaded = false
			return fmt.Errorf("storing revocations: %w", err)
		}
		if len(list) == 0 {
			delete(a.segments, number)
		} else {
			a.segments[number] = list
		}
	}
	return nil
}

func (a *accountRevocations) load(ctx context.Context, s logical.Storage, account string) error {
	if a.loaded {
		return nil
	}
	keys, err := s.List(ctx, revokedPrefix+account+"/")
	if err != nil {
		return fmt.Errorf("listing the revocations of account %s: %w", account, err)
	}
	segments := make(map[int][]revocation, len(keys))
	for _, key := range keys {
		number, err := strconv.Atoi(key)
		if err != nil {
			return fmt.Errorf("the revocations of account %s have a segment %q", account, key)
		}
		list, err := readEntry[[]revocation](ctx, s, segmentKey(account, number))
		if err != nil {
			return err
		}
		if list != nil {
			segments[number] = *list
		}
	}
	a.segments, a.loaded = segments, true
	return nil
}

func segmentKey(account string, number int) string {
	return revokedPrefix + account + "/" + strconv.Itoa(number)
}

// list returns the revocations of an account that are not over yet.
func (r *revocations) list(ctx context.Context, s logical.Storage, account string, now time.Time) ([]revocation, error) {
	a := r.of(account)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(ctx, s, account); err != nil {
		return nil, err
	}
	var live []revocation
	for _, number := range slices.Sorted(maps.Keys(a.segments)) {
		for _, r := range a.segments[number] {
			if !r.over(now) {
				live = append(live, r)
			}
		}
	}
	return live, nil
}

// remove drops those that match and says how many they were. around is called
// only if there are any.
func (r *revocations) remove(ctx context.Context, s logical.Storage, account string, match func(revocation) bool, around around) (int, error) {
	a := r.of(account)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(ctx, s, account); err != nil {
		return 0, err
	}
	removed := 0
	changed := map[int][]revocation{}
	for number, list := range a.segments {
		kept := slices.DeleteFunc(slices.Clone(list), match)
		if len(kept) < len(list) {
			removed += len(list) - len(kept)
			changed[number] = kept
		}
	}
	if removed == 0 {
		return 0, nil
	}
	return removed, around(ctx, func() error { return a.store(ctx, s, account, changed) })
}

// prune drops what is over, of all accounts. The servers need not hear of it:
// an expired JWT is refused without a revocation.
func (r *revocations) prune(ctx context.Context, s logical.Storage, now time.Time) error {
	accounts, err := s.List(ctx, revokedPrefix)
	if err != nil {
		return fmt.Errorf("listing the accounts with revocations: %w", err)
	}
	unnoticed := func(_ context.Context, write func() error) error { return write() }
	for _, account := range accounts {
		over := func(r revocation) bool { return r.over(now) }
		if _, err := r.remove(ctx, s, strings.TrimSuffix(account, "/"), over, unnoticed); err != nil {
			return err
		}
	}
	return nil
}
