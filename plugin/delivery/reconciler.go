// Package delivery brings account JWTs to nats-servers.
//
// It is level-triggered, as Kubernetes controllers are: a Source says what the
// servers are to hold, and whatever happens - an account changes, a server
// comes up, time passes - leads to the same idempotent step, which is to push
// the account's current JWT, or to remove the account. What fails is tried again
// until it succeeds.
//
// A push is a request that every server of the cluster answers. It counts as
// delivered when all servers that are there agree. Which servers are there is
// known from their answers, their heartbeats and goodbyes, and a roll call when
// one does not answer. When a server is new or was away, everything is compared
// again, and so it is from time to time.
//
// A server with a cache, memory or URL resolver takes only the accounts that it
// has loaded, and answers that it skipped any other. A cache's file and a memory
// resolver's preload can be older than what was skipped; if such an account is
// loaded later, it is brought up to date by the next comparison.
//
// Only what is not delivered is kept in memory.
package delivery

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/singleflight"
	"k8s.io/client-go/util/workqueue"
)

const (
	// workers is how many accounts are delivered at the same time.
	workers = 64

	// answerTimeout is how long servers may take to answer a request.
	answerTimeout = 3 * time.Second
	// settle ends the wait for answers, when it is not known how many come.
	settle = 500 * time.Millisecond

	dialTimeout  = 2 * time.Second
	pingInterval = 15 * time.Second

	// minBackoff and maxBackoff bound the wait before another attempt.
	minBackoff = 250 * time.Millisecond
	maxBackoff = 30 * time.Second

	// farewellTime is the life of the last JWT of a removed account, by the clock of
	// the server that is the furthest ahead.
	farewellTime = time.Minute

	// forgetAfter is when a server that is away is no longer waited for.
	forgetAfter = 24 * time.Hour

	// RememberRemoved is how long a Source lists an account as removed: as long as
	// a server that is away is waited for, since a process that starts meanwhile
	// does not know of that server.
	RememberRemoved = forgetAfter

	// unexpected is how many answers to a request can wait to be read beyond the
	// expected ones.
	unexpected = 16
)

// A Reconciler brings accounts to the servers of one mount. It works in the
// background from New to Close. Its methods may be called concurrently.
type Reconciler struct {
	config         Config
	source         Source
	logger         hclog.Logger
	link           *link           // nil if no NATS server is to be told
	accountServers *accountServers // nil if accounts are pushed over NATS
	pulse          *pulse
	fleet          *fleet
	others         *others
	looks          *looks
	calling        singleflight.Group

	queue  workqueue.TypedDelayingInterface[string]
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	started   chan struct{}   // closed once undone has what an earlier process left pending
	connects  chan struct{}   // a connect happened
	strangers chan serverInfo // servers that were heard for the first time
	compares  chan struct{}   // a full compare is due

	syncing chan struct{} // holds a value while a comparison runs
	first   time.Time     // the first comparison may not begin before this

	// Whoever is syncing has these: the fleet's arrivals up to which the removed
	// accounts were removed again, and those at which it did not help to have all
	// files written anew, for a server of another operator may have no room for ours;
	// and those up to which it was looked at what servers have loaded.
	swept, futile, looked uint64

	// Whoever is syncing has this too: when the account servers may be given everything
	// again while there is no connection to NATS.
	nextPost time.Time

	mu        sync.Mutex
	undone    map[string]*undone   // by account id
	farewells map[string]time.Time // removed accounts with a last JWT that is valid until then
	lastSync  *Report
	asked     time.Time // when something last happened that asks for a comparison
}

// undone is an account that is not known to be delivered.
type undone struct {
	wishes    uint64 // how often it was asked for
	changed   uint64 // the last wish that told of a change, which the source keeps as pending; 0 if none did
	attempted uint64 // the last wish that an attempt, which failed, was for
	rewrite   bool   // a server has lost the file, or goes by another
	look      bool   // it is to be seen what servers go by once it is delivered
	waiting   []waiter
	since     time.Time
	attempts  int
	next      time.Time // of the next attempt; zero when it is due
	outcome   outcome   // of the last attempt
	err       error     // of the last attempt
}

