package roles

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// maxSeconds bounds a role's durations: a hundred years, which no one means,
// and which is far from what a time.Duration holds.
const maxSeconds = 100 * 365 * 24 * 60 * 60

// reservedMetadata are the metadata keys that a login sets itself, so that a
// claim cannot put something else under a name that audit lines rely on.
var reservedMetadata = []string{
	"role", "account", "account_public_key", "user_public_key",
	metadataServiceAccountName, metadataServiceAccountNamespace, metadataServiceAccountUID, metadataServiceAccountSecretName,
}

// Compiled is a role that was checked and made ready for logins. It does not
// change, so many goroutines may use it at once.
type Compiled struct {
	role Role

	userClaim  claims.Path
	aliasName  *aliasTemplate // instead of it, if not nil
	groups     claims.Path
	mappings   []mapping
	bound      []boundClaim
	selector   labels.Selector
	expression *expression
	policies   []policyTemplate

	user     *userPlan
	expected claims.Expected

	// What of a role of type vault asks for the caller's entity, and for the alias
	// that this mount gave it: a field or a placeholder. Empty if nothing does.
	wantsEntity string
	wantsAlias  string
	wantsGroups bool // whether a placeholder asks for the entity's groups
}

// A mapping copies a claim to a metadata key.
type mapping struct {
	claim claims.Path
	key   string
}

