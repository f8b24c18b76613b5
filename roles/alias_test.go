package roles

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

const (
	accessor      = "auth_nats_0a1b2c3d"
	otherAccessor = "auth_userpass_9f8e7d6c"
)

// aliasRole is a role that reads the alias which the test's mount gave its caller.
func aliasRole(change func(*Role)) *Role {
	return vaultRole(func(r *Role) {
		r.MountAccessor = accessor
		r.UserName = "{{alias-name()|escape}}"
		if change != nil {
			change(r)
		}
	})
}

// called is the entity ann, which the test's mount calls so.
func called(names ...string) Entity {
	e := Entity{ID: "id", Name: "ann", Aliases: []Alias{{Mount: otherAccessor, Name: "elsewhere"}}}
	for _, name := range names {
		e.Aliases = append(e.Aliases, Alias{Mount: accessor, Name: name})
	}
	return e
}

func serviceAccountAlias(alias, namespace, name, uid string) Alias {
	return Alias{Mount: accessor, Name: alias, Metadata: map[string]string{
		"service_account_name": name, "service_account_namespace": namespace, "service_account_uid": uid, "service_account_secret_name": "",
	}}
}

// of is what an entity gets of a template's one subject.
func of(t *testing.T, r *Role, subject string, e Entity) (string, error) {
	t.Helper()
	r.UserTemplate = `{"pub":{"allow":["` + subject + `"]}}`
	c := compile(t, r)
	b, err := c.BindEntity(e)
	if err != nil {
		return "", err
	}
	u, err := c.Render(b, account, userKey)
	if err != nil {
		return "", err
	}
	var user struct {
		Pub struct{ Allow []string }
	}
	require.NoError(t, unmarshalNumbers(string(u.NATS), &user))
	require.Len(t, user.Pub.Allow, 1)
	return user.Pub.Allow[0], nil
}

func TestAnAliasIsRenderedWithoutItsIssuer(t *testing.T) {
	every := func(r *Role) { r.BoundIssuers = []string{"*"} }
	for alias, want := range map[string]string{
		"web":                           "ci.default.web",
		"repo:octo/web:ref:refs/main":   "ci.default.repo:octo/web:ref:refs/main",
		"issuer:prod:web":               "ci.prod.web",
		"issuer:prod2:web":              "ci.prod2.web",
		"issuer:prod:issuer:other:web":  "ci.prod.issuer:other:web",
		"issuer:prod:a.b *>%":           "ci.prod.a%2Eb%20%2A%3E%25",
		"Group/Web":                     "ci.default.Group/Web",
		"{{groups()}}":                  "ci.default.%7B%7Bgroups()%7D%7D",
		"issuer:a.b:web":                "ci.a%2Eb.web",
		"{6f1c7c9e-0c4f-4f7e-9c39-000}": "ci.default.%7B6f1c7c9e-0c4f-4f7e-9c39-000%7D",
	} {
		got, err := of(t, aliasRole(every), "ci.{{alias-issuer()|escape}}.{{alias-name()|escape}}", called(alias))
		require.NoError(t, err, alias)
		require.Equal(t, want, got)
	}
	got, err := of(t, aliasRole(every), "ci.{{alias-name("+otherAccessor+")}}.{{alias-name("+accessor+")}}", called("issuer:prod:web"))
	require.NoError(t, err)
	require.Equal(t, "ci.elsewhere.web", got)
}

