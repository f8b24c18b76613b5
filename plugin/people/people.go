package people

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/cap/oidc"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// Values of oidc_response_mode and oidc_response_types.
const (
	ResponseQuery    = "query"
	ResponseFormPost = "form_post"
	ResponseCode     = "code"
	ResponseIDToken  = "id_token"
)

// A Config is what makes an issuer an OpenID provider for the mount.
type Config struct {
	Issuer        string // the mount's name of it
	DiscoveryURL  string // its own name
	ClientID      string
	ClientSecret  string
	ResponseMode  string
	ResponseTypes []string
	Algorithms    []string // none: all that are supported
}

// Check says which field is at fault.
func (c *Config) Check() error {
	switch {
	case c.ClientID == "" || c.ClientSecret == "":
		return fault.In("oidc_client_secret", "and oidc_client_id are set together or not at all")
	case c.DiscoveryURL == "":
		return fault.In("oidc_client_id", "is set without oidc_discovery_url: a person's browser is sent to an issuer that is discovered")
	case !slices.Contains([]string{"", ResponseQuery, ResponseFormPost}, c.ResponseMode):
		return fault.In("oidc_response_mode", "is %q: it is %q or %q", c.ResponseMode, ResponseQuery, ResponseFormPost)
	}
	for _, responseType := range c.ResponseTypes {
		if responseType != ResponseCode && responseType != ResponseIDToken {
			return fault.In("oidc_response_types", "has %q: it is of %q and %q", responseType, ResponseCode, ResponseIDToken)
		}
	}
	if c.implicit() && c.ResponseMode != ResponseFormPost {
		return fault.In("oidc_response_mode", "is not %q, which oidc_response_types with %q needs: an ID token does not belong in an address", ResponseFormPost, ResponseIDToken)
	}
	return nil
}

// implicit reports whether ID tokens are asked for instead of codes.
func (c *Config) implicit() bool { return slices.Contains(c.ResponseTypes, ResponseIDToken) }

// A Provider is an issuer that people log in with.
type Provider struct {
	config     Config
	issuer     *claims.JWT
	algorithms []oidc.Alg
	asking     atomic.Int64 // logins for which it is asked at this moment
}

// NewProvider returns the provider that the issuer is.
func NewProvider(config Config, issuer *claims.JWT) (*Provider, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	p := &Provider{config: config, issuer: issuer}
	for _, name := range config.Algorithms {
		p.algorithms = append(p.algorithms, oidc.Alg(name))
	}
	if p.algorithms == nil {
		p.algorithms = []oidc.Alg{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}
	}
	return p, nil
}

// FormPost reports whether the issuer sends people back with a form.
func (p *Provider) FormPost() bool { return p.config.ResponseMode == ResponseFormPost }

// Client says what the provider is to a login: one that began with another issuer, or
// as another of its clients, is not completed with this one.
func (p *Provider) Client() string {
	return fingerprint(p.config.DiscoveryURL + "\x00" + p.config.ClientID)
}

// A Want is what a role asks of a login.
type Want struct {
	Scopes   []string
	Token    claims.Expected // of the ID token
	Audience []string        // bound_audiences; none: the client's own
}

// A Person is who has logged in.
type Person struct {
	// Identity is what the issuer says of them, in the ID token and at its userinfo.
	Identity *claims.Identity
	// AccessToken asks the issuer for more. It is not kept.
	AccessToken string

	length int
}

func (p *Person) size() int { return 1024 + 4*p.length }

// isSame reports whether both are one person.
func (p *Person) isSame(other *Person) bool {
	mine, others := p.Identity.Profile(), other.Identity.Profile()
	return mine.Issuer == others.Issuer && mine.Claims["sub"] == others.Claims["sub"]
}

