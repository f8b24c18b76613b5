package chain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// Revocations are stored by account in segments, each a storage entry that many
// share: a thousand that come at once cost a few writes, an account with ten
// thousand is read with ten reads, and no entry outgrows what a storage takes.
const segmentSize = 1000

// EveryUser stands for all users of an account that were issued up to a time.
const EveryUser = "*"

// A Revocation refuses the user JWTs of one public key, or of EveryUser, that
// were issued at or before a time.
type Revocation struct {
	User  string `json:"user"`
	At    int64  `json:"at"`    // Unix time
	Until int64  `json:"until"` // Unix time by which those JWTs have expired; 0 if they do not
}

// over reports whether nobody who has the JWTs is let in without the revocation
// any more: see clock.go.
func (r Revocation) over(now time.Time, skew time.Duration) bool {
	return r.Until != 0 && r.Until+int64(skew/time.Second) <= now.Unix()
}

// merge is one revocation that covers what two of the same key cover.
func (r Revocation) merge(other Revocation) Revocation {
	merged := Revocation{User: r.User, At: max(r.At, other.At), Until: max(r.Until, other.Until)}
	if r.Until == 0 || other.Until == 0 {
		merged.Until = 0
	}
	return merged
}

// revocations holds those of the accounts that have been asked for. Storage is
// the truth; invalidate makes it be read again.
type revocations struct {
	logger hclog.Logger

	mu       sync.Mutex
	accounts map[string]*accountRevocations
	some     map[string]bool // accounts that have come to have some since the process started
}

// accountRevocations are those of one account.
type accountRevocations struct {
	users int // how many hold it; guarded by revocations.mu

	// queue holds what callers want revoked and no one has written yet.
	queue struct {
		sync.Mutex
		waiting []*waitingRevocation
	}

	// mu is held by the caller who writes, for itself and all who wait, and by those
	// who read storage.
	mu sync.Mutex

	// view guards what follows, and is held for no longer than it takes to look or
	// to replace: logins do not wait for a writer.
	view     sync.RWMutex
	loaded   bool
	segments map[int]segment
	number   map[string]int // of the segment that a key is in
	everyone int64          // up to which time of issue the account's JWT revokes everyone
	leftover []string       // storage keys among those of the segments that no segment can have
}

// A segment is what is in one storage entry, by key. It is never changed but
// replaced.
type segment map[string]Revocation

// around does what a change of an account's revocations asks for before and
// after the write that it is given.
type around func(ctx context.Context, write writer) error

type waitingRevocation struct {
	Revocation
	written bool
	err     error
}

func newRevocations(logger hclog.Logger) *revocations {
	return &revocations{logger: logger, accounts: map[string]*accountRevocations{}, some: map[string]bool{}}
}

// of returns those of an account for use until release is called. Those of an
// account that has none are not kept, so that memory goes with revocations and
// not with accounts.
func (r *revocations) of(account string) (a *accountRevocations, release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.accounts[account]
	if !ok {
		a = &accountRevocations{}
		r.accounts[account] = a
	}
	a.users++
	return a, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if a.users--; a.users == 0 && len(a.segments) == 0 && len(a.leftover) == 0 {
			delete(r.accounts, account)
		}
	}
}

// invalidate forgets what was read of the account that a storage key belongs to.
func (r *revocations) invalidate(key string) {
	account, _, _ := strings.Cut(strings.TrimPrefix(key, revokedPrefix), "/")
	r.noteSome(account)
	a, release := r.of(account)
	defer release()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget()
}

// noteSome notes that an account has revocations.
func (r *revocations) noteSome(account string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.some[account] = true
}

// haveCome reports whether the account has come to have revocations since the
// process started.
func (r *revocations) haveCome(account string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.some[account]
}

// forget has storage be read again.
func (a *accountRevocations) forget() {
	a.view.Lock()
	defer a.view.Unlock()
	a.loaded = false
}