// A waiter is told of the first attempt that begins after it came.
type waiter struct {
	wish uint64
	done func(outcome, error)
}

// New checks cfg, touches no network, and starts the work: first with what src
// has as pending.
func New(cfg Config, src Source) (*Reconciler, error) {
	return start(cfg, src, firstSync)
}

func start(cfg Config, src Source, first time.Duration) (*Reconciler, error) {
	e, err := cfg.endpoints()
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Reconciler{
		config: cfg, source: src, logger: cfg.Logger,
		pulse:     newPulse(),
		fleet:     newFleet(),
		others:    newOthers(),
		looks:     newLooks(),
		queue:     workqueue.NewTypedDelayingQueue[string](),
		ctx:       ctx,
		cancel:    cancel,
		started:   make(chan struct{}),
		connects:  make(chan struct{}, 1),
		strangers: make(chan serverInfo, unexpected),
		compares:  make(chan struct{}, 1),
		syncing:   make(chan struct{}, 1),
		first:     time.Now().Add(first),
		undone:    make(map[string]*undone),
		farewells: make(map[string]time.Time),
	}
	if len(e.http) > 0 {
		r.accountServers = newAccountServers(e, r.pulse)
	}
	if len(e.nats) > 0 {
		r.link = newLink(e, cfg, r.pulse)
		r.link.up = r.connected
		r.link.heard, r.link.pushed, r.link.overrun = r.event, r.otherPushed, r.compareSoon
		r.tasks.Go(r.meetStrangers)
		r.tasks.Go(r.pushAgain)
		r.tasks.Go(r.keepLooking)
	}
	for range workers {
		r.tasks.Go(r.work)
	}
	r.tasks.Go(r.watch)
	r.tasks.Go(func() { r.pulse.keep(r.ctx) })
	return r, nil
}

// Close ends all work and connections, and returns when they have ended. What
// was not delivered is still pending in the source.
func (r *Reconciler) Close() {
	r.cancel()
	r.queue.ShutDown()
	r.others.queue.ShutDown()
	r.looks.queue.ShutDown()
	if r.link != nil {
		r.link.close()
	}
	if r.accountServers != nil {
		r.accountServers.close()
	}
	r.tasks.Wait()
}

// Changed tells that the wanted state of accounts has changed, which the source
// must have stored as pending before. It returns at once.
func (r *Reconciler) Changed(ids ...string) {
	for _, id := range ids {
		r.want(id, func(u *undone) { u.changed = u.wishes })
	}
}

// Deliver does what Changed and then Wait do.
func (r *Reconciler) Deliver(ctx context.Context, ids ...string) error {
	r.hurry(ctx)
	r.Changed(ids...)
	return r.attempted(ctx, ids)
}

// Wait waits for the attempt that Changed asked for, or if that has failed
// already, for another one, which is made now. The error is nil when all ids are
// delivered; the others are tried again in the background.
func (r *Reconciler) Wait(ctx context.Context, ids ...string) error {
	r.hurry(ctx)
	return r.attempted(ctx, ids)
}

// Attempted has done called, once, when all that an account was asked for has been
// attempted, which may be now. It is never called if Close comes first.
func (r *Reconciler) Attempted(id string, done func()) {
	r.await(id, func(outcome, error) { done() })
}

// Reach tries to connect to NATS where there is no connection, and returns why that
// fails. It is tried again in the background. Without a server to connect to, as where
// account servers take the accounts, there is nothing to reach.
func (r *Reconciler) Reach(ctx context.Context) error {
	if r.link == nil {
		return nil
	}
	if r.link.ready(ctx) == nil {
		return nil
	}
	r.hurry(ctx) // after the first round it is not known yet why that failed
	return r.link.ready(ctx)
}

func (r *Reconciler) hurry(ctx context.Context) {
	if r.link != nil {
		r.link.hurry(ctx)
	}
}

func (r *Reconciler) attempted(ctx context.Context, ids []string) error {
	if err := r.knows(ctx, ids); err != nil {
		return err
	}
	results := make(chan error, len(ids))
	for _, id := range ids {
		r.await(id, func(_ outcome, err error) { results <- err })
	}
	var failures []error
	for range ids {
		select {
		case err := <-results:
			failures = append(failures, err)
		case <-ctx.Done():
			return errors.Join(append(failures, ctx.Err())...)
		case <-r.ctx.Done():
			return errClosed
		}
	}
	return errors.Join(failures...)
}

