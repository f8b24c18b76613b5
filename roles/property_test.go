package roles

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// values are what the fuzzers start from: what has a meaning to NATS, to JSON
// or to the template language, and what looks like something else.
var values = []string{
	"web", "", ".", "a.b", "*", ">", "a*", "web.>", ".>", "a.*", " ", "a b", "a\tb", "a\n", "\x00", "\x7f", "\u0085", "\u0090", "\u00a0",
	"\u2028", "\u200b", "\ufffd", "\xff", "a\xc3", "ü", "%", "%2E", "a%2Eb", "\"", "\\", "<&>", "$SYS", "$1", "_INBOX", "{{name()}}",
	"{{tag(t)}}", "}}", "{", "x:y", "t:y", ":", ",", "tag(t)", "{{account-name()}}", "A", strings.Repeat("x", 300),
}

// A setting is where a function of the template gets its value from.
type setting struct {
	placeholder string
	role        *Role
	// bind returns the identity, the account and the user key with the value
	// in place.
	bind func(c *Compiled, value string) (*Bound, Account, string, error)
}

// withClaim binds a token whose claim x is the value.
func withClaim(c *Compiled, value string) (*Bound, Account, string, error) {
	b, err := c.Bind(&claims.Profile{
		Issuer: DefaultIssuer, Kind: claims.KindJWT,
		Claims: map[string]any{"sub": "runner", "x": value},
	}, now)
	return b, account, userKey, err
}

func withAccount(change func(a *Account, value string)) func(*Compiled, string) (*Bound, Account, string, error) {
	return func(c *Compiled, value string) (*Bound, Account, string, error) {
		b, a, key, err := withClaim(c, "web")
		change(&a, value)
		return b, a, key, err
	}
}

func withEntity(change func(e *Entity, value string)) func(*Compiled, string) (*Bound, Account, string, error) {
	return func(c *Compiled, value string) (*Bound, Account, string, error) {
		e := Entity{ID: "id", Name: "ann"}
		change(&e, value)
		b, err := c.BindEntity(e)
		return b, account, userKey, err
	}
}

// settings are the functions of the template language, each with a value that
// an outsider may have chosen.
func settings() map[string]setting {
	return map[string]setting{
		"claim":           {"{{claim(x)}}", jwtRole(nil), withClaim},
		"escape":          {"{{claim(x)|escape}}", jwtRole(nil), withClaim},
		"metadata":        {"{{metadata(m)}}", jwtRole(func(r *Role) { r.ClaimMappings = map[string]string{"x": "m"} }), withClaim},
		"name":            {"{{name()}}", jwtRole(func(r *Role) { r.UserName = "{{claim(x)}}" }), withClaim},
		"default name":    {"{{name()}}", jwtRole(func(r *Role) { r.UserClaim = "x" }), withClaim},
		"tag":             {"{{tag(t)}}", jwtRole(nil), withClaim},
		"account-name":    {"{{account-name()}}", jwtRole(nil), withAccount(func(a *Account, v string) { a.Name = v })},
		"account-subject": {"{{account-subject()}}", jwtRole(nil), withAccount(func(a *Account, v string) { a.PublicKey = v })},
		"account-tag":     {"{{account-tag(t)}}", jwtRole(nil), withAccount(func(a *Account, v string) { a.Tags = []string{"t:" + v} })},
		"subject": {"{{subject()}}", jwtRole(nil), func(c *Compiled, v string) (*Bound, Account, string, error) {
			b, a, _, err := withClaim(c, "web")
			return b, a, v, err
		}},
		"entity-name":     {"{{entity-name()}}", vaultRole(nil), withEntity(func(e *Entity, v string) { e.Name = v })},
		"entity-id":       {"{{entity-id()}}", vaultRole(nil), withEntity(func(e *Entity, v string) { e.ID = v })},
		"entity-metadata": {"{{entity-metadata(x)}}", vaultRole(nil), withEntity(func(e *Entity, v string) { e.Metadata = map[string]string{"x": v} })},
		"groups":          {"{{groups()}}", vaultRole(nil), withEntity(func(e *Entity, v string) { e.Groups = []string{v} })},
		"alias-name": {"{{alias-name()}}", aliasRole(nil), withEntity(func(e *Entity, v string) {
			e.Aliases = []Alias{{Mount: otherAccessor, Name: "x"}, {Mount: accessor, Name: v}}
		})},
		"alias-name escaped": {"{{alias-name()|escape}}", aliasRole(nil), withEntity(func(e *Entity, v string) {
			e.Aliases = []Alias{{Mount: accessor, Name: v}}
		})},
		"alias-name of another mount": {"{{alias-name(" + otherAccessor + ")}}", aliasRole(nil), withEntity(func(e *Entity, v string) {
			e.Aliases = []Alias{{Mount: otherAccessor, Name: v}, {Mount: accessor, Name: "x"}}
		})},
		"alias-issuer": {"{{alias-issuer()}}", aliasRole(func(r *Role) { r.BoundIssuers = []string{"*"} }), withEntity(func(e *Entity, v string) {
			if !strings.Contains(v, ":") { // which ends an issuer's name
				e.Aliases = []Alias{{Mount: accessor, Name: "issuer:" + v + ":x"}}
			}
		})},
		"alias-metadata": {"{{alias-metadata(service_account_name)}}", aliasRole(nil), withEntity(func(e *Entity, v string) {
			e.Aliases = []Alias{serviceAccountAlias("uid-"+v, "ci", v, "uid-"+v)}
		})},
	}
}

