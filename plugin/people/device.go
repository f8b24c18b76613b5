package people

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/cap/oidc"
	"golang.org/x/oauth2"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// The device flow of RFC 8628, which cap does not have.

const (
	deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"
	scopeOpenID = "openid"
)

// mostDeviceCode is how long a device code may be, in bytes: it is part of the state.
const mostDeviceCode = 4 << 10

// A Device is where and how a person logs in on another device.
type Device struct {
	Address  string
	UserCode string // to be typed there; empty: the address has it
	State    string
}

// BeginDevice begins a login in which the person types a code at the issuer.
func (d *Desk) BeginDevice(ctx context.Context, p *Provider, login *Login, want Want, now time.Time) (*Device, error) {
	ctx, done, err := p.ask(ctx, mostBeginning)
	if err != nil {
		return nil, err
	}
	defer done()
	provider, link, err := p.open(ctx, now, "")
	if err != nil {
		return nil, err
	}
	defer provider.Done()
	if link.endpoints.Device == "" {
		return nil, &Refusal{Text: fmt.Sprintf("issuer %q has no device flow: its discovery document names no device_authorization_endpoint", p.config.Issuer)}
	}
	form := url.Values{"scope": {strings.Join(append([]string{scopeOpenID}, want.Scopes...), " ")}}
	var answer struct {
		DeviceCode      string `json:"device_code"`
		UserCode        string `json:"user_code"`
		Address         string `json:"verification_uri"`
		Complete        string `json:"verification_uri_complete"`
		GoogleAddress   string `json:"verification_url"` // Google's name of it
		GoogleCompleted string `json:"verification_url_complete"`
		Interval        int    `json:"interval"`
	}
	if err := p.post(ctx, link, link.endpoints.Device, form, &answer); err != nil {
		return nil, err
	}
	if answer.DeviceCode == "" || len(answer.DeviceCode) > mostDeviceCode {
		return nil, &Refusal{Text: "the issuer sent no device_code that can be used"}
	}
	device := &Device{}
	for _, complete := range []string{answer.Complete, answer.GoogleCompleted} {
		if complete != "" {
			device.Address = complete
		}
	}
	if device.Address == "" {
		device.UserCode = answer.UserCode
		if device.Address = answer.Address; device.Address == "" {
			device.Address = answer.GoogleAddress
		}
	}
	if address, err := url.Parse(device.Address); err != nil || address.Scheme != "https" && address.Scheme != "http" {
		return nil, &Refusal{Text: "the issuer sent no verification_uri that can be used"}
	}
	if login.Interval == 0 {
		login.Interval = answer.Interval
	}
	if login.Interval <= 0 || login.Interval > 60 {
		login.Interval = 5 // RFC 8628 section 3.2
	}
	login.Device, login.Began, login.Client, login.Issuer = answer.DeviceCode, now.Unix(), p.Client(), p.config.Issuer
	device.State, err = d.seal.close(login)
	return device, err
}

// PollDevice asks the issuer whether the person has logged in: nobody while they have
// not.
func (d *Desk) PollDevice(ctx context.Context, p *Provider, login *Login, want Want, now time.Time) (*Person, error) {
	if !d.polls.may(login, now) {
		return nil, ErrSlowDown
	}
	ctx, done, err := p.ask(ctx, mostAsking)
	if err != nil {
		return nil, err
	}
	defer done()
	provider, link, err := p.open(ctx, now, "")
	if err != nil {
		return nil, err
	}
	defer provider.Done()
	var raw struct {
		oauth2.Token
		IDToken string `json:"id_token"`
	}
	err = p.post(ctx, link, link.endpoints.Token, url.Values{"grant_type": {deviceGrant}, "device_code": {login.Device}}, &raw)
	var refused *deviceError
	if errors.As(err, &refused) {
		switch refused.code {
		case "authorization_pending":
			return nil, ErrPending
		case "slow_down":
			return nil, ErrSlowDown
		}
	}
	if err != nil {
		return nil, err
	}
	if err := d.Use(login, now); err != nil {
		return nil, err
	}
	d.Done(login, now)
	if raw.IDToken == "" {
		return nil, &Refusal{Text: "the issuer sent no ID token"}
	}
	token, err := oidc.NewToken(oidc.IDToken(raw.IDToken), &raw.Token)
	if err != nil {
		return nil, err
	}
	person, err := p.person(ctx, raw.IDToken, login, want, now)
	if err != nil {
		return nil, err
	}
	if err := p.checkUnasked(token, person); err != nil {
		return nil, err
	}
	person.AccessToken, link.idToken = raw.AccessToken, raw.IDToken
	return person, p.addUserinfo(ctx, provider, token, person)
}

