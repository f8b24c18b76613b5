package claims

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// minInterval is the least time between the beginnings of two fetches from
	// one endpoint. Whoever needs a key sooner waits for the next one.
	minInterval = 3 * time.Second
	// staleAfter is how old keys become before they are fetched again while they
	// are in use, so that a key that the issuer withdrew is forgotten.
	staleAfter = time.Hour
	// maxStaleWait bounds how long a login waits for that, before it is served
	// with the keys at hand: the issuer counts as down then.
	maxStaleWait = 2 * time.Second
	// retryStale is the time between attempts to do so when the issuer is down.
	retryStale = time.Minute
)

// A remote is one endpoint and its keys: those of the last good fetch, however
// long ago it was. Keys are read without a lock.
type remote struct {
	*fetcher
	keys     atomic.Pointer[keySet] // nil before the first good fetch
	due      atomic.Int64           // when the keys become stale, in Unix nanoseconds
	document atomic.Pointer[[]byte] // the last good discovery document; nil before
	interval time.Duration          // minInterval, but in tests
	fetches  fetchRecord

	mu         sync.Mutex
	next       *fetch    // wanted or under way; nil: none
	last       time.Time // when the last one began
	jwksURL    string    // configured or discovered; empty: not known yet
	discovered time.Time // zero: jwksURL is to be discovered again
}

// A fetch is an attempt to fetch keys, which all who need keys share.
type fetch struct {
	begun bool          // guarded by remote.mu
	done  chan struct{} // closed when it ended
	err   error         // set before done is closed
}

func newRemote(e endpoint) (*remote, error) {
	f, err := newFetcher(e)
	if err != nil {
		return nil, err
	}
	r := &remote{fetcher: f, interval: minInterval}
	if !e.discovery {
		r.jwksURL = e.url
	}
	return r, nil
}

// want returns the fetch to wait for: the one that is scheduled or under way, or
// else a new one, which run is called for. If wait is false and none may begin
// now, it returns nil. fresh says that the fetch had not begun: its result will
// have every key that the issuer has now.
func (r *remote) want(wait bool, run func(f *fetch, delay time.Duration)) (f *fetch, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next != nil {
		if !wait && !r.next.begun {
			return nil, false
		}
		return r.next, !r.next.begun
	}
	delay := max(0, r.interval-time.Since(r.last))
	if !wait && delay > 0 {
		return nil, false
	}
	r.next = &fetch{done: make(chan struct{})}
	go run(r.next, delay)
	return r.next, true
}

// run makes the fetch f after delay and reports whether keys changed. It is the
// only one to do so at a time.
func (r *remote) run(ctx context.Context, f *fetch, delay time.Duration) (changed bool) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	r.mu.Lock()
	f.begun = true
	r.last = time.Now()
	r.mu.Unlock()

	changed, f.err = r.load(ctx)

	r.mu.Lock()
	r.next = nil
	r.mu.Unlock()
	close(f.done)
	return changed
}

// load fetches keys and keeps them.
func (r *remote) load(ctx context.Context) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	begin := time.Now()
	set, err := r.fetch(ctx)
	r.fetches.note(begin, err)
	if err != nil {
		r.due.Store(begin.Add(retryStale).UnixNano())
		return false, fmt.Errorf("%s: %w", r.field, err)
	}
	old := r.keys.Load()
	changed = old == nil || !bytes.Equal(old.jwks, set.jwks)
	if changed {
		r.keys.Store(set)
	}
	r.due.Store(begin.Add(staleAfter).UnixNano())
	return changed, nil
}

func (r *remote) fetch(ctx context.Context) (*keySet, error) {
	r.mu.Lock()
	jwksURL, discovered := r.jwksURL, r.discovered
	r.mu.Unlock()

	if r.discovery && time.Since(discovered) > staleAfter {
		found, document, err := r.discover(ctx)
		// The JWKS may be on a host that is up while the document's is not.
		if err != nil && jwksURL == "" {
			return nil, err
		}
		if err == nil {
			jwksURL, discovered = found, time.Now()
			r.document.Store(&document)
		}
	}
	set, err := r.fetcher.keys(ctx, jwksURL)
	if err != nil {
		discovered = time.Time{} // it may have moved
	}
	r.mu.Lock()
	r.jwksURL, r.discovered = jwksURL, discovered
	r.mu.Unlock()
	return set, err
}

const (
	// maxWaiting and maxWaitingSize bound the logins that wait for keys at one
	// issuer and the bytes of their tokens, so that a flood of tokens with made-up
	// kids cannot fill the memory.
	maxWaiting     = 512
	maxWaitingSize = 4 << 20
)

// remotes are all endpoints of an issuer.
type remotes struct {
	list    []*remote
	onKeys  func([]byte)
	waiting gate

	ctx   context.Context // ends with close
	close context.CancelFunc

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when keys of an endpoint changed

	saving sync.Mutex // serializes onKeys
}

