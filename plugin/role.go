package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	sockaddr "github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/tokenutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

const rolePrefix = "role/"

// roleEntry is a role in storage.
type roleEntry struct {
	roles.Role
	tokenutil.TokenParams

	// The token parameters under the names of older Vault versions, kept only to
	// be read back by whoever wrote them so.
	Policies   []string                      `json:"policies,omitempty"`
	NumUses    int                           `json:"num_uses,omitempty"`
	TTL        time.Duration                 `json:"ttl,omitempty"`
	MaxTTL     time.Duration                 `json:"max_ttl,omitempty"`
	Period     time.Duration                 `json:"period,omitempty"`
	BoundCIDRs []*sockaddr.SockAddrMarshaler `json:"bound_cidrs,omitempty"`

	// Former are the places that the role has moved from and not been cleared out
	// of yet.
	Former []place `json:"former,omitempty"`
}

// place is where a role has left its marks: in its account's and its issuer's
// lists of users, and maybe with a signing key in the account.
type place struct {
	Account string `json:"account"`
	Issuer  string `json:"issuer,omitempty"`
	OwnsKey bool   `json:"owns_key,omitempty"`
}

func (e *roleEntry) place() place { return place{e.Account, e.Issuer, e.OwnsKey()} }

func newRoleEntry() *roleEntry {
	return &roleEntry{Role: *roles.New(), TokenParams: tokenutil.TokenParams{}}
}

// role is a roleEntry ready for use.
type role struct {
	name     string
	entry    *roleEntry
	compiled *roles.Compiled
}

// signer names the signing key of the role's users as account.signer takes it:
// the role's own if it has one, else the account's.
func (r *role) signer() signerName {
	if r.entry.OwnsKey() {
		return signerName{role: r.name, scoped: r.entry.Scoped}
	}
	return plainSigner
}

func (e *roleEntry) compile(name string) (*role, error) {
	e.Role.TokenBoundCIDRs = len(e.TokenParams.TokenBoundCIDRs) > 0
	compiled, err := e.Role.Compile()
	if err != nil {
		return nil, err
	}
	return &role{name: name, entry: e, compiled: compiled}, nil
}

// userTTL is the role's user_ttl; 0 stands for the token's.
func (e *roleEntry) userTTL() time.Duration { return time.Duration(e.UserTTL) * time.Second }

// readRole returns the role of that name as it is stored, nil if there is none.
// The numbers in its bound_claims stay as they were written.
func readRole(ctx context.Context, s logical.Storage, name string) (*roleEntry, error) {
	stored, err := getEntry(ctx, s, rolePrefix+name)
	if stored == nil || err != nil {
		return nil, err
	}
	entry := new(roleEntry)
	if err := stored.DecodeJSON(entry); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", stored.Key, err)
	}
	return entry, nil
}

// role returns the role of that name ready for use, nil if there is none.
func (b *backend) role(ctx context.Context, s logical.Storage, name string) (*role, error) {
	return b.roles.get(ctx, name, func(ctx context.Context, name string) (*role, error) {
		entry, err := readRole(ctx, s, name)
		if entry == nil || err != nil {
			return nil, err
		}
		return entry.compile(name)
	})
}

// setRoleType gives the role the type of its issuer, or refuses a given one
// that contradicts it.
func (b *backend) setRoleType(ctx context.Context, s logical.Storage, entry *roleEntry) error {
	if entry.RoleType == roles.TypeVault {
		if entry.Issuer != "" {
			return badField("issuer", "%q is set on a role of type vault, whose identities are Vault entities", entry.Issuer)
		}
		return nil
	}
	issuer, err := readIssuer(ctx, s, entry.Issuer)
	if err != nil {
		return err
	}
	if issuer == nil {
		if entry.Issuer == defaultIssuer {
			return badField("issuer", "%q is not configured: write a key source to config first", entry.Issuer)
		}
		return badField("issuer", "%q does not exist: write it at issuer/%s first", entry.Issuer, entry.Issuer)
	}
	kind := string(issuer.kind()) // which roles call their type
	if entry.RoleType == "" {
		entry.RoleType = kind
	}
	if entry.RoleType != kind {
		return badField("role_type", "%q contradicts issuer %q, which is of kind %s", entry.RoleType, entry.Issuer, kind)
	}
	return nil
}

