package plugin

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUpdatesOfAnAccountThatComeTogetherAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, begun := &pacer{}, time.Now()
		var at []time.Duration
		rest := func() {
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		update := func(account string) { p.update(account, func() { at = append(at, time.Since(begun)) }) }

		update("A")
		require.Equal(t, []time.Duration{0}, at, "the first waits for nothing")
		for range 1000 {
			update("A")
			time.Sleep(10 * time.Millisecond)
		}
		rest()
		require.Less(t, len(at), 20)
		require.Equal(t, []time.Duration{0, minPause, 3 * minPause, 7 * minPause}, at[:4])
		last := at[len(at)-1]
		require.GreaterOrEqual(t, last, 10*time.Second-10*time.Millisecond, "the last is not forgotten")
		require.Less(t, last, 10*time.Second+maxPause)
		require.Empty(t, p.accounts)

		count := len(at)
		update("A")
		update("B")
		require.Len(t, at, count+2, "after a rest, and for another account, nothing waits")
		rest()
		require.Len(t, at, count+2)
		require.Empty(t, p.accounts)
	})
}
