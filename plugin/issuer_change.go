package plugin

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/mitchellh/mapstructure"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// checkTimeout bounds the check that an issuer can be reached when it is
// written.
const checkTimeout = 15 * time.Second

// An issuerPlan is a write of an issuer, checked and not stored yet.
type issuerPlan struct {
	before *issuerEntry // nil: there is none yet
	after  *issuerEntry
	// keys are a snapshot of those that the issuer is known by: fetched by the
	// check, or by the issuer before and from where it still takes them. Nil: none.
	keys     []byte
	warnings []string
}

// planIssuer checks a write of an issuer. The caller holds configuring, and not
// writing: the check may wait for the issuer.
func (b *backend) planIssuer(ctx context.Context, s logical.Storage, name string, d *framework.FieldData) (*issuerPlan, error) {
	before, err := readIssuer(ctx, s, name)
	if err != nil {
		return nil, err
	}
	plan := &issuerPlan{before: before, after: newIssuerEntry()}
	if before != nil {
		changed := *before
		plan.after = &changed
	}
	if err := plan.after.apply(d); err != nil {
		return nil, err
	}
	if before != nil && plan.after.lostReviewer(before, d) {
		plan.warnings = append(plan.warnings, "token_reviewer_jwt was forgotten: kubernetes_host, or the CA that vouches for it, "+
			"is another than the one that the token was given for. Write it again if the server there is to have it.")
	}
	lastKeys, err := readIssuerKeys(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if plan.keys, err = checkIssuer(ctx, name, plan.after, lastKeys, d); err != nil {
		return nil, err
	}
	return plan, nil
}

// checkIssuerChange refuses to change an issuer's kind under the roles that use
// it: their bindings are of the other kind.
func (b *backend) checkIssuerChange(ctx context.Context, s logical.Storage, name string, plan *issuerPlan) error {
	stored, entry := plan.before, plan.after
	if stored == nil {
		return nil
	}
	if stored.OIDCClientID != "" && entry.OIDCClientID == "" {
		if err := checkNoPeople(ctx, s, name); err != nil {
			return err
		}
	}
	if stored.kind() == entry.kind() {
		return nil
	}
	using, err := store.IssuerOfRoles.Dependent(ctx, s, name, roleDepends(s, func(of place) bool { return of.Issuer == name }))
	if err != nil {
		return err
	}
	if len(using) > 0 {
		return fault.In(entry.sources()[0], "would turn issuer %q from %s into %s under the roles that use it: %s", name, stored.kind(), entry.kind(), fault.ShortList(using))
	}
	return nil
}

// checkIssuer is what every write of an issuer goes through before anything is
// stored: its fields make sense, and it can be reached unless the caller asked
// not to look. It returns the keys that the issuer is known by then, lastKeys
// being those of the issuer before.
func checkIssuer(ctx context.Context, name string, entry *issuerEntry, lastKeys []byte, d *framework.FieldData) ([]byte, error) {
	candidate, err := entry.compile(name, lastKeys, nil)
	if err != nil {
		return nil, userFault(err)
	}
	defer candidate.close()
	if d.Get("skip_jwks_validation").(bool) {
		return candidate.keys(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := candidate.Check(ctx); err != nil {
		source := entry.sources()[0]
		return nil, fault.In(source, "cannot be used: %s; skip_jwks_validation=true stores it all the same", err)
	}
	if err := people.CheckSource(ctx, candidate.source); err != nil {
		return nil, err
	}
	return candidate.keys(), nil
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
			return fault.In("jwks_pairs", "is not a list of objects with jwks_url and jwks_ca_pem: %s", err)
		}
	}
	e.applyPeople(d)
	e.dropReplaced(&before, d)
	if err := e.checkSources(); err != nil {
		return err
	}
	return e.checkPeople(&before, d)
}

// dropReplaced clears the key source that another one, given in this write,
// replaces, with what belongs to it.
func (e *issuerEntry) dropReplaced(before *issuerEntry, d *framework.FieldData) {
	// Nobody sees this token again, and it goes to whoever answers at the host.
	if config, earlier := e.kubernetes(), before.kubernetes(); !config.KeepsReviewer(&earlier) {
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
			e.dropClient(d)
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

// lostReviewer reports whether a change of the API server has cleared the token
// that was there: without it another one is used in silence, or none. A write
// that clears it itself, or gives the issuer another source, knows.
func (e *issuerEntry) lostReviewer(before *issuerEntry, d *framework.FieldData) bool {
	_, given := d.GetOk("token_reviewer_jwt")
	return !given && e.KubernetesHost != "" && e.TokenReviewerJWT == "" && before.TokenReviewerJWT != ""
}

// checkSources demands exactly one key source, and no field that belongs to
// another.
func (e *issuerEntry) checkSources() error {
	const all = "oidc_discovery_url, jwks_url, jwks_pairs, jwt_validation_pubkeys and kubernetes_host"
	switch sources := e.sources(); len(sources) {
	case 0:
		return fault.In("oidc_discovery_url", "is missing: an issuer has exactly one of %s", all)
	case 1:
	default:
		return fault.In(sources[1], "cannot be set together with %s: an issuer has exactly one of %s", sources[0], all)
	}
	switch {
	case e.OIDCDiscoveryCAPEM != "" && e.OIDCDiscoveryURL == "":
		return fault.In("oidc_discovery_ca_pem", "is set without oidc_discovery_url")
	case e.JWKSCAPEM != "" && len(e.JWKSPairs) > 0:
		return fault.In("jwks_ca_pem", "is set with jwks_pairs: each pair has its own jwks_ca_pem")
	case e.JWKSCAPEM != "" && e.JWKSURL == "":
		return fault.In("jwks_ca_pem", "is set without jwks_url")
	case e.TokenReviewerJWT != "" && e.KubernetesHost == "":
		return fault.In("token_reviewer_jwt", "is set without kubernetes_host")
	}
	return nil
}
