// Package claims says who is calling. Its issuers, [JWT] and [Kubernetes],
// verify the token that a workload got from its platform and answer with an
// [Identity]. The package knows neither Vault's storage nor NATS.
//
// The rules are those of Vault's JWT and Kubernetes auth methods, so that a
// token which logs in there logs in here. Where the rules are stricter, the
// comment at the check says so.
package claims

import "time"

// Kind tells how an issuer's tokens are verified.
type Kind string

const (
	// KindJWT is an issuer whose public keys are known: by OIDC discovery, from
	// a JWKS, or configured.
	KindJWT Kind = "jwt"
	// KindKubernetes is a Kubernetes API server that reviews the tokens of its
	// service accounts.
	KindKubernetes Kind = "kubernetes"
)

// Profile is what a token says about its bearer.
type Profile struct {
	// Issuer is the mount's own name of the issuer, as in issuer/<name>. It is
	// not the iss claim.
	Issuer string
	Kind   Kind
	// Claims is the token's payload: objects are map[string]any, arrays []any,
	// numbers json.Number, so that none is rounded.
	Claims map[string]any
	// ServiceAccount is set for a Kubernetes token, and only for one.
	ServiceAccount *ServiceAccount
}

// ServiceAccount is the Kubernetes service account that a token belongs to, as
// the API server's review of the token confirmed it.
type ServiceAccount struct {
	Namespace string
	Name      string
	UID       string
	// SecretName is the Secret that holds the token; empty for a projected
	// token.
	SecretName string
	// Groups are the groups that the review gave the service account.
	Groups []string
	// Annotations are the service account's annotations whose key begins with
	// vault.hashicorp.com/alias-metadata-, without that prefix. Any key may
	// follow it. Nil unless KubernetesConfig.UseAnnotationsAsAliasMetadata is set.
	Annotations map[string]string
	// NamespaceLabels are the labels of the namespace. Nil unless
	// Expected.NamespaceLabels asks for them.
	NamespaceLabels map[string]string
}

// Identity is a Profile that an issuer of this package vouches for. Only a
// successful Verify makes one; the zero Identity has an empty Profile.
type Identity struct {
	profile Profile
}

// Profile returns what the verified token says. It is the caller's to read, not
// to change.
func (i *Identity) Profile() *Profile { return &i.profile }

// Expected is what a role demands of a token beyond its signature.
type Expected struct {
	// Audiences are the values of which the token's aud claim must hold at least
	// one. With none given, a JWT issuer refuses a token that has an aud claim,
	// and a Kubernetes issuer leaves the audience to the token review.
	Audiences []string
	// ExpirationLeeway is added to the later of iat and nbf to make up for a
	// missing exp claim. Zero stands for 150 seconds, a negative value for none.
	ExpirationLeeway time.Duration
	// NotBeforeLeeway is taken from exp to make up for missing nbf and iat
	// claims. Zero stands for 150 seconds, a negative value for none.
	NotBeforeLeeway time.Duration
	// ClockSkewLeeway is how far the issuer's clock and ours may be apart in
	// every comparison of a time claim. Zero stands for 60 seconds, a negative
	// value for none.
	ClockSkewLeeway time.Duration
	// MaxAge is how long ago the workload may have authenticated to its issuer:
	// its auth_time claim, or iat where there is none. Zero stands for any age.
	MaxAge time.Duration
	// ServiceAccount, if set, says why the role takes no token of a service
	// account. A Kubernetes issuer calls it with what a token claims, before it
	// has the token reviewed: a forged one must not cost the API server anything.
	ServiceAccount func(namespace, name string) error
	// NamespaceLabels, if set, says whether the role needs to know the labels of a
	// service account's namespace. Without a need a Kubernetes issuer does not ask
	// for them: its reviewer may not be allowed to.
	NamespaceLabels func(namespace string) bool
}
