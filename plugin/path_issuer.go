package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/mitchellh/mapstructure"
)

// checkTimeout bounds the check that an issuer can be reached when it is
// written.
const checkTimeout = 15 * time.Second

func (b *backend) pathsIssuer() []*framework.Path {
	fields := issuerFields()
	fields["name"] = &framework.FieldSchema{
		Type:        framework.TypeLowerCaseString,
		Description: `Name of the issuer. "default" is the one that config writes.`,
		Required:    true,
	}
	return []*framework.Path{
		{
			Pattern:      "issuer/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "issuers", Navigation: true, ItemType: "Issuer"},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback:  b.listIssuers,
					Summary:   "List the issuers of workload tokens.",
					Responses: listed("Names of the issuers."),
				},
			},
			HelpSynopsis:    "List the issuers of workload tokens that the mount trusts.",
			HelpDescription: `The default issuer, which config writes, is listed as "default".`,
		},
		{
			Pattern:      "issuer/(?P<name>.+)",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "issuer", ItemType: "Issuer", Action: "Create"},
			Fields:       fields,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback:  b.readIssuerPath,
					Summary:   "Read an issuer.",
					Responses: responds(http.StatusOK, "The issuer. Secrets are shown as set or not.", issuerResponse()),
				},
				logical.CreateOperation: &framework.PathOperation{
					Callback:  b.writeIssuerPath,
					Summary:   "Create an issuer.",
					Responses: noContent("The issuer was stored."),
				},
				logical.UpdateOperation: &framework.PathOperation{
					Callback:  b.writeIssuerPath,
					Summary:   "Change the given fields of an issuer.",
					Responses: noContent("The issuer was stored."),
				},
				logical.DeleteOperation: &framework.PathOperation{
					Callback:  b.deleteIssuerPath,
					Summary:   "Delete an issuer that no role uses.",
					Responses: noContent("The issuer is gone."),
				},
			},
			ExistenceCheck:  b.issuerExists,
			HelpSynopsis:    "Manage an issuer of workload tokens.",
			HelpDescription: issuerHelp,
		},
	}
}

// issuerFields are the fields of an issuer, in `config` and in `issuer/:name`.
func issuerFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
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
			Description:  `Token of a service account that may create TokenReviews. Default: the pod's own when Vault runs in one, unless disable_local_ca_jwt is set; else the token that logs in. Never shown again, and forgotten when kubernetes_host or kubernetes_ca_cert changes.`,
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
}

// issuerResponse describes what reading an issuer answers: its fields, but for
// what is write-only.
func issuerResponse() map[string]*framework.FieldSchema {
	fields := issuerFields()
	delete(fields, "skip_jwks_validation")
	delete(fields, "token_reviewer_jwt")
	fields["bound_issuer"] = &framework.FieldSchema{Type: framework.TypeString, Description: fields["bound_issuer"].Description + " Several are separated by commas."}
	fields["token_reviewer_jwt_set"] = &framework.FieldSchema{Type: framework.TypeBool, Description: "Whether a token_reviewer_jwt is set."}
	return fields
}

func (e *issuerEntry) response() map[string]any {
	return map[string]any{
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
}

func (e *issuerEntry) jwksPairsResponse() []map[string]any {
	pairs := make([]map[string]any, len(e.JWKSPairs))
	for i, pair := range e.JWKSPairs {
		pairs[i] = map[string]any{"jwks_url": pair.JWKSURL, "jwks_ca_pem": pair.JWKSCAPEM}
	}
	return pairs
}

// newIssuerEntry has the defaults of the fields that are not false or empty.
func newIssuerEntry() *issuerEntry { return &issuerEntry{DisableISSValidation: true} }

// apply changes the fields that were given. A key source that is given takes
// the place of the one there was.
func (e *issuerEntry) apply(d *framework.FieldData) error {
	before := *e
	setString(d, "oidc_discovery_url", &e.OIDCDiscoveryURL)
	setString(d, "oidc_discovery_ca_pem", &e.OIDCDiscoveryCAPEM)
	setString(d, "jwks_url", &e.JWKSURL)
	setString(d, "jwks_ca_pem", &e.JWKSCAPEM)
	setStrings(d, "jwt_validation_pubkeys", &e.JWTValidationPubKeys)
	setStrings(d, "bound_issuer", &e.BoundIssuer)
	setStrings(d, "jwt_supported_algs", &e.JWTSupportedAlgs)
	setString(d, "kubernetes_host", &e.KubernetesHost)
	setString(d, "kubernetes_ca_cert", &e.KubernetesCACert)
	setString(d, "token_reviewer_jwt", &e.TokenReviewerJWT)
	setStrings(d, "pem_keys", &e.PEMKeys)
	setString(d, "issuer", &e.Issuer)
	setBool(d, "disable_iss_validation", &e.DisableISSValidation)
	setBool(d, "disable_local_ca_jwt", &e.DisableLocalCAJWT)
	setBool(d, "use_annotations_as_alias_metadata", &e.UseAnnotationsAsAliasMetadata)
	if raw, ok := d.GetOk("jwks_pairs"); ok {
		e.JWKSPairs = nil
		decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{ErrorUnused: true, Result: &e.JWKSPairs})
		if err != nil {
			return err
		}
		if err := decoder.Decode(raw); err != nil {
			return badField("jwks_pairs", "is not a list of objects with jwks_url and jwks_ca_pem: %s", err)
		}
	}
	e.dropReplaced(&before, d)
	return e.checkSources()
}