// AuthURL begins a login: it returns where the browser is to go, and the state.
func (d *Desk) AuthURL(ctx context.Context, p *Provider, login *Login, want Want, now time.Time) (address, state string, err error) {
	login.Began, login.Client, login.Issuer = now.Unix(), p.Client(), p.config.Issuer
	state, err = d.seal.close(login)
	if err != nil {
		return "", "", err
	}
	request, err := d.request(p, login, state, want)
	if err != nil {
		return "", "", err
	}
	provider, _, err := p.open(ctx, now, "")
	if err != nil {
		return "", "", err
	}
	defer provider.Done()
	if address, err = provider.AuthURL(ctx, request); err != nil {
		return "", "", fmt.Errorf("making the address of the issuer: %w", err)
	}
	if p.FormPost() && !p.config.implicit() {
		address += "&response_mode=" + ResponseFormPost // cap adds it to id_token alone
	}
	return address, state, nil
}

// request is the login in cap's words.
func (d *Desk) request(p *Provider, login *Login, state string, want Want) (*oidc.Req, error) {
	options := []oidc.Option{
		oidc.WithState(state),
		oidc.WithNonce(d.seal.derive("nonce", login.ID)),
		oidc.WithScopes(want.Scopes...),
		oidc.WithAudiences(want.Audience...),
		oidc.WithNow(func() time.Time { return time.Unix(login.Began, 0) }),
	}
	if p.config.implicit() {
		options = append(options, oidc.WithImplicitFlow())
	} else {
		verifier, err := oidc.NewCodeVerifier(oidc.WithVerifier(d.seal.derive("pkce", login.ID)))
		if err != nil {
			return nil, err
		}
		options = append(options, oidc.WithPKCE(verifier))
	}
	if age := want.Token.MaxAge; age > 0 {
		options = append(options, oidc.WithMaxAge(uint(age/time.Second)))
	}
	return oidc.NewRequest(Lifetime, login.RedirectURI, options...)
}

