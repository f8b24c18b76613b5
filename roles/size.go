package roles

// Bounds of a role's fields, in bytes, that hold before anything is parsed. They
// are far beyond what a role needs, and within what Vault's storages take for an
// entry: 512 KiB in Consul, 1 MiB in its own.
const (
	maxField      = 256 << 10
	maxSelector   = 16 << 10
	maxExpression = 4 * expressionSize // its characters have up to four bytes each
)

// valueSize is what a value counts beside its text, so that many empty ones are
// not nothing.
const valueSize = 16

// checkSizes bounds the fields of any length.
func (c *Compiled) checkSizes() error {
	r := &c.role
	for _, f := range []struct {
		name string
		size int
		most int
	}{
		{"issuer", len(r.Issuer), maxField},
		{"bound_audiences", sizeOfList(r.BoundAudiences), maxField},
		{"bound_subject", len(r.BoundSubject), maxField},
		{"bound_claims", sizeOf(r.BoundClaims), maxField},
		{"user_claim", len(r.UserClaim), maxField},
		{"alias_name", len(r.AliasName), maxField},
		{"groups_claim", len(r.GroupsClaim), maxField},
		{"claim_mappings", sizeOfMappings(r.ClaimMappings), maxField},
		{"allowed_redirect_uris", sizeOfList(r.AllowedRedirectURIs), maxField},
		{"oidc_scopes", sizeOfList(r.OIDCScopes), maxField},
		{"bound_service_account_names", sizeOfList(r.BoundServiceAccountNames), maxField},
		{"bound_service_account_namespaces", sizeOfList(r.BoundServiceAccountNamespaces), maxField},
		{"bound_service_account_namespace_selector", len(r.BoundServiceAccountNamespaceSelector), maxSelector},
		{"audience", len(r.Audience), maxField},
		{"bound_expression", len(r.BoundExpression), maxExpression},
		{"token_policies", sizeOfList(r.VaultPolicies), maxField},
		{"bound_issuers", sizeOfList(r.BoundIssuers), maxField},
		{"bound_aliases", sizeOfList(r.BoundAliases), maxField},
		{"account", len(r.Account), maxField},
		{"user_template", len(r.UserTemplate), maxField},
		{"user_name", len(r.UserName), maxField},
	} {
		if f.size > f.most {
			return badField(f.name, "is too large: it has %d bytes, and the most is %d", f.size, f.most)
		}
	}
	return nil
}

func sizeOfList(list []string) int {
	size := 0
	for _, s := range list {
		size += valueSize + len(s)
	}
	return size
}

func sizeOfMappings(mappings map[string]string) int {
	size := 0
	for claim, key := range mappings {
		size += valueSize + len(claim) + len(key)
	}
	return size
}

// sizeOf is the size of a value as JSON has them.
func sizeOf(value any) int {
	size := valueSize
	switch v := value.(type) {
	case string:
		size += len(v)
	case []any:
		for _, element := range v {
			size += sizeOf(element)
		}
	case map[string]any:
		for key, element := range v {
			size += len(key) + sizeOf(element)
		}
	}
	return size
}
