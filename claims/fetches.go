package claims

import (
	"sync"
	"time"
)

// Fetches are how fetching an issuer's keys went since it was made ready for use: of all
// endpoints together.
type Fetches struct {
	Good, Failed uint64

	// Held is when the keys at hand were fetched: of several endpoints, those that are
	// the oldest. It is zero while an endpoint has no keys of which that is known, as
	// those that an earlier process has stored.
	Held time.Time

	// FailingSince is when the first fetch failed that none which succeeded came after,
	// at the endpoint where that is the longest ago, and LastFailure when the last one
	// did. They are zero while none fails.
	FailingSince, LastFailure time.Time
}

// Fetches returns how the fetches of keys went; ok is false where keys are configured
// and nothing is fetched.
func (j *JWT) Fetches() (fetches Fetches, ok bool) {
	if j.remote == nil {
		return Fetches{}, false
	}
	for i, r := range j.remote.list {
		one := r.fetches.read()
		fetches.Good += one.Good
		fetches.Failed += one.Failed
		if i == 0 || one.Held.Before(fetches.Held) {
			fetches.Held = one.Held
		}
		if !one.FailingSince.IsZero() && (fetches.FailingSince.IsZero() || one.FailingSince.Before(fetches.FailingSince)) {
			fetches.FailingSince = one.FailingSince
		}
		if one.LastFailure.After(fetches.LastFailure) {
			fetches.LastFailure = one.LastFailure
		}
	}
	return fetches, true
}

// fetchRecord is what is known of the fetches from one endpoint.
type fetchRecord struct {
	mu sync.Mutex
	Fetches
}

func (r *fetchRecord) note(began time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.Good++
		r.Held, r.FailingSince, r.LastFailure = began, time.Time{}, time.Time{}
		return
	}
	r.Failed++
	r.LastFailure = began
	if r.FailingSince.IsZero() {
		r.FailingSince = began
	}
}

func (r *fetchRecord) read() Fetches {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Fetches
}
