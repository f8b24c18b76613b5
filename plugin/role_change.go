package plugin

import (
	"errors"
	"time"

	sockaddr "github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/tokenutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

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
	setString(d, "alias_name", &e.AliasName)
	setBool(d, "user_claim_json_pointer", &e.UserClaimJSONPointer)
	setString(d, "groups_claim", &e.GroupsClaim)
	if v, ok := d.GetOk("claim_mappings"); ok {
		e.ClaimMappings = v.(map[string]string)
	}
	setSeconds(d, "expiration_leeway", &e.ExpirationLeeway)
	setSeconds(d, "not_before_leeway", &e.NotBeforeLeeway)
	setSeconds(d, "clock_skew_leeway", &e.ClockSkewLeeway)
	setSeconds(d, "max_age", &e.MaxAge)
	setStrings(d, "allowed_redirect_uris", &e.AllowedRedirectURIs)
	setStrings(d, "oidc_scopes", &e.OIDCScopes)
	setString(d, "callback_mode", &e.CallbackMode)
	if v, ok := d.GetOk("poll_interval"); ok {
		e.PollInterval = v.(int64)
	}
	setBool(d, "verbose_oidc_logging", &e.VerboseOIDCLogging)
	setStrings(d, "bound_service_account_names", &e.BoundServiceAccountNames)
	setStrings(d, "bound_service_account_namespaces", &e.BoundServiceAccountNamespaces)
	setString(d, "bound_service_account_namespace_selector", &e.BoundServiceAccountNamespaceSelector)
	setString(d, "audience", &e.Audience)
	setString(d, "alias_name_source", &e.AliasNameSource)
	setString(d, "bound_expression", &e.BoundExpression)
	setStrings(d, "bound_issuers", &e.BoundIssuers)
	setStrings(d, "bound_aliases", &e.BoundAliases)
	setString(d, "account", &e.Account)
	setString(d, "user_template", &e.UserTemplate)
	setString(d, "user_name", &e.UserName)
	setSeconds(d, "user_ttl", &e.UserTTL)
	setBool(d, "token_policies_template_claims", &e.TokenPoliciesTemplateClaims)
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
			return fault.In(field, "is negative: %s", ttl)
		}
	}
	for _, cidr := range e.TokenParams.TokenBoundCIDRs {
		// What is no address is taken for the path of a Unix socket, and shown in
		// quotes.
		if cidr.Type() == sockaddr.TypeUnix {
			return fault.In(e.asWritten("bound_cidrs"), "has %s, which is not a CIDR block", cidr.String())
		}
	}
	if e.TokenNumUses < 0 {
		return fault.In(e.asWritten("num_uses"), "is negative: %d", e.TokenNumUses)
	}
	if e.TokenMaxTTL > 0 && e.TokenTTL > e.TokenMaxTTL {
		return fault.In(e.asWritten("ttl"), "is %s, more than %s, which is %s", e.TokenTTL, e.asWritten("max_ttl"), e.TokenMaxTTL)
	}
	return nil
}

// asWritten is the name under which a token parameter was written: the older one,
// or that with token_ in front.
func (e *roleEntry) asWritten(older string) string {
	if e.older()[older] {
		return older
	}
	return "token_" + older
}
