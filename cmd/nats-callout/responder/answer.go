package responder

import (
	"context"
	"time"
)

// The outcomes of a request, for metrics.
const (
	allowed    = "allowed"
	refused    = "refused"
	failed     = "failed"     // Vault did not answer, or not for this
	overloaded = "overloaded" // the queue was full
	late       = "late"       // it was too late when its turn came
)

var outcomes = []string{allowed, refused, failed, overloaded, late}

// work answers what is in the queue until that is closed.
func (r *Responder) work(ctx context.Context) {
	for asked := range r.queue {
		r.metrics.inFlight.Inc()
		r.answer(ctx, asked)
		asked.over()
		r.metrics.inFlight.Dec()
	}
}

// answer has the mount answer a request. It tries again as long as there is time, but
// for what the mount says is no request for this callout.
func (r *Responder) answer(ctx context.Context, asked request) {
	deadline := asked.came.Add(r.config.Timeout)
	if !time.Now().Before(deadline) {
		r.count(asked, late)
		return
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for {
		got, err := r.config.Vault.authorize(ctx, asked.Msg)
		switch {
		case err == nil:
			r.respond(asked, got)
			return
		case isFinal(err) || ctx.Err() != nil:
			r.config.Logger.Warn("a client could not be asked about in Vault", "error", err)
			r.turnAway(asked, failed)
			return
		}
		pause(ctx, retryWait)
	}
}

// retryWait is between two attempts to bring one request to Vault.
const retryWait = 100 * time.Millisecond

func (r *Responder) respond(asked request, got *verdict) {
	if err := asked.Respond(got.response); err != nil {
		r.config.Logger.Warn("an answer could not be sent", "error", err)
		r.count(asked, failed)
		return
	}
	if !got.allowed {
		r.count(asked, refused)
		r.config.Logger.Info("a client is refused: the nats-server's log says why")
		return
	}
	r.count(asked, allowed)
	// The key is by which the client can be revoked, and is seen nowhere else.
	r.config.Logger.Info("a client is let in", "user", got.name, "role", got.role, "account", got.account, "user_public_key", got.user)
}

// turnAway answers with nothing, upon which the server does not wait any longer.
func (r *Responder) turnAway(asked request, outcome string) {
	if err := asked.Respond(nil); err != nil {
		r.config.Logger.Warn("an answer could not be sent", "error", err)
	}
	r.count(asked, outcome)
}

func (r *Responder) count(asked request, outcome string) {
	r.metrics.requests.WithLabelValues(outcome).Inc()
	r.metrics.seconds.Observe(time.Since(asked.came).Seconds())
}
