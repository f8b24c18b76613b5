package trust

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// subjects are such as can and cannot be, to be held against each other.
var subjects = []string{
	"a", "a.b", "a.b.c", "*", ">", "a.*", "a.>", "*.b", "*.*", "*.>", "a.*.c", "a.*.>", "*.b.*", "b.>", "a.b.>", "$SYS.>", "_INBOX.*",
	"", ".", "a.", ".a", "a..b", "a.>.b", ">.a", "a b", "a\tb", "a\nb", "a\r", " ", "\t", "a.\n", "a.b c.d", "*a", "a*", "a.b>", ">>", "a.**",
	"é.ü", "a.\u00a0", "a\v", "{{name()}}", "$1", "a.$1",
}

func TestASubjectIsReadAsNATSServerReadsIt(t *testing.T) {
	for _, subject := range subjects {
		require.Equal(t, server.IsValidSubject(subject), checkSubject(subject) == nil, "%q", subject)
		require.Equal(t, server.IsValidPublishSubject(subject), checkLiteral(subject) == nil, "%q", subject)
		for _, other := range subjects {
			require.Equal(t, server.SubjectMatchesFilter(subject, other), isSubset(subject, other), "%q in %q", subject, other)
			if server.IsValidSubject(subject) && server.IsValidSubject(other) {
				require.Equal(t, server.SubjectsCollide(subject, other), collide(subject, other), "%q and %q", subject, other)
			}
		}
	}
}

// tokens are put together by chance.
var tokens = []string{"a", "a", "b", "*", "*", ">", "", "$1", "$2", "a b", "*x", "{{wildcard(1)}}", "{{wildcard(2)}}", "{{partition(3,1,2)}}", "{{partition(4)}}",
	"{{split(1,-)}}", "{{left(2,1)}}", "{{random(5)}}", "{{left(1)}}", "{{no(1)}}", "$JS"}

func TestSubjectsAndMappingsMadeByChanceAreReadAsNATSServerReadsThem(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	subject := func() string {
		made := make([]string, 1+random.IntN(4))
		for i := range made {
			made[i] = tokens[random.IntN(len(tokens))]
		}
		return strings.Join(made, ".")
	}
	taken := 0
	for range 50000 {
		one, other := subject(), subject()
		require.Equal(t, server.IsValidSubject(one), checkSubject(one) == nil, "%q", one)
		require.Equal(t, server.SubjectMatchesFilter(one, other), isSubset(one, other), "%q in %q", one, other)
		if server.IsValidSubject(one) && server.IsValidSubject(other) {
			require.Equal(t, server.SubjectsCollide(one, other), collide(one, other), "%q and %q", one, other)
		}
		if one == "" || other == "" {
			continue
		}
		require.Equal(t, serverMaps(one, other), checkMapping(one, other) == nil, "%q to %q", one, other)
		_, err := server.NewSubjectTransformStrict(one, other)
		require.Equal(t, err == nil, checkRenaming(one, other) == nil, "%q to %q", one, other)
		if err == nil {
			taken++
		}
	}
	require.Greater(t, taken, 500)
}

func FuzzSubjectsAreReadAsNATSServerReadsThem(f *testing.F) {
	for i, subject := range subjects {
		f.Add(subject, subjects[len(subjects)-1-i])
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		require.Equal(t, server.IsValidSubject(one), checkSubject(one) == nil)
		require.Equal(t, server.IsValidPublishSubject(one), checkLiteral(one) == nil)
		require.Equal(t, server.SubjectMatchesFilter(one, other), isSubset(one, other))
		if server.IsValidSubject(one) && server.IsValidSubject(other) {
			require.Equal(t, server.SubjectsCollide(one, other), collide(one, other))
		}
	})
}

