package plugin

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

// A cache holds what was read from storage and made ready for use, by storage
// key. That there is nothing at a key is not kept: names that do not exist cost
// their caller, who may be anyone, a storage read, and push out no name that
// does.
//
// It never serves a value that a finished write has replaced: forget, which
// every writer calls after its write and before it answers, raises the
// generation, and a value that was loaded in an earlier generation is not kept.
type cache[T any] struct {
	mu         sync.Mutex
	entries    *lru.Cache[string, *T]
	generation uint64
	bytes      int // of all entries

	// size, if set, is how many bytes a value takes.
	size func(*T) int

	// dropped, if set, is called with each value that the cache lets go. A
	// request may still be using it.
	dropped func(*T)
}

func newCache[T any]() *cache[T] {
	c := &cache[T]{}
	entries, err := lru.NewWithEvict(cacheSize, func(_ string, value *T) {
		if c.size != nil {
			c.bytes -= c.size(value)
		}
		if c.dropped != nil {
			c.dropped(value)
		}
	})
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	c.entries = entries
	return c
}

// get returns the value of key, from load if it is not at hand. Errors are not
// cached.
func (c *cache[T]) get(ctx context.Context, key string, load func(context.Context, string) (*T, error)) (*T, error) {
	c.mu.Lock()
	value, ok := c.entries.Get(key)
	generation := c.generation
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
		if c.dropped != nil {
			c.dropped(value)
		}
		return first, nil
	}
	c.entries.Add(key, value)
	if c.size != nil {
		c.bytes += c.size(value)
	}
	for c.bytes > cacheBytes {
		c.entries.RemoveOldest()
	}
	return value, nil
}

// current is the generation of what is loaded now.
func (c *cache[T]) current() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// forget drops key, and with it every load that is under way.
func (c *cache[T]) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.entries.Remove(key)
}

// forgetAll drops everything.
func (c *cache[T]) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.entries.Purge()
}