// Compile checks every field of the role and makes it ready for logins. Its
// errors are of type [*FieldError]. The role may be changed afterwards without
// an effect on what was compiled.
func (r *Role) Compile() (*Compiled, error) {
	c := &Compiled{role: *r}
	c.role.SetDefaults()
	for _, step := range []func() error{
		c.checkSizes, c.checkValues, c.checkApplicable, c.checkDurations, c.checkPeople, c.compileBindings, c.compileExpression, c.compilePolicies, c.compileUser, c.compileEntity,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	c.expected = c.expect()
	return c, nil
}

func badField(field, format string, args ...any) error {
	return &FieldError{Field: field, Fault: fmt.Sprintf(format, args...)}
}

// checkValues checks the fields that take one of a few values, and the names.
func (c *Compiled) checkValues() error {
	r := &c.role
	for _, choice := range r.choices() {
		if !slices.Contains(choice.known, *choice.value) {
			return badField(choice.field, "is %s: it must be one of %q", quote(*choice.value), choice.known)
		}
	}
	if strings.Contains(r.Issuer, ":") {
		return badField("issuer", "is %q: a name has no colon, which ends it in an alias", r.Issuer)
	}
	if r.Account == "" {
		return badField("account", "is required: the NATS account that the role's users belong to")
	}
	return nil
}

// checkApplicable refuses fields that the role's type does not look at, so that
// no one relies on a binding that binds nothing.
func (c *Compiled) checkApplicable() error {
	r := &c.role
	tokens := []string{TypeJWT, TypeOIDC}
	takers := []string{TypeJWT, TypeOIDC, TypeKubernetes}
	for _, f := range []struct {
		name  string
		set   bool
		types []string
	}{
		{"issuer", r.Issuer != "", takers},
		{"bound_audiences", len(r.BoundAudiences) > 0, tokens},
		{"bound_subject", r.BoundSubject != "", tokens},
		{"bound_claims", len(r.BoundClaims) > 0, tokens},
		{"user_claim", r.UserClaim != "", tokens},
		{"alias_name", r.AliasName != "", tokens},
		{"groups_claim", r.GroupsClaim != "", tokens},
		{"claim_mappings", len(r.ClaimMappings) > 0, tokens},
		{"allowed_redirect_uris", len(r.AllowedRedirectURIs) > 0, []string{TypeOIDC}},
		{"oidc_scopes", len(r.OIDCScopes) > 0, []string{TypeOIDC}},
		{"callback_mode", r.CallbackMode != CallbackClient, []string{TypeOIDC}},
		{"poll_interval", r.PollInterval != 0, []string{TypeOIDC}},
		{"verbose_oidc_logging", r.VerboseOIDCLogging, []string{TypeOIDC}},
		{"max_age", r.MaxAge != 0, tokens},
		{"token_policies_template_claims", r.TokenPoliciesTemplateClaims, tokens},
		{"bound_service_account_names", len(r.BoundServiceAccountNames) > 0, []string{TypeKubernetes}},
		{"bound_service_account_namespaces", len(r.BoundServiceAccountNamespaces) > 0, []string{TypeKubernetes}},
		{"bound_service_account_namespace_selector", r.BoundServiceAccountNamespaceSelector != "", []string{TypeKubernetes}},
		{"audience", r.Audience != "", []string{TypeKubernetes}},
		{"bound_expression", r.BoundExpression != "", takers},
		{"bound_issuers", len(r.BoundIssuers) > 0, []string{TypeVault}},
		{"bound_aliases", len(r.BoundAliases) > 0, []string{TypeVault}},
		{"user_key_proof", r.UserKeyProof, takers}, // creds/:role demands it anyway
	} {
		if f.set && !slices.Contains(f.types, r.RoleType) {
			return badField(f.name, "is set, but a role of type %s has no use for it", r.RoleType)
		}
	}
	return nil
}

func (c *Compiled) checkDurations() error {
	r := &c.role
	for _, f := range []struct {
		name    string
		seconds int64
		least   int64
	}{
		{"user_ttl", r.UserTTL, 0},
		{"max_age", r.MaxAge, 0},
		{"poll_interval", r.PollInterval, 0},
		{"expiration_leeway", r.ExpirationLeeway, -maxSeconds},
		{"not_before_leeway", r.NotBeforeLeeway, -maxSeconds},
		{"clock_skew_leeway", r.ClockSkewLeeway, -maxSeconds},
	} {
		if f.seconds < 0 && f.least == 0 {
			return badField(f.name, "is negative: %d seconds", f.seconds)
		}
		if f.seconds < f.least || f.seconds > maxSeconds {
			return badField(f.name, "is too long: %d seconds, and the most is %d", f.seconds, int64(maxSeconds))
		}
	}
	return nil
}

func (c *Compiled) compileBindings() error {
	switch c.role.RoleType {
	case TypeJWT, TypeOIDC:
		return c.compileJWT()
	case TypeKubernetes:
		return c.compileKubernetes()
	}
	return nil
}

// compileJWT makes the bindings of the JWT method ready.
func (c *Compiled) compileJWT() error {
	r := &c.role
	switch {
	case r.UserClaim == "" && r.AliasName == "":
		return badField("user_claim", "is required: the claim whose value becomes the alias; or alias_name, for several claims")
	case r.UserClaim != "" && r.AliasName != "":
		return badField("alias_name", "is set beside user_claim, and one of them can name the alias: clear the other")
	}
	// Without user_claim_json_pointer a slash is part of the claim's name.
	c.userClaim = claims.Named(r.UserClaim)
	err := c.compileAliasName()
	if err != nil {
		return err
	}
	if r.UserClaimJSONPointer && r.UserClaim != "" {
		if c.userClaim, err = claims.ParsePath(r.UserClaim); err != nil {
			return badField("user_claim", "%q %s", r.UserClaim, err)
		}
	}
	if r.GroupsClaim != "" {
		if c.groups, err = claims.ParsePath(r.GroupsClaim); err != nil {
			return badField("groups_claim", "%q %s", r.GroupsClaim, err)
		}
	}
	if c.mappings, err = compileMappings(r.ClaimMappings); err != nil {
		return err
	}
	if c.bound, err = compileBoundClaims(r.BoundClaims, r.BoundClaimsType == BoundClaimsGlob); err != nil {
		return err
	}
	// A person's ID token is made for the mount in any case, as in the JWT method.
	if r.RoleType == TypeJWT && len(r.BoundAudiences) == 0 && r.BoundSubject == "" && len(r.BoundClaims) == 0 && !r.TokenBoundCIDRs && r.BoundExpression == "" {
		return badField("bound_audiences", "and every other binding are empty: "+
			"a role needs at least one of bound_audiences, bound_subject, bound_claims, bound_expression and token_bound_cidrs")
	}
	if slices.Contains(r.BoundAudiences, "") {
		return badField("bound_audiences", "has an empty value")
	}
	return nil
}

func compileMappings(claimMappings map[string]string) ([]mapping, error) {
	mappings := make([]mapping, 0, len(claimMappings))
	source := make(map[string]string, len(claimMappings))
	for _, claim := range slices.Sorted(maps.Keys(claimMappings)) {
		key := claimMappings[claim]
		path, err := claims.ParsePath(claim)
		switch {
		case err != nil:
			return nil, badField("claim_mappings", "has the claim %q, which %s", claim, err)
		case key == "":
			return nil, badField("claim_mappings", "maps %q to no metadata key", claim)
		case slices.Contains(reservedMetadata, key):
			return nil, badField("claim_mappings", "maps %q to the metadata key %q, which is reserved", claim, key)
		case source[key] != "":
			return nil, badField("claim_mappings", "maps %q and %q to the same metadata key %q", source[key], claim, key)
		}
		source[key] = claim
		mappings = append(mappings, mapping{claim: path, key: key})
	}
	return mappings, nil
}

// Expected returns what the role demands of a token beyond its signature. It is
// the caller's to read, not to change.
func (c *Compiled) Expected() claims.Expected { return c.expected }

func (c *Compiled) expect() claims.Expected {
	r := &c.role
	want := claims.Expected{
		Audiences:        slices.Clone(r.BoundAudiences),
		ExpirationLeeway: seconds(r.ExpirationLeeway),
		NotBeforeLeeway:  seconds(r.NotBeforeLeeway),
		ClockSkewLeeway:  seconds(r.ClockSkewLeeway),
		MaxAge:           seconds(r.MaxAge),
	}
	if r.Audience != "" {
		want.Audiences = []string{r.Audience}
	}
	if r.RoleType == TypeKubernetes {
		want.ServiceAccount = c.couldTake
		want.NamespaceLabels = c.needsLabels
	}
	return want
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// Scope returns the template of the scoped signing key that a scoped role owns:
// what nats-server gives its users, with the functions for it to expand. It is
// nil for a role that is not scoped.
func (c *Compiled) Scope() *jwt.UserPermissionLimits {
	if !c.role.Scoped {
		return nil
	}
	return c.user.scope()
}