// shapes are subjects with a placeholder F, with the queue names that only
// subscriptions may have.
var shapes = []string{"F", "a.F.b.*", "a.F.>", "*.p-F-s", "F.>", "F.F", "a.F q.F-w"}

// A property is a function at a place in a subject.
type property struct {
	setting
	shape string
	role  *Compiled
}

func properties(f *testing.F) []property {
	var all []property
	for _, s := range settings() {
		for _, shape := range shapes {
			role := *s.role
			source := strings.ReplaceAll(shape, "F", s.placeholder)
			tags := ""
			if s.placeholder == "{{tag(t)}}" {
				tags = `"t:{{claim(x)}}"`
			}
			role.UserTemplate = fmt.Sprintf(`{"sub": {"allow": [%q], "deny": [%q]}, "tags": [%s]}`, source, source, tags)
			all = append(all, property{s, shape, compile(f, &role)})
		}
	}
	return all
}

// check renders two values at the placeholder, and holds each to it: a subject
// has exactly the tokens and wildcards that the template wrote, and what one
// value may do is no part of what the other may, or it is refused.
func (p property) check(t *testing.T, first, second string) {
	one, ok := p.render(t, first)
	if !ok {
		return
	}
	checkShape(t, p.shape, one)
	two, ok := p.render(t, second)
	if !ok || first == second {
		return
	}
	checkShape(t, p.shape, two)
	subjectOne, _, _ := strings.Cut(one, " ")
	subjectTwo, _, _ := strings.Cut(two, " ")
	require.Falsef(t, server.SubjectsCollide(subjectOne, subjectTwo),
		"%s in %q: %q and %q give %q and %q", p.placeholder, p.shape, first, second, one, two)
}

// render returns the one subject that a value renders to, or false if the
// identity is refused.
func (p property) render(t *testing.T, value string) (string, bool) {
	b, a, key, err := p.bind(p.role, value)
	if err != nil {
		return "", false
	}
	u, err := p.role.Render(b, a, key)
	if err != nil {
		require.Nil(t, u)
		return "", false
	}
	require.Empty(t, tokenFault(u.Name))
	var user struct {
		Sub  struct{ Allow, Deny []string }
		Tags []string
	}
	require.NoError(t, unmarshalNumbers(string(u.NATS), &user))
	require.Len(t, user.Sub.Allow, 1)
	require.Equal(t, user.Sub.Allow, user.Sub.Deny)
	return user.Sub.Allow[0], true
}

// checkShape compares a rendered subject with its shape, by the rules of
// nats-server.
func checkShape(t *testing.T, shape, rendered string) {
	wantParts, gotParts := strings.Split(shape, " "), strings.Fields(rendered) // as nats-server's splitSubjectQueue
	require.Lenf(t, gotParts, len(wantParts), "%q from %q", rendered, shape)
	for i, want := range wantParts {
		got := gotParts[i]
		require.Truef(t, server.IsValidSubject(got), "%q from %q", got, want)
		require.True(t, utf8.ValidString(got))
		wantTokens, gotTokens := strings.Split(want, "."), strings.Split(got, ".")
		require.Lenf(t, gotTokens, len(wantTokens), "%q from %q", got, want)
		for j, token := range wantTokens {
			if !strings.Contains(token, "F") {
				require.Equal(t, token, gotTokens[j])
				continue
			}
			require.NotContains(t, gotTokens[j], "*")
			require.NotContains(t, gotTokens[j], ">")
		}
		// All that the subject matches, its shape would match with any token in
		// place of the placeholder.
		anyToken := regexp.MustCompile(`[^. ]*F[^. ]*`).ReplaceAllString(want, "*")
		require.True(t, server.SubjectMatchesFilter(got, anyToken))
	}
}

// FuzzRenderedSubjects is the property of every function of the template
// language. A seed for each runs with the tests.
func FuzzRenderedSubjects(f *testing.F) {
	for _, v := range values {
		f.Add(v, "web")
		f.Add(v, v+"x")
	}
	all := properties(f)
	f.Fuzz(func(t *testing.T, first, second string) {
		for _, p := range all {
			p.check(t, first, second)
		}
	})
}