// dropReplaced clears the key source that another one, given in this write,
// replaces, with what belongs to it.
func (e *issuerEntry) dropReplaced(before *issuerEntry, d *framework.FieldData) {
	// Nobody sees this token again, and it goes to whoever answers at the host.
	if e.KubernetesHost != before.KubernetesHost || e.KubernetesCACert != before.KubernetesCACert {
		dropUnlessGiven(d, "token_reviewer_jwt", &e.TokenReviewerJWT)
	}
	given := ""
	for _, field := range e.sources() {
		if _, ok := d.GetOk(field); ok {
			given = field
		}
	}
	if given == "" {
		return
	}
	for _, field := range before.sources() {
		if _, ok := d.GetOk(field); ok || field == given {
			continue
		}
		switch field {
		case "oidc_discovery_url":
			e.OIDCDiscoveryURL = ""
			dropUnlessGiven(d, "oidc_discovery_ca_pem", &e.OIDCDiscoveryCAPEM)
		case "jwks_url":
			e.JWKSURL = ""
			dropUnlessGiven(d, "jwks_ca_pem", &e.JWKSCAPEM)
		case "jwks_pairs":
			e.JWKSPairs = nil
		case "jwt_validation_pubkeys":
			e.JWTValidationPubKeys = nil
		case "kubernetes_host":
			e.KubernetesHost = ""
			dropUnlessGiven(d, "kubernetes_ca_cert", &e.KubernetesCACert)
			dropUnlessGiven(d, "token_reviewer_jwt", &e.TokenReviewerJWT)
		}
	}
}

// checkSources demands exactly one key source, and no field that belongs to
// another.
func (e *issuerEntry) checkSources() error {
	const all = "oidc_discovery_url, jwks_url, jwks_pairs, jwt_validation_pubkeys and kubernetes_host"
	switch sources := e.sources(); len(sources) {
	case 0:
		return badField("oidc_discovery_url", "is missing: an issuer has exactly one of %s", all)
	case 1:
	default:
		return badField(sources[1], "cannot be set together with %s: an issuer has exactly one of %s", sources[0], all)
	}
	switch {
	case e.OIDCDiscoveryCAPEM != "" && e.OIDCDiscoveryURL == "":
		return badField("oidc_discovery_ca_pem", "is set without oidc_discovery_url")
	case e.JWKSCAPEM != "" && len(e.JWKSPairs) > 0:
		return badField("jwks_ca_pem", "is set with jwks_pairs: each pair has its own jwks_ca_pem")
	case e.JWKSCAPEM != "" && e.JWKSURL == "":
		return badField("jwks_ca_pem", "is set without jwks_url")
	case e.TokenReviewerJWT != "" && e.KubernetesHost == "":
		return badField("token_reviewer_jwt", "is set without kubernetes_host")
	}
	return nil
}