// knows returns once it is known which of the accounts are not delivered: what an earlier
// process has stored may not be.
func (r *Reconciler) knows(ctx context.Context, ids []string) error {
	r.mu.Lock()
	undone := !slices.ContainsFunc(ids, func(id string) bool { return r.undone[id] == nil })
	r.mu.Unlock()
	if undone {
		return nil
	}
	select {
	case <-r.started:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ctx.Done():
		return errClosed
	}
}

// await has done called once all that the account was asked for has been
// attempted.
func (r *Reconciler) await(id string, done func(outcome, error)) {
	r.mu.Lock()
	u := r.undone[id]
	if u == nil {
		r.mu.Unlock()
		done(outcome{}, nil)
		return
	}
	again := u.attempted == u.wishes
	if again {
		u.wishes++
	}
	u.waiting = append(u.waiting, waiter{u.wishes, done})
	r.mu.Unlock()
	if again {
		r.queue.Add(id)
	}
}

var errClosed = errors.New("delivery is closed")

// want has one account delivered now.
func (r *Reconciler) want(id string, change func(*undone)) {
	r.mu.Lock()
	u := r.undone[id]
	if u == nil {
		u = &undone{since: time.Now()}
		r.undone[id] = u
	}
	u.wishes++
	change(u)
	r.mu.Unlock()
	r.queue.Add(id)
}

func (r *Reconciler) work() {
	for {
		id, shutdown := r.queue.Get()
		if shutdown {
			return
		}
		r.attempt(id)
		r.queue.Done(id)
	}
}

// attempt delivers one account, and decides what becomes of it. The queue never
// has the same account attempted twice at a time, so an older JWT cannot
// overtake a newer one.
func (r *Reconciler) attempt(id string) {
	r.mu.Lock()
	u := r.undone[id]
	if u == nil { // delivered since it was queued
		r.mu.Unlock()
		return
	}
	wishes, rewrite, changed := u.wishes, u.rewrite, u.changed > 0
	r.mu.Unlock()

	began := time.Now()
	result, err := r.deliver(r.ctx, id, rewrite, changed)
	if r.config.Pushed != nil && r.ctx.Err() == nil {
		r.config.Pushed(time.Since(began), err)
	}

	r.mu.Lock()
	var told []waiter
	u.waiting = slices.DeleteFunc(u.waiting, func(w waiter) bool {
		if w.wish > wishes {
			return false
		}
		told = append(told, w)
		return true
	})
	u.outcome, u.err, u.attempted = result, err, wishes
	look := err == nil && result.accountJWT != "" && (changed || u.look) && r.link != nil
	if err == nil && u.changed <= wishes {
		u.changed, u.look = 0, false
	}
	switch {
	case err == nil && u.wishes == wishes:
		delete(r.undone, id)
	case errors.Is(err, errNotConnected) && u.changed == 0 && u.wishes == wishes:
		delete(r.undone, id) // the next connect has it compared again
	case err == nil:
		u.since = time.Now() // what is asked for since
	case err != nil:
		u.attempts++
		delay := backoff(u.attempts)
		u.next = time.Now().Add(delay)
		r.queue.AddAfter(id, delay)
	}
	first := u.attempts == 1
	r.mu.Unlock()
	if look {
		r.lookLater(id)
	}

	for _, w := range told {
		w.done(result, err)
	}
	if err != nil && first && !errors.Is(err, errNotConnected) && r.ctx.Err() == nil {
		r.logger.Warn("account is not delivered, and will be tried again", "account", id, "error", err)
	}
}

// retryAll makes everything undone due at once: what it failed for may be over.
func (r *Reconciler) retryAll() {
	r.mu.Lock()
	for _, u := range r.undone {
		u.attempts, u.next = 0, time.Time{}
	}
	ids := slices.Collect(maps.Keys(r.undone))
	r.mu.Unlock()
	for _, id := range ids {
		r.queue.Add(id)
	}
}