// add stores a revocation; it is durable when add returns. Whoever comes while
// another writes is written together with all who came meanwhile; around is
// called once for all of them.
func (r *revocations) add(ctx context.Context, s logical.Storage, account string, wanted Revocation, around around) error {
	r.noteSome(account)
	a, release := r.of(account)
	defer release()
	mine := &waitingRevocation{Revocation: wanted}
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
	err := around(ctx, func(ctx context.Context) error { return a.write(ctx, s, account, batch) })
	for _, waiting := range batch {
		waiting.written, waiting.err = true, err
	}
	return err
}

func (a *accountRevocations) write(ctx context.Context, s logical.Storage, account string, batch []*waitingRevocation) error {
	if err := a.load(ctx, s, account); err != nil {
		return err
	}
	changed := map[int]segment{}
	placed := map[string]int{}
	for _, wanted := range batch {
		number, ok := a.number[wanted.User]
		if !ok {
			number, ok = placed[wanted.User]
		}
		if !ok {
			number = a.room(changed)
			placed[wanted.User] = number
		}
		if changed[number] == nil {
			changed[number] = segment{}
			maps.Copy(changed[number], a.segments[number])
		}
		merged := wanted.Revocation
		if present, ok := changed[number][wanted.User]; ok {
			merged = present.merge(merged)
		}
		changed[number][wanted.User] = merged
	}
	return a.store(ctx, s, account, changed)
}

// room returns the first segment that is not full, with what is changed in it.
func (a *accountRevocations) room(changed map[int]segment) int {
	for number := 0; ; number++ {
		present, ok := changed[number]
		if !ok {
			present = a.segments[number]
		}
		if len(present) < segmentSize {
			return number
		}
	}
}

// store writes segments and then takes them over; empty ones are deleted.
func (a *accountRevocations) store(ctx context.Context, s logical.Storage, account string, changed map[int]segment) error {
	for number, list := range changed {
		key := segmentKey(account, number)
		var err error
		if len(list) == 0 {
			err = s.Delete(ctx, key)
		} else {
			err = store.Write(ctx, s, key, slices.Collect(maps.Values(list)))
		}
		if err != nil {
			a.forget() // what of it was written is not known
			return fmt.Errorf("storing revocations: %w", err)
		}
		a.put(number, list)
	}
	return nil
}

// put takes a segment over from storage.
func (a *accountRevocations) put(number int, list segment) {
	a.view.Lock()
	defer a.view.Unlock()
	for user := range a.segments[number] {
		delete(a.number, user)
	}
	delete(a.segments, number)
	if len(list) > 0 {
		a.segments[number] = list
		for user := range list {
			a.number[user] = number
		}
	}
	a.everyone = a.revokesEveryone()
}

// revokesEveryone is the time of issue up to which the account's JWT may revoke
// everyone: as it says, or as it has to when not all revocations fit.
func (a *accountRevocations) revokesEveryone() int64 {
	at := a.segments[a.number[EveryUser]][EveryUser].At
	if len(a.number) <= newestKept {
		return at
	}
	times := make([]int64, 0, len(a.number))
	for _, list := range a.segments {
		for _, r := range list {
			times = append(times, r.At)
		}
	}
	slices.Sort(times)
	return max(at, times[len(times)-1-newestKept])
}

