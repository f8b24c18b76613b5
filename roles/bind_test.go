package roles

import (
	"encoding/json"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

func TestBindToken(t *testing.T) {
	bound := func(value string) func(*Role) {
		return func(r *Role) { require.NoError(t, unmarshalNumbers(value, &r.BoundClaims)) }
	}
	globs := func(value string) func(*Role) {
		return func(r *Role) { bound(value)(r); r.BoundClaimsType = BoundClaimsGlob }
	}
	expression := func(source string) func(*Role) {
		return func(r *Role) { r.BoundExpression = source }
	}
	for name, test := range map[string]struct {
		role   func(*Role)
		claims string
		fault  string // part of the error; empty: the token is taken
	}{
		"the bound subject is taken":            {func(r *Role) { r.BoundSubject = "runner" }, `{}`, ""},
		"another subject is refused":            {func(r *Role) { r.BoundSubject = "other" }, `{}`, "bound_subject"},
		"no subject is refused":                 {func(r *Role) { r.BoundSubject, r.UserClaim = "runner", "u" }, `{"sub": null, "u": "x"}`, "bound_subject"},
		"a subject that is a list is refused":   {func(r *Role) { r.BoundSubject, r.UserClaim = "runner", "u" }, `{"sub": ["runner"], "u": "x"}`, "bound_subject"},
		"a missing user claim is refused":       {nil, `{"sub": null}`, `user claim "sub" is not in the token`},
		"a user claim that is a number":         {nil, `{"sub": 7}`, "not a string"},
		"a user claim that is a list":           {nil, `{"sub": ["a"]}`, "not a string"},
		"an empty user claim is refused":        {nil, `{"sub": ""}`, "is empty"},
		"an alias of another issuer is refused": {nil, `{"sub": "issuer:gitlab:x"}`, `"issuer:"`},

		"nor in another case, which Vault ignores": {nil, `{"sub": "Issuer:gitlab:x"}`, `"issuer:"`},
		"nor with a letter whose lower case is i":  {nil, `{"sub": "\u0130ssuer:gitlab:x"}`, `"issuer:"`},

		"an equal string is taken":                   {bound(`{"a": "x"}`), `{"a": "x"}`, ""},
		"another string is refused":                  {bound(`{"a": "x"}`), `{"a": "y"}`, `claim "a" does not match`},
		"a missing claim is refused":                 {bound(`{"a": "x"}`), `{}`, `claim "a" of bound_claims is not in the token`},
		"a null claim is refused":                    {bound(`{"a": "x"}`), `{"a": null}`, "not in the token"},
		"one of several values is taken":             {bound(`{"a": ["x", "y"]}`), `{"a": "y"}`, ""},
		"an element of a list is taken":              {bound(`{"a": "y"}`), `{"a": ["x", "y"]}`, ""},
		"a list with a common element is taken":      {bound(`{"a": ["y", "z"]}`), `{"a": ["x", "y"]}`, ""},
		"lists without a common element are refused": {bound(`{"a": ["w", "z"]}`), `{"a": ["x", "y"]}`, "does not match"},
		"an empty list is refused":                   {bound(`{"a": "x"}`), `{"a": []}`, "does not match"},
		"an object is refused":                       {bound(`{"a": "x"}`), `{"a": {"x": "x"}}`, "does not match"},
		"objects in a list are passed over":          {bound(`{"a": "x"}`), `{"a": [{"x": 1}, ["x"], "x"]}`, ""},
		"every claim must match":                     {bound(`{"a": "x", "b": "y"}`), `{"a": "x", "b": "z"}`, `claim "b"`},
		"an equal number is taken":                   {bound(`{"a": 42}`), `{"a": 42}`, ""},
		"a number spelled another way is taken":      {bound(`{"a": 42}`), `{"a": 4.2e1}`, ""},
		"a number is not cut to be equal":            {bound(`{"a": 42}`), `{"a": 42.9}`, "does not match"},
		"big numbers are not rounded to be equal":    {bound(`{"a": 9007199254740993}`), `{"a": 9007199254740992.0}`, "does not match"},
		"a number is not the string of it":           {bound(`{"a": 42}`), `{"a": "42"}`, "does not match"},
		"a string is not the number in it":           {bound(`{"a": "42"}`), `{"a": 42}`, "does not match"},
		"an equal boolean is taken":                  {bound(`{"a": true}`), `{"a": true}`, ""},
		"a boolean is not the string of it":          {bound(`{"a": true}`), `{"a": "true"}`, "does not match"},
		"a claim under a JSON pointer is taken":      {bound(`{"/a/b~1c/1": "x"}`), `{"a": {"b/c": ["w", "x"]}}`, ""},
		"no claim under a JSON pointer is refused":   {bound(`{"/a/b": "x"}`), `{"a": "x"}`, "not in the token"},
		"a star is only a star without globs":        {bound(`{"a": "x*"}`), `{"a": "xy"}`, "does not match"},

		"a matching pattern is taken":                {globs(`{"a": "refs/heads/*"}`), `{"a": "refs/heads/main"}`, ""},
		"a pattern that does not match is refused":   {globs(`{"a": "refs/heads/*"}`), `{"a": "refs/tags/v1"}`, "does not match"},
		"a pattern has no other wildcards":           {globs(`{"a": "v?"}`), `{"a": "v1"}`, "does not match"},
		"one of several patterns is taken":           {globs(`{"a": ["x*", "y*"]}`), `{"a": ["ab", "yz"]}`, ""},
		"a number matches no pattern":                {globs(`{"a": "*"}`), `{"a": 1}`, "does not match"},
		"a pattern without a star matches itself":    {globs(`{"a": "main"}`), `{"a": "main"}`, ""},
		"a pattern does not match a part of a value": {globs(`{"a": "main"}`), `{"a": "maintenance"}`, "does not match"},

		"groups may be a list":                  {func(r *Role) { r.GroupsClaim = "g" }, `{"g": ["a", "b"]}`, ""},
		"groups may be one string":              {func(r *Role) { r.GroupsClaim = "g" }, `{"g": "a"}`, ""},
		"groups may be an empty list":           {func(r *Role) { r.GroupsClaim = "g" }, `{"g": []}`, ""},
		"missing groups are refused":            {func(r *Role) { r.GroupsClaim = "g" }, `{}`, `groups claim "g" is not in the token`},
		"groups that a token has no room for":   {func(r *Role) { r.GroupsClaim = "g" }, `{"_claim_names": {"g": "src1"}}`, `groups claim "g" is not in the token, which says that there are too many groups for it: the issuer needs a provider_config`},
		"below a JSON pointer":                  {func(r *Role) { r.GroupsClaim = "/g" }, `{"_claim_names": {"g": "src1"}}`, "the issuer needs a provider_config"},
		"groups that a short token leaves out":  {func(r *Role) { r.GroupsClaim = "g" }, `{"hasgroups": true}`, "the issuer needs a provider_config"},
		"before bound_claims miss them, too":    {func(r *Role) { r.GroupsClaim = "g"; bound(`{"g": "x"}`)(r) }, `{"hasgroups": true}`, "the issuer needs a provider_config"},
		"another claim that is elsewhere":       {func(r *Role) { r.GroupsClaim = "g" }, `{"_claim_names": {"h": "src1"}, "hasgroups": false}`, `groups claim "g" is not in the token`},
		"a group of another issuer is refused":  {func(r *Role) { r.GroupsClaim = "g" }, `{"g": ["a", "issuer:b:admins"]}`, `"issuer:"`},
		"nor in another case":                   {func(r *Role) { r.GroupsClaim = "g" }, `{"g": "ISSUER:b:admins"}`, `"issuer:"`},
		"groups that are a number":              {func(r *Role) { r.GroupsClaim = "g" }, `{"g": 1}`, "not a list of strings"},
		"groups with a number":                  {func(r *Role) { r.GroupsClaim = "g" }, `{"g": ["a", 1]}`, "element 1"},
		"a mapped claim that is no string":      {func(r *Role) { r.ClaimMappings = map[string]string{"a": "x"} }, `{"a": 1}`, `claim "a" of claim_mappings`},
		"a mapped claim that is not there":      {func(r *Role) { r.ClaimMappings = map[string]string{"a": "x"} }, `{}`, ""},
		"an expression that holds":              {expression(`claims.ref == 'main' && issuer == 'default'`), `{"ref": "main"}`, ""},
		"an expression that does not hold":      {expression(`claims.ref == 'main'`), `{"ref": "dev"}`, "does not hold"},
		"an expression on a missing claim":      {expression(`claims.ref == 'main'`), `{}`, "no such key: ref"},
		"an expression that asks for the claim": {expression(`!has(claims.ref) || claims.ref == 'main'`), `{}`, ""},
		"an expression on a nested claim":       {expression(`'prod' in claims.deploy.targets`), `{"deploy": {"targets": ["dev", "prod"]}}`, ""},
		"an expression on whole numbers":        {expression(`claims.n == 9007199254740993 && claims.n + 1 > 0`), `{"n": 9007199254740993}`, ""},
		"an expression on a fraction":           {expression(`claims.n < 1.6`), `{"n": 1.5}`, ""},
		"an expression on a boolean":            {expression(`claims.b == true`), `{"b": true}`, ""},
		"an expression on the time":             {expression(`timestamp(claims.exp) - now < duration('1h')`), `{"exp": 1893557000}`, ""},
		"an expression on the year":             {expression(`now.getFullYear() == 2030`), `{}`, ""},
		"an expression on the wrong type":       {expression(`claims.n.startsWith('a')`), `{"n": 1}`, "could not be evaluated"},
		"an expression that divides by zero":    {expression(`1 / claims.n == 1`), `{"n": 0}`, "division by zero"},
		"an expression on groups": {func(r *Role) { r.GroupsClaim, r.BoundExpression = "g", `groups.exists(g, g.startsWith('team-'))` },
			`{"g": ["x", "team-a"]}`, ""},
		"an expression on groups that are not there": {expression(`size(groups) == 0`), `{}`, ""},
		"an expression that costs too much": {expression(`claims.l.all(a, claims.l.all(b, claims.l.all(c, a + b + c >= 0)))`),
			`{"l": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40]}`, "cost limit exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(t, jwtRole(test.role)).Bind(token(t, test.claims), now)
			if test.fault == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.fault)
		})
	}
}

