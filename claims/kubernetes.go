package claims

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// KubernetesConfig configures an issuer of kind kubernetes. Fields are named in
// errors as the Kubernetes method spells them.
type KubernetesConfig struct {
	// Name is the mount's name of the issuer.
	Name string
	// Host is the API server: a URL, or a host or host:port, which is asked over
	// TLS.
	Host string
	// CACert holds the CA certificates, PEM-encoded, that the API server is
	// verified with. Empty: those of the pod that Vault runs in, or, with
	// DisableLocalCAJWT, the system's.
	CACert string
	// TokenReviewerJWT authenticates to the API server. Empty: the token of the
	// pod that Vault runs in, or, without one or with DisableLocalCAJWT, the very
	// token that is to be verified.
	TokenReviewerJWT string
	// PEMKeys are PEM-encoded public keys or certificates. If any is given, a
	// token that none of them signed is refused without asking the API server.
	PEMKeys []string
	// Issuer is what a token's iss claim must be. Empty: kubernetes/serviceaccount,
	// the issuer of tokens in Secrets.
	Issuer string
	// DisableISSValidation leaves the iss claim to the API server.
	DisableISSValidation bool
	// DisableLocalCAJWT leaves the files of the pod that Vault runs in alone.
	DisableLocalCAJWT bool
	// UseAnnotationsAsAliasMetadata has ServiceAccount.Annotations read, for
	// which the reviewer must be allowed to get service accounts.
	UseAnnotationsAsAliasMetadata bool
}

// defaultKubernetesIssuer is the iss claim of service account tokens that lie in
// Secrets.
const defaultKubernetesIssuer = "kubernetes/serviceaccount"

// kubernetesAlgorithms are the algorithms that API servers sign with or take
// from OpenID Connect providers, as in the Kubernetes method.
var kubernetesAlgorithms = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}

const (
	// maxReviews bounds the logins for which an API server is asked at one time:
	// a token that nobody has signed yet is worth a review.
	maxReviews = 64
	// maxPending and maxPendingSize bound those that are under way, with the ones
	// that wait to be asked for, and the bytes of their tokens. Tokens of service
	// accounts have one to two kilobytes; decoded ones can have sixty times their
	// size.
	maxPending     = 512
	maxPendingSize = 768 << 10
)

// Kubernetes is an issuer of kind kubernetes. Its methods can be called at the
// same time.
type Kubernetes struct {
	name        string
	algorithms  []*algorithm
	keys        *keySet  // pem_keys; nil: the API server alone knows
	issuers     []string // of which iss must be one; empty: any
	annotations bool
	api         *kubernetesAPI
	pending     gate
	reviews     chan struct{} // has an element for each login that the API server is asked for
}

// NewKubernetes checks cfg. It does not use the network, nor the files of the
// pod.
func NewKubernetes(cfg KubernetesConfig) (*Kubernetes, error) {
	api, err := newKubernetesAPI(&cfg)
	if err != nil {
		return nil, err
	}
	k := &Kubernetes{
		name: cfg.Name, annotations: cfg.UseAnnotationsAsAliasMetadata, api: api,
		pending: gate{places: maxPending, room: maxPendingSize}, reviews: make(chan struct{}, maxReviews),
	}
	if k.algorithms, err = allowedAlgorithms(kubernetesAlgorithms); err != nil {
		return nil, err
	}
	if len(cfg.PEMKeys) > 0 {
		if k.keys, err = parsePEMKeys(cfg.PEMKeys); err != nil {
			return nil, fmt.Errorf("pem_keys: %w", err)
		}
		if first, count := k.keys.unusable(k.algorithms); count > 0 {
			return nil, fmt.Errorf("pem_keys: key %d is of a kind that no token of a service account is signed with", first)
		}
	}
	if !cfg.DisableISSValidation {
		k.issuers = []string{cfg.Issuer}
		if cfg.Issuer == "" {
			k.issuers = []string{defaultKubernetesIssuer}
		}
	}
	return k, nil
}

// Check asks the API server to review a token that is none, to find out whether
// it can be reached and whether the reviewer is allowed to. Its errors are for
// the one who configures the issuer: they name the field and may name hosts and
// addresses.
func (k *Kubernetes) Check(ctx context.Context) error {
	return k.api.check(ctx)
}