// giveKey makes the role's own signing key in its account what the role is now.
// It comes before the role is stored, and may refuse it.
func (b *backend) giveKey(ctx context.Context, s logical.Storage, role *role) error {
	if !role.entry.OwnsKey() {
		return nil
	}
	return b.chain.setScope(ctx, s, role.entry.Account, role.name, role.compiled.Scope())
}

// apply changes the fields that were given.
func (e *roleEntry) apply(req *logical.Request, d *framework.FieldData) error {
	before := e.Role
	setString(d, "role_type", &e.RoleType)
	setString(d, "issuer", &e.Issuer)
	setStrings(d, "bound_audiences", &e.BoundAudiences)
	setString(d, "bound_subject", &e.BoundSubject)
	setString(d, "bound_claims_type", &e.BoundClaimsType)
	if v, ok := d.GetOk("bound_claims"); ok {
		e.BoundClaims = v.(map[string]any)
	}
	setString(d, "user_claim", &e.UserClaim)
	setBool(d, "user_claim_json_pointer", &e.UserClaimJSONPointer)
	setString(d, "groups_claim", &e.GroupsClaim)
	if v, ok := d.GetOk("claim_mappings"); ok {
		e.ClaimMappings = v.(map[string]string)
	}
	setSeconds(d, "expiration_leeway", &e.ExpirationLeeway)
	setSeconds(d, "not_before_leeway", &e.NotBeforeLeeway)
	setSeconds(d, "clock_skew_leeway", &e.ClockSkewLeeway)
	setSeconds(d, "max_age", &e.MaxAge)
	setStrings(d, "bound_service_account_names", &e.BoundServiceAccountNames)
	setStrings(d, "bound_service_account_namespaces", &e.BoundServiceAccountNamespaces)
	setString(d, "bound_service_account_namespace_selector", &e.BoundServiceAccountNamespaceSelector)
	setString(d, "audience", &e.Audience)
	setString(d, "alias_name_source", &e.AliasNameSource)
	setString(d, "bound_expression", &e.BoundExpression)
	setString(d, "account", &e.Account)
	setString(d, "user_template", &e.UserTemplate)
	setString(d, "user_name", &e.UserName)
	setSeconds(d, "user_ttl", &e.UserTTL)
	setBool(d, "scoped", &e.Scoped)
	setString(d, "signing_key", &e.SigningKey)
	setString(d, "user_key", &e.UserKey)
	setBool(d, "user_key_proof", &e.UserKeyProof)
	setBool(d, "credentials_on_login", &e.CredentialsOnLogin)
	setBool(d, "allow_system_account", &e.AllowSystemAccount)
	e.followIssuer(&before, d)
	return e.applyToken(req, d)
}

// followIssuer keeps type and issuer in step when only one of them was given: a
// role that moves to another issuer takes its type from it, and a role of type
// vault has none.
func (e *roleEntry) followIssuer(before *roles.Role, d *framework.FieldData) {
	_, typeGiven := d.GetOk("role_type")
	_, issuerGiven := d.GetOk("issuer")
	if !typeGiven && (issuerGiven || before.Account == "") && e.RoleType != roles.TypeVault {
		e.RoleType = ""
	}
	if issuerGiven && e.Issuer == "" && e.RoleType != roles.TypeVault {
		e.Issuer = defaultIssuer
	}
	if e.RoleType == roles.TypeVault && !issuerGiven {
		e.Issuer = ""
	}
	if before.RoleType == roles.TypeVault && e.RoleType != roles.TypeVault && e.Issuer == "" {
		e.Issuer = defaultIssuer
	}
}

