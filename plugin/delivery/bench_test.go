package delivery

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// BenchmarkReconcile shows a full reconcile of 10,000 accounts side by side with
// a bare nats.go client that pushes the same JWTs with the same parallelism, each
// to a new server on an empty directory, and then once more to the same server:
//
//	go test ./plugin/delivery -run '^$' -bench Reconcile -benchtime 3x
//
// The rates are medians of accounts per second; the goal for "ratio" is 0.9.
func BenchmarkReconcile(b *testing.B) {
	const accounts = 10_000
	w := newWorld(b)
	for i := range accounts - 1 { // and the system account
		key := newKey(b, nkeys.CreateAccount)
		id := public(b, key)
		w.wanted[id] = w.accountJWT(id, fmt.Sprint("account ", i), nil)
	}

	var bare, ours [2][]float64 // to an empty directory, to a full one
	rate := func(push func()) float64 {
		started := time.Now()
		push()
		return accounts / time.Since(started).Seconds()
	}
	for b.Loop() {
		s, _ := w.fullServer()
		client := w.bareClient(s)
		for i := range bare {
			bare[i] = append(bare[i], rate(func() { w.pushBare(client) }))
		}
		client.Close()
		stop(s)

		s, dir := w.fullServer()
		r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
		for i := range ours {
			ours[i] = append(ours[i], rate(func() {
				report, err := r.Sync(b.Context(), Options{Unknown: true})
				require.NoError(b, err)
				require.Equal(b, accounts, report.Delivered)
			}))
		}
		require.NoError(b, w.holds(dir))
		r.Close()
		stop(s)
	}
	for i, name := range []string{"", "-again"} {
		b.ReportMetric(median(bare[i]), "bare"+name+"/s")
		b.ReportMetric(median(ours[i]), "ours"+name+"/s")
		b.ReportMetric(median(ours[i])/median(bare[i]), "ratio"+name)
	}
}

func (w *world) bareClient(s *natsserver.Server) *nats.Conn {
	text, user := w.userJWT(w.system)
	client, err := nats.Connect(s.ClientURL(), nats.UserJWT(func() (string, error) { return text, nil }, user.Sign))
	require.NoError(w.t, err)
	return client
}

func (w *world) pushBare(client *nats.Conn) {
	ids := make(chan string)
	var pushing sync.WaitGroup
	for range workers {
		pushing.Go(func() {
			for id := range ids {
				if _, err := client.Request(updateSubject(id), []byte(w.wanted[id]), answerTimeout); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	for id, err := range w.All(context.Background()) {
		require.NoError(w.t, err)
		ids <- id
	}
	close(ids)
	pushing.Wait()
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