// checkIssuer is what every write of an issuer goes through before anything is
// stored: its fields make sense, and it can be reached unless the caller asked
// not to look.
func checkIssuer(ctx context.Context, name string, entry *issuerEntry, d *framework.FieldData) error {
	candidate, err := entry.compile(name, nil, nil)
	if err != nil {
		return userFault(err)
	}
	defer candidate.close()
	if d.Get("skip_jwks_validation").(bool) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := candidate.Check(ctx); err != nil {
		source := entry.sources()[0]
		return badField(source, "cannot be used: %s; skip_jwks_validation=true stores it all the same", err)
	}
	return nil
}

// userFault makes a fault that a pure package found in what the user wrote a
// status 400.
func userFault(err error) error {
	return &fieldError{Field: "", Fault: err.Error()}
}

func (b *backend) writeIssuerPath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkName("name", name); err != nil {
		return answer(err)
	}

	b.configuring.Lock()
	defer b.configuring.Unlock()
	before, entry, err := b.planIssuer(ctx, req.Storage, name, d)
	if err != nil {
		return answer(err)
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.checkIssuerChange(ctx, req.Storage, name, before, entry); err != nil {
		return answer(err)
	}
	if err := b.storeIssuer(ctx, req.Storage, name, entry); err != nil {
		return nil, err
	}
	return written(req, d), nil
}

// planIssuer returns the issuer as it is, nil if there is none, and as the write
// makes it, checked. The caller holds configuring, and not writing: the check
// may wait for the issuer.
func (b *backend) planIssuer(ctx context.Context, s logical.Storage, name string, d *framework.FieldData) (before, after *issuerEntry, err error) {
	before, err = readIssuer(ctx, s, name)
	if err != nil {
		return nil, nil, err
	}
	after = newIssuerEntry()
	if before != nil {
		changed := *before
		after = &changed
	}
	if err := after.apply(d); err != nil {
		return nil, nil, err
	}
	return before, after, checkIssuer(ctx, name, after, d)
}

// checkIssuerChange refuses to change an issuer's kind under the roles that use
// it: their bindings are of the other kind.
func (b *backend) checkIssuerChange(ctx context.Context, s logical.Storage, name string, stored, entry *issuerEntry) error {
	if stored == nil || stored.kind() == entry.kind() {
		return nil
	}
	using, err := rolesUsing(ctx, s, usesIssuer, name)
	if err != nil {
		return err
	}
	if len(using) > 0 {
		return badField(entry.sources()[0], "would turn issuer %q from %s into %s under the roles that use it: %s", name, stored.kind(), entry.kind(), shortList(using))
	}
	return nil
}

func (b *backend) readIssuerPath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkName("name", name); err != nil {
		return answer(err)
	}
	entry, err := readIssuer(ctx, req.Storage, name)
	if entry == nil || err != nil {
		return nil, err
	}
	return &logical.Response{Data: entry.response()}, nil
}

func (b *backend) issuerExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	entry, err := readIssuer(ctx, req.Storage, d.Get("name").(string))
	return entry != nil, err
}

func (b *backend) listIssuers(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := req.Storage.List(ctx, issuerPrefix)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(names), nil
}

func (b *backend) deleteIssuerPath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkName("name", name); err != nil {
		return answer(err)
	}
	b.configuring.Lock()
	defer b.configuring.Unlock()
	b.writing.Lock()
	defer b.writing.Unlock()
	using, err := rolesUsing(ctx, req.Storage, usesIssuer, name)
	if err != nil {
		return nil, err
	}
	if len(using) > 0 {
		return answer(badField("name", "%q is the issuer of roles, which must go or change first: %s", name, shortList(using)))
	}
	err = errors.Join(
		req.Storage.Delete(ctx, issuerPrefix+name),
		req.Storage.Delete(ctx, issuerKeysPrefix+name),
	)
	b.issuers.forget(name)
	if err != nil {
		return nil, fmt.Errorf("deleting issuer %q: %w", name, err)
	}
	return nil, nil
}

const issuerHelp = `
An issuer is a source of workload tokens. A role names the one whose tokens it
takes with its field "issuer"; a token of any other is refused.

An issuer has exactly one source of keys: oidc_discovery_url, jwks_url,
jwks_pairs, jwt_validation_pubkeys or kubernetes_host. A later write changes only
the fields that it gives; a source that it gives replaces the one there was.
Before an issuer is stored it is reached once, unless skip_jwks_validation is
set.

The identity alias of a workload is issuer:<name>:<value>, so that equal values
from two issuers are two entities; only the default issuer's has no prefix.
`
