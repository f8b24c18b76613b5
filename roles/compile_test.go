package roles

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

func TestCompileRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		role  *Role
		field string
		fault string // part of the error
	}{
		"an unknown role type": {
			jwtRole(func(r *Role) { r.RoleType = "saml" }), "role_type", `is "saml": it must be one of ["jwt" "oidc" "kubernetes" "vault"]`},
		"an unknown type of bound claims": {
			jwtRole(func(r *Role) { r.BoundClaimsType = "regexp" }), "bound_claims_type", `"glob"`},
		"an unknown source of the alias": {
			kubernetesRole(func(r *Role) { r.AliasNameSource = "name" }), "alias_name_source", `"serviceaccount_name"`},
		"an unknown kind of user key": {
			jwtRole(func(r *Role) { r.UserKey = "server" }), "user_key", `["any" "client"]`},
		"an issuer whose name could end early in an alias": {
			jwtRole(func(r *Role) { r.Issuer = "a:b" }), "issuer", "no colon"},
		"a role without an account": {
			jwtRole(func(r *Role) { r.Account = "" }), "account", "is required"},
		"a role without a user claim": {
			jwtRole(func(r *Role) { r.UserClaim = "" }), "user_claim", "is required"},
		"a user claim that is no JSON pointer": {
			jwtRole(func(r *Role) { r.UserClaim, r.UserClaimJSONPointer = "/a~2b", true }), "user_claim", "not a JSON pointer"},
		"a groups claim that is no JSON pointer": {
			jwtRole(func(r *Role) { r.GroupsClaim = "/a~" }), "groups_claim", "not a JSON pointer"},
		"a JWT role with no bound value": {
			jwtRole(func(r *Role) { r.BoundAudiences = nil }), "bound_audiences", "at least one"},
		"an empty audience": {
			jwtRole(func(r *Role) { r.BoundAudiences = []string{"vault", ""} }), "bound_audiences", "empty value"},
		"a bound claim that is an object": {
			jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"a": map[string]any{"b": "c"}} }), "bound_claims", `claim "a"`},
		"a bound claim that is null": {
			jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"a": nil} }), "bound_claims", `claim "a"`},
		"a bound claim that is an empty list": {
			jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"a": []any{}} }), "bound_claims", "empty list"},
		"a list in a bound claim's list": {
			jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"a": []any{[]any{"b"}}} }), "bound_claims", `claim "a"`},
		"a pattern that is not a string": {
			jwtRole(func(r *Role) {
				r.BoundClaims, r.BoundClaimsType = map[string]any{"a": []any{"x*", true}}, BoundClaimsGlob
			}), "bound_claims", "every value must be a string"},
		"a bound claim that is no JSON pointer": {
			jwtRole(func(r *Role) { r.BoundClaims = map[string]any{"/a~": "b"} }), "bound_claims", "not a JSON pointer"},
		"a mapped claim that is no JSON pointer": {
			jwtRole(func(r *Role) { r.ClaimMappings = map[string]string{"/a~": "b"} }), "claim_mappings", "not a JSON pointer"},
		"a mapping to metadata that a login sets": {
			jwtRole(func(r *Role) { r.ClaimMappings = map[string]string{"a": "role"} }), "claim_mappings", "reserved"},
		"a mapping to the account's metadata": {
			jwtRole(func(r *Role) { r.ClaimMappings = map[string]string{"a": "account"} }), "claim_mappings", "reserved"},
		"a template that makes every user too large": {
			jwtRole(template(publish(strings.Repeat("a", maxSize)))), "user_template", "more than the 65536 of a user"},
		"a scope that makes every user too large": {
			jwtRole(func(r *Role) { r.Scoped, r.UserTemplate = true, publish(strings.Repeat("a", maxSize)) }), "user_template", "more than the 65536 of a user"},
		"two mappings to one metadata key": {
			jwtRole(func(r *Role) { r.ClaimMappings = map[string]string{"a": "x", "b": "x"} }), "claim_mappings", `"a" and "b"`},
		"a mapping to no metadata key": {
			jwtRole(func(r *Role) { r.ClaimMappings = map[string]string{"a": ""} }), "claim_mappings", "no metadata key"},
		"a negative user TTL": {
			jwtRole(func(r *Role) { r.UserTTL = -1 }), "user_ttl", "negative"},
		"a user TTL of more than a century": {
			jwtRole(func(r *Role) { r.UserTTL = maxSeconds + 1 }), "user_ttl", "too long"},
		"a negative max age": {
			jwtRole(func(r *Role) { r.MaxAge = -1 }), "max_age", "negative"},
		"a leeway of more than a century": {
			jwtRole(func(r *Role) { r.ClockSkewLeeway = 1 << 62 }), "clock_skew_leeway", "too long"},
		"service accounts in a JWT role": {
			jwtRole(func(r *Role) { r.BoundServiceAccountNames = []string{"a"} }), "bound_service_account_names", "no use"},
		"bound claims in a Kubernetes role": {
			kubernetesRole(func(r *Role) { r.BoundClaims = map[string]any{"a": "b"} }), "bound_claims", "no use"},
		"a Kubernetes role without names": {
			kubernetesRole(func(r *Role) { r.BoundServiceAccountNames = nil }), "bound_service_account_names", "is required"},
		"a Kubernetes role without namespaces": {
			kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaces = nil }), "bound_service_account_namespaces", "is required"},
		"a Kubernetes role for every service account": {
			kubernetesRole(func(r *Role) {
				r.BoundServiceAccountNames, r.BoundServiceAccountNamespaces = []string{"*"}, []string{"*"}
			}), "bound_service_account_names", "every service account"},
		"a Kubernetes role for every service account by an empty selector": {
			kubernetesRole(func(r *Role) {
				r.BoundServiceAccountNames = []string{"*"}
				r.BoundServiceAccountNamespaceSelector = "{}"
			}), "bound_service_account_names", "every service account"},
		"a Kubernetes role for every service account by other patterns that match all": {
			kubernetesRole(func(r *Role) {
				r.BoundServiceAccountNames, r.BoundServiceAccountNamespaces = []string{"**"}, []string{"***"}
			}), "bound_service_account_names", "every service account"},
		"a Kubernetes role for every service account by such a pattern and an empty selector": {
			kubernetesRole(func(r *Role) {
				r.BoundServiceAccountNames, r.BoundServiceAccountNamespaceSelector = []string{"**"}, "{}"
			}), "bound_service_account_names", "every service account"},
		"a Kubernetes role for every service account by such patterns beside others": {
			kubernetesRole(func(r *Role) {
				r.BoundServiceAccountNames, r.BoundServiceAccountNamespaces = []string{"a", "**"}, []string{"b*", "**"}
			}), "bound_service_account_names", "every service account"},
		"a star beside other names": {
			kubernetesRole(func(r *Role) { r.BoundServiceAccountNames = []string{"a", "*"} }), "bound_service_account_names", "stand alone"},
		"a star beside other namespaces": {
			kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaces = []string{"*", "a"} }), "bound_service_account_namespaces", "stand alone"},
		"an empty namespace": {
			kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaces = []string{""} }), "bound_service_account_namespaces", "empty value"},
		"a selector that is none": {
			kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaceSelector = "{]" }), "bound_service_account_namespace_selector", "not a label selector"},
		"a selector with unknown keys": {
			kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaceSelector = `{"labels": {"a": "b"}}` }), "bound_service_account_namespace_selector", "not a label selector"},
		"a selector with expressions": {
			kubernetesRole(func(r *Role) {
				r.BoundServiceAccountNamespaceSelector = `{"matchExpressions": [{"key": "a", "operator": "Exists"}]}`
			}), "bound_service_account_namespace_selector", "only matchLabels"},
		"a selector with an impossible label": {
			kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaceSelector = `{"matchLabels": {"a": "b c"}}` }), "bound_service_account_namespace_selector", "not a label selector"},
		"an issuer in a role of type vault": {
			vaultRole(func(r *Role) { r.Issuer = DefaultIssuer }), "issuer", "no use"},
		"a bound expression in a role of type vault": {
			vaultRole(func(r *Role) { r.BoundExpression = "true" }), "bound_expression", "no use"},
		"a proof of possession in a role of type vault": {
			vaultRole(func(r *Role) { r.UserKeyProof = true }), "user_key_proof", "no use"},
		"an expression with a syntax error, and shows its place": {
			jwtRole(func(r *Role) { r.BoundExpression = "issuer ==\n == 'a'" }), "bound_expression", "line 2, column 2"},
		"an expression with an unknown variable": {
			jwtRole(func(r *Role) { r.BoundExpression = "subject == 'a'" }), "bound_expression", "line 1, column 1"},
		"an expression that is not a boolean": {
			jwtRole(func(r *Role) { r.BoundExpression = "issuer" }), "bound_expression", "gives string"},
		"an expression that may not be a boolean": {
			jwtRole(func(r *Role) { r.BoundExpression = "claims.admin" }), "bound_expression", "== true"},
		"an expression with a regular expression that is none": {
			jwtRole(func(r *Role) { r.BoundExpression = "issuer.matches('(')" }), "bound_expression", "missing closing )"},
		"a template that reads metadata to which no claim is mapped": {
			jwtRole(func(r *Role) { r.UserName = "{{metadata(team)}}" }), "claim_mappings", `maps no claim to "team"`},
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

