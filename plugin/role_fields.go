package plugin

import (
	"maps"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/tokenutil"

	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

// roleFields are the fields of a role but its name.
func roleFields() map[string]*framework.FieldSchema {
	fields := roleTokenFields()
	maps.Copy(fields, map[string]*framework.FieldSchema{
		"role_type": {
			Type:          framework.TypeString,
			AllowedValues: []any{roles.TypeJWT, roles.TypeOIDC, roles.TypeKubernetes, roles.TypeVault},
			Description:   `"jwt" or "kubernetes", which follow from the issuer; "oidc" for people, who log in with a browser, which follows where allowed_redirect_uris are given; or "vault" for a role without issuer that callers with a Vault token use at creds/:role.`,
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
		"alias_name": {
			Type:        framework.TypeString,
			Description: `Template of the identity alias's name, in place of user_claim, for several claims: {{claim(project_path)}}:{{claim(ref)}}. In each value the characters of the template's own text beside letters and digits are percent-encoded, so that no two combinations give the same name.`,
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
		"token_policies_template_claims": {
			Type:        framework.TypeBool,
			Description: `Take token_policies as templates over the token's claims, as OpenBao's JWT method does: project_{{.project_id}}. Each value that is filled in must be one segment of a policy's name; a policy that comes out empty is left out, and a claim that is not in the token refuses the login.`,
		},
		"max_age": {
			Type:        framework.TypeDurationSecond,
			Description: `How long ago the token's bearer may have been authenticated, in seconds: its "auth_time", else its "iat". 0 stands for no bound. For a role of type oidc the issuer is asked to authenticate the person anew if it is longer ago.`,
		},
		"allowed_redirect_uris": {
			Type:        framework.TypeCommaStringSlice,
			Description: `For a role of type oidc: where a person's browser may be sent back to. Compared as they are, but for the port of a loopback one.`,
		},
		"oidc_scopes": {
			Type:        framework.TypeCommaStringSlice,
			Description: `For a role of type oidc: scopes that the issuer is asked for, beside openid.`,
		},
		"callback_mode": {
			Type:          framework.TypeString,
			Default:       roles.CallbackClient,
			AllowedValues: []any{roles.CallbackClient, roles.CallbackDirect, roles.CallbackDevice},
			Description:   `For a role of type oidc: how a login comes back. "client": the browser comes to the program that logs in, which listens on the person's machine. "direct": it comes to Vault, at oidc/callback, and the program asks at oidc/poll. "device": the person types a code at the issuer, on whatever device (RFC 8628), and the program asks at oidc/poll.`,
		},
		"poll_interval": {
			Type:        framework.TypeInt64,
			Description: `For callback_mode direct and device: how many seconds a program waits between two polls. Default: what the issuer asks for, or 5.`,
		},
		"verbose_oidc_logging": {
			Type:        framework.TypeBool,
			Description: `For a role of type oidc: log at level debug which claims the issuer sends. They are what it knows of people; no token and no secret is logged.`,
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
		"bound_issuers": {
			Type:        framework.TypeCommaStringSlice,
			Description: `For a role of type vault: issuers, as globs, of which the alias that this mount gave the caller's entity must be of one. Default: the default issuer's alone, where the role reads the alias at all.`,
		},
		"bound_aliases": {
			Type:        framework.TypeCommaStringSlice,
			Description: `For a role of type vault: names, as globs, of which the alias that this mount gave the caller's entity must be one, without the "issuer:<name>:" that it begins with.`,
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
			Description: `Demand at a login, too, that a key that the workload brings proves itself, with user_key_signature and user_key_time.`,
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

// roleTokenFields are Vault's own parameters of a role's tokens, with the names
// that they had in older versions of its methods.
func roleTokenFields() map[string]*framework.FieldSchema {
	older := func(t framework.FieldType, name string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: t, Description: tokenutil.DeprecationText(name), Deprecated: true}
	}
	fields := map[string]*framework.FieldSchema{
		"policies":    older(framework.TypeCommaStringSlice, "token_policies"),
		"num_uses":    older(framework.TypeInt, "token_num_uses"),
		"ttl":         older(framework.TypeDurationSecond, "token_ttl"),
		"max_ttl":     older(framework.TypeDurationSecond, "token_max_ttl"),
		"period":      older(framework.TypeDurationSecond, "token_period"),
		"bound_cidrs": older(framework.TypeCommaStringSlice, "token_bound_cidrs"),
	}
	tokenutil.AddTokenFields(fields)
	return fields
}
