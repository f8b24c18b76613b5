package delivery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// An outcome is what one attempt to deliver an account came to.
type outcome struct {
	accountJWT string // that was sent; empty for a removal
	servers    int    // how many servers answered and agree
}

// deliver brings one account to the servers, once. rewrite is set when a server
// is known to have lost the account's file since it took it.
func (r *Reconciler) deliver(ctx context.Context, id string, rewrite, confirm bool) (outcome, error) {
	// An account server is given accounts before there is a NATS server: one that
	// fetches from it starts with what is there.
	if r.accountServers == nil {
		if err := r.reachable(ctx); err != nil {
			return outcome{}, err
		}
	}
	h, err := r.hold(ctx, id)
	if err != nil {
		return outcome{}, err
	}
	result := outcome{accountJWT: h.accountJWT}
	if h.wanted {
		if rewrite {
			// A server compares with what it remembers, not with what it has on
			// disk. A JWT with a line end after it says the same and is another
			// text, so this makes it write, and the push that follows once more.
			if _, err := h.send(ctx, h.accountJWT+"\n"); err != nil {
				return result, err
			}
		}
		result.servers, err = h.publish(ctx, h.accountJWT)
	} else {
		result.servers, err = h.remove(ctx)
	}
	if err != nil {
		return result, err
	}
	if confirm {
		if err := r.source.Delivered(ctx, id, h.accountJWT); err != nil {
			return result, fmt.Errorf("storing that the account is delivered: %w", err)
		}
	}
	return result, nil
}

// reachable makes sure that there is a connection, and that it is known which
// servers are to answer.
func (r *Reconciler) reachable(ctx context.Context) error {
	if err := r.link.ready(ctx); err != nil {
		return err
	}
	if len(r.fleet.present()) > 0 {
		return nil
	}
	if err := r.rollCall(); err != nil {
		return err
	}
	if len(r.fleet.present()) == 0 {
		return errors.New("no NATS server of the operator answers")
	}
	return nil
}

// publish brings an account JWT to the account servers, if there are any, and
// then to the NATS servers.
func (h *hold) publish(ctx context.Context, accountJWT string) (int, error) {
	if h.accountServers != nil {
		n, err := h.accountServers.post(ctx, h, accountJWT)
		if err != nil || h.link == nil {
			return n, err
		}
		if err := h.reachable(ctx); err != nil {
			return n, err
		}
	}
	return h.send(ctx, accountJWT)
}

// send pushes an account JWT over NATS. It succeeds when every server that was
// there has answered and none refuses; the number is of those that agree.
func (h *hold) send(ctx context.Context, accountJWT string) (int, error) {
	expected := h.fleet.present()
	answered, err := h.claims(ctx, h.good, updateSubject(h.id), accountJWT, expected, 0)
	if err != nil || len(h.silent(expected, answered)) == 0 {
		return answered.agree(), err
	}
	// Before one is blamed, all are asked whether they are there. A server that
	// came meanwhile makes for a comparison anyway.
	if err := h.rollCall(); err != nil {
		return answered.agree(), err
	}
	if names := h.silent(expected, answered); len(names) > 0 {
		return answered.agree(), fmt.Errorf("server %s did not answer", strings.Join(names, ", "))
	}
	return answered.agree(), nil
}

// remove takes an account off the servers. Where a server does not delete, a
// last JWT that expires soon has the same effect.
//
// It fails while a server is away: with the account still on its disk that
// server would, once back, give the account to the others again.
func (h *hold) remove(ctx context.Context) (int, error) {
	servers, err := h.removeHere(ctx)
	if err != nil {
		return servers, err
	}
	if missing := h.fleet.missing(); len(missing) > 0 {
		return servers, fmt.Errorf("server %s is away, and may still hold the account", strings.Join(missing, ", "))
	}
	return servers, nil
}

