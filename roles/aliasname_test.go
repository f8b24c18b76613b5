package roles

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// namedRole is a role whose aliases are of several claims.
func namedRole(template string) *Role {
	return jwtRole(func(r *Role) { r.UserClaim, r.AliasName = "", template })
}

func aliasOf(c *Compiled, all map[string]any) (string, error) {
	b, err := c.Bind(&claims.Profile{Issuer: c.role.Issuer, Kind: claims.KindJWT, Claims: all}, now)
	if err != nil {
		return "", err
	}
	return b.Alias, nil
}

func TestAnAliasOfSeveralClaims(t *testing.T) {
	all := map[string]any{
		"project": "acme/web.shop", "ref": "feature/a:b", "id": json.Number("17"), "protected": true, "space": "a b\n", "percent": "50%2F",
		"git": map[string]any{"branch": "main"}, "uuid": "{6f1c}", "ü": "Bücher",
	}
	for template, want := range map[string]string{
		"{{claim(project)}}:{{claim(ref)}}":             "acme/web.shop:feature/a%3Ab",
		"{{claim(project)}}/{{claim(ref)}}":             "acme%2Fweb.shop/feature%2Fa:b",
		"p-{{claim(id)}}-{{claim(protected)}}":          "p-17-true",
		"{{claim(/git/branch)}}@{{ claim( project ) }}": "main@acme/web.shop",
		"{{claim(space)}}":                              "a%20b%0A",
		"{{claim(percent)}}":                            "50%252F",
		"{{claim(uuid)}}:x":                             "{6f1c}:x",
		"{{claim(ü)}}":                                  "Bücher",
	} {
		got, err := aliasOf(compile(t, namedRole(template)), all)
		require.NoError(t, err, template)
		require.Equal(t, want, got, template)
	}
	prod := namedRole("{{claim(project)}}:{{claim(ref)}}")
	prod.Issuer = "prod"
	got, err := aliasOf(compile(t, prod), all)
	require.NoError(t, err)
	require.Equal(t, "issuer:prod:acme/web.shop:feature/a%3Ab", got)
}

func TestAnAliasThatClaimsDoNotSpellIsRefused(t *testing.T) {
	c := compile(t, namedRole("{{claim(x)}}:{{claim(y)}}"))
	for name, test := range map[string]struct {
		x     any
		fault string
	}{
		"none":                        {nil, "the claim of {{claim(x)}} in alias_name is not in the token"},
		"empty":                       {"", "is empty"},
		"a list":                      {[]any{"a"}, "is a list, and an alias is one name"},
		"an object":                   {map[string]any{}, "is an object"},
		"a fraction":                  {json.Number("1.5"), "is not a whole number"},
		"no valid text":               {"a\xff", "not valid UTF-8"},
		"U+FFFD":                      {"a\ufffd", "not valid UTF-8"},
		"the prefix of other issuers": {"issuer", `begins with "issuer:"`},
		"the prefix in another case":  {"ISSUER", `begins with "issuer:"`},
	} {
		_, err := aliasOf(c, map[string]any{"x": test.x, "y": "prod:web"})
		require.ErrorContains(t, err, test.fault, name)
	}
}

func TestAnAliasNameThatIsNoneIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		role  *Role
		field string
		fault string
	}{
		"beside user_claim":          {jwtRole(func(r *Role) { r.AliasName = "{{claim(x)}}" }), "alias_name", "is set beside user_claim"},
		"neither":                    {jwtRole(func(r *Role) { r.UserClaim = "" }), "user_claim", "is required"},
		"of a Kubernetes role":       {kubernetesRole(func(r *Role) { r.AliasName = "{{claim(x)}}" }), "alias_name", "a role of type kubernetes has no use for it"},
		"of a role of type vault":    {vaultRole(func(r *Role) { r.AliasName = "{{claim(x)}}" }), "alias_name", "a role of type vault has no use for it"},
		"no placeholder":             {namedRole("everyone"), "alias_name", "would name everyone alike"},
		"values side by side":        {namedRole("{{claim(a)}}{{claim(b)}}"), "alias_name", "nothing separates {{claim(b)}} from the value before it"},
		"a letter between values":    {namedRole("{{claim(a)}}x{{claim(b)}}"), "alias_name", "nothing separates"},
		"a percent sign":             {namedRole("{{claim(a)}}%{{claim(b)}}"), "alias_name", `"%" cannot stand in it`},
		"white space":                {namedRole("{{claim(a)}} {{claim(b)}}"), "alias_name", `" " cannot stand in it`},
		"another alphabet":           {namedRole("{{claim(a)}}ü{{claim(b)}}"), "alias_name", "cannot stand in it"},
		"the prefix of others":       {namedRole("issuer:{{claim(a)}}"), "alias_name", "which is for the aliases of other issuers"},
		"the prefix in another case": {namedRole("Issuer:{{claim(a)}}"), "alias_name", "which is for the aliases of other issuers"},
		"an unclosed placeholder":    {namedRole("{{claim(a)"), "alias_name", "is not closed"},
		"no claim":                   {namedRole("{{claim()}}"), "alias_name", "needs a claim's name"},
		"metadata":                   {namedRole("{{metadata(a)}}"), "alias_name", "metadata(a) may not stand in alias_name"},
		"the user's name":            {namedRole("{{name()}}"), "alias_name", "name() may not stand in alias_name"},
		"an alias":                   {namedRole("{{alias-name()}}"), "alias_name", "only for roles of type vault"},
		"escape":                     {namedRole("{{claim(a)|escape}}"), "alias_name", "its values are escaped as they are"},
		"without end":                {namedRole("{{claim(a)}}" + strings.Repeat("x", maxField)), "alias_name", "is too large"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.role.Compile()
			var fault *FieldError
			require.ErrorAs(t, err, &fault)
			require.Equal(t, test.field, fault.Field)
			require.Contains(t, fault.Fault, test.fault)
		})
	}
}

// FuzzAliasName takes two pairs of claims: they have one alias only if they are one,
// to Vault too, which takes no notice of case.
func FuzzAliasName(f *testing.F) {
	for _, v := range append(values, "a/b", "a:b", "a-b", "/", "%2f", "%3A", "x%2Fy") {
		f.Add(v, "web", "web", v)
		f.Add(v+"/a", "b", v, "a/b")
		f.Add(v+":", "b", v, ":b")
		f.Add(v+"p-", v, v, "p-"+v)
	}
	var all []*Compiled
	for _, template := range []string{"{{claim(x)}}/{{claim(y)}}", "{{claim(x)}}:{{claim(y)}}", "p-{{claim(x)}}-2p-{{claim(y)}}", "{{claim(x)}}a/b{{claim(y)}}c", "{{claim(y)}}|{{claim(x)}}|{{claim(y)}}"} {
		all = append(all, compile(f, namedRole(template)))
	}
	fold := strings.ToLower // as Vault does
	f.Fuzz(func(t *testing.T, x1, y1, x2, y2 string) {
		for _, c := range all {
			one, err := aliasOf(c, map[string]any{"x": x1, "y": y1})
			if err != nil {
				continue
			}
			two, err := aliasOf(c, map[string]any{"x": x2, "y": y2})
			if err != nil || fold(one) != fold(two) {
				continue
			}
			require.Equal(t, fold(x1), fold(x2), "%s: %q", c.role.AliasName, one)
			require.Equal(t, fold(y1), fold(y2), "%s: %q", c.role.AliasName, one)
		}
	})
}
