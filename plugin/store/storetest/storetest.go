// Package storetest has a storage for tests that counts what goes to it, and fails
// where a test wants it to.
package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// A Storage counts what goes to storage, and fails where a test wants it
// to.
type Storage struct {
	logical.Storage
	Reads, Lists, Writes, Deletes atomic.Int64

	mu   sync.Mutex
	fail func(operation, key string) bool
}

// ErrStorage is what a storage fails with.
var ErrStorage = errors.New("the storage fails")

// New returns an empty storage in memory.
func New() *Storage {
	return &Storage{Storage: &logical.InmemStorage{}}
}

// FailOn makes the storage fail where fails says so; nil ends it.
func (s *Storage) FailOn(fails func(operation, key string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fails
}

func (s *Storage) check(operation, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil && s.fail(operation, key) {
		return ErrStorage
	}
	return nil
}

// Get reads, unless it is made to fail.
func (s *Storage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.Reads.Add(1)
	if err := s.check("get", key); err != nil {
		return nil, err
	}
	return s.Storage.Get(ctx, key)
}

// List lists, unless it is made to fail.
func (s *Storage) List(ctx context.Context, prefix string) ([]string, error) {
	s.Lists.Add(1)
	if err := s.check("list", prefix); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, prefix)
}

// Put writes, unless it is made to fail.
func (s *Storage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.Writes.Add(1)
	if err := s.check("put", entry.Key); err != nil {
		return err
	}
	return s.Storage.Put(ctx, entry)
}

// Delete deletes, unless it is made to fail.
func (s *Storage) Delete(ctx context.Context, key string) error {
	s.Deletes.Add(1)
	if err := s.check("delete", key); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}

// All counts every operation.
func (s *Storage) All() int64 {
	return s.Reads.Load() + s.Lists.Load() + s.Writes.Load() + s.Deletes.Load()
}

// KeysBelow lists all keys that begin with a prefix.
func KeysBelow(t testing.TB, s logical.Storage, prefix string) []string {
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