func TestCompileAccepts(t *testing.T) {
	for name, role := range map[string]*Role{
		"a JWT role with an audience":       jwtRole(nil),
		"a JWT role without defaults":       {Account: "orders", UserClaim: "sub", BoundSubject: "runner"},
		"a JWT role bound by a subject":     jwtRole(func(r *Role) { r.BoundAudiences, r.BoundSubject = nil, "runner" }),
		"a JWT role bound by claims":        jwtRole(func(r *Role) { r.BoundAudiences, r.BoundClaims = nil, map[string]any{"a": "b"} }),
		"a JWT role bound by addresses":     jwtRole(func(r *Role) { r.BoundAudiences, r.TokenBoundCIDRs = nil, true }),
		"a JWT role bound by an expression": jwtRole(func(r *Role) { r.BoundAudiences, r.BoundExpression = nil, "issuer == 'a'" }),
		"a Kubernetes role":                 kubernetesRole(nil),
		"every name in one namespace":       kubernetesRole(func(r *Role) { r.BoundServiceAccountNames = []string{"*"} }),
		"one name in every namespace":       kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaces = []string{"*"} }),
		"every service account for which an expression holds": kubernetesRole(func(r *Role) {
			r.BoundServiceAccountNames, r.BoundServiceAccountNamespaces = []string{"*"}, []string{"*"}
			r.BoundExpression = "'system:serviceaccounts:ci' in groups"
		}),
		"every service account at some addresses": kubernetesRole(func(r *Role) {
			r.BoundServiceAccountNames, r.BoundServiceAccountNamespaces, r.TokenBoundCIDRs = []string{"*"}, []string{"**"}, true
		}),
		"a selector instead of namespaces": kubernetesRole(func(r *Role) {
			r.BoundServiceAccountNamespaces, r.BoundServiceAccountNamespaceSelector = nil, `{"matchLabels": {"a": "b"}}`
		}),
		"a selector in YAML":   kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaceSelector = "matchLabels:\n  a: b\n" }),
		"a role of type vault": vaultRole(nil),
		"negative leeways":     jwtRole(func(r *Role) { r.ExpirationLeeway, r.NotBeforeLeeway, r.ClockSkewLeeway = -1, -1, -1 }),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := role.Compile()
			require.NoError(t, err)
		})
	}
}