// FuzzEscape holds escape to what it promises: a token unless it is empty, that
// can be turned back, and that is the same for what needs no escaping.
func FuzzEscape(f *testing.F) {
	for _, v := range values {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, s string) {
		escaped := escape(s)
		require.Equal(t, s, unescape(t, escaped))
		if s == "" {
			return
		}
		require.Empty(t, tokenFault(escaped))
		require.NotContains(t, escaped, "{")
		require.True(t, server.IsValidSubject("a."+escaped+".b"))
		if tokenFault(s) == "" && !strings.ContainsAny(s, "%{}") {
			require.Equal(t, s, escaped)
		}
	})
}

func unescape(t *testing.T, s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		var b byte
		_, err := fmt.Sscanf(s[i+1:i+3], "%02X", &b)
		require.NoError(t, err)
		out = append(out, b)
		i += 2
	}
	return string(out)
}

// scopedTemplate is as nats-server expands it, by the way of its auth.go: each
// placeholder's text is replaced in turn, in what the one before has left.
var scopedTemplate = regexp.MustCompile(`{{2}([^}]+)}{2}`)

func expandAsServer(subject, name, tag, key string) string {
	for _, placeholder := range scopedTemplate.FindAllString(subject, -1) {
		value := map[string]string{"{{name()}}": name, "{{tag(t)}}": tag, "{{subject()}}": key}[placeholder]
		subject = strings.ReplaceAll(subject, placeholder, value)
	}
	return subject
}

// FuzzScopedSubjects is the property for scoped roles, whose permissions
// nats-server expands from the name and the tags.
func FuzzScopedSubjects(f *testing.F) {
	for _, v := range values {
		f.Add(v, "web")
		f.Add("web", v)
	}
	shapes := []string{"a.N.T.S.>", "N.a", "T.a.*", "p-N-T.>", "a.T.N.T"}
	replace := strings.NewReplacer("N", "{{Name()}}", "T", "{{ tag(T) }}", "S", "{{subject()}}")
	var compiled []*Compiled
	for _, shape := range shapes {
		compiled = append(compiled, compile(f, jwtRole(func(r *Role) {
			r.Scoped, r.UserName = true, "{{claim(n)}}"
			r.UserTemplate = fmt.Sprintf(`{"pub": {"allow": [%q]}, "tags": ["t:{{claim(t)}}"]}`, replace.Replace(shape))
		})))
	}
	f.Fuzz(func(t *testing.T, name, tag string) {
		for i, c := range compiled {
			b, err := c.Bind(&claims.Profile{
				Issuer: DefaultIssuer, Kind: claims.KindJWT,
				Claims: map[string]any{"sub": "runner", "n": name, "t": tag},
			}, now)
			require.NoError(t, err)
			u, err := c.Render(b, account, userKey)
			if err != nil {
				continue
			}
			require.Equalf(t, name, u.Name, "under %q", shapes[i])
			// The role may be edited afterwards: to any of the templates.
			for j, edited := range compiled {
				got := expandAsServer(edited.Scope().Pub.Allow[0], name, tag, userKey)
				want := strings.NewReplacer("N", name, "T", tag, "S", userKey).Replace(shapes[j])
				require.Equal(t, want, got)
				require.True(t, server.IsValidSubject(got))
				require.NotContains(t, "$_", got[:1])
				checkShape(t, strings.NewReplacer("N", "F", "T", "F", "S", "F").Replace(shapes[j]), got)
			}
		}
	})
}

// FuzzUserTemplate compiles any template: one that is taken renders to valid
// subjects, and its scope says the same as it.
func FuzzUserTemplate(f *testing.F) {
	for _, source := range []string{
		`{}`, publish("a.{{claim(x)}}.>"), publish("{{claim(x)|escape}}-{{name()}}.*"), `{"sub": {"allow": ["a b"], "deny": ["{{tag(t)}}"]}, "tags": ["t:{{claim(x)}}"]}`,
		`{"resp": {"max": 1, "ttl": 5}, "subs": 1, "src": "10.0.0.0/8", "times": [{"start": "01:00:00", "end": "02:00:00"}], "times_location": "UTC", "bearer_token": true}`,
		`{"pub":{"allow":["{{}}"]}}`, `{"tags":["a:b","{{subject()}}"]}`, `[[[[`, `{"a":1,"a":2}`, publish("{{account-tag(region)}}.{{account-name()}}"),
	} {
		f.Add(source, false)
		f.Add(source, true)
	}
	f.Fuzz(func(t *testing.T, source string, scoped bool) {
		c, err := jwtRole(func(r *Role) { r.UserTemplate, r.Scoped = source, scoped }).Compile()
		if err != nil {
			require.IsType(t, &FieldError{}, err)
			return
		}
		c.Warnings(nil)
		b, a, key, err := withClaim(c, "web")
		require.NoError(t, err)
		if u, err := c.Render(b, a, key); err == nil {
			var user struct {
				Pub, Sub struct{ Allow, Deny []string }
			}
			require.NoError(t, unmarshalNumbers(string(u.NATS), &user))
			for _, list := range [][]string{user.Pub.Allow, user.Pub.Deny, user.Sub.Allow, user.Sub.Deny} {
				for _, subject := range list {
					for part := range strings.FieldsSeq(subject) {
						require.Truef(t, server.IsValidSubject(part), "%q", subject)
					}
				}
			}
		}
		if scope := c.Scope(); scope != nil {
			for _, subject := range scope.Pub.Allow {
				again, err := parseText(subject, inScopedPermissions, TypeJWT)
				require.NoError(t, err)
				require.Equal(t, subject, again.canonical())
			}
		}
	})
}