// checkUnasked checks of the ID token of a device flow what cap checks of those that
// it asked for (OpenID Connect Core section 3.1.3.7): that flow has no nonce, which
// cap insists on. The rest is checked already.
func (p *Provider) checkUnasked(token *oidc.Tk, person *Person) error {
	said := person.Identity.Profile().Claims
	audience, _ := said["aud"].([]any)
	azp, hasAzp := said["azp"]
	named := said["aud"] == p.config.ClientID
	for _, a := range audience {
		named = named || a == p.config.ClientID
	}
	switch {
	case said["nonce"] != nil: // of another login, which asked for one
		return refusalOf(oidc.ErrInvalidNonce)
	case said["iss"] != p.config.DiscoveryURL:
		return refusalOf(oidc.ErrInvalidIssuer)
	case said["sub"] == nil || said["sub"] == "":
		return refusalOf(oidc.ErrMissingClaim)
	case hasAzp && azp != p.config.ClientID, len(audience) > 1 && !hasAzp:
		return refusalOf(oidc.ErrInvalidAuthorizedParty)
	case !named && !hasAzp, len(audience) > 1 && !named:
		return refusalOf(oidc.ErrInvalidAudience)
	}
	if token.AccessToken() != "" {
		if _, err := token.IDToken().VerifyAccessToken(token.AccessToken()); err != nil {
			return refusalOf(oidc.ErrInvalidAtHash)
		}
	}
	return nil
}

// A deviceError is an error that an issuer named.
type deviceError struct {
	code string
	Refusal
}

// Unwrap returns what can be shown of it.
func (e *deviceError) Unwrap() error { return &e.Refusal }

// post sends a form to an endpoint of the issuer's, as the client that the mount is
// there: by HTTP basic authentication, and if that is not taken with the secret in the
// form. Issuers demand the one or the other of a client, and do not say which.
func (p *Provider) post(ctx context.Context, l *link, endpoint string, form url.Values, into any) error {
	err := p.postOnce(ctx, l, endpoint, form, l.endpoints.takesBasic(), into)
	var refused *deviceError
	if errors.As(err, &refused) && refused.code == "invalid_client" {
		return p.postOnce(ctx, l, endpoint, form, false, into)
	}
	return err
}

func (p *Provider) postOnce(ctx context.Context, l *link, endpoint string, form url.Values, basic bool, into any) error {
	form.Set("client_id", p.config.ClientID)
	if !basic {
		form.Set("client_secret", p.config.ClientSecret)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	if basic { // RFC 6749 section 2.3.1
		request.SetBasicAuth(url.QueryEscape(p.config.ClientID), url.QueryEscape(p.config.ClientSecret))
	}
	response, err := l.pass(request)
	if err != nil {
		return p.unreachable(err, form.Get("device_code"))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return p.unreachable(err, form.Get("device_code"))
	}
	if response.StatusCode != http.StatusOK {
		var said struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		_ = json.Unmarshal(body, &said) // what is no JSON says nothing
		if said.Error == "" && response.StatusCode == http.StatusUnauthorized {
			said.Error = "invalid_client"
		}
		return &deviceError{code: said.Error, Refusal: Refusal{
			Text:   "the issuer refused the login with " + named(said.Error),
			Detail: p.redact(fmt.Sprintf("status %d, %s: %s", response.StatusCode, said.Error, said.Description), []string{form.Get("device_code")}),
		}}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return &Refusal{Text: "what the issuer answered cannot be used", Detail: "it is not JSON"}
	}
	return nil
}

func (p *Provider) unreachable(err error, secrets ...string) error {
	return &claims.UnavailableError{Issuer: p.config.Issuer, What: "its answer", Err: errors.New(p.redact(err.Error(), secrets))}
}

// polls remember when an issuer was last asked about a login.
type polls struct {
	mu                sync.Mutex
	current, previous map[ID]time.Time
	since             time.Time
}

// mostPolls is of how many logins they remember it. Of others the issuer itself says
// when it is asked too often.
const mostPolls = 1 << 13

// may reports whether the issuer may be asked again, and notes that it is.
func (p *polls) may(login *Login, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil || len(p.current) >= mostPolls || now.Sub(p.since) > Lifetime {
		p.current, p.previous, p.since = map[ID]time.Time{}, p.current, now
	}
	last, ok := p.current[login.ID]
	if !ok {
		last, ok = p.previous[login.ID]
	}
	// Programs count their interval from their own clock, and the network's.
	least := time.Duration(login.Interval)*time.Second - 500*time.Millisecond
	if ok && now.Sub(last) < least {
		return false
	}
	p.current[login.ID] = now
	return true
}
