package plugin

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// countingStorage counts what goes to storage, and fails where a test wants it
// to.
type countingStorage struct {
	logical.Storage
	reads, lists, writes, deletes atomic.Int64

	mu   sync.Mutex
	fail func(operation, key string) bool
}

var errStorage = errors.New("the storage fails")

func newCountingStorage() *countingStorage {
	return &countingStorage{Storage: &logical.InmemStorage{}}
}

// failOn makes the storage fail where fails says so; nil ends it.
func (s *countingStorage) failOn(fails func(operation, key string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fails
}

func (s *countingStorage) check(operation, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil && s.fail(operation, key) {
		return errStorage
	}
	return nil
}

func (s *countingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.reads.Add(1)
	if err := s.check("get", key); err != nil {
		return nil, err
	}
	return s.Storage.Get(ctx, key)
}

func (s *countingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	s.lists.Add(1)
	if err := s.check("list", prefix); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, prefix)
}

func (s *countingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.writes.Add(1)
	if err := s.check("put", entry.Key); err != nil {
		return err
	}
	return s.Storage.Put(ctx, entry)
}

func (s *countingStorage) Delete(ctx context.Context, key string) error {
	s.deletes.Add(1)
	if err := s.check("delete", key); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}

// all counts every operation.
func (s *countingStorage) all() int64 {
	return s.reads.Load() + s.lists.Load() + s.writes.Load() + s.deletes.Load()
}

// keys lists all keys that begin with a prefix.
func keysBelow(t *testing.T, s logical.Storage, prefix string) []string {
	t.Helper()
	keys, err := logical.CollectKeys(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	var below []string
	for _, key := range keys {
		if strings.HasPrefix(key, prefix) {
			below = append(below, key)
		}
	}
	return below
}
