package chain

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/vault/sdk/logical"
)

// heldStorage lets a test hold up the reads of one key.
type heldStorage struct {
	logical.Storage
	key      string
	reads    atomic.Int64
	released chan struct{}
}

func (s *heldStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if key == s.key {
		s.reads.Add(1)
		<-s.released
	}
	return s.Storage.Get(ctx, key)
}

func TestThoseWhoAskForAnAccountAtOnceCostOneLoad(t *testing.T) {
	m := newMount(t)
	id := m.orders
	// The last in is not the last to be scheduled, so the bubble says when all wait.
	synctest.Test(t, func(t *testing.T) {
		storage := &heldStorage{Storage: m.storage, key: accountIDPrefix + id, released: make(chan struct{})}
		c := New(nil, nil)
		left, leave := context.WithCancel(t.Context())
		answers := make(chan *Served, 100)
		ask := func(ctx context.Context) {
			account, err := c.Serve(ctx, storage, id)
			if err != nil {
				t.Errorf("serving: %v", err)
			}
			answers <- account
		}
		go ask(left)
		synctest.Wait()
		for range cap(answers) - 2 {
			go ask(t.Context())
		}
		synctest.Wait()
		if n := storage.reads.Load(); n != 1 {
			t.Errorf("%d loads for those who ask at once", n)
		}
		leave()
		// What was read before a change is not for those who come after it.
		c.served.Forget(id)
		go ask(t.Context())
		synctest.Wait()
		if n := storage.reads.Load(); n != 2 {
			t.Errorf("%d loads after a change, want another one", n)
		}
		close(storage.released)
		for range cap(answers) {
			if account := <-answers; account == nil {
				t.Error("an account that is there is not served")
			}
		}
	})
}
