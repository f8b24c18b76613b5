package plugin

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A pacedAccount is one whose updates take a time, as a test says.
type pacedAccount struct {
	pacer
	begun time.Time
	takes time.Duration

	lock  sync.Mutex
	at    []time.Duration // of the updates
	ended []time.Duration
}

func (p *pacedAccount) note(times *[]time.Duration) {
	p.lock.Lock()
	defer p.lock.Unlock()
	*times = append(*times, time.Since(p.begun))
}

func (p *pacedAccount) noted(times *[]time.Duration) []time.Duration {
	p.lock.Lock()
	defer p.lock.Unlock()
	return slices.Clone(*times)
}

func (p *pacedAccount) change(account string) {
	p.update(account, func(done func()) {
		p.note(&p.at)
		time.AfterFunc(p.takes, func() {
			p.note(&p.ended)
			done()
		})
	})
}

func (p *pacedAccount) rest(t *testing.T) {
	t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	require.Empty(t, p.accounts)
}

func TestUpdatesOfAnAccountThatComeTogetherAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacedAccount{begun: time.Now(), takes: 5 * time.Millisecond}
		p.change("A")
		require.Equal(t, []time.Duration{0}, p.noted(&p.at), "the first waits for nothing")
		for range 1000 {
			p.change("A")
			time.Sleep(2 * time.Millisecond)
		}
		p.rest(t)
		require.Less(t, len(p.noted(&p.at)), 12)
		last := p.noted(&p.at)[len(p.noted(&p.at))-1]
		require.GreaterOrEqual(t, last, 2*time.Second-2*time.Millisecond, "the last is not forgotten")
		require.Less(t, last, 2*time.Second+maxPause+p.takes)

		count := len(p.noted(&p.at))
		p.change("A")
		p.change("B")
		require.Len(t, p.noted(&p.at), count+2, "after a rest, and for another account, nothing waits")
		p.rest(t)
		require.Len(t, p.noted(&p.at), count+2)
	})
}

func TestAnUpdateThatFollowsAnotherWaitsForWhatThatCost(t *testing.T) {
	for takes, most := range map[time.Duration]time.Duration{
		5 * time.Millisecond:   30 * time.Millisecond,
		50 * time.Millisecond:  300 * time.Millisecond,
		800 * time.Millisecond: maxPause + 1600*time.Millisecond,
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &pacedAccount{begun: time.Now(), takes: takes}
			for range 20 { // each when the servers have the one before
				asked, ended := time.Since(p.begun), len(p.noted(&p.ended))
				p.change("A")
				for len(p.noted(&p.ended)) == ended {
					time.Sleep(time.Millisecond)
					synctest.Wait()
				}
				require.LessOrEqual(t, p.noted(&p.ended)[ended]-asked, most)
			}
			p.rest(t)
			require.Len(t, p.noted(&p.at), 20)
			busy := 20 * takes.Seconds() / p.noted(&p.ended)[19].Seconds()
			if takes < maxPause/restFactor {
				require.LessOrEqual(t, busy, 1.0/restFactor, "of the servers' time")
			}
		})
	}
}

func TestAnUpdateThatNeverEndsHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacedAccount{begun: time.Now(), takes: time.Hour}
		p.change("A")
		p.change("A")
		p.rest(t)
		require.Equal(t, []time.Duration{0, maxPause}, p.noted(&p.at))
		time.Sleep(2 * time.Hour)
	})
}

func TestAnUpdateMayBeDoneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		count := 0
		for range 3 {
			p.update("A", func(done func()) { count++; done(); done() })
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 2, count)
	})
}
