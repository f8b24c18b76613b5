package store

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
)

// cacheSize bounds each cache: entries beyond it are read from storage again
// when they are next used, so that a mount with 100,000 roles or accounts holds
// in memory only those in use.
const cacheSize = 8192

// cacheBytes bounds each cache whose values say their size: a few large ones may
// take as much as many small ones.
const cacheBytes = 32 << 20

// A Cache holds what was read from storage and made ready for use, by storage
// key. That there is nothing at a key is not kept: names that do not exist cost
// their caller, who may be anyone, a storage read, and push out no name that
// does.
//
// It never serves a value that a finished write has replaced: Forget, which
// every writer calls after its write and before it answers, raises the
// generation, and a value that was loaded in an earlier generation is not kept.
type Cache[T any] struct {
	mu         sync.Mutex
	entries    *lru.Cache[string, *T]
	generation uint64
	bytes      int // of all entries
	uses       CacheUses

	// Size, if set, is how many bytes a value takes.
	Size func(*T) int

	// Dropped, if set, is called with each value that the cache lets go. A
	// request may still be using it.
	Dropped func(*T)
}

// CacheUses are how a cache was used since it was made.
type CacheUses struct {
	Hits, Misses uint64
	Entries      int // that it has now
}

// NewCache returns an empty cache.
func NewCache[T any]() *Cache[T] {
	c := &Cache[T]{}
	entries, err := lru.NewWithEvict(cacheSize, func(_ string, value *T) {
		if c.Size != nil {
			c.bytes -= c.Size(value)
		}
		if c.Dropped != nil {
			c.Dropped(value)
		}
	})
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	c.entries = entries
	return c
}

// Get returns the value of key, from load if it is not at hand. Errors are not
// cached.
func (c *Cache[T]) Get(ctx context.Context, key string, load func(context.Context, string) (*T, error)) (*T, error) {
	c.mu.Lock()
	value, ok := c.entries.Get(key)
	generation := c.generation
	if ok {
		c.uses.Hits++
	} else {
		c.uses.Misses++
	}
	c.mu.Unlock()
	if ok {
		return value, nil
	}

	value, err := load(ctx, key)
	if err != nil {
		return nil, err
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if value == nil || c.generation != generation {
		return value, nil
	}
	// Whoever loaded it at the same time and was first has put theirs in.
	if first, ok := c.entries.Get(key); ok {
		if c.Dropped != nil {
			c.Dropped(value)
		}
		return first, nil
	}
	c.entries.Add(key, value)
	if c.Size != nil {
		c.bytes += c.Size(value)
	}
	for c.bytes > cacheBytes {
		c.entries.RemoveOldest()
	}
	return value, nil
}

// Uses is how the cache was used.
func (c *Cache[T]) Uses() CacheUses {
	c.mu.Lock()
	defer c.mu.Unlock()
	uses := c.uses
	uses.Entries = c.entries.Len()
	return uses
}

// All is what the cache has now, by key. None of it counts as used by that.
func (c *Cache[T]) All() map[string]*T {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]*T, c.entries.Len())
	for _, key := range c.entries.Keys() {
		if value, ok := c.entries.Peek(key); ok {
			all[key] = value
		}
	}
	return all
}

// Generation is the generation of what is loaded now.
func (c *Cache[T]) Generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// Forget drops key, and with it every load that is under way.
func (c *Cache[T]) Forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.entries.Remove(key)
}

// ForgetAll drops everything.
func (c *Cache[T]) ForgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.entries.Purge()
}
