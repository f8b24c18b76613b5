package plugin

import (
	"sync"
	"time"
)

const (
	// restFactor is how many times as long as an update of an account took no other
	// one is begun: the servers have a fifth of their time to do for what comes in a
	// row at most. How long one takes follows the size of the account's JWT, which
	// revocations make longer, and the servers' disks.
	restFactor = 4

	// minPause and maxPause bound the pause.
	minPause = 20 * time.Millisecond
	maxPause = time.Second

	// crowd is how many changes in one pause are a crowd, as when Vault revokes a
	// thousand leases. The pause doubles for as long as it lasts.
	crowd = 4
)

// A pacer keeps updates of an account apart that come one after the other: the first
// goes out at once, and what comes until the servers have it, and in a pause after
// that, is one update.
type pacer struct {
	mu       sync.Mutex
	accounts map[string]*pause // those with a pause under way
}

type pause struct {
	came int           // changes that wait for its end
	grew time.Duration // how long it is at least, in a crowd
}

// An attempt has the servers given an account, and calls done when they have it or
// it has failed. It does not block, and may call done at once.
type attempt func(done func())

// update has an account updated, now or when the pause is over.
func (p *pacer) update(account string, update attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if under, ok := p.accounts[account]; ok {
		under.came++
		return
	}
	if p.accounts == nil {
		p.accounts = map[string]*pause{}
	}
	under := &pause{}
	p.accounts[account] = under
	p.begin(account, under, update)
}

// begin makes an update, and has the pause end when it is due. An update that takes
// longer than the longest pause, as while the servers are away, is waited for no more.
// The caller holds the lock.
func (p *pacer) begin(account string, under *pause, update attempt) {
	began, grew := time.Now(), under.grew
	done := make(chan struct{})
	var once sync.Once
	update(func() { once.Do(func() { close(done) }) })
	go func() {
		late := time.NewTimer(maxPause)
		defer late.Stop()
		select {
		case <-done:
			time.Sleep(min(max(restFactor*time.Since(began), grew, minPause), maxPause))
		case <-late.C:
		}
		p.over(account, under, update)
	}()
}

// over ends a pause, and makes the update that has come to be due.
func (p *pacer) over(account string, under *pause, update attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if under.came == 0 {
		delete(p.accounts, account)
		return
	}
	if under.came >= crowd {
		under.grew = min(2*max(under.grew, minPause), maxPause)
	} else {
		under.grew = 0
	}
	under.came = 0
	p.begin(account, under, update)
}
