package people

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/cap/oidc"
	"golang.org/x/oauth2"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// ErrBusy is that more people log in at the moment than issuers are asked for.
var ErrBusy = errors.New("too many people log in at this moment: try again")

// What is answered until a login is completed, as in RFC 8628 section 3.5: that it is
// not yet, or that somebody asks for it too often.
var (
	ErrPending  = fault.New("authorization_pending")
	ErrSlowDown = fault.New("slow_down")
)

// A Refusal is why a person is not logged in. Its text can be shown to whoever tries.
type Refusal struct {
	Text   string
	Detail string // for the log, without secrets; empty: the text says all
}

func (r *Refusal) Error() string { return r.Text }

// oauthErrors are those that RFC 6749 section 5.2 and RFC 8628 section 3.5 name.
var oauthErrors = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"access_denied", "expired_token", "server_error", "temporarily_unavailable",
	"authorization_pending", "slow_down",
}

// named returns the error that an issuer named if it is one of those known, so that
// nothing else of what it says is shown to anyone.
func named(code string) string {
	if slices.Contains(oauthErrors, code) {
		return code
	}
	return "an error of its own"
}

// refusals are the errors of cap that say something of what a person brought.
var refusals = []struct {
	err  error
	text string
}{
	{oidc.ErrInvalidNonce, "the ID token's nonce is not that of this login"},
	{oidc.ErrInvalidAuthorizedParty, "the ID token's azp claim does not name this mount's oidc_client_id"},
	{oidc.ErrInvalidAudience, "the ID token's aud claim has none of the audiences that are accepted, or lacks the oidc_client_id"},
	{oidc.ErrInvalidAtHash, "the ID token's at_hash claim is not of the access token that came with it"},
	{oidc.ErrInvalidCodeHash, "the ID token's c_hash claim is not of the code"},
	{oidc.ErrInvalidIssuer, "the ID token's iss claim is not the issuer"},
	{oidc.ErrInvalidIssuedAt, "the ID token's iat claim is in the future"},
	{oidc.ErrInvalidNotBefore, "the ID token is not yet valid"},
	{oidc.ErrExpiredToken, "the ID token is expired"},
	{oidc.ErrExpiredAuthTime, "the person authenticated longer ago than max_age"},
	{oidc.ErrMissingIDToken, "the issuer sent no ID token"},
	{oidc.ErrMissingAccessToken, "the issuer sent no access token"},
	{oidc.ErrMissingClaim, "the ID token lacks a claim that is needed: sub, aud, or auth_time where max_age is set"},
	{oidc.ErrUnsupportedAlg, "the ID token is signed with an algorithm that jwt_supported_algs does not have"},
	{oidc.ErrInvalidSignature, "the ID token's signature is not by a key of the issuer"},
}

// refusal says why cap did not take what the person brought. secrets are what must
// not be repeated.
func (p *Provider) refusal(l *link, err error, secrets ...string) error {
	var retrieve *oauth2.RetrieveError
	var transport *url.Error
	switch {
	case l.failed != nil && errors.Is(l.failed, claims.ErrUnavailable):
		return l.failed
	case l.failed != nil:
		return &Refusal{Text: "error validating the ID token: " + l.failed.Error()}
	case errors.As(err, &retrieve):
		return &Refusal{Text: "the issuer refused the code with " + named(retrieve.ErrorCode), Detail: p.redact(retrieve.ErrorCode+": "+retrieve.ErrorDescription, secrets)}
	case errors.As(err, &transport), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &claims.UnavailableError{Issuer: p.config.Issuer, What: "the exchange of the code", Err: errors.New(p.redact(err.Error(), secrets))}
	}
	if known := refusalOf(err); known != nil {
		return known
	}
	return &Refusal{Text: "what the issuer answered cannot be used", Detail: p.redact(err.Error(), secrets)}
}

// refusalOf says what is wrong in the words of this package, nil if it has none.
func refusalOf(err error) error {
	for _, known := range refusals {
		if errors.Is(err, known.err) {
			return &Refusal{Text: known.text}
		}
	}
	return nil
}

// redact takes out of a text what is secret in a login.
func (p *Provider) redact(text string, secrets []string) string {
	for _, secret := range append(secrets, p.config.ClientSecret) {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
			text = strings.ReplaceAll(text, url.QueryEscape(secret), "[redacted]")
		}
	}
	if len(text) > mostDetail {
		text = text[:mostDetail] + "..."
	}
	return text
}

// mostDetail is how much of what an issuer says is logged, in bytes.
const mostDetail = 1000
