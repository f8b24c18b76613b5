package store

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestACacheLoadsOnce(t *testing.T) {
	c := NewCache[int]()
	loads := 0
	load := func(context.Context, string) (*int, error) {
		loads++
		return &loads, nil
	}
	for range 3 {
		_, err := c.Get(t.Context(), "key", load)
		require.NoError(t, err)
	}
	require.Equal(t, 1, loads)
}

// Anyone may ask for names that do not exist; they must not push out others.
func TestNamesThatDoNotExistPushNothingOut(t *testing.T) {
	c := NewCache[int]()
	one := 1
	_, err := c.Get(t.Context(), "key", func(context.Context, string) (*int, error) { return &one, nil })
	require.NoError(t, err)
	for i := range 2 * cacheSize {
		value, err := c.Get(t.Context(), fmt.Sprint(i), func(context.Context, string) (*int, error) { return nil, nil })
		require.NoError(t, err)
		require.Nil(t, value)
	}
	_, err = c.Get(t.Context(), "key", func(context.Context, string) (*int, error) {
		t.Error("the key was pushed out")
		return &one, nil
	})
	require.NoError(t, err)
}

func TestACacheDoesNotRememberErrors(t *testing.T) {
	c := NewCache[int]()
	_, err := c.Get(t.Context(), "key", func(context.Context, string) (*int, error) { return nil, errors.New("no") })
	require.Error(t, err)
	one := 1
	value, err := c.Get(t.Context(), "key", func(context.Context, string) (*int, error) { return &one, nil })
	require.NoError(t, err)
	require.Equal(t, &one, value)
}

// The race that makes a cache serve what was deleted: a reader loads the old
// value, the writer changes storage and forgets, and the reader is late.
func TestAValueReadBeforeAWriteIsNotKeptAfterIt(t *testing.T) {
	for name, forget := range map[string]func(*Cache[int]){
		"of its key":     func(c *Cache[int]) { c.Forget("key") },
		"of another key": func(c *Cache[int]) { c.Forget("other") },
		"of everything":  func(c *Cache[int]) { c.ForgetAll() },
	} {
		t.Run("a write "+name, func(t *testing.T) {
			c := NewCache[int]()
			older, newer := 1, 2
			value, err := c.Get(t.Context(), "key", func(context.Context, string) (*int, error) {
				forget(c)
				return &older, nil
			})
			require.NoError(t, err)
			require.Equal(t, &older, value, "the load that was under way is answered with what it read")
			value, err = c.Get(t.Context(), "key", func(context.Context, string) (*int, error) { return &newer, nil })
			require.NoError(t, err)
			require.Equal(t, &newer, value)
		})
	}
}

func TestACacheTellsWhatItDrops(t *testing.T) {
	c := NewCache[int]()
	var dropped []int
	c.Dropped = func(value *int) { dropped = append(dropped, *value) }
	one := 1
	_, err := c.Get(t.Context(), "key", func(context.Context, string) (*int, error) { return &one, nil })
	require.NoError(t, err)
	c.Forget("key")
	require.Equal(t, []int{1}, dropped)
}

func TestACacheOfLargeValuesIsBoundedByTheirBytes(t *testing.T) {
	const size = cacheBytes / 4
	c := NewCache[int]()
	c.Size = func(n *int) int { return *n }
	load := func(context.Context, string) (*int, error) { n := size; return &n, nil }
	for i := range 10 {
		_, err := c.Get(t.Context(), fmt.Sprint(i), load)
		require.NoError(t, err)
		require.Equal(t, min(i+1, 4)*size, c.bytes)
	}
	require.Equal(t, []string{"6", "7", "8", "9"}, c.entries.Keys())

	c.Forget("9")
	require.Equal(t, 3*size, c.bytes)
	c.ForgetAll()
	require.Zero(t, c.bytes)

	_, err := c.Get(t.Context(), "too large", func(context.Context, string) (*int, error) { n := cacheBytes + 1; return &n, nil })
	require.NoError(t, err)
	require.Zero(t, c.entries.Len())
	require.Zero(t, c.bytes)
}
