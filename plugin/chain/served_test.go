package chain

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/vault/sdk/logical"
)

// heldStorage lets a test hold up the reads of one key.
type heldStorage struct {
	logical.Storage
	key      string
	held     func(key string) bool // instead of key
	reads    atomic.Int64
	released chan struct{}
}

func (s *heldStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if key == s.key || s.held != nil && s.held(key) {
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

// Whoever asks for all accounts of a mount at once has a few of them in memory.
func TestThoseWhoAskForManyAccountsWaitTheirTurn(t *testing.T) {
	m := newMount(t)
	synctest.Test(t, func(t *testing.T) {
		storage := &heldStorage{Storage: m.storage, released: make(chan struct{}), held: func(key string) bool { return strings.HasPrefix(key, accountIDPrefix) }}
		c := New(nil, nil)
		answers := make(chan error, 200)
		for i := range cap(answers) {
			go func() {
				_, err := c.Serve(t.Context(), storage, fmt.Sprint("A", i))
				answers <- err
			}()
		}
		synctest.Wait()
		if n := storage.reads.Load(); n != servedLoads {
			t.Errorf("%d accounts are loaded at once, want %d", n, servedLoads)
		}
		close(storage.released)
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
	})
}
