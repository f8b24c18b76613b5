package plugin

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// Storage keys of issuers, of the keys they were last seen with, and the name
// of the one that `config` writes.
const (
	issuerPrefix     = "issuer/"
	issuerKeysPrefix = "issuer-keys/"
	defaultIssuer    = "default"
)

// issuerEntry is an issuer in storage. Exactly one of its key sources is set.
type issuerEntry struct {
	OIDCDiscoveryURL     string     `json:"oidc_discovery_url,omitempty"`
	OIDCDiscoveryCAPEM   string     `json:"oidc_discovery_ca_pem,omitempty"`
	JWKSURL              string     `json:"jwks_url,omitempty"`
	JWKSCAPEM            string     `json:"jwks_ca_pem,omitempty"`
	JWKSPairs            []jwksPair `json:"jwks_pairs,omitempty"`
	JWTValidationPubKeys []string   `json:"jwt_validation_pubkeys,omitempty"`
	BoundIssuer          []string   `json:"bound_issuer,omitempty"`
	JWTSupportedAlgs     []string   `json:"jwt_supported_algs,omitempty"`

	OverrideAllowedServerNames        []string       `json:"override_allowed_server_names,omitempty"`
	UnsupportedCriticalCertExtensions []string       `json:"unsupported_critical_cert_extensions,omitempty"`
	OIDCClientID                      string         `json:"oidc_client_id,omitempty"`
	OIDCClientSecret                  string         `json:"oidc_client_secret,omitempty"`
	OIDCResponseMode                  string         `json:"oidc_response_mode,omitempty"`
	OIDCResponseTypes                 []string       `json:"oidc_response_types,omitempty"`
	NamespaceInQuery                  bool           `json:"namespace_in_query,omitempty"` // the opposite of namespace_in_state, which is so by default
	ProviderConfig                    map[string]any `json:"provider_config,omitempty"`

	KubernetesHost                string   `json:"kubernetes_host,omitempty"`
	KubernetesCACert              string   `json:"kubernetes_ca_cert,omitempty"`
	TokenReviewerJWT              string   `json:"token_reviewer_jwt,omitempty"`
	PEMKeys                       []string `json:"pem_keys,omitempty"`
	Issuer                        string   `json:"issuer,omitempty"`
	DisableISSValidation          bool     `json:"disable_iss_validation"`
	DisableLocalCAJWT             bool     `json:"disable_local_ca_jwt"`
	UseAnnotationsAsAliasMetadata bool     `json:"use_annotations_as_alias_metadata"`
}

// jwksPair is one of several JWKS URLs with the CA that vouches for its server,
// in the JWT method's spelling.
type jwksPair struct {
	JWKSURL   string `json:"jwks_url" mapstructure:"jwks_url"`
	JWKSCAPEM string `json:"jwks_ca_pem" mapstructure:"jwks_ca_pem"`
}

// kind is what verifies the issuer's tokens; a role's type follows from it.
func (e *issuerEntry) kind() claims.Kind {
	if e.KubernetesHost != "" {
		return claims.KindKubernetes
	}
	return claims.KindJWT
}

// sources names the key sources that are set, by their fields.
func (e *issuerEntry) sources() []string {
	var set []string
	for _, source := range []struct {
		field string
		isSet bool
	}{
		{"oidc_discovery_url", e.OIDCDiscoveryURL != ""},
		{"jwks_url", e.JWKSURL != ""},
		{"jwks_pairs", len(e.JWKSPairs) > 0},
		{"jwt_validation_pubkeys", len(e.JWTValidationPubKeys) > 0},
		{"kubernetes_host", e.KubernetesHost != ""},
	} {
		if source.isSet {
			set = append(set, source.field)
		}
	}
	return set
}

// A verifier is an issuer's part in the login: *claims.JWT or
// *claims.Kubernetes.
type verifier interface {
	// Check reaches the issuer, so that a mistake shows when it is configured.
	Check(ctx context.Context) error
	// Verify returns who the token's bearer is, or why it is refused.
	Verify(ctx context.Context, token string, now time.Time, want claims.Expected) (*claims.Identity, error)
	Close()
}

// issuer is an issuerEntry ready for use.
type issuer struct {
	entry *issuerEntry
	verifier
	people *people.Provider // nil: it has no oidc_client_id
	source people.Source    // nil: it has no provider_config

	verified prometheus.Observer // of the time that it takes; nil of an issuer that is being written
}

func (i *issuer) close() { i.verifier.Close() }

// keys returns a snapshot of the keys that were fetched, nil if there are none.
func (i *issuer) keys() []byte {
	if fetching, ok := i.verifier.(*claims.JWT); ok {
		return fetching.Keys()
	}
	return nil
}

// kubernetes is the entry as the configuration of a Kubernetes issuer.
func (e *issuerEntry) kubernetes() claims.KubernetesConfig {
	return claims.KubernetesConfig{
		Host:                          e.KubernetesHost,
		CACert:                        e.KubernetesCACert,
		TokenReviewerJWT:              e.TokenReviewerJWT,
		PEMKeys:                       e.PEMKeys,
		Issuer:                        e.Issuer,
		DisableISSValidation:          e.DisableISSValidation,
		DisableLocalCAJWT:             e.DisableLocalCAJWT,
		UseAnnotationsAsAliasMetadata: e.UseAnnotationsAsAliasMetadata,
	}
}