func TestAnAliasThatSaysNotWhoItIsIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		subject string
		entity  Entity
		fault   string
	}{
		"no entity":                              {"{{alias-name()}}", Entity{}, "{{alias-name()}} asks for the caller's Vault entity, and this Vault token has none"},
		"no alias at all":                        {"{{alias-name()}}", Entity{ID: "id", Name: "ann"}, "the caller's entity has no alias of this mount"},
		"an alias of another mount only":         {"{{alias-name()}}", called(), "the caller's entity has no alias of this mount"},
		"several":                                {"{{alias-name()}}", called("a", "b"), "has several aliases of this mount, and none of them says who it is"},
		"several of one issuer and another":      {"{{alias-name()}}", called("a", "issuer:prod:a"), "several aliases"},
		"of a mount that it has none of":         {"{{alias-name(auth_ldap_1)}}", called("a"), "alias-name(auth_ldap_1) cannot be had: the caller's entity has no alias of that mount"},
		"of another issuer":                      {"{{alias-name()}}", called("issuer:prod:a"), `"a" is of the issuer "prod", and a role without bound_issuers takes those of the default issuer only`},
		"of another issuer, its issuer":          {"{{alias-issuer()}}", called("issuer:prod:a"), "without bound_issuers"},
		"of no issuer's name":                    {"{{alias-name()}}", called("issuer::a"), "is not one that this mount gives"},
		"of an issuer alone":                     {"{{alias-name()}}", called("issuer:prod"), "is not one that this mount gives"},
		"of an issuer and nothing":               {"{{alias-name()}}", called("issuer:prod:"), "is not one that this mount gives"},
		"of the default issuer by its name":      {"{{alias-name()}}", called("issuer:default:a"), "is not one that this mount gives"},
		"of an issuer in upper case":             {"{{alias-name()}}", called("issuer:Prod:a"), "is not one that this mount gives"},
		"with the prefix in upper case":          {"{{alias-name()}}", called("ISSUER:prod:a"), "is not one that this mount gives"},
		"with no name":                           {"{{alias-name()}}", called(""), "is not one that this mount gives"},
		"with a dot":                             {"x.{{alias-name()}}", called("a.b"), `alias-name() "a.b" is not one subject token: it has a "."; {{alias-name()|escape}} would encode it`},
		"with a wildcard":                        {"x.{{alias-name()}}", called(">"), `has a ">"`},
		"with a wildcard, elsewhere":             {"x.{{alias-name(auth_userpass_9f8e7d6c)}}", Entity{ID: "i", Name: "n", Aliases: []Alias{{Mount: otherAccessor, Name: "*"}}}, `has a "*"`},
		"with white space":                       {"x.{{alias-name()}}", called("a b"), "has white space"},
		"that begins a subject of NATS's own":    {"{{alias-name()}}.>", called("$SYS"), `"$SYS" cannot begin a subject`},
		"whose metadata is no service account's": {"{{alias-metadata(service_account_name)}}", called("ci/builder"), `the alias "ci/builder" is not of a service account`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := of(t, aliasRole(func(r *Role) { r.UserName = "x" }), test.subject, test.entity)
			require.ErrorContains(t, err, test.fault)
		})
	}
}

func TestAMountsOtherAliasesAreOfOneToo(t *testing.T) {
	e := called("web")
	e.Aliases = append(e.Aliases, Alias{Mount: otherAccessor, Name: "second"})
	_, err := of(t, aliasRole(nil), "{{alias-name("+otherAccessor+")}}", e)
	require.ErrorContains(t, err, "several aliases of that mount")
}

func TestBoundAliasesAndIssuers(t *testing.T) {
	for name, test := range map[string]struct {
		issuers, aliases []string
		alias            string
		fault            string
	}{
		"an issuer":                                {[]string{"prod"}, nil, "issuer:prod:web", ""},
		"one of several":                           {[]string{"dev", "prod"}, nil, "issuer:prod:web", ""},
		"a glob of issuers":                        {[]string{"prod-*"}, nil, "issuer:prod-eu:web", ""},
		"the default issuer":                       {[]string{"default"}, nil, "web", ""},
		"a name of another issuer":                 {[]string{"prod"}, nil, "issuer:dev:web", `the issuer "dev" of the caller's alias is none of the role's bound_issuers`},
		"an issuer whose name begins like it":      {[]string{"prod"}, nil, "issuer:prod2:web", "bound_issuers"},
		"an issuer that it begins like":            {[]string{"prod2"}, nil, "issuer:prod:2:web", "bound_issuers"},
		"the default issuer's, of a value like it": {[]string{"prod"}, nil, "prod:web", `the issuer "default" of the caller's alias is none`},
		"an issuer with a dot for any character":   {[]string{"a.b"}, nil, "issuer:axb:web", "bound_issuers"},
		"an alias":                                 {nil, []string{"web"}, "web", ""},
		"a glob of aliases":                        {nil, []string{"billing/*", "shop/*"}, "shop/web", ""},
		"a glob of aliases with its middle":        {nil, []string{"repo:octo/*:ref:refs/heads/main"}, "repo:octo/web:ref:refs/heads/main", ""},
		"another alias":                            {nil, []string{"web"}, "web2", `the caller's alias "web2" is none of the role's bound_aliases`},
		"an alias in another case":                 {nil, []string{"web"}, "WEB", "bound_aliases"},
		"an alias of another issuer":               {nil, []string{"web"}, "issuer:prod:web", "without bound_issuers"},
		"an alias with its prefix":                 {[]string{"prod"}, []string{"issuer:prod:web"}, "issuer:prod:web", "bound_aliases"},
		"both":                                     {[]string{"prod"}, []string{"web"}, "issuer:prod:web", ""},
		"both, and not the alias":                  {[]string{"prod"}, []string{"web"}, "issuer:prod:web2", "bound_aliases"},
		"both, and not the issuer":                 {[]string{"prod"}, []string{"web"}, "web", "bound_issuers"},
	} {
		t.Run(name, func(t *testing.T) {
			// A role with a constant template is bound, too.
			role := aliasRole(func(r *Role) { r.UserName, r.BoundIssuers, r.BoundAliases = "x", test.issuers, test.aliases })
			got, err := of(t, role, "orders.new", called(test.alias))
			if test.fault != "" {
				require.ErrorContains(t, err, test.fault)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "orders.new", got)
		})
	}
	c := compile(t, aliasRole(func(r *Role) { r.BoundIssuers, r.BoundAliases = []string{"prod"}, []string{"x"} }))
	preview := c.PreviewEntity(called("issuer:dev:web"), account, userKey)
	require.Len(t, preview.Errors, 2, "all that is wrong")
}