// Exchange completes a login with the code that the browser came back with.
func (d *Desk) Exchange(ctx context.Context, p *Provider, login *Login, state, code string, want Want, now time.Time) (*Person, error) {
	request, err := d.request(p, login, state, want)
	if err != nil {
		return nil, err
	}
	if implicit, _ := request.ImplicitFlow(); implicit {
		return nil, fault.In("code", "is not what was asked for: oidc_response_types has id_token")
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
	if err := d.Use(login, now); err != nil {
		return nil, err
	}
	token, err := provider.Exchange(ctx, request, state, code)
	if err != nil {
		return nil, p.refusal(link, err, code, state, d.seal.derive("pkce", login.ID))
	}
	person, err := p.person(ctx, string(token.IDToken()), login, want, now)
	if err != nil {
		return nil, err
	}
	d.Done(login, now)
	person.Identity = person.Identity.Without("nonce") // which says nothing of the person
	person.AccessToken = string(token.AccessToken())
	return person, p.addUserinfo(ctx, provider, token, person)
}

// Accept completes a login with an ID token that the browser came back with.
func (d *Desk) Accept(ctx context.Context, p *Provider, login *Login, state, idToken string, want Want, now time.Time) (*Person, error) {
	request, err := d.request(p, login, state, want)
	if err != nil {
		return nil, err
	}
	if implicit, _ := request.ImplicitFlow(); !implicit {
		return nil, fault.In("id_token", "is not what was asked for: oidc_response_types has no id_token")
	}
	ctx, done, err := p.ask(ctx, mostAsking) // for keys
	if err != nil {
		return nil, err
	}
	defer done()
	provider, link, err := p.open(ctx, now, idToken)
	if err != nil {
		return nil, err
	}
	defer provider.Done()
	if err := d.Use(login, now); err != nil {
		return nil, err
	}
	if _, err := provider.VerifyIDToken(ctx, oidc.IDToken(idToken), request); err != nil {
		return nil, p.refusal(link, err, idToken, state)
	}
	person, err := p.person(ctx, idToken, login, want, now)
	if err != nil {
		return nil, err
	}
	d.Done(login, now)
	person.Identity = person.Identity.Without("nonce")
	return person, nil
}

// Bounds of what an issuer is asked for.
const (
	// mostAsking is for how many logins at one time. Anyone can have an issuer asked,
	// with a made-up code.
	mostAsking = 64
	// mostBeginning is how many of them may be logins that only begin, where the issuer
	// is asked for these, too.
	mostBeginning = 16
	// askingTimeout is how long it may take for one.
	askingTimeout = 20 * time.Second
)

// ask takes one of most places; done gives it back.
func (p *Provider) ask(ctx context.Context, most int64) (bounded context.Context, done func(), err error) {
	if p.asking.Add(1) > most {
		p.asking.Add(-1)
		return nil, nil, ErrBusy
	}
	bounded, cancel := context.WithTimeout(ctx, askingTimeout)
	return bounded, func() { cancel(); p.asking.Add(-1) }, nil
}

// person has the ID token verified as the token of a workload is.
func (p *Provider) person(ctx context.Context, idToken string, login *Login, want Want, now time.Time) (*Person, error) {
	expected := want.Token
	if expected.Audiences = want.Audience; len(expected.Audiences) == 0 {
		expected.Audiences = []string{p.config.ClientID}
	}
	if expected.MaxAge > 0 { // which the person's way here does not count for
		expected.MaxAge += now.Sub(time.Unix(login.Began, 0))
	}
	identity, err := p.issuer.Verify(ctx, idToken, now, expected)
	switch {
	case errors.Is(err, claims.ErrUnavailable):
		return nil, err
	case err != nil:
		return nil, fault.New("error validating the ID token: %s", err)
	}
	return &Person{Identity: identity, length: len(idToken)}, nil
}

// open makes cap's provider for one login. It asks nobody for anything: what it
// wants to know is at hand, or is fetched here.
func (p *Provider) open(ctx context.Context, now time.Time, idToken string) (*oidc.Provider, *link, error) {
	document, err := p.issuer.Discovery(ctx, now)
	if err != nil {
		return nil, nil, err
	}
	link := &link{ctx: ctx, now: now, provider: p, document: document, idToken: idToken}
	if err := json.Unmarshal(document, &link.endpoints); err != nil {
		return nil, nil, fmt.Errorf("reading the issuer's discovery document: %w", err)
	}
	config, err := oidc.NewConfig(p.config.DiscoveryURL, p.config.ClientID, oidc.ClientSecret(p.config.ClientSecret), p.algorithms, nil, oidc.WithRoundTripper(link))
	if err != nil {
		return nil, nil, err
	}
	provider, err := oidc.NewProvider(config)
	return provider, link, err
}

// CheckResponder holds what an issuer calls itself when it sends a person back
// against the one that they were sent to (RFC 9207): with two issuers, the one could
// make the other's codes be brought to it. demanded says that the browser itself
// brings it, and so what an issuer that promises it does not say is a fault.
func (p *Provider) CheckResponder(ctx context.Context, iss string, demanded bool, now time.Time) error {
	if iss == "" {
		if !demanded {
			return nil
		}
		document, err := p.issuer.Discovery(ctx, now)
		if err != nil {
			return err
		}
		var metadata struct {
			Promised bool `json:"authorization_response_iss_parameter_supported"`
		}
		if err := json.Unmarshal(document, &metadata); err != nil || !metadata.Promised {
			return err
		}
		return fault.In("iss", "is missing, though the issuer promises it")
	}
	if iss != p.config.DiscoveryURL {
		return fault.In("iss", "is not the issuer that the login began with")
	}
	return nil
}

// WithNamespace puts the namespace that the person's program came for into the state
// of an address.
func WithNamespace(address, state, namespace string) string {
	return strings.Replace(address, url.QueryEscape(state), url.QueryEscape(state+",ns="+namespace), 1)
}
