package delivery

import (
	"context"
	"slices"
	"time"
)

// ServerState is what is known of one nats-server.
type ServerState struct {
	Name          string     `json:"name"`
	ID            string     `json:"id"` // of this run of the server
	Cluster       string     `json:"cluster,omitempty"`
	Version       string     `json:"version"`
	MissingSince  *time.Time `json:"missing_since,omitempty"`  // it was there and does not answer now
	DeleteRefused string     `json:"delete_refused,omitempty"` // why it does not delete accounts
	ClockAhead    float64    `json:"clock_ahead,omitempty"`    // how many seconds its clock is ahead of the one here; negative if behind

	// ForeignOperator is the public key of the operator that the server trusts, where
	// that is not the mount's. Its system account is linked with ours; the accounts that
	// it holds are not the mount's business, and nothing depends on what it answers.
	ForeignOperator string `json:"foreign_operator,omitempty"`
}

// AccountState is the delivery of one account.
type AccountState struct {
	Account string `json:"account"`
	// Wanted and Delivered are versions of the account JWT: its jti. Wanted is
	// empty for an account that is to be on no server; Delivered is empty while
	// that is not known, which is as long as the account is pending.
	Wanted    string `json:"wanted"`
	Delivered string `json:"delivered"`
	Pending   bool   `json:"pending"`
	Servers   int    `json:"servers"` // how many servers agreed at the last attempt

	Error string `json:"error,omitempty"` // of the last attempt, or of reading the account

	// The rest is of a pending account.
	Since    *time.Time `json:"since,omitempty"` // when it became pending, as far as this process knows
	Attempts int        `json:"attempts,omitempty"`
	NextTry  *time.Time `json:"next_try,omitempty"`
}

// State is the delivery of the whole mount.
type State struct {
	Connected bool          `json:"connected"` // to NATS; true when there is none to connect to
	Error     string        `json:"error,omitempty"`
	Servers   []ServerState `json:"servers"`
	Pending   int           `json:"pending"` // accounts not delivered
	// PendingSince is when the one became pending that is it the longest, as far as this
	// process knows; nil if none is.
	PendingSince *time.Time `json:"pending_since,omitempty"`
	LastSync     *Report    `json:"last_sync,omitempty"`

	ClockSkew time.Duration `json:"-"` // of Config
}

// State returns what is known, without asking anyone.
func (r *Reconciler) State() State {
	s := State{Connected: true, Servers: r.fleet.state(), ClockSkew: r.config.ClockSkew}
	if r.link != nil {
		if err := r.link.standing(); err != nil {
			s.Connected, s.Error = false, err.Error()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.undone {
		if u.pending() {
			s.Pending++
			if s.PendingSince == nil || u.since.Before(*s.PendingSince) {
				since := u.since
				s.PendingSince = &since
			}
		}
	}
	s.LastSync = r.lastSync
	return s
}

// Pending lists up to limit accounts that are not delivered, sorted by id,
// beginning after the id given.
func (r *Reconciler) Pending(after string, limit int) []AccountState {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id, u := range r.undone {
		if id > after && u.pending() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	ids = ids[:min(limit, len(ids))]
	states := make([]AccountState, 0, len(ids))
	for _, id := range ids {
		states = append(states, r.undone[id].state(id))
	}
	return states
}

// Status returns the delivery of one account. That it cannot be read is its own
// error; the one returned is of the caller's context.
func (r *Reconciler) Status(ctx context.Context, id string) (AccountState, error) {
	accountJWT, _, err := r.source.Wanted(ctx, id)
	if ctx.Err() != nil {
		return AccountState{}, ctx.Err()
	}
	state := AccountState{Account: id, Wanted: version(accountJWT), Servers: len(r.fleet.present())}
	state.Delivered = state.Wanted
	if err != nil {
		state.Error = err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.undone[id]; u != nil && u.pending() {
		wanted := state.Wanted
		state = u.state(id)
		state.Wanted = wanted
	}
	return state, nil
}

// pending tells an account that is to be delivered from one that is only compared.
func (u *undone) pending() bool { return u.changed > 0 || u.err != nil }

// state needs the Reconciler's lock.
func (u *undone) state(id string) AccountState {
	since := u.since
	s := AccountState{
		Account: id, Pending: true, Wanted: version(u.outcome.accountJWT), Servers: u.outcome.servers,
		Since: &since, Attempts: u.attempts,
	}
	if u.err != nil {
		s.Error = u.err.Error()
	}
	if !u.next.IsZero() {
		next := u.next
		s.NextTry = &next
	}
	return s
}
