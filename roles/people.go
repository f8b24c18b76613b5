package roles

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// maxPollInterval is how long a program may wait between two polls, in seconds: a
// login has to be fetched in five minutes.
const maxPollInterval = 60

// maxRedirectURI is how long a redirect URI may be, in bytes.
const maxRedirectURI = 1 << 10

// kind is the kind of issuers whose identities the role takes: none for a role of
// type vault.
func (r *Role) kind() claims.Kind {
	switch r.RoleType {
	case TypeJWT, TypeOIDC:
		return claims.KindJWT
	case TypeKubernetes:
		return claims.KindKubernetes
	}
	return ""
}

// UserOf is what the role's user_claim says of an identity: empty if it is not there.
func (c *Compiled) UserOf(p *claims.Profile) string {
	user, _ := c.userClaim.Find(p.Claims).(string)
	return user
}

// checkPeople checks how people log in with a role of type oidc.
func (c *Compiled) checkPeople() error {
	r := &c.role
	if r.RoleType != TypeOIDC {
		return nil
	}
	if len(r.AllowedRedirectURIs) == 0 && r.CallbackMode != CallbackDevice {
		return badField("allowed_redirect_uris", "is required in a role of type oidc: where a person's browser may be sent back to")
	}
	for _, uri := range r.AllowedRedirectURIs {
		if fault := redirectFault(uri); fault != "" {
			return badField("allowed_redirect_uris", "has %s, which %s", quote(uri), fault)
		}
	}
	for _, scope := range r.OIDCScopes {
		if scope == "" || strings.ContainsFunc(scope, notOfScope) {
			return badField("oidc_scopes", "has %s, which is no scope: give several as a list", quote(scope))
		}
	}
	if r.PollInterval > maxPollInterval {
		return badField("poll_interval", "is too long: %d seconds, and the most is %d", r.PollInterval, maxPollInterval)
	}
	if r.PollInterval != 0 && r.CallbackMode == CallbackClient {
		return badField("poll_interval", "is set, but nobody polls in callback_mode=client")
	}
	return nil
}

// notOfScope reports whether a character cannot stand in a scope (RFC 6749 section
// 3.3).
func notOfScope(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r >= 0x7f }

// redirectFault says why a browser cannot be sent to a URI, in words that continue a
// sentence about it.
func redirectFault(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Scheme == "" || u.Opaque == "" && u.Host == "" && u.Path == "":
		return "is not an absolute URI"
	case len(uri) > maxRedirectURI:
		return "is too long"
	case strings.Contains(uri, "#"):
		return "has a fragment (RFC 6749 section 3.1.2)"
	case strings.ContainsAny(uri, "*\\ "):
		return "has a wildcard, a backslash or white space: a redirect URI is compared as it is"
	case u.User != nil:
		return "has a user name"
	case (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() == "":
		return "has no host"
	case u.Scheme == "javascript" || u.Scheme == "data" || u.Scheme == "file" || u.Scheme == "vbscript" || u.Scheme == "blob" || u.Scheme == "about":
		return "is none that a browser is sent to"
	}
	return ""
}

// warnOfPeople warns of roles of type oidc that take more people than may be meant, or
// show more of them.
func (c *Compiled) warnOfPeople(warn func(bool, string)) {
	r := &c.role
	if r.RoleType != TypeOIDC {
		return
	}
	warn(r.VerboseOIDCLogging, "verbose_oidc_logging has the claims of people logged at level debug")
	warn(r.BoundSubject == "" && len(r.BoundClaims) == 0 && r.BoundExpression == "",
		"the role has no bound_claims, bound_subject or bound_expression: everyone whom the issuer knows can log in with it")
	for _, uri := range r.AllowedRedirectURIs {
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "http" {
			continue
		}
		host := u.Hostname()
		warn(host != "localhost" && !net.ParseIP(host).IsLoopback(),
			fmt.Sprintf("allowed_redirect_uris has %s: the code comes back there without TLS, for all on the way to read", uri))
	}
}
