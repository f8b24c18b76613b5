package storetest

import (
	"context"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// A Breakage is what becomes of one operation on storage, and of those after it.
type Breakage struct {
	WritesOnly bool   // it is not for reads and lists
	Done       bool   // the operation is done, and reported to have failed
	ForGood    bool   // all that follow fail, as when the process dies there
	Meanwhile  func() // what happens before the operation, which is done then; nil: it fails
}

// A Breaking storage breaks once, at the operation with the number At, from 0.
type Breaking struct {
	logical.Storage
	Breakage
	At int

	mu     sync.Mutex
	count  int
	broken bool
}

// Broke reports whether it came to the operation at which it breaks.
func (s *Breaking) Broke() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// next counts an operation.
func (s *Breaking) next(writes bool) (here, dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dead = s.broken && s.ForGood
	if s.WritesOnly && !writes {
		return false, dead
	}
	here = s.count == s.At
	s.count++
	s.broken = s.broken || here
	return here, dead
}

func (s *Breaking) operation(writes bool, do func() error) error {
	here, dead := s.next(writes)
	switch {
	case dead:
		return ErrStorage
	case !here:
		return do()
	case s.Meanwhile != nil:
		s.Meanwhile()
		return do()
	case s.Done:
		if err := do(); err != nil {
			return err
		}
	}
	return ErrStorage
}

// Get is part of logical.Storage.
func (s *Breaking) Get(ctx context.Context, key string) (entry *logical.StorageEntry, err error) {
	err = s.operation(false, func() (err error) { entry, err = s.Storage.Get(ctx, key); return err })
	return entry, err
}

// List is part of logical.Storage.
func (s *Breaking) List(ctx context.Context, prefix string) (keys []string, err error) {
	err = s.operation(false, func() (err error) { keys, err = s.Storage.List(ctx, prefix); return err })
	return keys, err
}

// Put is part of logical.Storage.
func (s *Breaking) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.operation(true, func() error { return s.Storage.Put(ctx, entry) })
}

// Delete is part of logical.Storage.
func (s *Breaking) Delete(ctx context.Context, key string) error {
	return s.operation(true, func() error { return s.Storage.Delete(ctx, key) })
}
