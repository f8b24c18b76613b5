package claims

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// JWTConfig configures an issuer of kind jwt. Exactly one of OIDCDiscoveryURL,
// JWKSURL, JWKSPairs and ValidationPubKeys is set. Fields are named in errors as
// the JWT method spells them.
type JWTConfig struct {
	// Name is the mount's name of the issuer.
	Name string
	// OIDCDiscoveryURL is the issuer's identifier, below which its discovery
	// document lies. The document's issuer must equal it.
	OIDCDiscoveryURL string
	// OIDCDiscoveryCAPEM holds the CA certificates that the servers of
	// OIDCDiscoveryURL and of the JWKS it names are verified with. Empty: the
	// system's.
	OIDCDiscoveryCAPEM string
	// AllowedServerNames are the names of which the certificate of every server that
	// is asked must have one, in place of the name in its URL.
	AllowedServerNames []string
	// UnsupportedCriticalExtensions are the OIDs of critical extensions that may stand
	// in such a certificate though nothing here understands them.
	UnsupportedCriticalExtensions []string
	// JWKSURL is where a JSON Web Key Set is to be had.
	JWKSURL string
	// JWKSCAPEM is to JWKSURL what OIDCDiscoveryCAPEM is to OIDCDiscoveryURL.
	JWKSCAPEM string
	// JWKSPairs are several JWKS URLs, each with its CA certificates. A token
	// may be signed with a key of any of them.
	JWKSPairs []JWKSPair
	// ValidationPubKeys are PEM-encoded public keys or certificates. Any of them
	// may have signed a token, whatever its kid.
	ValidationPubKeys []string
	// BoundIssuers are the values of which a token's iss claim must be one. With
	// none given, iss is not looked at.
	BoundIssuers []string
	// SupportedAlgs are the signature algorithms that are accepted: RS256, RS384,
	// RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA, which are also
	// accepted when none is given.
	SupportedAlgs []string
	// OnKeys, if set, is called with a snapshot of all fetched keys after a fetch
	// that changed them. No lock that other methods need is held, and calls do
	// not overlap. A call may still be under way when Close returns.
	OnKeys func(snapshot []byte)
	// LastKeys is the last snapshot that OnKeys got, or Keys returned, to verify
	// tokens with until the first fetch succeeds. It may be of an issuer that was
	// configured otherwise: keys are not taken from it whose URL is not configured
	// any more, or that a server with a CA sent which is not trusted any more.
	LastKeys []byte
}

// JWKSPair is a JWKS URL with the CA certificates of its server.
type JWKSPair struct {
	JWKSURL   string `json:"jwks_url"`
	JWKSCAPEM string `json:"jwks_ca_pem"`
}

// JWT is an issuer of kind jwt. Its methods can be called at the same time.
type JWT struct {
	name         string
	algorithms   []*algorithm
	boundIssuers []string
	static       *keySet  // configured keys; nil when they are fetched
	remote       *remotes // where keys are fetched; nil when they are configured
	// lastHeader is that of the last good token; nil before the first.
	lastHeader atomic.Pointer[header]
}

// NewJWT checks cfg, parses configured keys and takes over the keys of
// cfg.LastKeys. It does not use the network.
func NewJWT(cfg JWTConfig) (*JWT, error) {
	j := &JWT{name: cfg.Name, boundIssuers: slices.Clone(cfg.BoundIssuers)}
	var err error
	if j.algorithms, err = allowedAlgorithms(cfg.SupportedAlgs); err != nil {
		return nil, fmt.Errorf("jwt_supported_algs: %w", err)
	}
	if slices.Contains(cfg.BoundIssuers, "") {
		return nil, errors.New("bound_issuer has an empty value")
	}
	endpoints, err := cfg.endpoints()
	if err != nil {
		return nil, err
	}
	if len(cfg.ValidationPubKeys) > 0 {
		if j.static, err = parsePEMKeys(cfg.ValidationPubKeys); err != nil {
			return nil, fmt.Errorf("jwt_validation_pubkeys: %w", err)
		}
		if _, count := j.static.unusable(j.algorithms); count == len(j.static.all) {
			return nil, errors.New("jwt_supported_algs has no algorithm for any of jwt_validation_pubkeys")
		}
		return j, nil
	}
	if j.remote, err = newRemotes(endpoints, cfg.LastKeys, cfg.OnKeys); err != nil {
		return nil, err
	}
	return j, nil
}

// endpoints returns where keys are to be fetched, after checking that there is
// exactly one kind of key source.
func (cfg *JWTConfig) endpoints() ([]endpoint, error) {
	var endpoints []endpoint
	kinds := 0
	if cfg.OIDCDiscoveryURL != "" {
		kinds++
		endpoints = []endpoint{{field: "oidc_discovery_url", url: cfg.OIDCDiscoveryURL, caPEM: cfg.OIDCDiscoveryCAPEM, discovery: true}}
	}
	if cfg.JWKSURL != "" {
		kinds++
		endpoints = []endpoint{{field: "jwks_url", url: cfg.JWKSURL, caPEM: cfg.JWKSCAPEM}}
	}
	if len(cfg.JWKSPairs) > 0 {
		kinds++
		if cfg.JWKSCAPEM != "" {
			return nil, errors.New("jwks_ca_pem cannot be used with jwks_pairs: each pair has its own")
		}
		endpoints = nil
		for i, pair := range cfg.JWKSPairs {
			field := fmt.Sprintf("jwks_pairs[%d]", i)
			endpoints = append(endpoints, endpoint{field: field, url: pair.JWKSURL, caPEM: pair.JWKSCAPEM})
		}
	}
	trust, err := cfg.serverTrust()
	if err != nil {
		return nil, err
	}
	for i := range endpoints {
		endpoints[i].trust = trust
	}
	if len(cfg.ValidationPubKeys) > 0 {
		kinds++
	}
	if kinds != 1 {
		return nil, errors.New("exactly one of oidc_discovery_url, jwks_url, jwks_pairs and jwt_validation_pubkeys must be set")
	}
	return endpoints, nil
}