// transforms are sources and destinations of mappings, good ones and bad ones.
var transforms = [][2]string{
	{"a", "b"}, {"a.*", "b.$1"}, {"a.*", "b.{{wildcard(1)}}"}, {"a.*.*", "b.$2.$1"}, {"a.*.*", "b.$1"}, {"a.>", "b.>"}, {"a.*.>", "b.$1.>"},
	{"a.*", "b.{{partition(3,1)}}"}, {"a.*", "b.{{partition(3)}}"}, {"a", "b.{{partition(3)}}"}, {"a", "b.{{random(7)}}"}, {"a.*", "b.{{split(1,-)}}"},
	{"a.*", "b.{{SplitFromLeft(1,2)}}"}, {"a.*", "b.{{splitfromright(1,2)}}"}, {"a.*", "b.{{SliceFromLeft(1, 2)}}"}, {"a.*", "b.{{slicefromright(1,2)}}"},
	{"a.*", "b.{{left(1,2)}}"}, {"a.*", "b.{{Right(1,2)}}"}, {"a.*", "b.{{ Wildcard ( 1 ) }}"}, {"a.*", "b.$x"}, {"a", "$JS.b"}, {"a.*", "b.$0"},
	{"*", "$1"}, {">", "a.>"}, {">", ">"}, {"a.*", "b.{{wildcard(-1)}}"},
	{"a", ""}, {"", "b"}, {"a.*", "b.*"}, {"a.*", "b"}, {"a", "b.>"}, {"a.>", "b"}, {"a", "b.$1"}, {"a.*", "b.$2"}, {"a.*", "b.{{wildcard(2)}}"},
	{"a.*", "b.{{wildcard()}}"}, {"a.*", "b.{{wildcard(x)}}"}, {"a.*", "b.{{wildcard(1,2)}}"}, {"a.*", "b.{{unknown(1)}}"}, {"a.*", "b.{{}}"}, {"a.*", "b.{{x}}"},
	{"a.*", "b.{{partition()}}"}, {"a.*", "b.{{partition(x)}}"}, {"a.*", "b.{{partition(3,x)}}"}, {"a.*", "b.{{partition(99999999999)}}"}, {"a.*", "b.{{partition(3,2)}}"},
	{"a.*", "b.{{split(1)}}"}, {"a.*", "b.{{split(1,2,3)}}"}, {"a.*", "b.{{split(x,-)}}"}, {"a.*", "b.{{split(1, a b)}}"}, {"a.*", "b.{{left(1)}}"},
	{"a.*", "b.{{left(1,x)}}"}, {"a.*", "b.{{left(x,1)}}"}, {"a.*", "b.{{left(1,2,3)}}"}, {"a.*", "b.{{random(1,2)}}"}, {"a.*", "b.{{random(x)}}"},
	{"a..b", "c"}, {"a b", "c"}, {"a", "b c"}, {"a", "b..c"}, {"a.>.b", "c"}, {"a", "b\tc"}, {"a.*", "b.{{wildcard(1)}}x"}, {"a.*", "x{{wildcard(1)}}"},
	{"a.*", "b.{{WILDCARD(1)}}"}, {"a", "{{a}}"}, {"a.*", "b.{{wildcard(1) }"}, {"a", "b.{{wildcard(1)}}"}, {"a", "b.{{left(1,2)}}"},
}

func TestAMappingIsReadAsNATSServerReadsIt(t *testing.T) {
	for _, mapping := range transforms {
		from, to := mapping[0], mapping[1]
		if from != "" && to != "" { // which stand for something else there
			require.Equal(t, serverMaps(from, to), checkMapping(from, to) == nil, "%q to %q: %v", from, to, checkMapping(from, to))
			_, err := server.NewSubjectTransformStrict(from, to)
			require.Equal(t, err == nil, checkRenaming(from, to) == nil, "%q to %q: %v, %v", from, to, err, checkRenaming(from, to))
		}
	}
}

// serverMaps reports whether a server takes the mapping in an account's claims.
func serverMaps(from, to string) bool {
	if !server.IsValidSubject(from) || server.ValidateMapping(from, to) != nil {
		return false
	}
	_, err := server.NewSubjectTransform(from, to)
	return err == nil
}

func FuzzMappingsAreReadAsNATSServerReadsThem(f *testing.F) {
	for _, mapping := range transforms {
		f.Add(mapping[0], mapping[1])
	}
	f.Fuzz(func(t *testing.T, from, to string) {
		if from == "" || to == "" {
			return
		}
		_, err := server.NewSubjectTransformStrict(from, to)
		if strings.Count(to, "{{") > strings.Count("."+to, ".{{") {
			// Braces within braces: nats-server's patterns find a function anywhere.
			require.False(t, checkMapping(from, to) == nil && !serverMaps(from, to))
			require.False(t, checkRenaming(from, to) == nil && err != nil)
			return
		}
		require.Equal(t, serverMaps(from, to), checkMapping(from, to) == nil)
		require.Equal(t, err == nil, checkRenaming(from, to) == nil)
	})
}
