package plugin

import (
	"sync"
	"time"
)

// The pause between two updates of one account: it begins with minPause, and
// doubles up to maxPause for as long as there is always something new.
const (
	minPause = 20 * time.Millisecond
	maxPause = time.Second
)

// A pacer keeps updates of an account apart that come one after the other, as
// when Vault revokes a thousand leases: the first goes out at once, and what
// comes within a pause is one update after it.
type pacer struct {
	mu       sync.Mutex
	accounts map[string]*pause // those with a pause under way
}

type pause struct {
	length time.Duration
	wanted bool // another update, when it is over
}

// update calls deliver, which must not block, now or when the pause is over.
func (p *pacer) update(account string, deliver func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if under, ok := p.accounts[account]; ok {
		under.wanted = true
		return
	}
	if p.accounts == nil {
		p.accounts = map[string]*pause{}
	}
	under := &pause{length: minPause}
	p.accounts[account] = under
	deliver()
	time.AfterFunc(under.length, func() { p.over(account, under, deliver) })
}

// over ends a pause, and begins another one if there was an update to be made.
func (p *pacer) over(account string, under *pause, deliver func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !under.wanted {
		delete(p.accounts, account)
		return
	}
	under.wanted, under.length = false, min(2*under.length, maxPause)
	deliver()
	time.AfterFunc(under.length, func() { p.over(account, under, deliver) })
}