// Check fetches the issuer's keys now, to find a faulty configuration before it
// is used. The keys are kept. Its errors are for the one who configures the
// issuer: they name the field and may name hosts and addresses.
func (j *JWT) Check(ctx context.Context) error {
	if j.remote == nil {
		return nil
	}
	return j.remote.check(ctx)
}

// Keys returns a snapshot of the fetched keys at hand, for LastKeys of the issuer
// that this one is to be replaced with: nil if there are none, as with configured
// keys. It holds no secret.
func (j *JWT) Keys() []byte {
	if j.remote == nil {
		return nil
	}
	return j.remote.snapshot()
}

// Close ends fetches that are under way. Tokens can still be verified, with the
// keys at hand.
func (j *JWT) Close() {
	if j.remote != nil {
		j.remote.close()
	}
}

// Verify checks that token was signed by this issuer and is as want says at the
// time now. While the key that signed it is at hand, and was fetched within the
// last hour, it uses no network and waits for nothing. An older key has to be
// among those that the issuer has now, unless they cannot be had in two seconds.
//
// Its errors name the claim and its fault and can be shown to whoever presented
// the token; none holds the token. If the key is not at hand and cannot be
// fetched, the error matches ErrUnavailable.
func (j *JWT) Verify(ctx context.Context, token string, now time.Time, want Expected) (*Identity, error) {
	last := j.lastHeader.Load()
	t, err := parseToken(token, last)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(j.algorithms, t.alg) {
		return nil, fmt.Errorf("token header alg is %s, which the issuer is not configured to accept", t.alg.name)
	}
	// Nothing of what the token says is looked at before its signature: who cannot
	// sign must not learn by trying, nor from the time that it takes, what the
	// role and the issuer demand.
	if verified, tried := j.verifySignature(t); !verified {
		if j.remote == nil {
			return nil, errSignature
		}
		if err := j.awaitKey(ctx, t, tried); err != nil {
			return nil, err
		}
	}
	claims, err := t.claims()
	if err != nil {
		return nil, err
	}
	if err := j.checkClaims(claims, now, want); err != nil {
		return nil, err
	}
	if j.remote != nil && j.remote.stale(now) {
		if err := j.checkAgain(ctx, t, now); err != nil {
			return nil, err
		}
	}
	if t.header != last {
		j.lastHeader.Store(t.header)
	}
	return &Identity{profile: Profile{Issuer: j.name, Kind: KindJWT, Claims: claims}}, nil
}

// checkClaims holds the claims against the issuer's and the role's demands.
func (j *JWT) checkClaims(claims map[string]any, now time.Time, want Expected) error {
	if err := checkRegistered(claims); err != nil {
		return err
	}
	if err := checkIssuer(claims, j.boundIssuers); err != nil {
		return err
	}
	aud, err := audiences(claims)
	if err != nil {
		return err
	}
	if len(want.Audiences) > 0 {
		if err := checkAudience(aud, want.Audiences); err != nil {
			return err
		}
	} else if text, ok := claims["aud"].(string); len(aud) > 0 && !(ok && text == "") {
		return errors.New("aud claim is set, but the role has no bound_audiences")
	}
	if err := checkTimes(claims, now, want, false); err != nil {
		return err
	}
	return checkAge(claims, now, want)
}

// errSignature refuses a token that no key of the issuer signed.
var errSignature = errors.New("token signature is not by a key of the issuer")

// verifySignature reports whether a key at hand made the token's signature, and
// if none did, whether there was one to try.
func (j *JWT) verifySignature(t *token) (verified, tried bool) {
	if j.remote != nil {
		return j.remote.verify(t)
	}
	return j.static.verify(t)
}

// checkAgain holds a token whose signature is good by keys that became stale
// against newer ones, since the issuer may have withdrawn its key.
func (j *JWT) checkAgain(ctx context.Context, t *token, now time.Time) error {
	if err := j.remote.refresh(ctx, now); err != nil {
		return &UnavailableError{Issuer: j.name, What: "its keys", Err: err}
	}
	if verified, _ := j.remote.verify(t); !verified {
		return errSignature
	}
	return nil
}

// awaitKey fetches keys until one is there that made the token's signature.
func (j *JWT) awaitKey(ctx context.Context, t *token, tried bool) error {
	err := j.remote.await(ctx, t, tried)
	if err != nil && !errors.Is(err, errSignature) {
		return &UnavailableError{Issuer: j.name, What: "its keys", Err: err}
	}
	return err
}