func (h *hold) removeHere(ctx context.Context) (int, error) {
	if h.accountServers == nil {
		servers, deleted, err := h.delete(ctx)
		if err != nil || deleted && h.fleet.foreigners() == 0 {
			return servers, err
		}
	}
	gone, err := h.lookAtForeigners(ctx, h.id)
	if err != nil {
		return 0, err
	}
	if gone && h.accountServers == nil {
		return len(h.fleet.present()), nil
	}
	expires := time.Now().Add(farewellTime + h.config.ClockSkew)
	farewell, err := h.config.Farewell(h.id, expires)
	if err != nil {
		return 0, fmt.Errorf("signing the account's last JWT: %w", err)
	}
	h.bidFarewell(h.id, expires)
	if gone {
		return h.accountServers.post(ctx, h, farewell)
	}
	return h.publish(ctx, farewell)
}

// delete has the servers delete an account, and reports whether all have.
func (h *hold) delete(ctx context.Context) (servers int, deleted bool, err error) {
	token, err := h.config.DeleteToken(h.id)
	if err != nil {
		return 0, false, fmt.Errorf("signing the deletion: %w", err)
	}
	expected := h.fleet.present()
	answered, err := h.claims(ctx, h.good, deleteSubject, token, expected, settle)
	servers = answered.agree()
	if err == nil && len(h.silent(expected, answered)) == 0 {
		return servers, true, nil
	}
	if errors.Is(err, errNotConnected) || errors.Is(err, errNotProven) || errors.Is(err, errChanged) || ctx.Err() != nil {
		return servers, false, cmp.Or(err, ctx.Err())
	}
	if err == nil {
		// Those that did not answer may not be there, and have no use for more.
		if err := h.rollCall(); err != nil {
			return servers, false, err
		}
		deleted = len(h.silent(expected, answered)) == 0
	}
	return servers, deleted, nil // a refusal is known of its server
}

// lookAtForeigners looks at what linked servers of other operators hold of an
// account that was removed, and reports whether nobody holds it any more.
//
// Servers with a full resolver exchange what they have over a leafnode as they do in
// a cluster, so an account that all of ours have deleted would come back. A server of
// another operator refuses our deletion; a last JWT of ours it takes as it took those
// before. But where it holds one that somebody else has signed, the account was ours
// and is theirs now.
func (r *Reconciler) lookAtForeigners(ctx context.Context, id string) (gone bool, err error) {
	if r.link == nil || r.fleet.foreigners() == 0 {
		return false, nil
	}
	copies, err := r.copies(ctx, id, 0)
	if errors.Is(err, errNotConnected) {
		return false, nil // an account server is told all the same
	}
	if err != nil {
		return false, err
	}
	held := slices.DeleteFunc(slices.Clone(copies), func(accountJWT string) bool { return accountJWT == "" })
	for _, accountJWT := range held {
		if r.config.Ours(accountJWT) {
			continue
		}
		if slices.ContainsFunc(held, r.config.Ours) {
			return false, errors.New("a server holds the account, and a linked server of another operator has one of theirs with the same key, which a last JWT would overwrite")
		}
		return true, nil
	}
	everyone := len(copies) >= len(r.fleet.present())+r.fleet.foreigners()
	return everyone && len(held) == 0, nil
}

// bidFarewell remembers that servers will list an account for a while that was
// removed.
func (r *Reconciler) bidFarewell(id string, expires time.Time) {
	// A server looks for expired files once a minute.
	const lag = 2 * time.Minute
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.farewells, func(_ string, until time.Time) bool { return time.Now().After(until) })
	r.farewells[id] = expires.Add(lag)
}

// answers say of the servers that have answered a request, by ID, whether they
// agree.
type answers map[string]bool

// agree counts those that do.
func (a answers) agree() int {
	n := 0
	for _, agrees := range a {
		if agrees {
			n++
		}
	}
	return n
}

