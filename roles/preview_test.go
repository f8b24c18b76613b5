package roles

import (
	"encoding/json"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"
)

func TestPreviewSaysWhereEachSubjectCameFrom(t *testing.T) {
	c := compile(t, jwtRole(func(r *Role) {
		r.GroupsClaim = "g"
		r.UserName = "ci-{{claim(p)}}"
		r.ClaimMappings = map[string]string{"p": "project"}
		r.UserTemplate = `{"pub": {"allow": ["a.{{claim(p)}}.{{claim(g)}}"]}, "sub": {"deny": ["b"]}, "tags": ["t:{{claim(p)|escape}}"]}`
	}))
	p := token(t, `{"p": "web", "g": ["x", "y"]}`)
	preview := c.Preview(p, account, userKey, now)
	require.Empty(t, preview.Errors)
	require.Equal(t, "runner", preview.Alias)
	require.Equal(t, []string{"x", "y"}, preview.Groups)
	require.Equal(t, map[string]string{"project": "web"}, preview.Metadata)
	require.Equal(t, "ci-web", preview.Name)
	project := Filling{"{{claim(p)}}", "web"}
	require.Equal(t, []Origin{
		{"user_name", "ci-web", "ci-{{claim(p)}}", []Filling{project}},
		{"tags[0]", "t:web", "t:{{claim(p)|escape}}", []Filling{{"{{claim(p)|escape}}", "web"}}},
		{"pub.allow[0]", "a.web.x", "a.{{claim(p)}}.{{claim(g)}}", []Filling{project, {"{{claim(g)}}", "x"}}},
		{"pub.allow[0]", "a.web.y", "a.{{claim(p)}}.{{claim(g)}}", []Filling{project, {"{{claim(g)}}", "y"}}},
		{"sub.deny[0]", "b", "b", nil},
	}, preview.Origins)

	b, err := c.Bind(p, now)
	require.NoError(t, err)
	u, err := c.Render(b, account, userKey)
	require.NoError(t, err)
	require.JSONEq(t, string(u.NATS), string(preview.NATS))
}

func TestPreviewListsEveryReasonForARefusal(t *testing.T) {
	c := compile(t, jwtRole(func(r *Role) {
		r.BoundSubject = "other"
		r.BoundClaims = map[string]any{"ref": "main", "env": "prod"}
		r.BoundExpression = "claims.p == 'x'"
		r.UserName = "{{claim(n)}}"
		r.UserTemplate = `{"pub": {"allow": ["a.{{claim(p)}}", "b.{{claim(q)}}", "c.{{name()}}", "ok"]}, "tags": ["t:{{claim(u)}}"]}`
	}))
	preview := c.Preview(token(t, `{"ref": "dev", "p": "a.b", "n": ">"}`), account, userKey, now)
	var faults []string
	for _, err := range preview.Errors {
		faults = append(faults, err.Error())
	}
	require.Equal(t, []string{
		`the sub claim "runner" is not the role's bound_subject`,
		`the claim "env" of bound_claims is not in the token`,
		`the claim "ref" does not match the role's bound_claims`,
		`the role's bound_expression does not hold`,
		`claim(n) ">" is not one subject token: it has a ">"; {{claim(n)|escape}} would encode it`,
		`claim(u) is not in the token`,
		`claim(p) "a.b" is not one subject token: it has a "."; {{claim(p)|escape}} would encode it`,
		`claim(q) is not in the token`,
	}, faults)
	require.Nil(t, preview.NATS)
	require.Equal(t, []Origin{{Place: "pub.allow[3]", Rendered: "ok", Template: "ok"}}, preview.Origins)
}

func TestPreviewOfATokenOfAnotherIssuer(t *testing.T) {
	preview := compile(t, jwtRole(func(r *Role) { r.Issuer = "gitlab" })).Preview(token(t, `{}`), account, userKey, now)
	require.Len(t, preview.Errors, 1)
	require.Nil(t, preview.NATS)
}

func TestPreviewEntity(t *testing.T) {
	c := compile(t, vaultRole(template(publish("{{entity-name()}}"))))
	preview := c.PreviewEntity(Entity{ID: "id", Name: "ann"}, account, userKey)
	require.Empty(t, preview.Errors)
	require.Contains(t, string(preview.NATS), `"ann"`)
	require.Len(t, c.PreviewEntity(Entity{}, account, userKey).Errors, 1)
}

func TestPreviewOfAScopedRoleShowsWhatNATSServerWillExpand(t *testing.T) {
	c := compile(t, jwtRole(func(r *Role) {
		r.Scoped = true
		r.UserTemplate = `{"pub": {"allow": ["a.{{ TAG(T) }}"]}, "payload": 7, "tags": ["t:{{claim(p)}}"]}`
	}))
	preview := c.Preview(token(t, `{"p": "web"}`), account, userKey, now)
	require.Empty(t, preview.Errors)
	require.Contains(t, preview.Origins, Origin{"pub.allow[0]", "a.web", "a.{{ TAG(T) }}", []Filling{{"{{tag(t)}}", "web"}}})
	var user jwt.User
	require.NoError(t, json.Unmarshal(preview.NATS, &user))
	require.Equal(t, jwt.UserPermissionLimits{}, user.UserPermissionLimits)

	want := &jwt.UserPermissionLimits{}
	want.Pub.Allow = jwt.StringList{"a.{{tag(t)}}"} // in the one spelling that nats-server expands
	want.NatsLimits = jwt.NatsLimits{Subs: jwt.NoLimit, Data: jwt.NoLimit, Payload: 7}
	require.Equal(t, want, c.Scope())
	require.Nil(t, compile(t, jwtRole(nil)).Scope())
}