func TestBindServiceAccount(t *testing.T) {
	for name, test := range map[string]struct {
		role    func(*Role)
		account func(*claims.ServiceAccount)
		fault   string
	}{
		"the bound service account is taken": {nil, nil, ""},
		"another name is refused": {nil,
			func(a *claims.ServiceAccount) { a.Name = "deployer" }, `name "deployer"`},
		"another namespace is refused": {nil,
			func(a *claims.ServiceAccount) { a.Namespace = "prod" }, `namespace "prod"`},
		"a name that a pattern matches is taken": {
			func(r *Role) { r.BoundServiceAccountNames = []string{"x", "build*"} }, nil, ""},
		"a namespace that a pattern matches is taken": {
			func(r *Role) { r.BoundServiceAccountNamespaces = []string{"c*"} }, nil, ""},
		"a namespace with the labels is taken": {
			func(r *Role) {
				r.BoundServiceAccountNamespaces, r.BoundServiceAccountNamespaceSelector = nil, `{"matchLabels": {"env": "ci"}}`
			},
			func(a *claims.ServiceAccount) { a.NamespaceLabels = map[string]string{"env": "ci", "x": "y"} }, ""},
		"a namespace without the labels is refused": {
			func(r *Role) {
				r.BoundServiceAccountNamespaces, r.BoundServiceAccountNamespaceSelector = nil, `{"matchLabels": {"env": "ci"}}`
			},
			func(a *claims.ServiceAccount) { a.NamespaceLabels = map[string]string{"env": "prod"} }, "namespace"},
		"a namespace that is named needs no labels": {
			func(r *Role) { r.BoundServiceAccountNamespaceSelector = `{"matchLabels": {"env": "ci"}}` }, nil, ""},
		"a service account without a UID is refused": {nil,
			func(a *claims.ServiceAccount) { a.UID = "" }, "UID"},
		"an annotation under a reserved key is refused": {nil,
			func(a *claims.ServiceAccount) { a.Annotations = map[string]string{"service_account_uid": "x"} }, "reserved"},
		"an expression sees the service account's groups": {
			func(r *Role) {
				r.BoundExpression = `'system:serviceaccounts:ci' in groups && claims['kubernetes.io'].namespace == 'ci'`
			}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(t, kubernetesRole(test.role)).Bind(serviceAccount(test.account), now)
			if test.fault == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.fault)
		})
	}

	t.Run("a profile without a service account is refused", func(t *testing.T) {
		p := serviceAccount(nil)
		p.ServiceAccount = nil
		_, err := compile(t, kubernetesRole(nil)).Bind(p, now)
		require.ErrorContains(t, err, "service account")
	})
}