func newRemotes(endpoints []endpoint, lastKeys []byte, onKeys func([]byte)) (*remotes, error) {
	rs := &remotes{onKeys: onKeys, waiting: gate{places: maxWaiting, room: maxWaitingSize}, changed: make(chan struct{})}
	seen := make(map[string]bool)
	for _, e := range endpoints {
		r, err := newRemote(e)
		if err != nil {
			return nil, err
		}
		if seen[e.url] {
			return nil, fmt.Errorf("%s has the URL of another pair", e.field)
		}
		seen[e.url] = true
		rs.list = append(rs.list, r)
	}
	rs.restore(lastKeys)
	rs.ctx, rs.close = context.WithCancel(context.Background())
	return rs, nil
}

// verify is keySet.verify over the keys of all endpoints.
func (rs *remotes) verify(t *token) (verified, tried bool) {
	for _, r := range rs.list {
		v, c := r.keys.Load().verify(t)
		if v {
			return true, true
		}
		tried = tried || c
	}
	return false, tried
}

// stale reports whether keys of an endpoint are due to be fetched again.
func (rs *remotes) stale(now time.Time) bool {
	for _, r := range rs.list {
		if now.UnixNano() > r.due.Load() {
			return true
		}
	}
	return false
}

// refresh has stale keys fetched and waits for them, but not for long: an
// endpoint that is down or slow keeps its keys, and no login waits for it again
// before retryStale. It fails only with ctx.
func (rs *remotes) refresh(ctx context.Context, now time.Time) error {
	fetches := make(map[*remote]*fetch)
	for _, r := range rs.list {
		if now.UnixNano() > r.due.Load() {
			fetches[r], _ = r.want(true, rs.runner(r))
		}
	}
	timer := time.NewTimer(maxStaleWait)
	defer timer.Stop()
	for _, f := range fetches {
		select {
		case <-f.done:
		case <-timer.C:
			for r, f := range fetches {
				r.giveUp(f)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// giveUp treats a fetch that is still under way as failed, until it ends.
func (r *remote) giveUp(f *fetch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == f {
		r.due.Store(time.Now().Add(retryStale).UnixNano())
	}
}

// check fetches from all endpoints and keeps what it gets.
func (rs *remotes) check(ctx context.Context) error {
	errs := make([]error, len(rs.list))
	changed := false
	var group sync.WaitGroup
	var mu sync.Mutex
	for i, r := range rs.list {
		group.Go(func() {
			c, err := r.load(ctx)
			mu.Lock()
			defer mu.Unlock()
			errs[i], changed = err, changed || c
		})
	}
	group.Wait()
	if changed {
		rs.announce()
	}
	return errors.Join(errs...)
}

// runner returns the function that makes a fetch from r.
func (rs *remotes) runner(r *remote) func(*fetch, time.Duration) {
	return func(f *fetch, delay time.Duration) {
		if r.run(rs.ctx, f, delay) {
			rs.announce()
		}
	}
}

// announce tells those who wait, and then onKeys, that keys changed.
func (rs *remotes) announce() {
	rs.mu.Lock()
	close(rs.changed)
	rs.changed = make(chan struct{})
	rs.mu.Unlock()

	if rs.onKeys == nil || rs.ctx.Err() != nil {
		return
	}
	rs.saving.Lock()
	defer rs.saving.Unlock()
	rs.onKeys(rs.snapshot())
}

// await fetches keys until one of them made the token's signature. It returns
// errSignature when the issuer has no such key, and another error when that
// cannot be known.
//
// A token whose kid is unknown waits for the next fetch that may be made, since
// the issuer may just have begun to use a new key. One whose kid is known, so
// that there was a key to try it with, has most likely a wrong signature, or the issuer gave an old kid to a new key:
// that is worth a fetch only if one may be made now.
func (rs *remotes) await(ctx context.Context, t *token, known bool) error {
	if !rs.waiting.enter(t.size()) {
		return errors.New("too many logins wait for keys")
	}
	defer rs.waiting.leave(t.size())

	var err error
	// A fetch that had begun when the token came may have missed its key; the
	// one after it cannot.
	for range 2 {
		rs.mu.Lock()
		changed := rs.changed
		rs.mu.Unlock()
		var fetches []*fetch
		allFresh := true
		for _, r := range rs.list {
			if f, fresh := r.want(!known, rs.runner(r)); f != nil {
				fetches = append(fetches, f)
				allFresh = allFresh && fresh
			}
		}
		err = rs.wait(ctx, t, fetches, changed)
		if err == nil || allFresh || ctx.Err() != nil {
			break
		}
	}
	if known && err != nil {
		return errSignature
	}
	return err
}

// wait waits until all fetches ended or one of them brought the token's key.
func (rs *remotes) wait(ctx context.Context, t *token, fetches []*fetch, changed <-chan struct{}) error {
	var failed error
	for _, f := range fetches {
		for ended := false; !ended; {
			select {
			case <-f.done:
				ended = true
				failed = errors.Join(failed, f.err)
			case <-changed:
				rs.mu.Lock()
				changed = rs.changed
				rs.mu.Unlock()
			case <-ctx.Done():
				return ctx.Err()
			}
			if verified, _ := rs.verify(t); verified {
				return nil
			}
		}
	}
	if failed != nil {
		return failed
	}
	return errSignature
}