// floor returns the time of issue up to which JWTs of a user are refused. It does
// not wait for a writer.
func (r *revocations) floor(ctx context.Context, s logical.Storage, account, user string) (int64, error) {
	a, release := r.of(account)
	defer release()
	if at, ok := a.floor(user); ok {
		return at, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(ctx, s, account); err != nil {
		return 0, err
	}
	at, _ := a.floor(user)
	return at, nil
}

// floor returns false while storage has not been read.
func (a *accountRevocations) floor(user string) (int64, bool) {
	a.view.RLock()
	defer a.view.RUnlock()
	return max(a.everyone, a.segments[a.number[user]][user].At), a.loaded
}

func (a *accountRevocations) load(ctx context.Context, s logical.Storage, account string) error {
	if a.loaded { // only who holds mu changes it
		return nil
	}
	keys, err := store.List(ctx, s, revokedPrefix+account+"/")
	if err != nil {
		return err
	}
	a.empty(len(keys))
	a.leftover = nil
	for _, key := range keys {
		number, ok := segmentNumber(key)
		if !ok {
			a.leftover = append(a.leftover, revokedPrefix+account+"/"+key)
			continue
		}
		stored, err := store.Read[[]Revocation](ctx, s, segmentKey(account, number))
		if err != nil {
			return err
		}
		if stored == nil {
			continue
		}
		list := make(segment, len(*stored))
		for _, r := range *stored {
			list[r.User] = r
		}
		a.put(number, list)
	}
	a.view.Lock()
	defer a.view.Unlock()
	a.loaded = true
	return nil
}

// empty makes room for so many segments.
func (a *accountRevocations) empty(segments int) {
	a.view.Lock()
	defer a.view.Unlock()
	a.segments, a.number = make(map[int]segment, segments), map[string]int{}
}

func segmentKey(account string, number int) string {
	return revokedPrefix + account + "/" + strconv.Itoa(number)
}

// list returns the revocations of an account that are not over yet.
func (r *revocations) list(ctx context.Context, s logical.Storage, account string, now time.Time, skew time.Duration) ([]Revocation, error) {
	a, release := r.of(account)
	defer release()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(ctx, s, account); err != nil {
		return nil, err
	}
	live := make([]Revocation, 0, len(a.number))
	for _, list := range a.segments {
		for _, r := range list {
			if !r.over(now, skew) {
				live = append(live, r)
			}
		}
	}
	return live, nil
}

// get returns the revocation of a key, the zero value if there is none.
func (r *revocations) get(ctx context.Context, s logical.Storage, account, user string) (Revocation, error) {
	a, release := r.of(account)
	defer release()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(ctx, s, account); err != nil {
		return Revocation{}, err
	}
	return a.segments[a.number[user]][user], nil
}

// remove drops those that match and says how many they were. around is called
// only if there are any.
func (r *revocations) remove(ctx context.Context, s logical.Storage, account string, match func(Revocation) bool, around around) (int, error) {
	a, release := r.of(account)
	defer release()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(ctx, s, account); err != nil {
		return 0, err
	}
	removed := 0
	changed := map[int]segment{}
	for number, list := range a.segments {
		kept := maps.Clone(list)
		maps.DeleteFunc(kept, func(_ string, r Revocation) bool { return match(r) })
		if len(kept) < len(list) {
			removed += len(list) - len(kept)
			changed[number] = kept
		}
	}
	if removed == 0 {
		return 0, nil
	}
	return removed, around(ctx, func(ctx context.Context) error { return a.store(ctx, s, account, changed) })
}

// prune drops what is over, of all accounts, and what is left of writes that failed;
// it returns how many revocations those that had any have left. The servers need not
// hear of it: an expired JWT is refused without a revocation.
//
// An account whose revocations cannot be read is in the error, and stops no other.
func (r *revocations) prune(ctx context.Context, s logical.Storage, now time.Time, skew time.Duration) (map[string]int, error) {
	accounts, err := store.List(ctx, s, revokedPrefix)
	if err != nil {
		return nil, err
	}
	unnoticed := func(ctx context.Context, write writer) error { return write(ctx) }
	over := func(r Revocation) bool { return r.over(now, skew) }
	left := make(map[string]int, len(accounts))
	var failures []error
	for _, account := range accounts {
		account = strings.TrimSuffix(account, "/")
		_, err := r.remove(ctx, s, account, over, unnoticed)
		if err == nil {
			left[account], err = r.count(ctx, s, account)
		}
		if err == nil {
			err = r.clear(ctx, s, account)
		}
		failures = append(failures, err)
	}
	return left, errors.Join(failures...)
}

// clear deletes what is among an account's segments and cannot be one.
func (r *revocations) clear(ctx context.Context, s logical.Storage, account string) error {
	a, release := r.of(account)
	defer release()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range a.leftover {
		r.logger.Warn("the storage has a leftover of a write that failed, which is passed over", "key", key)
		if err := store.Delete(ctx, s, key); err != nil {
			return err
		}
	}
	a.leftover = nil
	return nil
}

// count returns how many revocations an account has, those that are over but
// not pruned yet among them.
func (r *revocations) count(ctx context.Context, s logical.Storage, account string) (int, error) {
	a, release := r.of(account)
	defer release()
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.load(ctx, s, account)
	return len(a.number), err
}