// applyToken changes Vault's own token parameters, through the sdk's helper.
func (e *roleEntry) applyToken(req *logical.Request, d *framework.FieldData) error {
	aliasMetadata := e.AliasMetadata
	if err := e.ParseTokenFields(req, d); err != nil {
		return userFault(err)
	}
	if _, ok := d.GetOk("alias_metadata"); !ok {
		e.AliasMetadata = aliasMetadata // the helper forgets it when it is not given
	}
	if err := errors.Join(
		tokenutil.UpgradeValue(d, "policies", "token_policies", &e.Policies, &e.TokenPolicies),
		tokenutil.UpgradeValue(d, "bound_cidrs", "token_bound_cidrs", &e.BoundCIDRs, &e.TokenParams.TokenBoundCIDRs),
		tokenutil.UpgradeValue(d, "num_uses", "token_num_uses", &e.NumUses, &e.TokenNumUses),
		tokenutil.UpgradeValue(d, "ttl", "token_ttl", &e.TTL, &e.TokenTTL),
		tokenutil.UpgradeValue(d, "max_ttl", "token_max_ttl", &e.MaxTTL, &e.TokenMaxTTL),
		tokenutil.UpgradeValue(d, "period", "token_period", &e.Period, &e.TokenPeriod),
	); err != nil {
		return userFault(err)
	}
	return e.checkToken()
}

// checkToken checks what the sdk's helper does not when the older names are
// used.
func (e *roleEntry) checkToken() error {
	for field, ttl := range map[string]time.Duration{
		"token_ttl":              e.TokenTTL,
		"token_max_ttl":          e.TokenMaxTTL,
		"token_period":           e.TokenPeriod,
		"token_explicit_max_ttl": e.TokenExplicitMaxTTL,
	} {
		if ttl < 0 {
			return badField(field, "is negative: %s", ttl)
		}
	}
	for _, cidr := range e.TokenParams.TokenBoundCIDRs {
		// What is no address is taken for the path of a Unix socket.
		if cidr.Type() == sockaddr.TypeUnix {
			return badField("token_bound_cidrs", "has %q, which is not a CIDR block", cidr.String())
		}
	}
	if e.TokenNumUses < 0 {
		return badField("token_num_uses", "is negative: %d", e.TokenNumUses)
	}
	if e.TokenMaxTTL > 0 && e.TokenTTL > e.TokenMaxTTL {
		return badField("token_ttl", "is %s, more than token_max_ttl, which is %s", e.TokenTTL, e.TokenMaxTTL)
	}
	return nil
}

// response gives all that was written.
func (e *roleEntry) response() (map[string]any, error) {
	template, err := templateResponse(e.UserTemplate)
	if err != nil {
		return nil, err
	}
	data := map[string]any{
		"role_type":                        e.RoleType,
		"issuer":                           e.Issuer,
		"bound_audiences":                  orEmpty(e.BoundAudiences),
		"bound_subject":                    e.BoundSubject,
		"bound_claims_type":                e.BoundClaimsType,
		"bound_claims":                     e.BoundClaims,
		"user_claim":                       e.UserClaim,
		"user_claim_json_pointer":          e.UserClaimJSONPointer,
		"groups_claim":                     e.GroupsClaim,
		"claim_mappings":                   e.ClaimMappings,
		"expiration_leeway":                e.ExpirationLeeway,
		"not_before_leeway":                e.NotBeforeLeeway,
		"clock_skew_leeway":                e.ClockSkewLeeway,
		"max_age":                          e.MaxAge,
		"bound_service_account_names":      orEmpty(e.BoundServiceAccountNames),
		"bound_service_account_namespaces": orEmpty(e.BoundServiceAccountNamespaces),
		"bound_service_account_namespace_selector": e.BoundServiceAccountNamespaceSelector,
		"audience":             e.Audience,
		"alias_name_source":    e.AliasNameSource,
		"bound_expression":     e.BoundExpression,
		"account":              e.Account,
		"user_template":        template,
		"user_name":            e.UserName,
		"user_ttl":             e.UserTTL,
		"scoped":               e.Scoped,
		"signing_key":          e.SigningKey,
		"user_key":             e.UserKey,
		"user_key_proof":       e.UserKeyProof,
		"credentials_on_login": e.CredentialsOnLogin,
		"allow_system_account": e.AllowSystemAccount,
	}
	e.PopulateTokenData(data)
	maps.Copy(data, e.olderNames(data))
	return data, nil
}

