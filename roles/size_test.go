package roles

import (
	"encoding/json"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// big is longer than any field of a role may be.
var big = strings.Repeat("x", 2<<20)

func TestAFieldIsBoundedBeforeItIsParsed(t *testing.T) {
	many := slices.Repeat([]string{""}, 1<<17)
	objects := `{"pub": {"allow": [` + strings.Repeat(`{},`, 1<<19) + `{}]}}`
	var nested any
	for range 1 << 15 {
		nested = []any{nested}
	}
	for name, test := range map[string]struct {
		field string
		role  *Role
	}{
		"an issuer":                    {"issuer", jwtRole(func(r *Role) { r.Issuer = big })},
		"an audience":                  {"bound_audiences", jwtRole(func(r *Role) { r.BoundAudiences = []string{"a", big} })},
		"audiences":                    {"bound_audiences", jwtRole(func(r *Role) { r.BoundAudiences = many })},
		"a subject":                    {"bound_subject", jwtRole(func(r *Role) { r.BoundSubject = big })},
		"a bound claim":                {"bound_claims", jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"a": big} })},
		"a bound claim's name":         {"bound_claims", jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"/" + big: "a"} })},
		"a bound claim's values":       {"bound_claims", jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"a": make([]any, 1<<17)} })},
		"objects in a bound claim":     {"bound_claims", jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"a": slices.Repeat([]any{map[string]any{}}, 1<<17)} })},
		"lists in lists":               {"bound_claims", jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"a": nested} })},
		"a user claim":                 {"user_claim", jwtRole(func(r *Role) { r.UserClaim, r.UserClaimJSONPointer = strings.Repeat("/", 2<<20), true })},
		"a groups claim":               {"groups_claim", jwtRole(func(r *Role) { r.GroupsClaim = "/" + big })},
		"a mapping":                    {"claim_mappings", jwtRole(func(r *Role) { r.ClaimMappings = map[string]string{big: "a"} })},
		"service account names":        {"bound_service_account_names", kubernetesRole(func(r *Role) { r.BoundServiceAccountNames = many })},
		"service account namespaces":   {"bound_service_account_namespaces", kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaces = many })},
		"a selector":                   {"bound_service_account_namespace_selector", kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaceSelector = big })},
		"an audience of Kubernetes":    {"audience", kubernetesRole(func(r *Role) { r.Audience = big })},
		"an expression":                {"bound_expression", jwtRole(func(r *Role) { r.BoundExpression = strings.Repeat("(", 2<<20) })},
		"an account":                   {"account", jwtRole(func(r *Role) { r.Account = big })},
		"a template of objects":        {"user_template", jwtRole(template(objects))},
		"a template of nothing":        {"user_template", jwtRole(template(strings.Repeat(" ", 2<<20)))},
		"a template of placeholders":   {"user_template", jwtRole(template(publish(strings.Repeat("{{name()}}", 1<<18))))},
		"a name of placeholders":       {"user_name", jwtRole(func(r *Role) { r.UserName = strings.Repeat("{{subject()}}", 1<<18) })},
		"the kind of a user's key":     {"user_key", jwtRole(func(r *Role) { r.UserKey = big })},
		"the type of bound claims":     {"bound_claims_type", jwtRole(func(r *Role) { r.BoundClaimsType = big })},
		"the role's type":              {"role_type", jwtRole(func(r *Role) { r.RoleType = big })},
		"the source of an alias":       {"alias_name_source", jwtRole(func(r *Role) { r.AliasNameSource = big })},
		"the kind of a role's own key": {"signing_key", jwtRole(func(r *Role) { r.SigningKey = big })},
	} {
		t.Run(name, func(t *testing.T) {
			var fault *FieldError
			allocated := allocatedBy(func() {
				_, err := test.role.Compile()
				require.ErrorAs(t, err, &fault)
			})
			require.Equal(t, test.field, fault.Field)
			require.Less(t, len(fault.Error()), 1000)
			require.Less(t, allocated, uint64(1<<20))
		})
	}
}