// silent returns the names, sorted, of the servers that were expected to answer,
// are there still and have not.
func (r *Reconciler) silent(expected map[string]string, answered answers) []string {
	present := r.fleet.present()
	var names []string
	for id, name := range expected {
		_, spoke := answered[id]
		if _, there := present[id]; there && !spoke {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// claims makes a request about an account JWT to all servers, if that is good still. It
// ends when none of those that are expected to answer is silent; the errors are of
// those that refuse.
func (r *Reconciler) claims(ctx context.Context, good func(context.Context) error, subject, text string, expected map[string]string, quiet time.Duration) (answers, error) {
	answered := make(answers, len(expected))
	var refusals []error
	request := request{good: good, subject: subject, data: []byte(text), servers: len(expected), quiet: quiet, left: r.fleet.nextLoss}
	awaited := len(expected)
	err := r.link.ask(ctx, request, func(data []byte) bool {
		if data == nil {
			silent := len(r.silent(expected, answered))
			awaited = len(answered) + silent
			return silent == 0 && answered.agree() > 0
		}
		reply, err := parseClaimsReply(data)
		if reply.Server.ID != "" && !r.fleet.has(reply.Server.ID) {
			// It is of another operator, or it came just now, and is brought up to date by
			// the comparison that this makes for.
			r.heard(reply.Server)
			return false
		}
		if err != nil {
			refusals = append(refusals, err)
		}
		if reply.Server.ID != "" {
			answered[reply.Server.ID] = err == nil
		}
		r.learn(subject, reply)
		return len(answered) >= awaited && len(r.silent(expected, answered)) == 0
	})
	switch {
	case len(refusals) > 0:
		return answered, errors.Join(refusals...)
	case errors.Is(err, errNoAnswer) && answered.agree() > 0:
		return answered, nil // who is missing is the caller's to judge
	case errors.Is(err, errNoAnswer):
		return answered, errors.New("no server answered in time")
	}
	return answered, err
}

// learn keeps what an answer tells of its server.
func (r *Reconciler) learn(subject string, reply claimsReply) {
	r.heard(reply.Server)
	if subject != deleteSubject {
		return
	}
	refusal := ""
	if reply.Error != nil {
		refusal = reply.Error.Description
	}
	r.fleet.refused(reply.Server.ID, refusal)
}

// rollCall finds out which servers are there, and whose they are. Concurrent calls
// share one.
func (r *Reconciler) rollCall() error {
	_, err, _ := r.calling.Do("", func() (any, error) {
		before := r.fleet.present()
		// Servers of other operators may be the first to answer.
		awaited := maps.Clone(before)
		if id := r.link.serverID(); id != "" {
			awaited[id] = ""
		}
		expected := len(before)
		var strangers []serverInfo
		answered := make(map[string]bool)
		err := r.link.ask(r.ctx, request{subject: pingSubject, servers: len(before), quiet: settle}, func(data []byte) bool {
			var s statsz
			if json.Unmarshal(data, &s) != nil || s.Server.ID == "" {
				return false
			}
			if !answered[s.Server.ID] && !r.fleet.has(s.Server.ID) {
				strangers = append(strangers, s.Server)
			} else {
				r.heard(s.Server)
			}
			answered[s.Server.ID] = true
			delete(awaited, s.Server.ID)
			expected = max(expected, s.Stats.ActiveServers)
			return len(awaited) == 0 && len(answered) >= expected
		})
		if len(answered) == 0 {
			return nil, fmt.Errorf("asking which servers are there: %w", cmp.Or(err, errNoAnswer))
		}
		var meetings errgroup.Group
		for _, info := range strangers {
			meetings.Go(func() error { return r.meet(info) })
		}
		if err := meetings.Wait(); err != nil {
			return nil, fmt.Errorf("asking servers whose they are: %w", err)
		}
		for id := range before {
			if !answered[id] {
				r.lost(id)
			}
		}
		return nil, nil
	})
	return err
}
