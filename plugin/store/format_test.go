package store

import (
	"context"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestAFormatOfANewerVersionIsRefusedByItsName(t *testing.T) {
	s, f := &logical.InmemStorage{}, &Format{}
	check := func() error { return f.Check(t.Context(), s, "v0.2.0") }
	require.NoError(t, check(), "nothing is stored yet")
	require.NoError(t, Write(t.Context(), s, FormatKey, map[string]any{"format": CurrentFormat + 1, "needs": "v0.9.0", "more": true}))
	require.NoError(t, check(), "it is not read again")
	f.Forget()
	for range 2 {
		require.EqualError(t, check(), "the mount is stored in format 2, which version v0.9.0 of the plugin reads: this is v0.2.0, and reads format 1")
	}
	require.NoError(t, Write(t.Context(), s, FormatKey, map[string]any{"format": CurrentFormat}))
	require.NoError(t, check(), "a format that was refused is looked at again")
}

// reads counts what is read.
type reads struct {
	logical.Storage
	count int
}

func (r *reads) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	r.count++
	return r.Storage.Get(ctx, key)
}

func TestAFormatIsReadOnce(t *testing.T) {
	s, f := &reads{Storage: &logical.InmemStorage{}}, &Format{}
	for range 3 {
		require.NoError(t, f.Check(t.Context(), s, "v0.2.0"))
	}
	require.Equal(t, 1, s.count)
}