// Close closes the connections to the API server that are not in use.
func (k *Kubernetes) Close() { k.api.close() }

// Verify has the API server review the token, after checking what can be seen
// without it: the signature if there are pem_keys, the claims, and whether the
// role could take the service account that they name.
//
// Its errors can be shown to whoever presented the token; none holds the token.
// They match ErrUnavailable if the API server did not answer, or not to us.
func (k *Kubernetes) Verify(ctx context.Context, token string, now time.Time, want Expected) (*Identity, error) {
	t, err := parseToken(token, nil)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(k.algorithms, t.alg) {
		return nil, fmt.Errorf("token header alg is %s, which is not used for service accounts", t.alg.name)
	}
	if k.keys != nil {
		if verified, _ := k.keys.verify(t); !verified {
			return nil, errSignature
		}
	}
	if !k.pending.enter(t.size()) {
		return nil, k.unavailable("a token review", errors.New("too many logins wait for token reviews"))
	}
	defer k.pending.leave(t.size())
	claims, err := t.claims()
	if err != nil {
		return nil, err
	}
	aud, err := k.checkClaims(claims, now, want)
	if err != nil {
		return nil, err
	}
	claimed, err := ClaimedServiceAccount(claims)
	if err != nil {
		return nil, err
	}
	if want.ServiceAccount != nil {
		if err := want.ServiceAccount(claimed.Namespace, claimed.Name); err != nil {
			return nil, err
		}
	}
	account, err := k.ask(ctx, strings.TrimSpace(token), claimed, aud, want)
	if err != nil {
		return nil, err
	}
	return &Identity{profile: Profile{Issuer: k.name, Kind: KindKubernetes, Claims: claims, ServiceAccount: account}}, nil
}

// ask has the API server review the token, and asks it for what else is needed.
func (k *Kubernetes) ask(ctx context.Context, token string, claimed *ServiceAccount, aud []string, want Expected) (*ServiceAccount, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	select {
	case k.reviews <- struct{}{}:
		defer func() { <-k.reviews }()
	case <-ctx.Done():
		return nil, k.unavailable("a token review", ctx.Err())
	}
	session, err := k.api.session(token)
	if err != nil {
		return nil, k.unavailable("its API server", err)
	}
	account, err := k.review(ctx, session, claimed, aud)
	if err != nil {
		return nil, err
	}
	if k.annotations {
		if account.Annotations, err = k.aliasMetadata(ctx, session, account); err != nil {
			return nil, err
		}
	}
	if want.NamespaceLabels != nil && want.NamespaceLabels(account.Namespace) {
		if account.NamespaceLabels, err = k.namespaceLabels(ctx, session, account); err != nil {
			return nil, err
		}
	}
	return account, nil
}

func (k *Kubernetes) unavailable(what string, err error) error {
	return &UnavailableError{Issuer: k.name, What: what, Err: err}
}

// checkClaims holds the claims against the issuer's and the role's demands, and
// returns the audiences to have reviewed: the role's, or else the token's own,
// which may be none.
func (k *Kubernetes) checkClaims(claims map[string]any, now time.Time, want Expected) ([]string, error) {
	if err := checkRegistered(claims); err != nil {
		return nil, err
	}
	if err := checkIssuer(claims, k.issuers); err != nil {
		return nil, err
	}
	aud, err := audiences(claims)
	if err != nil {
		return nil, err
	}
	if len(want.Audiences) > 0 {
		if err := checkAudience(aud, want.Audiences); err != nil {
			return nil, err
		}
		aud = want.Audiences
	}
	// Tokens in Secrets have no time claims; they end with their Secret.
	if err := checkTimes(claims, now, want, true); err != nil {
		return nil, err
	}
	return aud, checkAge(claims, now, want)
}

