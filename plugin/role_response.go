package plugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// roleResponse describes what reading a role answers.
func roleResponse() map[string]*framework.FieldSchema {
	fields := roleFields()
	template := *fields["user_template"]
	template.Type = framework.TypeMap
	fields["user_template"] = &template
	return fields
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
		"alias_name":                       e.AliasName,
		"user_claim_json_pointer":          e.UserClaimJSONPointer,
		"groups_claim":                     e.GroupsClaim,
		"claim_mappings":                   e.ClaimMappings,
		"expiration_leeway":                e.ExpirationLeeway,
		"not_before_leeway":                e.NotBeforeLeeway,
		"clock_skew_leeway":                e.ClockSkewLeeway,
		"max_age":                          e.MaxAge,
		"allowed_redirect_uris":            orEmpty(e.AllowedRedirectURIs),
		"oidc_scopes":                      orEmpty(e.OIDCScopes),
		"callback_mode":                    e.CallbackMode,
		"poll_interval":                    e.PollInterval,
		"verbose_oidc_logging":             e.VerboseOIDCLogging,
		"bound_service_account_names":      orEmpty(e.BoundServiceAccountNames),
		"bound_service_account_namespaces": orEmpty(e.BoundServiceAccountNamespaces),
		"bound_service_account_namespace_selector": e.BoundServiceAccountNamespaceSelector,
		"token_policies_template_claims":           e.TokenPoliciesTemplateClaims,
		"audience":                                 e.Audience,
		"alias_name_source":                        e.AliasNameSource,
		"bound_expression":                         e.BoundExpression,
		"bound_issuers":                            orEmpty(e.BoundIssuers),
		"bound_aliases":                            orEmpty(e.BoundAliases),
		"account":                                  e.Account,
		"user_template":                            template,
		"user_name":                                e.UserName,
		"user_ttl":                                 e.UserTTL,
		"scoped":                                   e.Scoped,
		"signing_key":                              e.SigningKey,
		"user_key":                                 e.UserKey,
		"user_key_proof":                           e.UserKeyProof,
		"credentials_on_login":                     e.CredentialsOnLogin,
		"allow_system_account":                     e.AllowSystemAccount,
	}
	e.PopulateTokenData(data)
	maps.Copy(data, e.olderNames(data))
	return data, nil
}

// olderNames are the token parameters that were written under their older
// names.
func (e *roleEntry) olderNames(data map[string]any) map[string]any {
	older := map[string]any{}
	for name, set := range e.older() {
		if set {
			older[name] = data["token_"+name]
		}
	}
	return older
}

// older says of each older name whether it was written under it.
func (e *roleEntry) older() map[string]bool {
	return map[string]bool{
		"policies":    len(e.Policies) > 0,
		"bound_cidrs": len(e.BoundCIDRs) > 0,
		"ttl":         e.TTL > 0,
		"max_ttl":     e.MaxTTL > 0,
		"period":      e.Period > 0,
		"num_uses":    e.NumUses != 0,
	}
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