func TestAnEmptyChoiceIsItsDefault(t *testing.T) {
	emptied := *New()
	for _, choice := range emptied.choices() {
		*choice.value = ""
	}
	emptied.Issuer = ""
	emptied.SetDefaults()
	require.Equal(t, *New(), emptied)

	chosen := Role{RoleType: TypeKubernetes, Issuer: "a", BoundClaimsType: BoundClaimsGlob, AliasNameSource: AliasServiceAccountName,
		UserKey: UserKeyClient, SigningKey: SigningKeyRole, CallbackMode: CallbackDirect}
	filled := chosen
	filled.SetDefaults()
	require.Equal(t, chosen, filled)

	vault := Role{RoleType: TypeVault}
	vault.SetDefaults()
	require.Empty(t, vault.Issuer, "a role of type vault has no issuer")
}

func TestTheRoleMayChangeAfterItWasCompiled(t *testing.T) {
	r := jwtRole(nil)
	c := compile(t, r)
	r.RoleType, r.Issuer = TypeVault, "other"
	_, err := c.Bind(token(t, `{}`), now)
	require.NoError(t, err)
}

func TestExpectedIsWhatTheRoleDemandsOfAToken(t *testing.T) {
	c := compile(t, jwtRole(func(r *Role) {
		r.BoundAudiences = []string{"vault", "nats"}
		r.ExpirationLeeway, r.NotBeforeLeeway, r.ClockSkewLeeway, r.MaxAge = 10, -1, 0, 3600
	}))
	require.Equal(t, claims.Expected{
		Audiences:        []string{"vault", "nats"},
		ExpirationLeeway: 10 * time.Second, NotBeforeLeeway: -time.Second, MaxAge: time.Hour,
	}, c.Expected())

	c = compile(t, kubernetesRole(func(r *Role) { r.BoundServiceAccountNamespaceSelector = `{"matchLabels": {"a": "b"}}` }))
	want := c.Expected()
	require.NotNil(t, want.ServiceAccount)
	require.NotNil(t, want.NamespaceLabels)
	want.ServiceAccount, want.NamespaceLabels = nil, nil
	require.Equal(t, claims.Expected{Audiences: []string{"vault"}}, want)

	require.Empty(t, compile(t, kubernetesRole(func(r *Role) { r.Audience = "" })).Expected().Audiences)
}