func TestAScopedLoginIsHeldToWhatNATSServerWillExpand(t *testing.T) {
	for name, test := range map[string]struct{ template, claims, fault string }{
		"a tag that is no token": {`{"pub": {"allow": ["a.{{tag(t)}}"]}, "tags": ["t:{{claim(p)}}"]}`, `{"p": "a.b"}`, "claim(p)"},
		"a tag nobody reads":     {`{"tags": ["t:{{claim(p)}}"]}`, `{"p": ">"}`, "claim(p)"},
		"a missing account tag":  {`{"pub": {"allow": ["a.{{account-tag(t)}}"]}}`, `{}`, "account-tag(t) is not among the tags"},
		"a system subject": {`{"pub": {"allow": ["{{tag(t)}}.>"]}, "tags": ["t:{{claim(p)}}"]}`, `{"p": "$JS"}`,
			`claim(p) "$JS" cannot begin the tag "t" of a scoped role, since subjects that begin with "$" belong to NATS: put text before it, as in x-{{claim(p)}}`},
		"a tag of system subject that no subject reads": {`{"pub": {"allow": ["a"]}, "tags": ["T:{{claim(p)}}"]}`, `{"p": "_x"}`, `claim(p) "_x" cannot begin the tag "t"`},
		"one such value of a list":                      {`{"tags": ["t:{{claim(p)}}"]}`, `{"p": ["a", "_x"]}`, `claim(p) "_x" cannot begin the tag "t"`},
		"such a value, escaped":                         {`{"tags": ["t:{{claim(p)|escape}}"]}`, `{"p": "$a.b"}`, `claim(p) "$a%2Eb" cannot begin the tag "t"`},
		"a tag of the account's name":                   {`{"tags": ["t:{{account-name()}}"]}`, `{"account": "_x"}`, `account-name() "_x" cannot begin the tag "t"`},
		"a name of system subject": {`{"pub": {"allow": ["{{name()}}.>"]}}`, `{"sub": "_INBOX"}`,
			`the alias "_INBOX" cannot begin the name of a scoped role's user, since subjects that begin with "_" belong to NATS: put text before it with user_name`},
		"such a name that no subject reads": {`{"pub": {"allow": ["a"]}}`, `{"sub": "_x"}`, `the alias "_x" cannot begin the name`},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, jwtRole(func(r *Role) { r.UserTemplate, r.Scoped = test.template, true }))
			p := token(t, test.claims)
			b, err := c.Bind(p, now)
			require.NoError(t, err)
			a := account
			if name, ok := p.Claims["account"].(string); ok {
				a.Name = name
			}
			_, err = c.Render(b, a, userKey)
			require.ErrorContains(t, err, test.fault)
		})
	}
}

func TestAScopedLoginTakesWhatNoTemplateCouldMakeNATSsOwn(t *testing.T) {
	c := compile(t, jwtRole(func(r *Role) {
		r.Scoped, r.UserName = true, "u-{{claim(p)}}"
		r.UserTemplate = `{"tags": ["t:x{{claim(p)}}", "{{claim(p)}}", "_k:v", "$literal"]}`
	}))
	name, user, err := render(t, c, token(t, `{"p": "$JS"}`))
	require.NoError(t, err)
	require.Equal(t, "u-$JS", name)
	require.Equal(t, jwt.TagList{"t:x$JS", "$JS", "_k:v", "$literal"}, user.Tags)

	// In the JWT of a role that is not scoped the permissions are as they were
	// when it was issued.
	c = compile(t, jwtRole(template(`{"pub": {"allow": ["a.{{name()}}"]}, "tags": ["t:{{claim(p)}}"]}`)))
	_, user, err = render(t, c, token(t, `{"p": "$JS", "sub": "_x"}`))
	require.NoError(t, err)
	require.Equal(t, jwt.StringList{"a._x"}, user.Pub.Allow)
}

// Names and tags of an account are not always made by this mount, and
// nats-server puts them into subjects as they are.
func TestAScopedLoginIsHeldToTheAccountThatNATSServerKnows(t *testing.T) {
	const permissions = `{"pub": {"allow": ["a.{{account-name()}}.{{account-tag(t)}}"]}}`
	for name, test := range map[string]struct {
		account Account
		fault   string // empty: the login is taken
	}{
		"a name and a tag that are tokens":   {Account{Name: "orders", Tags: []string{"t:x"}}, ""},
		"another tag that is no token":       {Account{Name: "orders", Tags: []string{"t:x", "u:>"}}, ""},
		"a name that is a wildcard":          {Account{Name: ">", Tags: []string{"t:x"}}, `account-name() ">" is not one subject token: it has a ">"`},
		"a name of two tokens":               {Account{Name: "a.b", Tags: []string{"t:x"}}, `account-name() "a.b" is not one subject token: it has a "."`},
		"no name":                            {Account{Tags: []string{"t:x"}}, `account-name() "" is not one subject token: it is empty`},
		"a name that looks like a function":  {Account{Name: "{{account-tag(t)}}", Tags: []string{"t:x"}}, `account-name() "{{account-tag(t)}}" has a brace, which nats-server could take for a placeholder`},
		"one of the tags that is a wildcard": {Account{Name: "orders", Tags: []string{"t:x", "t:*"}}, `account-tag(t) "*" is not one subject token: it has a "*"`},
		"a tag that looks like a function":   {Account{Name: "orders", Tags: []string{"t:{{name()}}"}}, `account-tag(t) "{{name()}}" has a brace, which nats-server could take for a placeholder`},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, jwtRole(func(r *Role) { r.UserTemplate, r.Scoped = permissions, true }))
			b, err := c.Bind(token(t, `{}`), now)
			require.NoError(t, err)
			_, err = c.Render(b, test.account, userKey)
			if test.fault == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.fault, "|escape is not offered, for nats-server does not know it")
		})
	}
}
