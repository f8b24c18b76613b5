// Package roles says what a verified identity gets: whether a role takes it
// (its bindings), under which alias, and which NATS user it becomes (its user
// template).
//
// A [Role] is what is stored. [Role.Compile] checks it once and makes it ready;
// a login then is [Compiled.Bind] and [Compiled.Render]. The package is pure: it
// does no I/O, and what it compiles may be used by many goroutines at once.
//
// # Templates
//
// user_name, and in user_template the subjects and tags, may have placeholders:
//
//	{{name()}} {{subject()}} {{tag(key)}}                    the NATS user
//	{{account-name()}} {{account-subject()}} {{account-tag(key)}}
//	{{claim(name)}} {{claim(/json/pointer)}} {{metadata(key)}}  roles of an issuer
//	{{entity-name()}} {{entity-id()}} {{entity-metadata(key)}} {{groups()}}
//	{{alias-name()}} {{alias-name(accessor)}} {{alias-issuer()}} {{alias-metadata(key)}}
//	                                                         roles of type vault
//
// Each stands for one subject token, or for several where the value is a list:
// then the text renders once for each, and for every combination of several
// lists. Spelled alike, two placeholders of a text stand for the same value. A
// value that is not one subject token is refused, and so is the identity;
// {{claim(x)|escape}} percent-encodes what cannot stand in one. Strings, whole
// numbers and booleans are values.
//
// At the beginning of an allowed subject a value may not begin with $ or _, since
// those subjects are NATS's own; nor may a name or a tag's value in a scoped role,
// whose template can come to put them there. A tag's key, before its first colon,
// is always literal; literal text of tags is lower-cased as NATS's tools do,
// values are not.
//
// The permissions of a scoped role are expanded by nats-server, which knows the
// first six functions only.
package roles

// Values of the role's fields.
const (
	TypeJWT        = "jwt"        // role_type: tokens of an OIDC or JWT issuer
	TypeOIDC       = "oidc"       // role_type: people, whose browser such an issuer sends back
	TypeKubernetes = "kubernetes" // role_type: service account tokens
	TypeVault      = "vault"      // role_type: no token; the caller's Vault entity

	DefaultIssuer = "default" // issuer: the one that the mount's config holds

	BoundClaimsString = "string" // bound_claims_type: values are compared
	BoundClaimsGlob   = "glob"   // bound_claims_type: values are patterns in which * matches anything

	AliasServiceAccountUID  = "serviceaccount_uid"  // alias_name_source: the service account's UID
	AliasServiceAccountName = "serviceaccount_name" // alias_name_source: "<namespace>/<name>"

	UserKeyAny    = "any"    // user_key: the mount makes a key unless the workload brings one
	UserKeyClient = "client" // user_key: the workload must bring its key

	SigningKeyAccount = "account" // signing_key: the account's, which signs the users of other roles too
	SigningKeyRole    = "role"    // signing_key: one that belongs to the role

	CallbackClient = "client" // callback_mode: the browser comes back to the person's own program
	CallbackDirect = "direct" // callback_mode: to Vault, which the program polls
	CallbackDevice = "device" // callback_mode: the person types a code elsewhere (RFC 8628)
)