// olderNames are the token parameters that were written under their older
// names.
func (e *roleEntry) olderNames(data map[string]any) map[string]any {
	older := map[string]any{}
	for name, set := range map[string]bool{
		"policies":    len(e.Policies) > 0,
		"bound_cidrs": len(e.BoundCIDRs) > 0,
		"ttl":         e.TTL > 0,
		"max_ttl":     e.MaxTTL > 0,
		"period":      e.Period > 0,
		"num_uses":    e.NumUses > 0,
	} {
		if set {
			older[name] = data["token_"+name]
		}
	}
	return older
}

// roleFields are the fields of a role but its name.
func roleFields() map[string]*framework.FieldSchema {
	fields := roleTokenFields()
	maps.Copy(fields, map[string]*framework.FieldSchema{
		"role_type": {
			Type:          framework.TypeString,
			AllowedValues: []any{roles.TypeJWT, roles.TypeKubernetes, roles.TypeVault},
			Description:   `"jwt" or "kubernetes", which follow from the issuer, or "vault" for a role without issuer that callers with a Vault token use at creds/:role.`,
		},
		"issuer": {
			Type:        framework.TypeLowerCaseString,
			Default:     roles.DefaultIssuer,
			Description: `Issuer whose tokens the role takes: "default", the one that config holds, or the name of one under issuer/.`,
		},
		"bound_audiences": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Values of the "aud" claim that are accepted; any match is sufficient. A token with an audience is refused when none is bound.`,
		},
		"bound_subject": {
			Type:        framework.TypeString,
			Description: `Value of the "sub" claim that is accepted.`,
		},
		"bound_claims_type": {
			Type:          framework.TypeString,
			Default:       roles.BoundClaimsString,
			AllowedValues: []any{roles.BoundClaimsString, roles.BoundClaimsGlob},
			Description:   `How values of bound_claims are compared: "string", or "glob", in which * matches anything.`,
		},
		"bound_claims": {
			Type:        framework.TypeMap,
			Description: `Claims that a token must have, each with its value or a list of values of which one must match. A name that begins with / is a JSON pointer. A JSON object, or a string that holds one.`,
		},
		"user_claim": {
			Type:        framework.TypeString,
			Description: `Claim whose value becomes the name of the identity alias.`,
		},
		"user_claim_json_pointer": {
			Type:        framework.TypeBool,
			Description: `Take user_claim as a JSON pointer.`,
		},
		"groups_claim": {
			Type:        framework.TypeString,
			Description: `Claim, or JSON pointer to one, whose values become the names of group aliases: as they are for the default issuer, as issuer:<name>:<group> for another.`,
		},
		"claim_mappings": {
			Type:        framework.TypeKVPairs,
			Description: `Claims, or JSON pointers to them, that are copied into metadata: a map from claim to metadata key.`,
		},
		"expiration_leeway": {
			Type:        framework.TypeSignedDurationSecond,
			Description: `How long a token without "exp" is accepted after its "nbf" or "iat", in seconds. 0 stands for 150; -1 turns it off.`,
		},
		"not_before_leeway": {
			Type:        framework.TypeSignedDurationSecond,
			Description: `How long before its "exp" a token with neither "nbf" nor "iat" is accepted, in seconds. 0 stands for 150; -1 turns it off.`,
		},
		"clock_skew_leeway": {
			Type:        framework.TypeSignedDurationSecond,
			Description: `How far the issuer's clock may be off, for all time claims, in seconds. 0 stands for 60; -1 turns it off.`,
		},
		"max_age": {
			Type:        framework.TypeDurationSecond,
			Description: `How long ago the token's bearer may have been authenticated, in seconds: its "auth_time", else its "iat". 0 stands for no bound.`,
		},
		"bound_service_account_names": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Names of the service accounts that are accepted; globs, and "*" for all.`,
		},
		"bound_service_account_namespaces": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Namespaces of the service accounts that are accepted; globs, and "*" for all.`,
		},
		"bound_service_account_namespace_selector": {
			Type:        framework.TypeString,
			Description: `Label selector, as a JSON or YAML object, of the namespaces that are accepted besides bound_service_account_namespaces.`,
		},
		"audience": {
			Type:        framework.TypeString,
			Description: `Audience that a service account token must be made for.`,
		},
		"alias_name_source": {
			Type:          framework.TypeString,
			Default:       roles.AliasServiceAccountUID,
			AllowedValues: []any{roles.AliasServiceAccountUID, roles.AliasServiceAccountName},
			Description:   `What names the identity alias of a service account: "serviceaccount_uid", or "serviceaccount_name" for <namespace>/<name>, which a re-created account inherits.`,
		},
		"bound_expression": {
			Type:        framework.TypeString,
			Description: `CEL expression over claims, issuer, groups and now that must be true.`,
		},
		"account": {
			Type:        framework.TypeString,
			Description: `Name of the NATS account, written at jwt/:name, that the role's users belong to. Default: the default_account of config.`,
		},
		"user_template": {
			Type:        framework.TypeString,
			Description: `The NATS user as a JSON object, or a string that holds one: pub, sub, resp, subs, data, payload, src, times, times_location, bearer_token, allowed_connection_types, proxy_required, tags. Its strings can hold placeholders such as {{claim(project_path)|escape}}. Default: a user without restrictions.`,
		},
		"user_name": {
			Type:        framework.TypeString,
			Description: `Template of the NATS user's name. Default: the alias.`,
		},
		"user_ttl": {
			Type:        framework.TypeDurationSecond,
			Description: `How long the NATS user JWT lives; never longer than the token or the mount allow. Default: as long as the token.`,
		},
		"scoped": {
			Type:        framework.TypeBool,
			Description: `Make the template the scope of a signing key that belongs to the role: a change of the role then changes at once what its connected users may do.`,
		},
		"signing_key": {
			Type:          framework.TypeString,
			Default:       roles.SigningKeyAccount,
			AllowedValues: []any{roles.SigningKeyAccount, roles.SigningKeyRole},
			Description:   `Key that signs the role's users: "account", the account's, which signs those of other roles too, or "role", one of the role's own, so that everyone of the role can be revoked at jwt/:name/revoke. A scoped role has its own in any case. Users signed with a former key are cut off when the role's own key goes.`,
		},
		"user_key": {
			Type:          framework.TypeString,
			Default:       roles.UserKeyAny,
			AllowedValues: []any{roles.UserKeyAny, roles.UserKeyClient},
			Description:   `"any": a key is made unless the workload brings its own as user_public_key; "client": the workload must bring its own.`,
		},
		"user_key_proof": {
			Type:        framework.TypeBool,
			Description: `Demand that a key that the workload brings has signed its token: the user_key_signature of the login.`,
		},
		"credentials_on_login": {
			Type:        framework.TypeBool,
			Default:     true,
			Description: `Answer a login with NATS credentials. Set to false where two-phase login MFA is in use, which hands them out before the second factor is checked; they are then to be had at creds/:role.`,
		},
		"allow_system_account": {
			Type:        framework.TypeBool,
			Description: `Allow the role to give users of the system account.`,
		},
	})
	return fields
}

// roleResponse describes what reading a role answers.
func roleResponse() map[string]*framework.FieldSchema {
	fields := roleFields()
	template := *fields["user_template"]
	template.Type = framework.TypeMap
	fields["user_template"] = &template
	return fields
}

// templateResponse gives the template back as the object that it is.
func templateResponse(template string) (map[string]any, error) {
	if template == "" {
		return nil, nil
	}
	decoder := json.NewDecoder(strings.NewReader(template))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, fmt.Errorf("the stored user_template is not JSON: %w", err)
	}
	return object, nil
}