// compile makes the issuer ready for use, or says which field is at fault. It
// does no I/O. onKeys is told of keys that were fetched, lastKeys are those it
// was told last.
func (e *issuerEntry) compile(name string, lastKeys []byte, onKeys func([]byte)) (*issuer, error) {
	if e.kind() == claims.KindKubernetes {
		config := e.kubernetes()
		config.Name = name
		v, err := claims.NewKubernetes(config)
		if err != nil {
			return nil, err
		}
		return &issuer{entry: e, verifier: v}, nil
	}

	pairs := make([]claims.JWKSPair, len(e.JWKSPairs))
	for i, pair := range e.JWKSPairs {
		pairs[i] = claims.JWKSPair(pair)
	}
	v, err := claims.NewJWT(claims.JWTConfig{
		Name:               name,
		OIDCDiscoveryURL:   e.OIDCDiscoveryURL,
		OIDCDiscoveryCAPEM: e.OIDCDiscoveryCAPEM,
		JWKSURL:            e.JWKSURL,
		JWKSCAPEM:          e.JWKSCAPEM,
		JWKSPairs:          pairs,
		ValidationPubKeys:  e.JWTValidationPubKeys,
		BoundIssuers:       e.BoundIssuer,
		SupportedAlgs:      e.JWTSupportedAlgs,

		AllowedServerNames:            e.OverrideAllowedServerNames,
		UnsupportedCriticalExtensions: e.UnsupportedCriticalCertExtensions,

		LastKeys: lastKeys,
		OnKeys:   onKeys,
	})
	if err != nil {
		return nil, err
	}
	made := &issuer{entry: e, verifier: v}
	if err := made.addPeople(name, v); err != nil {
		v.Close()
		return nil, err
	}
	return made, nil
}

// readIssuer returns the issuer of that name as it is stored, nil if there is
// none.
func readIssuer(ctx context.Context, s logical.Storage, name string) (*issuerEntry, error) {
	return store.Read[issuerEntry](ctx, s, issuerPrefix+name)
}

// readIssuerKeys returns the keys that the issuer of that name was last seen
// with, nil if there are none.
func readIssuerKeys(ctx context.Context, s logical.Storage, name string) ([]byte, error) {
	last, err := s.Get(ctx, issuerKeysPrefix+name)
	if err != nil {
		return nil, fmt.Errorf("reading the last keys of issuer %q: %w", name, err)
	}
	if last == nil {
		return nil, nil
	}
	return last.Value, nil
}

// issuer returns the issuer of that name ready for use, nil if there is none.
func (b *backend) issuer(ctx context.Context, s logical.Storage, name string) (*issuer, error) {
	return b.issuers.Get(ctx, name, func(ctx context.Context, name string) (*issuer, error) {
		generation := b.issuers.Generation()
		entry, err := readIssuer(ctx, s, name)
		if entry == nil || err != nil {
			return nil, err
		}
		lastKeys, err := readIssuerKeys(ctx, s, name)
		if err != nil {
			return nil, err
		}
		ready, err := entry.compile(name, lastKeys, func(snapshot []byte) { b.saveIssuerKeys(s, name, entry, snapshot) })
		if err != nil {
			return nil, err
		}
		ready.verified = b.metrics.issuers.of(name)
		if b.issuers.Generation() != generation {
			b.metrics.issuers.changed(name) // it may have been deleted meanwhile
		}
		return ready, nil
	})
}

// issuerChanged drops what was made of an issuer that was written or deleted.
func (b *backend) issuerChanged(name string) {
	b.issuers.Forget(name)
	b.metrics.issuers.changed(name)
}

// saveIssuerKeys stores the keys an issuer was last seen with, so that logins
// go on when Vault restarts while the issuer is down. The login that found the
// new keys does not wait for it. Failing is harmless: the keys are fetched
// again.
func (b *backend) saveIssuerKeys(s logical.Storage, name string, of *issuerEntry, snapshot []byte) {
	b.inBackground(func(ctx context.Context) {
		if !b.writesAllowed() {
			return
		}
		b.writing.Lock()
		defer b.writing.Unlock()
		// Deleted or changed meanwhile: the keys of the earlier issuer must not
		// become the later one's.
		if entry, err := readIssuer(ctx, s, name); err != nil || !reflect.DeepEqual(entry, of) {
			return
		}
		if err := s.Put(ctx, &logical.StorageEntry{Key: issuerKeysPrefix + name, Value: snapshot}); err != nil {
			b.Logger().Warn("the issuer's keys could not be saved for the next start", "issuer", name, "error", err)
		}
	})
}

// writesAllowed reports whether this node may write to the mount's storage: the
// active one of the primary, or of any cluster where the mount is local.
func (b *backend) writesAllowed() bool {
	state := b.System().ReplicationState()
	if state.HasState(consts.ReplicationDRSecondary | consts.ReplicationPerformanceStandby) {
		return false
	}
	return b.System().LocalMount() || !state.HasState(consts.ReplicationPerformanceSecondary)
}

// entries are what is stored of a planned issuer of that name: the keys that it is
// known by ahead of itself. They say where they come from: were the issuer not stored,
// the one that stays would take from them no more than what is its own.
func (p *issuerPlan) entries(name string) ([]*logical.StorageEntry, error) {
	entry, err := logical.StorageEntryJSON(issuerPrefix+name, p.after)
	return []*logical.StorageEntry{{Key: issuerKeysPrefix + name, Value: p.keys}, entry}, err
}

// storeEntries stores what belongs to one write.
func (b *backend) storeEntries(ctx context.Context, s logical.Storage, entries []*logical.StorageEntry) error {
	ctx, done := store.Whole(ctx)
	defer done()
	for _, entry := range entries {
		err := store.Put(ctx, s, entry)
		b.forget(entry.Key)
		if err != nil {
			return err
		}
	}
	return nil
}