// ClaimedServiceAccount returns the service account that a token with these
// claims says to be of, which is not to be believed yet: the claim kubernetes.io of a projected token, or the flat claims of one in a
// Secret.
//
//	{"kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "api", "uid": "1f9…"}, "pod": {…}}}
//	{"kubernetes.io/serviceaccount/namespace": "shop", "kubernetes.io/serviceaccount/service-account.name": "api", …}
func ClaimedServiceAccount(claims map[string]any) (*ServiceAccount, error) {
	const flat = "kubernetes.io/serviceaccount/"
	account := &ServiceAccount{
		Namespace:  text(claims, flat+"namespace"),
		Name:       text(claims, flat+"service-account.name"),
		UID:        text(claims, flat+"service-account.uid"),
		SecretName: text(claims, flat+"secret.name"),
	}
	if projected, ok := claims["kubernetes.io"].(map[string]any); ok {
		account.Namespace = text(projected, "namespace")
		if reference, ok := projected["serviceaccount"].(map[string]any); ok {
			account.Name = text(reference, "name")
			account.UID = text(reference, "uid")
		}
	}
	if account.Namespace == "" || account.Name == "" || account.UID == "" {
		return nil, errors.New("token is not of a Kubernetes service account: a claim with its namespace, name or uid is missing")
	}
	return account, nil
}

// text returns a member that is a string, or "".
func text(object map[string]any, name string) string {
	s, _ := object[name].(string)
	return s
}

// review has the API server review the token, and holds its answer, which is
// what counts, against what the token claims.
func (k *Kubernetes) review(ctx context.Context, s *session, claimed *ServiceAccount, aud []string) (*ServiceAccount, error) {
	status, err := s.review(ctx, aud)
	if err != nil {
		return nil, k.failure(s, "a token review", err)
	}
	if !status.Authenticated || status.Error != "" {
		// The API server's own words are not repeated: they may quote the token.
		return nil, errors.New("token is not valid for the Kubernetes API server: its service account, pod or secret may be deleted")
	}
	// A server that knows no audiences answers with none: it did not check them.
	if len(aud) > 0 && !slices.ContainsFunc(aud, func(a string) bool { return slices.Contains(status.Audiences, a) }) {
		return nil, errors.New("aud claim has no audience that the Kubernetes API server confirmed")
	}
	namespace, name, ok := accountOf(status.User.Username)
	if !ok {
		return nil, errors.New("token is not of a Kubernetes service account, as its API server says")
	}
	if namespace != claimed.Namespace || name != claimed.Name || status.User.UID != claimed.UID {
		return nil, errors.New("token claims another service account than its Kubernetes API server says")
	}
	reviewed := *claimed
	reviewed.Groups = status.User.Groups
	return &reviewed, nil
}

// accountOf splits the user name of a service account.
func accountOf(username string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(username, "system:serviceaccount:")
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// aliasPrefix is what the annotations that become alias metadata begin with.
const aliasPrefix = "vault.hashicorp.com/alias-metadata-"

func (k *Kubernetes) aliasMetadata(ctx context.Context, s *session, account *ServiceAccount) (map[string]string, error) {
	all, err := s.annotations(ctx, account.Namespace, account.Name)
	if err != nil {
		return nil, k.failure(s, "the annotations of a service account", err)
	}
	metadata := make(map[string]string)
	for name, value := range all {
		if name, ok := strings.CutPrefix(name, aliasPrefix); ok {
			metadata[name] = value
		}
	}
	return metadata, nil
}

func (k *Kubernetes) namespaceLabels(ctx context.Context, s *session, account *ServiceAccount) (map[string]string, error) {
	if s.own {
		return nil, errors.New("namespace labels cannot be read, which bound_service_account_namespace_selector needs: the issuer has no token_reviewer_jwt")
	}
	labels, err := s.namespaceLabels(ctx, account.Namespace)
	if err != nil {
		return nil, k.failure(s, "the labels of a namespace", err)
	}
	return labels, nil
}

// failure tells a refusal from an outage. An API server that does not take the
// workload's own token refuses the workload; one that does not take ours is, as
// to this login, down.
func (k *Kubernetes) failure(s *session, what string, err error) error {
	switch refused, forbidden := refusal(err); {
	case s.own && refused:
		return errors.New("token is not valid for the Kubernetes API server: its service account may be deleted or made anew")
	case s.own && forbidden:
		return fmt.Errorf("service account may not request %s, and the issuer has no token_reviewer_jwt", what)
	}
	return k.unavailable(what, err)
}

// parseCACert checks kubernetes_ca_cert.
func parseCACert(pem string) error {
	if pem != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)) {
		return errors.New("kubernetes_ca_cert has no PEM-encoded certificate")
	}
	return nil
}
