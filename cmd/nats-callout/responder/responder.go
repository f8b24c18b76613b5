package responder

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a Responder needs. Its zero values are no defaults.
type Config struct {
	Vault   *Vault
	NATS    string        // URLs of the servers
	Options []nats.Option // such as for TLS

	// Concurrency is how many requests are dealt with at a time. What comes beyond is
	// turned away.
	Concurrency int

	// Timeout is how long a request may take. It has to be less than the nats-server
	// waits: two seconds, unless its authorization.timeout says otherwise.
	Timeout time.Duration

	Logger *slog.Logger
}

// A Responder answers requests while Run runs.
type Responder struct {
	config  Config
	queue   chan request
	metrics *metrics

	places   chan struct{}  // one is taken by each request until it is answered
	carrying sync.WaitGroup // what is with Vault

	mu      sync.Mutex
	current *session // nil before the first
}

// request is a message of a nats-server's.
type request struct {
	*nats.Msg
	came time.Time
	over func() // to be called once it is answered
}

// New returns a responder that registers its metrics there.
func New(config Config, registerer prometheus.Registerer) (*Responder, error) {
	if config.Concurrency < 1 || config.Timeout <= 0 {
		return nil, errors.New("concurrency and timeout have to be positive")
	}
	r := &Responder{config: config, queue: make(chan request, config.Concurrency), places: make(chan struct{}, config.Concurrency)}
	r.metrics = newMetrics(r, registerer)
	return r, nil
}

// Run answers requests until the context ends, and then those that have come by then.
func (r *Responder) Run(ctx context.Context) {
	// What has begun is ended with the grace, and not with the context.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var carrier sync.WaitGroup
	carrier.Go(func() { r.carry(working) })
	var login sync.WaitGroup
	login.Go(func() { r.config.Vault.keepLoggedIn(ctx, r.config.Logger) })

	r.serve(ctx)

	r.config.Logger.Info("ending, once all that has come is answered")
	if last := r.session(); last != nil {
		last.end(r.config.Timeout + time.Second)
	}
	close(r.queue)
	carrier.Wait()
	login.Wait()
}

// serve keeps a session open, and replaces it before the JWT of its user ends. The
// former one ends when the new one hears requests, so that none is missed.
func (r *Responder) serve(ctx context.Context) {
	for ctx.Err() == nil {
		next, err := r.connect(ctx)
		if err != nil {
			r.config.Logger.Warn("no connection to NATS yet", "error", err)
			pause(ctx, 500*time.Millisecond)
			continue
		}
		if former := r.replace(next); former != nil {
			former.end(r.config.Timeout + time.Second)
		}
		next.waitForRenewal(ctx)
	}
}

func (r *Responder) session() *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

func (r *Responder) replace(next *session) (former *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	former, r.current = r.current, next
	return former
}

// Healthy says why no request would be answered now, or nothing.
func (r *Responder) Healthy() error {
	s := r.session()
	if s == nil || !s.conn.IsConnected() {
		return errors.New("not connected to NATS")
	}
	return r.config.Vault.healthy()
}

// pause waits that long, or a little less or more so that a fleet spreads out.
func pause(ctx context.Context, about time.Duration) {
	timer := time.NewTimer(about/2 + rand.N(about))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// hear has a request come to the queue. What finds no place is turned away at
// once: the subscription must not wait.
func (r *Responder) hear(s *session, message *nats.Msg) {
	s.pending.Add(1)
	asked := request{Msg: message, came: time.Now(), over: s.pending.Done}
	select {
	case r.places <- struct{}{}:
		r.queue <- asked // which has room for all that have a place
	default:
		r.turnAway(asked, overloaded)
		asked.over()
	}
}
