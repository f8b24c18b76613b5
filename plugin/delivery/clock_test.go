package delivery

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAServerWhoseClockIsOffIsToldOf(t *testing.T) {
	now := time.Now()
	f := newFleet()
	hear := func(ahead time.Duration) (time.Duration, bool) {
		info := serverInfo{ID: "N1", Name: "n1", Time: now.Add(ahead)}
		f.heard(info)
		return f.clocks(info, now, 10*time.Minute)
	}
	for _, ahead := range []time.Duration{0, 9 * time.Minute, -9 * time.Minute} {
		off, beyond := hear(ahead)
		require.Equal(t, ahead, off)
		require.False(t, beyond)
	}
	_, beyond := hear(-11 * time.Minute)
	require.True(t, beyond, "a clock that is eleven minutes behind")
	_, beyond = hear(-11 * time.Minute)
	require.False(t, beyond, "it is told of once")
	require.Equal(t, -660.0, f.state()[0].ClockAhead)
	_, beyond = hear(time.Second)
	require.False(t, beyond)
	_, beyond = hear(11 * time.Minute)
	require.True(t, beyond, "and once more when it was right meanwhile")

	info := serverInfo{ID: "N1", Name: "n1"}
	off, beyond := f.clocks(info, now, 10*time.Minute)
	require.Zero(t, off)
	require.False(t, beyond, "a message that says no time says nothing")
}

func TestARealServerTellsItsTime(t *testing.T) {
	w := newWorld(t)
	s, _ := w.fullServer()
	r := w.reconciler(w.config(s.ClientURL()))
	require.NoError(t, r.Deliver(testContext(t), w.addAccount("orders").id))
	w.eventually(func() error {
		r.fleet.mu.Lock()
		defer r.fleet.mu.Unlock()
		for _, server := range r.fleet.servers {
			if !server.Time.IsZero() && server.off.Abs() < time.Minute {
				return nil
			}
		}
		return errors.New("no server has told its time")
	})
}