// allocatedBy is how many bytes of memory a function takes, freed or not.
func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// What is just within the bounds compiles in a time that nobody waits for, though
// it is the worst of its size.
func TestARoleAsLargeAsItMayBeCompilesSoon(t *testing.T) {
	numbered := func(before, after string, size int) string {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			b.WriteString(before + strconv.FormatInt(int64(i), 36) + after)
		}
		return b.String()
	}
	mappings := map[string]string{}
	for i := range 10_000 {
		key := strconv.FormatInt(int64(i), 36)
		mappings[key] = key
	}
	for name, role := range map[string]*Role{
		"different placeholders in one subject": jwtRole(template(publish(numbered("{{claim(", ")}}", maxField-100)))),
		"different placeholders, mapped": jwtRole(func(r *Role) {
			r.ClaimMappings = mappings
			r.UserTemplate = publish(numbered("{{metadata(", ")}}", 100<<10))
		}),
		"one placeholder in one subject":     jwtRole(template(publish(strings.Repeat("{{name()}}", maxField/10-10)))),
		"different placeholders in one name": jwtRole(func(r *Role) { r.UserName = numbered("{{claim(", ")}}", maxField-100) }),
		"tags and their look-ups":            jwtRole(template(`{"tags": ["` + strings.Join(slices.Collect(maps.Keys(tagsNumbered(maxSubjects))), `","`) + `"], "pub": {"allow": ["` + strings.Repeat("{{tag(rr)}}", 19_000) + `"]}}`)),
		"objects":                            jwtRole(template(`{"pub": {"allow": [` + strings.Repeat(`{},`, maxField/3-20) + `{}]}}`)),
		"keys":                               jwtRole(template(`{` + numbered(`"`, `":1,`, maxField-100) + `"a":1}`)),
		"braces":                             jwtRole(template(strings.Repeat(`{"a":`, maxField/5-10))),
		"bound claims": jwtRole(func(r *Role) {
			r.BoundClaims = map[string]any{"a": slices.Repeat([]any{json.Number("1e99999")}, maxField/valueSize-10)}
		}),
		"an expression of one term after another": jwtRole(func(r *Role) { r.BoundExpression = "true" + strings.Repeat("||true", expressionSize/6-10) }),
		"an expression of brackets":               jwtRole(func(r *Role) { r.BoundExpression = strings.Repeat("[", expressionSize-10) }),
		"an expression of fields":                 jwtRole(func(r *Role) { r.BoundExpression = "claims" + strings.Repeat(".a", expressionSize/2-10) + "==1" }),
		"a selector of aliases": kubernetesRole(func(r *Role) {
			r.BoundServiceAccountNamespaceSelector = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
				"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n"
		}),
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			var err error
			allocated := allocatedBy(func() { _, err = role.Compile() })
			require.Less(t, time.Since(began), 10*time.Second)
			require.Less(t, allocated, uint64(64<<20))
			if err != nil {
				require.IsType(t, &FieldError{}, err)
			}
		})
	}
}

// A preview says for each subject what it came from, and so could be much larger
// than the user that it is of.
func TestAPreviewIsNotMuchLargerThanWhatItIsOf(t *testing.T) {
	name := strings.Repeat("n", 60_000)
	elements := `"a"` + strings.Repeat(`,"a"`, maxSubjects-1)
	for role, claims := range map[*Role]string{
		jwtRole(template(publish("{{claim("+name+")}}.x", "b"))):                                         `{"` + name + `": [` + elements + `]}`,
		jwtRole(template(publish("{{claim("+name+")}}.{{claim(l)}}", "b"))):                              `{"` + name + `": "a", "l": [` + elements + `]}`,
		jwtRole(template(`{"tags": ["b", "t:{{claim(` + name + `)}}-{{claim(l)}}"]}`)):                   `{"` + name + `": "a", "l": [` + elements + `]}`,
		jwtRole(template(publish("{{claim(l)}}"+strings.Repeat("{{account-tag(region)}}", 5_000), "b"))): `{"l": [` + elements + `]}`,
	} {
		preview := compile(t, role).Preview(token(t, claims), account, userKey, now)
		encoded, err := json.Marshal(preview.Origins)
		require.NoError(t, err)
		require.Less(t, len(encoded), 2<<20)
		require.NotEmpty(t, preview.Origins, "what fits is shown")
	}
}

func tagsNumbered(n int) map[string]bool {
	tags := map[string]bool{}
	for i := range n {
		tags[strconv.FormatInt(int64(i), 36)+":v"] = true
	}
	return tags
}