// A Role binds identities to an account and a user template. Its fields are a
// role's fields but Vault's token_* ones, under their names in the API; fields
// that Vault's JWT and Kubernetes methods have mean here what they mean there.
// Durations are in seconds.
type Role struct {
	RoleType string `json:"role_type"` // jwt, oidc, kubernetes or vault; follows from the kind of the role's issuer
	Issuer   string `json:"issuer,omitempty"`

	// Bindings of a JWT issuer's tokens.
	BoundAudiences       []string          `json:"bound_audiences,omitempty"`
	BoundSubject         string            `json:"bound_subject,omitempty"`
	BoundClaimsType      string            `json:"bound_claims_type,omitempty"`
	BoundClaims          map[string]any    `json:"bound_claims,omitempty"`
	UserClaim            string            `json:"user_claim,omitempty"`
	AliasName            string            `json:"alias_name,omitempty"` // template over claims, in place of UserClaim
	UserClaimJSONPointer bool              `json:"user_claim_json_pointer,omitempty"`
	GroupsClaim          string            `json:"groups_claim,omitempty"`
	ClaimMappings        map[string]string `json:"claim_mappings,omitempty"`    // claim -> metadata key
	ExpirationLeeway     int64             `json:"expiration_leeway,omitempty"` // 0: the default, 150; negative: none
	NotBeforeLeeway      int64             `json:"not_before_leeway,omitempty"` // 0: the default, 150; negative: none
	ClockSkewLeeway      int64             `json:"clock_skew_leeway,omitempty"` // 0: the default, 60; negative: none
	MaxAge               int64             `json:"max_age,omitempty"`           // 0: no bound
	// TokenPoliciesTemplateClaims says that VaultPolicies are templates.
	TokenPoliciesTemplateClaims bool `json:"token_policies_template_claims,omitempty"`

	// How people log in.
	AllowedRedirectURIs []string `json:"allowed_redirect_uris,omitempty"`
	OIDCScopes          []string `json:"oidc_scopes,omitempty"` // beside openid
	CallbackMode        string   `json:"callback_mode,omitempty"`
	PollInterval        int64    `json:"poll_interval,omitempty"` // seconds; 0: the issuer's, or 5
	VerboseOIDCLogging  bool     `json:"verbose_oidc_logging,omitempty"`

	// Bindings of a Kubernetes issuer's tokens.
	BoundServiceAccountNames             []string `json:"bound_service_account_names,omitempty"`
	BoundServiceAccountNamespaces        []string `json:"bound_service_account_namespaces,omitempty"`
	BoundServiceAccountNamespaceSelector string   `json:"bound_service_account_namespace_selector,omitempty"`
	Audience                             string   `json:"audience,omitempty"`
	AliasNameSource                      string   `json:"alias_name_source,omitempty"`

	// Of both: a CEL expression that must hold; see [Compiled.Bind].
	BoundExpression string `json:"bound_expression,omitempty"`

	// Bindings of a role of type vault, to the alias that this mount gave the
	// caller's entity: globs of its issuer and of its name without that. Without
	// BoundIssuers a role that reads the alias takes those of the default issuer.
	BoundIssuers []string `json:"bound_issuers,omitempty"`
	BoundAliases []string `json:"bound_aliases,omitempty"`
	// MountAccessor is what Vault calls this mount, by which its aliases are known.
	// The caller fills it in before Compile where it is not stored; see
	// [Compiled.ReadsAlias].
	MountAccessor string `json:"mount_accessor,omitempty"`

	// The NATS user.
	Account      string `json:"account"`
	UserTemplate string `json:"user_template,omitempty"` // NATS user claims as JSON, with placeholders
	UserName     string `json:"user_name,omitempty"`     // template; empty: the alias, escaped
	UserTTL      int64  `json:"user_ttl,omitempty"`      // 0: the token's
	Scoped       bool   `json:"scoped,omitempty"`
	SigningKey   string `json:"signing_key,omitempty"`    // account or role; a scoped role has its own in any case
	UserKey      string `json:"user_key,omitempty"`       // any or client
	UserKeyProof bool   `json:"user_key_proof,omitempty"` // a key that the workload brings must prove itself at a login, too

	CredentialsOnLogin bool `json:"credentials_on_login"`
	AllowSystemAccount bool `json:"allow_system_account,omitempty"`

	// TokenBoundCIDRs says that the role's token_bound_cidrs are set, which
	// counts as a bound value. The caller, who keeps the token_* fields, fills
	// it in before Compile.
	TokenBoundCIDRs bool `json:"-"`
	// VaultPolicies are the role's token_policies, for which that holds too.
	VaultPolicies []string `json:"-"`
}

// New returns a role with the defaults of its fields, so that a caller only
// sets what a request gives.
func New() *Role {
	r := &Role{CredentialsOnLogin: true}
	r.SetDefaults()
	return r
}

// SetDefaults gives the fields that take one of a few values their default where
// they are empty, so that a role reads back as what it does. A role_type that is
// to follow from the issuer has to be filled in before.
func (r *Role) SetDefaults() {
	for _, c := range r.choices() {
		if *c.value == "" {
			*c.value = c.known[0]
		}
	}
	if r.Issuer == "" && r.RoleType != TypeVault {
		r.Issuer = DefaultIssuer
	}
}

// A choice is a field that takes one of a few values.
type choice struct {
	field string
	value *string
	known []string // the first is the default
}

func (r *Role) choices() []choice {
	return []choice{
		{"role_type", &r.RoleType, []string{TypeJWT, TypeOIDC, TypeKubernetes, TypeVault}},
		{"bound_claims_type", &r.BoundClaimsType, []string{BoundClaimsString, BoundClaimsGlob}},
		{"alias_name_source", &r.AliasNameSource, []string{AliasServiceAccountUID, AliasServiceAccountName}},
		{"user_key", &r.UserKey, []string{UserKeyAny, UserKeyClient}},
		{"signing_key", &r.SigningKey, []string{SigningKeyAccount, SigningKeyRole}},
		{"callback_mode", &r.CallbackMode, []string{CallbackClient, CallbackDirect, CallbackDevice}},
	}
}

// OwnsKey says whether the role's users are signed with a key of its own, which
// lives in its account: when that goes, so do they, and nobody else.
func (r *Role) OwnsKey() bool { return r.Scoped || r.SigningKey == SigningKeyRole }

// A FieldError is a fault in a role's field, found by [Role.Compile].
type FieldError struct {
	Field string // the field's name in the API
	Fault string // what is wrong with its value; it continues the sentence that the name begins
}

func (e *FieldError) Error() string { return e.Field + " " + e.Fault }