func TestBindMakesTheIdentity(t *testing.T) {
	t.Run("of a token", func(t *testing.T) {
		c := compile(t, jwtRole(func(r *Role) {
			r.GroupsClaim = "/realm/groups"
			r.ClaimMappings = map[string]string{"ref": "branch", "/a/b": "deep", "none": "none"}
		}))
		b, err := c.Bind(token(t, `{"realm": {"groups": ["x", "", "y"]}, "ref": "main", "a": {"b": "c"}}`), now)
		require.NoError(t, err)
		require.Equal(t, "runner", b.Alias)
		require.Equal(t, []string{"x", "y"}, b.Groups)
		require.Equal(t, map[string]string{"branch": "main", "deep": "c"}, b.Metadata)
	})

	t.Run("of a claim under a JSON pointer", func(t *testing.T) {
		c := compile(t, jwtRole(func(r *Role) { r.UserClaim, r.UserClaimJSONPointer = "/user/login", true }))
		b, err := c.Bind(token(t, `{"user": {"login": "ann"}}`), now)
		require.NoError(t, err)
		require.Equal(t, "ann", b.Alias)
	})

	t.Run("of a claim whose name looks like a JSON pointer", func(t *testing.T) {
		c := compile(t, jwtRole(func(r *Role) { r.UserClaim = "/user/login" }))
		b, err := c.Bind(token(t, `{"/user/login": "ann"}`), now)
		require.NoError(t, err)
		require.Equal(t, "ann", b.Alias)
	})

	t.Run("of a service account", func(t *testing.T) {
		c := compile(t, kubernetesRole(nil))
		b, err := c.Bind(serviceAccount(func(a *claims.ServiceAccount) { a.Annotations = map[string]string{"team": "blue"} }), now)
		require.NoError(t, err)
		require.Equal(t, "474b11b5-0f20-4f9d-8ca5-65715ab325e0", b.Alias)
		require.Nil(t, b.Groups)
		require.Equal(t, map[string]string{
			"service_account_name": "builder", "service_account_namespace": "ci",
			"service_account_uid": "474b11b5-0f20-4f9d-8ca5-65715ab325e0", "service_account_secret_name": "",
		}, b.Metadata)
		require.Equal(t, map[string]string{"team": "blue"}, b.AliasMetadata)
	})

	t.Run("of a service account by its name", func(t *testing.T) {
		c := compile(t, kubernetesRole(func(r *Role) { r.AliasNameSource = AliasServiceAccountName }))
		b, err := c.Bind(serviceAccount(nil), now)
		require.NoError(t, err)
		require.Equal(t, "ci/builder", b.Alias)
	})

	t.Run("of another issuer, under a name that no default issuer can give", func(t *testing.T) {
		c := compile(t, jwtRole(func(r *Role) { r.Issuer = "gitlab" }))
		p := token(t, `{}`)
		p.Issuer = "gitlab"
		b, err := c.Bind(p, now)
		require.NoError(t, err)
		require.Equal(t, "issuer:gitlab:runner", b.Alias)
	})

	t.Run("of another issuer, in groups that no default issuer can give", func(t *testing.T) {
		c := compile(t, jwtRole(func(r *Role) {
			r.Issuer, r.GroupsClaim = "gitlab", "g"
			r.BoundExpression = `groups == ['vault-admins', 'issuer:x']` // the names that the issuer gave
			r.UserTemplate = publish("{{claim(g)|escape}}")
		}))
		p := token(t, `{"g": ["vault-admins", "issuer:x"]}`)
		p.Issuer = "gitlab"
		b, err := c.Bind(p, now)
		require.NoError(t, err)
		require.Equal(t, []string{"issuer:gitlab:vault-admins", "issuer:gitlab:issuer:x"}, b.Groups)
		require.Equal(t, b.Groups, c.Preview(p, account, userKey, now).Groups)
		_, user, err := render(t, c, p)
		require.NoError(t, err)
		require.Equal(t, jwt.StringList{"vault-admins", "issuer:x"}, user.Pub.Allow)
	})

	t.Run("of a Vault entity", func(t *testing.T) {
		b, err := compile(t, vaultRole(nil)).BindEntity(Entity{ID: "id", Name: "ann", Groups: []string{"ops"}})
		require.NoError(t, err)
		require.Equal(t, "ann", b.Alias)
		require.Equal(t, []string{"ops"}, b.Groups)
	})
}

