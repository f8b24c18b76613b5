package delivery

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// watch turns what happens around the accounts into work: what an earlier
// process left pending, connects, servers that come, and time.
func (r *Reconciler) watch() {
	r.loadPending()

	// When a comparison is due, when the next may be at the earliest, how many failed
	// in a row, and when the last one ended.
	next, notBefore, failures, last := r.first, r.first, 0, time.Now()
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.connects:
			if err := r.rollCall(); err != nil && r.ctx.Err() == nil {
				r.logger.Warn("the NATS servers do not answer", "error", err)
			}
			r.retryAll()
			continue
		case <-r.compares:
			soon := latest(time.Now().Add(eventSync), notBefore)
			if soon.Before(next) {
				next = soon
				timer.Reset(time.Until(next))
			}
			continue
		case <-timer.C:
		}
		// Somebody else may have had everything compared meanwhile.
		report, err := r.Sync(r.ctx, Options{since: latest(last, r.askedAt())})
		if err != nil {
			r.logger.Debug("accounts could not be compared with the servers", "error", err)
			failures++
			next = time.Now().Add(backoff(failures))
			timer.Reset(time.Until(next))
			continue
		}
		took := time.Duration(report.Seconds * float64(time.Second))
		rest := restAfter(took)
		failures, last = 0, report.Started.Add(took)
		next, notBefore = last.Add(rest-rand.N(rest/10)), last.Add(took)
		timer.Reset(time.Until(next))
	}
}

// restAfter is how long to wait after a comparison that took so long for another.
func restAfter(took time.Duration) time.Duration { return min(max(took*syncRest, minSync), maxSync) }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// loadPending takes over what was pending when the process started.
func (r *Reconciler) loadPending() {
	for n := 1; ; n++ {
		ids, err := r.source.Pending(r.ctx)
		if err == nil {
			r.Changed(ids...)
			close(r.started)
			return
		}
		r.logger.Warn("cannot read which accounts are not delivered, and will try again", "error", err)
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(backoff(n)):
		}
	}
}

// connected is the link's signal. When only the user's JWT was renewed, nothing
// can have happened to the servers that is not noticed otherwise.
func (r *Reconciler) connected(renewed bool) {
	select {
	case r.connects <- struct{}{}:
	default:
	}
	if !renewed {
		r.compareSoon()
	}
}

// compareSoon has everything compared, a little later.
func (r *Reconciler) compareSoon() {
	r.mu.Lock()
	r.asked = time.Now()
	r.mu.Unlock()
	select {
	case r.compares <- struct{}{}:
	default:
	}
}

// askedAt is when compareSoon was last called.
func (r *Reconciler) askedAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// event hears the servers' heartbeats and goodbyes.
func (r *Reconciler) event(msg *nats.Msg) {
	if strings.HasSuffix(msg.Subject, ".SHUTDOWN") {
		var info serverInfo
		if json.Unmarshal(msg.Data, &info) == nil {
			r.lost(info.ID)
		}
		return
	}
	var s statsz
	if json.Unmarshal(msg.Data, &s) == nil {
		r.heard(s.Server)
	}
}

// heard notes a sign of life of a server. It may not block.
func (r *Reconciler) heard(info serverInfo) {
	switch {
	case r.fleet.has(info.ID):
		r.welcome(info)
	case info.ID == "" || r.fleet.isForeign(info.ID):
	default:
		select {
		case r.strangers <- info:
		default: // it will be heard again
		}
	}
}

// welcome notes a sign of life of a server of ours. One that is new, or was away,
// may hold anything.
func (r *Reconciler) welcome(info serverInfo) {
	fresh := r.fleet.heard(info)
	if off, beyond := r.fleet.clocks(info, time.Now(), r.config.ClockSkew); beyond && r.config.ClockSkew > 0 {
		r.logger.Warn("the clock of a NATS server is off by more than clock_skew: revocations may not hold there", "server", info.Name, "ahead", off)
	}
	if !fresh {
		return
	}
	r.logger.Info("a NATS server is there", "server", info.Name, "cluster", info.Cluster)
	r.compareSoon()
	r.retryAll()
}

func (r *Reconciler) lost(id string) {
	if name := r.fleet.lost(id); name != "" {
		r.logger.Warn("a NATS server is away", "server", name)
	}
}

// meetStrangers finds out whose the servers are that are heard for the first time.
func (r *Reconciler) meetStrangers() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case info := <-r.strangers:
			_ = r.meet(info) // it will be heard again
		}
	}
}

// meet asks a server which operators it trusts. What is sent in the system account
// reaches the servers of another operator too, if one has linked theirs with it.
// Such a server takes any account JWT that it is given, and refuses deletions; so
// neither tells. Every server of ours answers; one that does not is asked again
// when it is next heard, and counts for neither until then.
func (r *Reconciler) meet(info serverInfo) error {
	if r.fleet.has(info.ID) || r.fleet.isForeign(info.ID) {
		return nil
	}
	var answer varz
	err := r.link.ask(r.ctx, request{subject: varzSubject(info.ID), servers: 1}, func(data []byte) bool {
		return json.Unmarshal(data, &answer) == nil
	})
	switch {
	case errors.Is(err, nats.ErrNoResponders) || errors.Is(err, errNoAnswer):
		r.logger.Debug("a NATS server does not say whose it is, and is left alone", "server", info.Name, "cluster", info.Cluster)
		return nil
	case err != nil:
		return err
	}
	// One that was given no operator's JWT, but its keys, names none.
	trusted := answer.Data.Operators
	for _, operator := range trusted {
		if operator.Subject == r.config.Operator {
			trusted = nil
			break
		}
	}
	if len(trusted) == 0 {
		r.welcome(info)
		return nil
	}
	if r.fleet.heardForeign(info, trusted[0].Subject) {
		r.logger.Info("a NATS server of another operator is linked, and left alone", "server", info.Name, "cluster", info.Cluster, "operator", trusted[0].Subject)
		r.compareSoon()
	}
	return nil
}