func TestExpectedTellsWhichServiceAccountsAreWorthAReview(t *testing.T) {
	selector := func(r *Role) { r.BoundServiceAccountNamespaceSelector = `{"matchLabels": {"a": "b"}}` }
	for name, test := range map[string]struct {
		role            func(*Role)
		namespace, name string
		fault           string // empty: it is worth one
	}{
		"the bound one":                              {nil, "ci", "builder", ""},
		"one that patterns match":                    {func(r *Role) { r.BoundServiceAccountNames = []string{"b*"} }, "ci", "builder", ""},
		"another name":                               {nil, "ci", "admin", `the service account name "admin" is none of the role's bound_service_account_names`},
		"another namespace":                          {nil, "prod", "builder", `the namespace "prod" is not one that the role binds`},
		"another namespace, which may have labels":   {selector, "prod", "builder", ""},
		"another name, whatever labels there may be": {selector, "prod", "admin", `the service account name "admin" is none of the role's bound_service_account_names`},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, kubernetesRole(test.role))
			err := c.Expected().ServiceAccount(test.namespace, test.name)
			if test.fault == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.fault)
			_, bound := c.Bind(serviceAccount(func(a *claims.ServiceAccount) { a.Namespace, a.Name = test.namespace, test.name }), now)
			require.Equal(t, bound, err)
		})
	}
	require.Nil(t, compile(t, jwtRole(nil)).Expected().ServiceAccount)
}