// What a pattern means is strutil's to say, as in Vault's own methods; should it
// come to say something else, roles that bind by patterns would.
func TestAPatternMatches(t *testing.T) {
	for _, test := range []struct {
		pattern, value string
		matches        bool
	}{
		{"*", "", true}, {"*", "a.b c", true}, {"**", "", true}, {"**", "a", true},
		{"", "", true}, {"", "a", false},
		{"a", "a", true}, {"a", "A", false}, {"A*", "ab", false}, {"a", "ab", false}, {"a", "", false},
		{"a*", "a", true}, {"a*", "ab", true}, {"a*", "ba", false},
		{"*a", "a", true}, {"*a", "ba", true}, {"*a", "ab", false},
		{"*a*", "bab", true}, {"*a*", "b", false},
		{"a*b", "ab", true}, {"a*b", "axb", true}, {"a*b", "axbx", false}, {"a*a", "a", false},
		{"a*b*c", "a-b-b-c", true}, {"a*b*c", "a-c", false}, {"a**c", "abc", true},
		{"a?", "ab", false}, {"[a]", "a", false}, {"a\\*", "a\\b", true}, {"*\n", "a\n", true},
	} {
		c := compile(t, jwtRole(func(r *Role) {
			r.BoundClaimsType, r.BoundClaims = BoundClaimsGlob, map[string]any{"x": test.pattern}
		}))
		_, err := c.Bind(&claims.Profile{
			Issuer: DefaultIssuer, Kind: claims.KindJWT, Claims: map[string]any{"sub": "runner", "x": test.value},
		}, now)
		require.Equal(t, test.matches, err == nil, "%q and %q: %v", test.pattern, test.value, err)
	}
}

