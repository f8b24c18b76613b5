package claims

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	jose "github.com/go-jose/go-jose/v4/json"
	"github.com/stretchr/testify/require"
)

func TestDecodeObject(t *testing.T) {
	accepted := map[string]struct {
		text string
		want map[string]any
	}{
		"an empty object":               {`{}`, map[string]any{}},
		"white space around everything": {" { \"a\" :\t[ 1 ,\r\n 2 ] } ", map[string]any{"a": []any{json.Number("1"), json.Number("2")}}},
		"every kind of value": {`{"s":"x","n":-1.5e+3,"t":true,"f":false,"z":null,"o":{"a":{}},"l":[[],{}]}`, map[string]any{
			"s": "x", "n": json.Number("-1.5e+3"), "t": true, "f": false, "z": nil,
			"o": map[string]any{"a": map[string]any{}}, "l": []any{[]any{}, map[string]any{}},
		}},
		"a number too large for any type": {`{"n":123456789012345678901234567890}`, map[string]any{"n": json.Number("123456789012345678901234567890")}},
		"every escape":                    {`{"s":"\"\\\/\b\f\n\r\té\ud83d\ude00"}`, map[string]any{"s": "\"\\/\b\f\n\r\té😀"}},
		"one name in several objects":     {`{"a":{"a":1},"b":{"a":2}}`, map[string]any{"a": map[string]any{"a": json.Number("1")}, "b": map[string]any{"a": json.Number("2")}}},
		"names that differ in case":       {`{"a":1,"A":2}`, map[string]any{"a": json.Number("1"), "A": json.Number("2")}},
		"as many levels as allowed":       {`{"a":` + nest(maxDepth-1) + `}`, nil},
	}
	for name, c := range accepted {
		t.Run("accepts "+name, func(t *testing.T) {
			got, err := DecodeObject(c.text)
			require.NoError(t, err)
			if c.want != nil {
				require.Equal(t, c.want, got)
			}
		})
	}

	refused := map[string]struct{ text, fault string }{
		"nothing":                             {``, "is not a JSON object"},
		"an array":                            {`[]`, "is not a JSON object"},
		"a string":                            {`"a"`, "is not a JSON object"},
		"an object that does not end":         {`{`, "has no member name"},
		"data after the object":               {`{}{}`, "has data after"},
		"a name twice":                        {`{"a":1,"b":2,"a":1}`, "has a member name twice"},
		"a name twice, once escaped":          {`{"a":1,"\u0061":2}`, "has a member name twice"},
		"a name twice in a nested object":     {`{"o":{"a":1,"a":1}}`, "has a member name twice"},
		"a trailing comma":                    {`{"a":1,}`, "has no member name"},
		"a trailing comma in an array":        {`{"a":[1,]}`, "has no JSON value"},
		"a name without quotes":               {`{a:1}`, "has no member name"},
		"no colon":                            {`{"a" 1}`, "has no colon"},
		"no comma":                            {`{"a":1 "b":2}`, "does not go on or end"},
		"brackets that do not match":          {`{"a":[1}`, "does not go on or end"},
		"a comment":                           {`{"a":1/**/}`, "does not go on or end"},
		"a leading zero":                      {`{"a":01}`, "does not go on or end"},
		"a plus sign":                         {`{"a":+1}`, "has no JSON value"},
		"a number that is a sign":             {`{"a":-}`, "has a malformed number"},
		"a number without fraction":           {`{"a":1.}`, "has a malformed number"},
		"a number without exponent":           {`{"a":1e}`, "has a malformed number"},
		"not a number":                        {`{"a":NaN}`, "has no JSON value"},
		"a control character in a string":     {"{\"a\":\"\n\"}", "has a control character"},
		"a control character after an escape": {"{\"a\":\"\\n\n\"}", "has a control character"},
		"a string that does not end":          {`{"a":"x`, "does not end"},
		"a string that ends in an escape":     {`{"a":"\n`, "does not end"},
		"an unknown escape":                   {`{"a":"\x"}`, "has an unknown escape"},
		"an escape with a sign":               {`{"a":"\u+123"}`, "has an unknown escape"},
		"an escape that is cut off":           {`{"a":"\u12`, "does not end"},
		"the first half of a surrogate pair":  {`{"a":"\ud800"}`, "has half of a surrogate pair"},
		"the second half of a surrogate pair": {`{"a":"\udc00"}`, "has half of a surrogate pair"},
		"two first halves of surrogate pairs": {`{"a":"\ud800\ud800"}`, "has half of a surrogate pair"},
		"invalid UTF-8":                       {"{\"a\":\"\xff\"}", "is not valid UTF-8"},
		"one level too many":                  {`{"a":` + nest(maxDepth) + `}`, "is nested more than 32 levels deep"},
		"a million levels":                    {`{"a":` + strings.Repeat("[", 1_000_000), "is nested more than 32 levels deep"},
	}
	for name, c := range refused {
		t.Run("refuses "+name, func(t *testing.T) {
			_, err := DecodeObject(c.text)
			require.ErrorContains(t, err, c.fault)
		})
	}
}

// nest returns arrays nested to a depth.
func nest(depth int) string {
	return strings.Repeat("[", depth) + strings.Repeat("]", depth)
}

// What decodeObject accepts, the standard library reads as the same value, and
// go-jose does not find a name twice in; what it refuses, one of them does too,
// or it is one of the faults that they overlook.
func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{
		githubPayload, gitlabPayload, `{"a":[1,2.5e-7,"\ud83d\ude00",null,true]}`, `{"a":1,"\u0061":2}`, `{"a":"\ud800"}`, `{"a":{"a":{}}} `,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := DecodeObject(text)
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		var want map[string]any
		wantErr := decoder.Decode(&want)
		valid := wantErr == nil && want != nil && !decoder.More() && json.Valid([]byte(text))

		if err == nil {
			require.True(t, valid, "not JSON: %q", text)
			require.True(t, reflect.DeepEqual(got, want), "%v is not %v", got, want)
			var unique map[string]any
			require.NoError(t, jose.Unmarshal([]byte(text), &unique))
			require.True(t, utf8.ValidString(text))
			return
		}
		require.NotContains(t, err.Error(), "\n")
		if !valid || !utf8.ValidString(text) || strings.Contains(err.Error(), "nested more than") {
			return
		}
		if strings.Contains(err.Error(), "surrogate") {
			require.True(t, bytes.Contains(bytes.ToLower([]byte(text)), []byte(`\ud`)))
			return
		}
		var unique map[string]any
		require.Error(t, jose.Unmarshal([]byte(text), &unique), "refused for %v", err)
	})
}
