package store

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestAnOverlayLooksLikeWhatIsWrittenAndLeavesWhatIsBelow(t *testing.T) {
	under := &logical.InmemStorage{}
	put := func(s logical.Storage, key, value string) {
		require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}))
	}
	list := func(s logical.Storage, prefix string) []string {
		names, err := s.List(t.Context(), prefix)
		require.NoError(t, err)
		return names
	}
	for _, key := range []string{"a", "b", "dir/one", "dir/two", "dir/deep/three"} {
		put(under, key, "before")
	}
	o := NewOverlay(under)
	changes := func(prefixes ...string) bool {
		changed, err := o.Changes(t.Context(), prefixes...)
		require.NoError(t, err)
		return changed
	}
	require.Equal(t, []string{"a", "b", "dir/"}, list(o, ""))
	put(o, "a", "before")
	require.False(t, changes(""), "what is as it was is no change")

	put(o, "a", "after")
	put(o, "c", "new")
	put(o, "other/four", "new")
	for _, key := range []string{"b", "dir/deep/three", "dir/one", "nothing"} {
		require.NoError(t, o.Delete(t.Context(), key))
	}
	require.Equal(t, []string{"a", "c", "dir/", "other/"}, list(o, ""))
	require.Equal(t, []string{"two"}, list(o, "dir/"))
	require.Empty(t, list(o, "dir/deep/"))
	require.NoError(t, o.Delete(t.Context(), "dir/two"))
	require.Equal(t, []string{"a", "c", "other/"}, list(o, ""))
	for key, want := range map[string]string{"a": "after", "c": "new", "b": ""} {
		entry, err := o.Get(t.Context(), key)
		require.NoError(t, err)
		if want == "" {
			require.Nil(t, entry)
			continue
		}
		require.Equal(t, want, string(entry.Value))
	}
	require.True(t, changes("a"))
	require.True(t, changes("dir/"))
	require.True(t, changes("x", "b"))
	require.False(t, changes("nothing", "y"))

	require.Equal(t, []string{"a", "b", "dir/"}, list(under, ""))
	require.Equal(t, []string{"deep/", "one", "two"}, list(under, "dir/"))
}

func TestAnOverlayKeepsWhatItIsGiven(t *testing.T) {
	o := NewOverlay(&logical.InmemStorage{})
	value := []byte("one")
	require.NoError(t, o.Put(t.Context(), &logical.StorageEntry{Key: "a", Value: value}))
	value[0] = 'x'
	entry, err := o.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, "one", string(entry.Value))
}