// A namespace that is listed is bound whatever its labels are, so a role does not
// depend on somebody being allowed to read them.
func TestLabelsAreAskedForOnlyIfTheListHasNotTheNamespace(t *testing.T) {
	const selector = `{"matchLabels": {"a": "b"}}`
	for name, test := range map[string]struct {
		namespaces []string
		selector   string
		needed     bool // for the namespace ci
	}{
		"a list with it":                {[]string{"x", "ci"}, selector, false},
		"a pattern that matches it":     {[]string{"c*"}, selector, false},
		"any":                           {[]string{"*"}, selector, false},
		"a list without it":             {[]string{"x"}, selector, true},
		"no list":                       {nil, selector, true},
		"a list with it, no selector":   {[]string{"ci"}, "", false},
		"a list without it no selector": {[]string{"x"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, kubernetesRole(func(r *Role) {
				r.BoundServiceAccountNamespaces, r.BoundServiceAccountNamespaceSelector = test.namespaces, test.selector
			}))
			require.Equal(t, test.needed, c.Expected().NamespaceLabels("ci"))
			bind := func(labels map[string]string) error {
				_, err := c.Bind(serviceAccount(func(a *claims.ServiceAccount) { a.NamespaceLabels = labels }), now)
				return err
			}
			listed := !test.needed && c.Expected().ServiceAccount("ci", "builder") == nil
			require.Equal(t, listed, bind(nil) == nil, "labels are not known")
			require.Equal(t, listed, bind(map[string]string{"a": "c"}) == nil)
			require.Equal(t, listed || test.needed, bind(map[string]string{"a": "b"}) == nil)
		})
	}
	require.Nil(t, compile(t, jwtRole(nil)).Expected().NamespaceLabels)
}

func TestWarnings(t *testing.T) {
	for name, test := range map[string]struct {
		template string
		warning  string // part of the first; empty for none
	}{
		"no template grants everything":             {``, "every subject"},
		"no permissions grant everything":           {`{"payload": 10}`, "every subject"},
		"empty lists grant everything":              {`{"pub": {"allow": []}, "sub": {}}`, "every subject"},
		"full wildcards grant everything":           {`{"pub": {"allow": ["a", ">"]}, "sub": {"allow": [">"]}}`, "every subject"},
		"only pub restricted leaves sub open":       {`{"pub": {"allow": ["a"]}}`, "may subscribe to every"},
		"only sub restricted leaves pub open":       {`{"sub": {"allow": ["a"]}}`, "may publish to every"},
		"a denied subject is not everything":        {`{"pub": {"deny": ["a"]}, "sub": {"deny": ["a"]}}`, ""},
		"both restricted is nothing to warn of":     {`{"pub": {"allow": ["a.>"]}, "sub": {"allow": ["b.>"]}}`, ""},
		"a subscription that ends in a star":        {`{"pub": {"allow": ["a.*"]}, "sub": {"allow": ["a.*", "b.*.c", "d.>"]}}`, `sub.allow[0] of user_template is "a.*"`},
		"a star of which the rest is denied":        {`{"pub": {"allow": ["a"]}, "sub": {"allow": ["a.*"], "deny": ["a.*.>"]}}`, ""},
		"a star after a spaced placeholder":         {`{"pub": {"allow": ["a"]}, "sub": {"allow": ["in.{{ claim(p) }}.*"]}}`, `deny "in.{{claim(p)}}.*.>"`},
		"a star after a claim with a space":         {`{"pub": {"allow": ["a"]}, "sub": {"allow": ["in.{{claim(a b)}}.* {{claim(p)}}"]}}`, `deny "in.{{claim(a b)}}.*.>"`},
		"a star that is denied in another spelling": {`{"pub": {"allow": ["a"]}, "sub": {"allow": ["in.{{ claim(p) }}.*"], "deny": ["in.{{claim( p )}}.*.>"]}}`, ""},
		"a bearer token can be used by who has it":  {`{"pub": {"allow": ["a"]}, "sub": {"allow": ["a"]}, "bearer_token": true}`, "bearer_token"},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, jwtRole(func(r *Role) { r.UserTemplate = test.template }))
			if test.warning == "" {
				require.Empty(t, c.Warnings(nil))
				return
			}
			require.Len(t, c.Warnings(nil), 1)
			require.Contains(t, c.Warnings(nil)[0], test.warning)
		})
	}

	t.Run("a Kubernetes role without an audience", func(t *testing.T) {
		c := compile(t, kubernetesRole(func(r *Role) {
			r.Audience, r.UserTemplate = "", `{"pub": {"allow": ["a"]}, "sub": {"allow": ["a"]}}`
		}))
		require.Len(t, c.Warnings(nil), 1)
		require.Contains(t, c.Warnings(nil)[0], "audience")
	})
}
