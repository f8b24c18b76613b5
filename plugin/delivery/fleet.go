package delivery

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// A fleet is what is known of the servers: those that answer, and those that
// did and do not now. Servers of other operators, whose system account is linked
// with ours over a leafnode, are kept apart: they hear all that is sent, and are
// neither counted nor waited for.
type fleet struct {
	mu      sync.Mutex
	servers map[string]*server // by ID
	foreign map[string]*server // by ID; while they answer
	up      map[string]string  // what present returns; nil if that has changed
	left    chan struct{}      // closed, and made anew, when a server is lost
	arrived uint64             // how often a server was new or had been away
}

type server struct {
	serverInfo
	gone    time.Time // since when it does not answer; zero while it does
	refuses string    // why it refused the last deletion

	// Of a foreign server: the public key of the operator that it trusts, and when it
	// was last heard.
	operator string
	heard    time.Time
	off      time.Duration // how far its clock is ahead
}

const (
	// maxForeign bounds the servers of other operators that are kept in mind.
	maxForeign = 1000

	// forgetForeign is when one that is not heard is forgotten. It sends a heartbeat
	// every ten seconds.
	forgetForeign = time.Minute
)

func newFleet() *fleet {
	return &fleet{servers: make(map[string]*server), foreign: make(map[string]*server), left: make(chan struct{})}
}

// has reports whether a server is known to be of this operator.
func (f *fleet) has(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.servers[id] != nil
}

// isForeign reports whether a server that was heard is known to be of another
// operator.
func (f *fleet) isForeign(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.foreign[id]
	if s != nil {
		s.heard = time.Now()
	}
	return s != nil
}

// foreigners counts the servers of other operators, and forgets those that are
// gone.
func (f *fleet) foreigners() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.foreign, func(_ string, s *server) bool { return time.Since(s.heard) > forgetForeign })
	return len(f.foreign)
}

// heardForeign notes a server of another operator, and reports whether it is a new
// one. It counts as an arrival: it may hold accounts that were removed, which it
// was given by others, and gives them back.
func (f *fleet) heardForeign(info serverInfo, operator string) (fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.foreign[info.ID] != nil || len(f.foreign) >= maxForeign {
		return false
	}
	f.foreign[info.ID] = &server{serverInfo: info, operator: operator, heard: time.Now()}
	f.arrived++
	return true
}

// ahead is how far the server's clock was ahead of the one here when it wrote the
// last that was heard of it; negative if it was behind, or the message took long. It
// is 0 where that is not known.
func (s serverInfo) ahead(now time.Time) time.Duration {
	if s.Time.IsZero() {
		return 0
	}
	return s.Time.Sub(now)
}

// clocks notes by how much a server's clock is off, and reports whether that has
// come to be more than it may.
func (f *fleet) clocks(info serverInfo, now time.Time, most time.Duration) (off time.Duration, beyond bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.servers[info.ID]
	if s == nil || info.Time.IsZero() {
		return 0, false
	}
	before := s.off.Abs() > most
	s.off = info.ahead(now)
	return s.off, s.off.Abs() > most && !before
}

// heard notes a sign of life, and reports whether the server is a new one or
// was away: then what it holds may be out of date.
func (f *fleet) heard(info serverInfo) (fresh bool) {
	if info.ID == "" {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.servers[info.ID]; s != nil {
		fresh = !s.gone.IsZero()
		if fresh || s.Name != info.Name {
			f.up = nil
		}
		s.serverInfo, s.gone = info, time.Time{}
		if fresh {
			f.arrived++
		}
		return fresh
	}
	if before := f.predecessor(info); before != "" {
		delete(f.servers, before)
	}
	f.servers[info.ID] = &server{serverInfo: info}
	f.up = nil
	f.arrived++
	return true
}

// arrivals counts how often a server was new or had been away.
func (f *fleet) arrivals() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.arrived
}

// predecessor is the server that info is a restart of: the one with its name,
// or, as a server without a configured name changes its name with its ID, the
// one of these that is away the longest.
func (f *fleet) predecessor(info serverInfo) (id string) {
	var oldest time.Time
	for _, s := range f.servers {
		if s.Name == info.Name {
			return s.ID
		}
		if s.gone.IsZero() || s.Name != s.ID || info.Name != info.ID || s.Cluster != info.Cluster {
			continue
		}
		if id == "" || s.gone.Before(oldest) {
			id, oldest = s.ID, s.gone
		}
	}
	return id
}

// lost notes that a server said goodbye or did not answer, and returns its name
// if that was not known yet.
func (f *fleet) lost(id string) (name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.foreign, id)
	s := f.servers[id]
	if s == nil || !s.gone.IsZero() {
		return ""
	}
	s.gone = time.Now()
	f.up = nil
	close(f.left)
	f.left = make(chan struct{})
	return s.Name
}

// nextLoss is closed when the next server is lost.
func (f *fleet) nextLoss() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left
}

// present returns the names, by ID, of the servers that should answer. The map is
// not to be changed.
func (f *fleet) present() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.up != nil {
		return f.up
	}
	f.up = make(map[string]string, len(f.servers))
	for id, s := range f.servers {
		if s.gone.IsZero() {
			f.up[id] = s.Name
		}
	}
	return f.up
}

// missing returns the names of the servers that are away, sorted, and forgets
// those that have been for longer than forgetAfter.
func (f *fleet) missing() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.servers, func(_ string, s *server) bool {
		return !s.gone.IsZero() && time.Since(s.gone) > forgetAfter
	})
	var names []string
	for _, s := range f.servers {
		if !s.gone.IsZero() {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

// refused notes why a server does not delete; empty if it does.
func (f *fleet) refused(id, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.servers[id]; s != nil {
		s.refuses = reason
	}
}

// state lists the servers by name.
func (f *fleet) state() []ServerState {
	f.missing()
	f.foreigners()
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]ServerState, 0, len(f.servers))
	for _, s := range f.servers {
		state := ServerState{Name: s.Name, ID: s.ID, Cluster: s.Cluster, Version: s.Version, DeleteRefused: s.refuses}
		if s.off.Abs() >= time.Second {
			state.ClockAhead = s.off.Round(time.Second).Seconds()
		}
		if !s.gone.IsZero() {
			gone := s.gone
			state.MissingSince = &gone
		}
		list = append(list, state)
	}
	for _, s := range f.foreign {
		list = append(list, ServerState{Name: s.Name, ID: s.ID, Cluster: s.Cluster, Version: s.Version, ForeignOperator: s.operator})
	}
	slices.SortFunc(list, func(a, b ServerState) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return list
}