// What the metadata says is used where every login of the alias says the same.
func TestMetadataOfAnAliasIsWhatTheAliasDetermines(t *testing.T) {
	keys := []string{"service_account_name", "service_account_namespace", "service_account_uid"}
	by := func(alias Alias, key string) (string, error) {
		e := Entity{ID: "id", Name: "ann", Aliases: []Alias{alias}}
		return of(t, aliasRole(func(r *Role) { r.UserName, r.BoundIssuers = "x", []string{"*"} }), "{{alias-metadata("+key+")}}", e)
	}
	for _, prefix := range []string{"", "issuer:cluster:"} {
		byUID := serviceAccountAlias(prefix+"7d1f", "ci", "builder", "7d1f")
		byName := serviceAccountAlias(prefix+"ci/builder", "ci", "builder", "7d1f")
		for i, want := range []string{"builder", "ci", "7d1f"} {
			got, err := by(byUID, keys[i])
			require.NoError(t, err)
			require.Equal(t, want, got)
			if i == 2 {
				_, err = by(byName, keys[i])
				require.ErrorContains(t, err, "which one that is made anew inherits")
				continue
			}
			got, err = by(byName, keys[i])
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
	for name, alias := range map[string]Alias{
		"of another UID":               serviceAccountAlias("7d1f", "ci", "builder", "8e2f"),
		"of another name":              serviceAccountAlias("ci/builder", "ci", "other", "7d1f"),
		"of another namespace":         serviceAccountAlias("ci/builder", "prod", "builder", "7d1f"),
		"that was renamed by hand":     serviceAccountAlias("renamed", "ci", "builder", "7d1f"),
		"of a name with a slash":       serviceAccountAlias("a/b/c", "a/b", "cc", "7d1f"),
		"without a UID":                serviceAccountAlias("", "ci", "builder", ""),
		"of a namespace in upper case": serviceAccountAlias("CI/builder", "ci", "builder", "7d1f"),
	} {
		for _, key := range keys {
			_, err := by(alias, key)
			require.Error(t, err, "%s, %s", name, key)
		}
	}
	for _, key := range []string{"project", "role", "service_account_secret_name", "Service_account_name", "x"} {
		_, err := aliasRole(func(r *Role) { r.UserName = "{{alias-metadata(" + key + ")}}" }).Compile()
		require.ErrorContains(t, err, "an alias's metadata is what its last login wrote, perhaps another job's")
	}
}

func TestAliasPlaceholdersStandOnlyWhereTheyHaveAMeaning(t *testing.T) {
	for name, test := range map[string]struct {
		role  *Role
		field string
		fault string
	}{
		"a path for an accessor":            {aliasRole(func(r *Role) { r.UserName = "{{alias-name(auth/userpass/)}}" }), "user_name", "sys/auth/<path> has it"},
		"a bare path for an accessor":       {aliasRole(func(r *Role) { r.UserName = "{{alias-name(userpass)}}" }), "user_name", `"userpass" is not the accessor of an auth mount`},
		"an argument for alias-issuer":      {aliasRole(func(r *Role) { r.UserName = "{{alias-issuer(x)}}" }), "user_name", "takes no argument"},
		"no argument for alias-metadata":    {aliasRole(func(r *Role) { r.UserName = "{{alias-metadata()}}" }), "user_name", "needs a metadata key"},
		"in a role of an issuer":            {jwtRole(func(r *Role) { r.UserName = "{{alias-name()}}" }), "user_name", "only for roles of type vault"},
		"in the permissions of a scope":     {aliasRole(func(r *Role) { r.Scoped, r.UserTemplate = true, `{"pub":{"allow":["{{alias-name()}}"]}}` }), "user_template", "may not stand in the permissions of a scoped role"},
		"an empty alias that is bound":      {aliasRole(func(r *Role) { r.BoundAliases = []string{""} }), "bound_aliases", "empty value"},
		"an empty issuer that is bound":     {aliasRole(func(r *Role) { r.BoundIssuers = []string{"a", ""} }), "bound_issuers", "empty value"},
		"an issuer in upper case":           {aliasRole(func(r *Role) { r.BoundIssuers = []string{"Prod"} }), "bound_issuers", `has "Prod", which no issuer is called`},
		"an issuer with a colon":            {aliasRole(func(r *Role) { r.BoundIssuers = []string{"issuer:prod"} }), "bound_issuers", "which no issuer is called"},
		"bound_aliases of an issuer's role": {jwtRole(func(r *Role) { r.BoundAliases = []string{"*"} }), "bound_aliases", "a role of type jwt has no use for it"},
		"bound_issuers of an issuer's role": {kubernetesRole(func(r *Role) { r.BoundIssuers = []string{"*"} }), "bound_issuers", "a role of type kubernetes has no use for it"},
		"aliases without end":               {aliasRole(func(r *Role) { r.BoundAliases = []string{strings.Repeat("x", maxField)} }), "bound_aliases", "is too large"},
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

func TestARoleThatNeedsNoEntityServesTokensWithoutOne(t *testing.T) {
	got, err := of(t, vaultRole(func(r *Role) { r.UserName = "batch" }), "orders.{{name()}}.{{account-name()}}", Entity{})
	require.NoError(t, err)
	require.Equal(t, "orders.batch.orders", got)
	for name, test := range map[string]struct {
		role *Role
		asks string
	}{
		"the default name": {vaultRole(nil), "user_name, whose default is the entity's name,"},
		"a name":           {vaultRole(func(r *Role) { r.UserName = "{{entity-name()|escape}}" }), "{{entity-name()|escape}}"},
		"a tag":            {vaultRole(func(r *Role) { r.UserName, r.UserTemplate = "x", `{"tags":["id:{{entity-id()}}"]}` }), "{{entity-id()}}"},
		"a subject":        {vaultRole(func(r *Role) { r.UserName, r.UserTemplate = "x", `{"sub":{"deny":["{{groups()}}"]}}` }), "{{groups()}}"},
		"metadata":         {vaultRole(func(r *Role) { r.UserName, r.UserTemplate = "x", `{"pub":{"deny":["{{entity-metadata(t)}}"]}}` }), "{{entity-metadata(t)}}"},
		"another alias":    {vaultRole(func(r *Role) { r.UserName = "{{alias-name(" + otherAccessor + ")}}" }), "{{alias-name(" + otherAccessor + ")}}"},
		"bound_aliases":    {vaultRole(func(r *Role) { r.UserName, r.BoundAliases = "x", []string{"*"} }), "bound_aliases"},
		"bound_issuers":    {vaultRole(func(r *Role) { r.UserName, r.BoundIssuers = "x", []string{"*"} }), "bound_issuers"},
	} {
		_, err := compile(t, test.role).BindEntity(Entity{})
		require.ErrorContains(t, err, test.asks+" asks for the caller's Vault entity, and this Vault token has none", name)
	}
}

func TestRolesWarnOfAliasesThatAreTakenForOne(t *testing.T) {
	warnings := func(subject string, change func(*Role)) string {
		return strings.Join(compile(t, aliasRole(func(r *Role) {
			r.UserTemplate = `{"pub":{"allow":["` + subject + `"]},"sub":{"allow":["_INBOX.>"]}}`
			change(r)
		})).Warnings(nil), "\n")
	}
	const taken = "whose aliases of one name get the same"
	require.Contains(t, warnings("{{alias-name()}}", func(r *Role) { r.BoundIssuers = []string{"a", "b"} }), taken)
	require.Contains(t, warnings("{{alias-name()}}", func(r *Role) { r.BoundIssuers = []string{"a*"} }), taken)
	require.Empty(t, warnings("{{alias-name()}}", func(r *Role) { r.BoundIssuers = []string{"a"} }))
	require.Empty(t, warnings("{{alias-name()}}", func(*Role) {}))
	require.Empty(t, warnings("{{alias-issuer()}}.{{alias-name()}}", func(r *Role) { r.BoundIssuers = []string{"*"} }))
	require.Contains(t, warnings("{{alias-name()}}", func(r *Role) { r.BoundAliases = []string{"issuer:prod:*"} }), `bound_aliases has a value that begins with "issuer:"`)
}

// FuzzAliases takes two entities, by what this mount calls them: what one may do is
// no part of what the other may, of whichever issuers they are, and what their last
// logins left in their metadata changes nothing.
func FuzzAliases(f *testing.F) {
	for _, v := range values {
		f.Add(v, "issuer:prod:"+v)
		f.Add("issuer:prod:"+v, "issuer:prod2:"+v)
		f.Add("issuer:a:b:"+v, "issuer:a:"+v)
	}
	every := compile(f, aliasRole(func(r *Role) {
		r.BoundIssuers, r.UserName = []string{"*"}, "{{alias-issuer()|escape}}:{{alias-name()|escape}}"
		r.UserTemplate = `{"sub":{"allow":["ci.{{alias-issuer()|escape}}.{{alias-name()|escape}}.>"]},"tags":["by:{{alias-name()|escape}}"]}`
	}))
	defaults := compile(f, aliasRole(func(r *Role) { r.UserTemplate = `{"sub":{"allow":["ci.{{alias-name()|escape}}.>"]}}` }))
	render := func(t *testing.T, c *Compiled, alias string, metadata map[string]string) (string, bool) {
		e := called(alias)
		e.Aliases[1].Metadata = metadata
		b, err := c.BindEntity(e)
		if err != nil {
			return "", false
		}
		u, err := c.Render(b, account, userKey)
		if err != nil {
			return "", false
		}
		require.Empty(t, tokenFault(u.Name))
		var user struct{ Sub struct{ Allow []string } }
		require.NoError(t, unmarshalNumbers(string(u.NATS), &user))
		require.Len(t, user.Sub.Allow, 1)
		return user.Sub.Allow[0], true
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		for c, shape := range map[*Compiled]string{every: "ci.F.F.>", defaults: "ci.F.>"} {
			one, ok := render(t, c, first, nil)
			again, okAgain := render(t, c, first, map[string]string{"role": second, "project": second, "service_account_name": second})
			require.Equal(t, ok, okAgain)
			require.Equal(t, one, again)
			two, okTwo := render(t, c, second, nil)
			if !ok || !okTwo || first == second {
				continue
			}
			checkShape(t, shape, one)
			require.Falsef(t, server.SubjectsCollide(one, two), "%q and %q give %q and %q", first, second, one, two)
		}
		if strings.HasPrefix(strings.ToLower(first), issuerPrefix) {
			_, ok := render(t, defaults, first, nil)
			require.False(t, ok, "an alias of another issuer, or of none: %q", first)
		}
	})
}

func TestAnotherMountsAliasNeverMatches(t *testing.T) {
	for _, mount := range []string{"", otherAccessor, accessor + "0", strings.ToUpper(accessor), accessor[:len(accessor)-1]} {
		e := Entity{ID: "id", Name: "ann", Aliases: []Alias{{Mount: mount, Name: "web"}}}
		_, err := of(t, aliasRole(func(r *Role) { r.BoundAliases = []string{"web"} }), "{{alias-name()}}", e)
		require.ErrorContains(t, err, "no alias of this mount", mount)
	}
	// A role that does not know its mount knows none of its aliases.
	nowhere := aliasRole(func(r *Role) { r.MountAccessor = "" })
	_, err := of(t, nowhere, "{{alias-name()}}", Entity{ID: "id", Name: "ann", Aliases: []Alias{{Name: "web"}}})
	require.ErrorContains(t, err, "no alias of this mount")
}
