package plugin

import (
	"maps"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// issuerFields are the fields of an issuer, in `config` and in `issuer/:name`.
func issuerFields() map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{
		"oidc_discovery_url": {
			Type:        framework.TypeString,
			Description: `OIDC discovery URL, without the .well-known component. The issuer's keys are found through it, and its document must name it as the issuer.`,
		},
		"oidc_discovery_ca_pem": {
			Type:        framework.TypeString,
			Description: `CA certificates, in PEM format, that the discovery URL's server is checked against. Default: the system's.`,
		},
		"jwks_url": {
			Type:        framework.TypeString,
			Description: `URL of a JSON Web Key Set with the issuer's keys.`,
		},
		"jwks_ca_pem": {
			Type:        framework.TypeString,
			Description: `CA certificates, in PEM format, that the server of jwks_url is checked against. Default: the system's.`,
		},
		"jwks_pairs": {
			Type:        framework.TypeSlice,
			Description: `Several JSON Web Key Sets: a list of objects with jwks_url and, optionally, jwks_ca_pem.`,
		},
		"jwt_validation_pubkeys": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Public keys of the issuer, in PEM format. Several can be given, for rotation.`,
		},
		"bound_issuer": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Values of the "iss" claim that are accepted; any match is sufficient. Default: any, since only the issuer's own keys verify a token; bind it where several issuers share their keys.`,
		},
		"jwt_supported_algs": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Signature algorithms that are accepted, out of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA. Default: all of them.`,
		},
		"kubernetes_host": {
			Type:        framework.TypeString,
			Description: `Host, host:port or URL of a Kubernetes API server. Tokens are verified by its TokenReview API.`,
		},
		"kubernetes_ca_cert": {
			Type:        framework.TypeString,
			Description: `CA certificates, in PEM format, that the API server is checked against. Default: the pod's own, in which Vault must run then, or with disable_local_ca_jwt the system's.`,
		},
		"token_reviewer_jwt": {
			Type:         framework.TypeString,
			Description:  `Token of a service account that may create TokenReviews. Default: the pod's own when Vault runs in one, unless disable_local_ca_jwt is set; else the token that logs in. Never shown again, and forgotten, with a warning, when kubernetes_host comes to be another server or no certificate of kubernetes_ca_cert stays.`,
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"pem_keys": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Public keys or certificates, in PEM format, that service account tokens are signed with. If given, signatures are checked before the API server is asked.`,
		},
		"issuer": {
			Type:        framework.TypeString,
			Description: `Value of the "iss" claim of service account tokens, checked unless disable_iss_validation is set. Default: kubernetes/serviceaccount.`,
			Deprecated:  true,
		},
		"disable_iss_validation": {
			Type:        framework.TypeBool,
			Default:     true,
			Description: `Do not check the "iss" claim of service account tokens: the API server does.`,
			Deprecated:  true,
		},
		"disable_local_ca_jwt": {
			Type:        framework.TypeBool,
			Description: `Do not fall back to the CA certificate and the service account token of the pod that Vault runs in.`,
		},
		"use_annotations_as_alias_metadata": {
			Type:        framework.TypeBool,
			Description: `Add the service account's annotations that begin with vault.hashicorp.com/alias-metadata- to the alias's metadata.`,
		},
		"skip_jwks_validation": {
			Type:        framework.TypeBool,
			Description: `Store the issuer without reaching it first. Applies to this write only.`,
		},
	}
	maps.Copy(fields, issuerPeopleFields())
	return fields
}

// issuerResponse describes what reading an issuer answers: its fields, but for
// what is write-only.
func issuerResponse() map[string]*framework.FieldSchema {
	fields := issuerFields()
	delete(fields, "skip_jwks_validation")
	delete(fields, "token_reviewer_jwt")
	delete(fields, "oidc_client_secret")
	fields["bound_issuer"] = &framework.FieldSchema{Type: framework.TypeString, Description: fields["bound_issuer"].Description + " Several are separated by commas."}
	fields["token_reviewer_jwt_set"] = &framework.FieldSchema{Type: framework.TypeBool, Description: "Whether a token_reviewer_jwt is set."}
	fields["oidc_client_secret_set"] = &framework.FieldSchema{Type: framework.TypeBool, Description: "Whether an oidc_client_secret is set."}
	return fields
}

func (e *issuerEntry) response() map[string]any {
	data := map[string]any{
		"oidc_discovery_url":                e.OIDCDiscoveryURL,
		"oidc_discovery_ca_pem":             e.OIDCDiscoveryCAPEM,
		"jwks_url":                          e.JWKSURL,
		"jwks_ca_pem":                       e.JWKSCAPEM,
		"jwks_pairs":                        e.jwksPairsResponse(),
		"jwt_validation_pubkeys":            orEmpty(e.JWTValidationPubKeys),
		"bound_issuer":                      strings.Join(e.BoundIssuer, ","),
		"jwt_supported_algs":                orEmpty(e.JWTSupportedAlgs),
		"kubernetes_host":                   e.KubernetesHost,
		"kubernetes_ca_cert":                e.KubernetesCACert,
		"token_reviewer_jwt_set":            e.TokenReviewerJWT != "",
		"pem_keys":                          orEmpty(e.PEMKeys),
		"issuer":                            e.Issuer,
		"disable_iss_validation":            e.DisableISSValidation,
		"disable_local_ca_jwt":              e.DisableLocalCAJWT,
		"use_annotations_as_alias_metadata": e.UseAnnotationsAsAliasMetadata,
	}
	maps.Copy(data, e.peopleResponse())
	return data
}

func (e *issuerEntry) jwksPairsResponse() []map[string]any {
	pairs := make([]map[string]any, len(e.JWKSPairs))
	for i, pair := range e.JWKSPairs {
		pairs[i] = map[string]any{"jwks_url": pair.JWKSURL, "jwks_ca_pem": pair.JWKSCAPEM}
	}
	return pairs
}
