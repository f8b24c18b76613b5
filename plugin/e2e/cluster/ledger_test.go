package cluster

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// A ledger has what was acknowledged, and so has to hold. What was not acknowledged may
// have been done, or be done at any later time: its request may be in the hands of a node
// that stands still. What that would change is struck from the ledger and not written
// again, so that the ledger is never in doubt.
type ledger struct {
	mutex    sync.Mutex
	accounts map[string]account // that the mount holds, by name
	deleted  map[string]string  // names of those that are gone, by public key
	roles    map[string]string  // by name: the subject that its users may publish to
	good     []*user            // are let in
	revoked  []*user            // are not
	out      []*user            // of these, who was seen to be refused everywhere
	writes   int                // how many were acknowledged
}

type account struct {
	id          string // public key
	description string
}

func newLedger() *ledger {
	return &ledger{accounts: map[string]account{}, deleted: map[string]string{}, roles: map[string]string{}}
}

// with has a function read or change the ledger.
func (l *ledger) with(do func()) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	do()
}

// copy is the ledger as it is now, for when a snapshot brings that time back. Of the
// servers nothing is known then.
func (l *ledger) copy() *ledger {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return &ledger{
		accounts: maps.Clone(l.accounts), deleted: maps.Clone(l.deleted), roles: maps.Clone(l.roles),
		good: slices.Clone(l.good), revoked: slices.Clone(l.revoked), writes: l.writes,
	}
}

// become has the ledger say what another says.
func (l *ledger) become(other *ledger) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.accounts, l.deleted, l.roles = other.accounts, other.deleted, other.roles
	l.good, l.revoked, l.out = other.good, other.revoked, other.out
}

// acknowledged is how many writes were.
func (l *ledger) acknowledged() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.writes
}

// doubt strikes users of whom it is not known for now whether they are let in.
func (l *ledger) doubt(chosen func(*user) bool) (struck []*user) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.good = slices.DeleteFunc(l.good, func(u *user) bool {
		if chosen(u) {
			struck = append(struck, u)
			return true
		}
		return false
	})
	return struck
}

// isOut notes that users were refused by every server.
func (l *ledger) isOut(users ...*user) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, u := range users {
		if !slices.Contains(l.out, u) {
			l.out = append(l.out, u)
		}
	}
}

// some returns the last of a list, and as many of those before it by chance.
func some[T any](list []T, n int) []T {
	last := max(0, len(list)-n)
	chosen := slices.Clone(list[last:])
	for _, i := range rand.Perm(last)[:min(n, last)] {
		chosen = append(chosen, list[i])
	}
	return chosen
}