func TestBoundClaimsOfARoleInPlainGoValues(t *testing.T) {
	c := compile(t, jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"a": float64(42), "b": 7} }))
	_, err := c.Bind(token(t, `{"a": 42, "b": 7.0}`), now)
	require.NoError(t, err)
	_, err = c.Bind(token(t, `{"a": 42.5, "b": 7}`), now)
	require.ErrorContains(t, err, `claim "a"`)
}

func TestBindRefusesTheWrongKindOfIdentity(t *testing.T) {
	c := compile(t, jwtRole(func(r *Role) { r.Issuer = "gitlab" }))
	_, err := c.Bind(token(t, `{}`), now)
	require.ErrorContains(t, err, `issuer "default"`)

	p := serviceAccount(nil)
	p.Issuer = "gitlab"
	_, err = c.Bind(p, now)
	require.ErrorContains(t, err, "kind kubernetes")

	_, err = c.BindEntity(Entity{ID: "id", Name: "ann"})
	require.ErrorContains(t, err, "needs a token")

	v := compile(t, vaultRole(nil))
	_, err = v.Bind(token(t, `{}`), now)
	require.ErrorContains(t, err, "takes no token")
	_, err = v.BindEntity(Entity{})
	require.ErrorContains(t, err, "this Vault token has none")
}

func FuzzBind(f *testing.F) {
	f.Add(`{"sub": "x", "g": ["a"], "a": 1}`, `{"a": [1, "x", true]}`)
	f.Add(`{"sub": "x", "g": "a", "a": {"b": []}}`, `{"/a/b": "x"}`)
	f.Add(`{"sub": "issuer:x", "g": [1], "a": 1e400}`, `{"a": 1e400}`)
	f.Fuzz(func(t *testing.T, claimsJSON, boundJSON string) {
		r := jwtRole(func(r *Role) {
			r.GroupsClaim = "g"
			r.ClaimMappings = map[string]string{"a": "a"}
			r.BoundExpression = "claims.a != 7"
		})
		if json.Unmarshal([]byte(boundJSON), &r.BoundClaims) != nil {
			return
		}
		var all map[string]any
		if unmarshalNumbers(claimsJSON, &all) != nil {
			return
		}
		c, err := r.Compile()
		if err != nil {
			return
		}
		b, err := c.Bind(&claims.Profile{Issuer: DefaultIssuer, Kind: claims.KindJWT, Claims: all}, now)
		if err == nil {
			require.Equal(t, all["sub"], b.Alias)
		}
	})
}