// FuzzRole compiles any role: it is taken or refused by a field's fault, and what
// is taken can be asked everything that a caller asks.
func FuzzRole(f *testing.F) {
	const (
		isScoped = 1 << iota
		isKubernetes
		isVault
		hasGlobs
	)
	f.Add(byte(0), publish("a.{{claim(x)}}"), "{{metadata(m)}}", `claims.x.startsWith("w") && groups.all(g, g.matches("^[a-z]+$")) && now > timestamp(0)`, "", `{"/x": ["web", 1]}`, "web")
	f.Add(byte(hasGlobs), `{"tags": ["{{claim(x)|escape}}"]}`, "", "", "", `{"x": ["a*", "*b"]}`, "{a.b}")
	f.Add(byte(isScoped), `{"pub": {"allow": ["{{tag(t)}}.{{tag(t)}}"]}, "tags": ["t:{{claim(x)}}"], "resp": {"max": 1}}`, "u-{{claim(x)}}", "", "", `{}`, "$JS")
	f.Add(byte(isKubernetes), publish("{{metadata(service_account_name)}}"), "", "claims.x != '' || true", "matchLabels: {a: &x b, c: *x}", `{}`, "b")
	f.Add(byte(isKubernetes|isScoped), "", "", "", `{"matchLabels": {"a/b.c": "d"}}`, `{}`, "d")
	f.Add(byte(isVault|isScoped), `{"pub": {"allow": ["{{name()}}"]}, "tags": ["g:{{groups()|escape}}"]}`, "{{entity-name()|escape}}", "", "", `{}`, "entity_x.root")
	f.Fuzz(func(t *testing.T, kind byte, userTemplate, userName, expression, selector, bound, value string) {
		r := jwtRole(func(r *Role) { r.GroupsClaim, r.ClaimMappings = "g", map[string]string{"x": "m"} })
		switch {
		case kind&isKubernetes != 0:
			r = kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaceSelector = selector })
		case kind&isVault != 0:
			r = vaultRole(nil)
		default:
			if unmarshalNumbers(bound, &r.BoundClaims) != nil {
				return
			}
			if kind&hasGlobs != 0 {
				r.BoundClaimsType = BoundClaimsGlob
			}
		}
		r.Scoped, r.UserTemplate, r.UserName = kind&isScoped != 0, userTemplate, userName
		if r.RoleType != TypeVault {
			r.BoundExpression = expression
		}
		c, err := r.Compile()
		if err != nil {
			require.IsType(t, &FieldError{}, err)
			return
		}
		limits := &jwt.Account{DefaultPermissions: jwt.Permissions{Pub: jwt.Permission{Allow: jwt.StringList{value}}}}
		c.Warnings(limits)
		if err := c.CheckAccount(limits); err != nil {
			require.IsType(t, &FieldError{}, err)
		}
		p := serviceAccount(func(a *claims.ServiceAccount) { a.NamespaceLabels = map[string]string{"a": value} })
		p.Issuer, p.Kind = c.role.Issuer, claims.Kind(c.role.RoleType)
		p.Claims["x"], p.Claims["g"] = value, []any{value, "a"}
		preview := c.Preview(p, account, userKey, now)
		if c.role.RoleType == TypeVault {
			preview = c.PreviewEntity(Entity{ID: "id", Name: value, Groups: []string{value}}, account, userKey)
		}
		if len(preview.Errors) > 0 {
			require.Nil(t, preview.NATS)
			return
		}
		require.Empty(t, tokenFault(preview.Name))
		require.True(t, json.Valid(preview.NATS))
		require.LessOrEqual(t, len(preview.NATS), maxSize)
		if c.role.Scoped {
			require.NotContains(t, "$_", preview.Name[:1])
		}
	})
}
