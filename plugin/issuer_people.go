package plugin

import (
	"context"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

// issuerPeopleFields are the fields of an issuer that people log in with.
func issuerPeopleFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"oidc_client_id": {
			Type:        framework.TypeString,
			Description: `ID of the OAuth client that the mount is at the issuer, for roles of type oidc. Needs oidc_discovery_url and oidc_client_secret.`,
		},
		"oidc_client_secret": {
			Type:         framework.TypeString,
			Description:  `The client's secret. Never shown again. To be given anew when oidc_discovery_url or what its servers are trusted by changes.`,
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"oidc_response_mode": {
			Type:        framework.TypeString,
			Description: `How the issuer sends a person's browser back: "query" or "form_post". Default: query.`,
		},
		"oidc_response_types": {
			Type:        framework.TypeCommaStringSlice,
			Description: `What the issuer sends the browser back with: "code", or "id_token" with form_post. Default: code.`,
		},
		"namespace_in_state": {
			Type:        framework.TypeBool,
			Default:     true,
			Description: `Carry the Vault namespace that a redirect URI names in its query in the state instead, so that one redirect URI does for all namespaces.`,
		},
		"provider_config": {
			Type:        framework.TypeMap,
			Description: `Where groups and other claims come from that the issuer does not put into its tokens. A JSON object, or a string that holds one: "provider" says which directory, other keys depend on it.`,
		},
		"override_allowed_server_names": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Names of which the certificate of each of the issuer's servers must have one, in place of the name in its URL.`,
		},
		"unsupported_critical_cert_extensions": {
			Type:        framework.TypeCommaStringSlice,
			Description: `OIDs of critical extensions that may stand in certificates of the issuer's servers though nothing here understands them.`,
		},
	}
}

// applyPeople changes the fields that were given, of those that are for people.
func (e *issuerEntry) applyPeople(d *framework.FieldData) {
	setString(d, "oidc_client_id", &e.OIDCClientID)
	setString(d, "oidc_client_secret", &e.OIDCClientSecret)
	setString(d, "oidc_response_mode", &e.OIDCResponseMode)
	setStrings(d, "oidc_response_types", &e.OIDCResponseTypes)
	if v, ok := d.GetOk("namespace_in_state"); ok {
		e.NamespaceInQuery = !v.(bool)
	}
	if v, ok := d.GetOk("provider_config"); ok {
		e.ProviderConfig = v.(map[string]any)
	}
	setStrings(d, "override_allowed_server_names", &e.OverrideAllowedServerNames)
	setStrings(d, "unsupported_critical_cert_extensions", &e.UnsupportedCriticalCertExtensions)
}

// peopleResponse is what reading an issuer answers of these fields.
func (e *issuerEntry) peopleResponse() map[string]any {
	return map[string]any{
		"oidc_client_id":                       e.OIDCClientID,
		"oidc_client_secret_set":               e.OIDCClientSecret != "",
		"oidc_response_mode":                   e.OIDCResponseMode,
		"oidc_response_types":                  orEmpty(e.OIDCResponseTypes),
		"namespace_in_state":                   !e.NamespaceInQuery,
		"provider_config":                      people.ShownSource(e.ProviderConfig),
		"override_allowed_server_names":        orEmpty(e.OverrideAllowedServerNames),
		"unsupported_critical_cert_extensions": orEmpty(e.UnsupportedCriticalCertExtensions),
	}
}

// checkPeople refuses fields that nothing would look at, and to have a secret that
// nobody sees again come to another than it was given for.
func (e *issuerEntry) checkPeople(before *issuerEntry, d *framework.FieldData) error {
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"oidc_response_mode", e.OIDCResponseMode != ""},
		{"oidc_response_types", len(e.OIDCResponseTypes) > 0},
	} {
		if field.set && e.OIDCClientID == "" {
			return fault.In(field.name, "is set without oidc_client_id")
		}
	}
	if e.kind() != claims.KindJWT {
		for name, set := range map[string]bool{
			"override_allowed_server_names":        len(e.OverrideAllowedServerNames) > 0,
			"unsupported_critical_cert_extensions": len(e.UnsupportedCriticalCertExtensions) > 0,
			"oidc_client_id":                       e.OIDCClientID != "",
			"provider_config":                      len(e.ProviderConfig) > 0,
		} {
			if set {
				return fault.In(name, "is set on an issuer of kind %s", e.kind())
			}
		}
	}
	_, given := d.GetOk("oidc_client_secret")
	if !given && e.OIDCClientSecret != "" && !e.asksSame(before) {
		return fault.In("oidc_client_secret", "is missing: it was given for another oidc_discovery_url, or for servers that are trusted otherwise, and is not sent elsewhere unless it is given again")
	}
	if _, given := d.GetOk("provider_config"); !given && people.HasSecret(e.ProviderConfig) && !e.asksSame(before) {
		return fault.In("provider_config", "is missing: the one there is has a secret, which was given beside another oidc_discovery_url, or for servers that are trusted otherwise")
	}
	return nil
}

// dropClient clears what belongs to an issuer that is discovered, where another
// source takes its place.
func (e *issuerEntry) dropClient(d *framework.FieldData) {
	dropUnlessGiven(d, "oidc_client_id", &e.OIDCClientID)
	dropUnlessGiven(d, "oidc_client_secret", &e.OIDCClientSecret)
	dropUnlessGiven(d, "oidc_response_mode", &e.OIDCResponseMode)
	if _, ok := d.GetOk("oidc_response_types"); !ok {
		e.OIDCResponseTypes = nil
	}
}

// asksSame reports whether the servers that get the client's secret are those of
// before.
func (e *issuerEntry) asksSame(before *issuerEntry) bool {
	return e.OIDCDiscoveryURL == before.OIDCDiscoveryURL &&
		claims.SharesCA(e.OIDCDiscoveryCAPEM, before.OIDCDiscoveryCAPEM) &&
		slices.Equal(e.OverrideAllowedServerNames, before.OverrideAllowedServerNames)
}

// checkNoPeople refuses to leave roles of type oidc without a client.
func checkNoPeople(ctx context.Context, s logical.Storage, name string) error {
	using, err := store.IssuerOfRoles.Dependent(ctx, s, name, func(ctx context.Context, role string) bool {
		entry, err := readRole(ctx, s, role)
		return err != nil || entry != nil && entry.Issuer == name && entry.RoleType == roles.TypeOIDC
	})
	if err == nil && len(using) > 0 {
		err = fault.In("oidc_client_id", "is taken from issuer %q, which people log in with by these roles: %s", name, fault.ShortList(using))
	}
	return err
}

// addPeople makes ready what logs people in, and where their groups are found.
func (i *issuer) addPeople(name string, v *claims.JWT) (err error) {
	e := i.entry
	if i.source, err = people.NewSource(people.SourceConfig{Settings: e.ProviderConfig, Issuer: name, DiscoveryURL: e.OIDCDiscoveryURL, Transport: v.Transport()}); err != nil {
		return err
	}
	if e.OIDCClientID == "" && e.OIDCClientSecret == "" {
		return nil
	}
	i.people, err = people.NewProvider(people.Config{
		Issuer:        name,
		DiscoveryURL:  e.OIDCDiscoveryURL,
		ClientID:      e.OIDCClientID,
		ClientSecret:  e.OIDCClientSecret,
		ResponseMode:  e.OIDCResponseMode,
		ResponseTypes: e.OIDCResponseTypes,
		Algorithms:    e.JWTSupportedAlgs,
	}, v)
	return err
}
