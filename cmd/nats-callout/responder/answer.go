package responder

import (
	"context"
	"slices"
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

const (
	// mostTogether is how many requests go to Vault together, which is what the mount
	// takes, and mostBytes about how many bytes: nothing waits for much that is large.
	mostTogether = 64
	mostBytes    = 256 << 10

	// headway is how long Vault may take before the next requests do not wait for it
	// any longer. Until then they gather, and go together: what a request costs Vault
	// is more than what the mount does for it. With few clients nothing waits.
	headway = 5 * time.Millisecond

	// retryWait is between two attempts to bring one request to Vault.
	retryWait = 100 * time.Millisecond
)

// carry brings what is in the queue to Vault until that is closed, and returns when all
// of it is answered.
func (r *Responder) carry(ctx context.Context) {
	defer r.carrying.Wait()
	for {
		asked := r.gather()
		if asked == nil {
			return
		}
		r.metrics.inFlight.Add(float64(len(asked)))
		back := make(chan struct{})
		r.carrying.Go(func() {
			defer close(back)
			r.answer(ctx, asked, nil)
		})
		wait := time.NewTimer(headway)
		select {
		case <-back:
		case <-wait.C:
		}
		wait.Stop()
	}
}

// gather waits for a request, and takes what else is there. It returns nothing once the
// queue is closed.
func (r *Responder) gather() []request {
	first, open := <-r.queue
	if !open {
		return nil
	}
	asked := []request{first}
	for bytes := len(first.Data); len(asked) < mostTogether && bytes < mostBytes; {
		select {
		case next, open := <-r.queue:
			if !open {
				return asked
			}
			asked = append(asked, next)
			bytes += len(next.Data)
		default:
			return asked
		}
	}
	return asked
}

// answer has the mount answer requests, the oldest first. It tries again as long as there
// is time, but for what the mount says is no request for this callout. failure is of the
// attempt before.
func (r *Responder) answer(ctx context.Context, asked []request, failure error) {
	for {
		if asked = r.inTime(asked, failure); len(asked) == 0 {
			return
		}
		trying, cancel := context.WithDeadline(ctx, r.deadline(asked[0]))
		var verdicts []verdict
		verdicts, failure = r.config.Vault.authorize(trying, asked)
		switch {
		case failure == nil:
			r.deliver(ctx, asked, verdicts)
			asked = nil
		case isFinal(failure) || ctx.Err() != nil:
			for _, one := range asked {
				r.fail(one, failure)
			}
			asked = nil
		default:
			pause(trying, retryWait)
		}
		cancel()
	}
}

func (r *Responder) deadline(asked request) time.Time { return asked.came.Add(r.config.Timeout) }

// inTime returns the requests whose time is not over. A server does not wait any longer
// for one that has had its turn too late; it does for one that Vault has failed just now.
func (r *Responder) inTime(asked []request, failure error) []request {
	now := time.Now()
	return slices.DeleteFunc(asked, func(one request) bool {
		switch {
		case now.Before(r.deadline(one)):
			return false
		case failure == nil:
			r.count(one, late)
			r.over(one)
		default:
			r.fail(one, failure)
		}
		return true
	})
}

// deliver answers what has a verdict. What has none yet is asked about again, alone: it
// takes Vault longer than those that it came with.
func (r *Responder) deliver(ctx context.Context, asked []request, verdicts []verdict) {
	for i, one := range asked {
		switch got := verdicts[i]; {
		case got.err == nil:
			r.respond(one, got)
			r.over(one)
		case got.final:
			r.fail(one, got.err)
		default:
			r.carrying.Go(func() {
				waiting, cancel := context.WithDeadline(ctx, r.deadline(one))
				pause(waiting, retryWait)
				cancel()
				r.answer(ctx, []request{one}, got.err)
			})
		}
	}
}

// fail turns a client away about whom Vault has said nothing.
func (r *Responder) fail(asked request, why error) {
	r.config.Logger.Warn("a client could not be asked about in Vault", "error", why)
	r.turnAway(asked, failed)
	r.over(asked)
}

// over frees the place of a request that is answered.
func (r *Responder) over(asked request) {
	asked.over()
	r.metrics.inFlight.Dec()
	<-r.places
}

func (r *Responder) respond(asked request, got verdict) {
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
