package claims

import (
	"cmp"
	"regexp"
	"strings"
	"testing"

	"github.com/mitchellh/pointerstructure"
	"github.com/stretchr/testify/require"
)

func TestAPathWithAValueFindsItAndLeavesTheClaimsAlone(t *testing.T) {
	const before = `{"a": {"b": "1", "c": "2"}, "l": ["x"], "s": "y"}`
	for name, test := range map[string]struct{ path, after, fault string }{
		"a new claim":                   {"g", `{"a": {"b": "1", "c": "2"}, "l": ["x"], "s": "y", "g": "new"}`, ""},
		"in place of a claim":           {"s", `{"a": {"b": "1", "c": "2"}, "l": ["x"], "s": "new"}`, ""},
		"within an object":              {"/a/b", `{"a": {"b": "new", "c": "2"}, "l": ["x"], "s": "y"}`, ""},
		"within an object that is not":  {"/d/e~1f/g", `{"a": {"b": "1", "c": "2"}, "l": ["x"], "s": "y", "d": {"e/f": {"g": "new"}}}`, ""},
		"within a list":                 {"/l/0", "", `"l", which is not an object`},
		"within a string":               {"/s/t", "", `"s", which is not an object`},
		"an object as the last of them": {"/a", `{"a": "new", "l": ["x"], "s": "y"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := ParsePath(test.path)
			require.NoError(t, err)
			all, err := DecodeObject(before)
			require.NoError(t, err)

			after, err := path.With(all, "new")
			untouched, _ := DecodeObject(before)
			require.Equal(t, untouched, all)
			if test.fault != "" {
				require.ErrorContains(t, err, test.fault)
				return
			}
			require.NoError(t, err)
			want, err := DecodeObject(test.after)
			require.NoError(t, err)
			require.Equal(t, want, after)
			require.Equal(t, "new", path.Find(after))
		})
	}
	require.Nil(t, Path{}.Find(map[string]any{"": "x"}), "the zero path finds no claim")
}

func TestThePathOfAClaimNamesIt(t *testing.T) {
	for source, name := range map[string]string{"groups": "groups", "/groups": "groups", "/a~1b": "a/b", "/a/b": "", "a/b": "a/b"} {
		path, err := ParsePath(source)
		require.NoError(t, err)
		require.Equal(t, name, path.Name(), source)
		require.Equal(t, strings.TrimPrefix(cmp.Or(name, "a"), "/"), path.Top(), source)
		require.Equal(t, source, path.String())
	}
	require.Equal(t, "/a", Named("/a").Name())
}

// FuzzPath compares the look-up with the library that the JWT method uses.
func FuzzPath(f *testing.F) {
	for _, pointer := range []string{"", "/", "/a", "/a/b", "/l/0", "/l/9", "/l/-", "/x~1y", "/x~0y", "//", "/a//", "a", "/l/00"} {
		f.Add(pointer)
	}
	all, err := DecodeObject(`{"a": {"b": "1", "": "2"}, "": {"": "3"}, "l": ["4", ["5"]], "x/y": "6", "x~y": "7", "n": null}`)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, pointer string) {
		path, err := ParsePath(pointer)
		if err != nil || path.tokens == nil {
			return
		}
		if with, err := path.With(all, "new"); err == nil {
			require.Equal(t, "new", path.Find(with))
		}
		want, err := pointerstructure.Get(all, pointer)
		if err != nil {
			want = nil
		}
		got := path.Find(all)
		if strings.HasPrefix(pointer, "/l/") && !arrayIndexes.MatchString(pointer) {
			require.Nil(t, got) // the library takes "", "+1" and "0x1" for an index too
			return
		}
		require.Equal(t, want, got)
	})
}

// arrayIndexes matches what RFC 6901 has for the indexes of the fuzzer's list.
var arrayIndexes = regexp.MustCompile(`^/l/(0|[1-9][0-9]*)(/(0|[1-9][0-9]*))?$`)
