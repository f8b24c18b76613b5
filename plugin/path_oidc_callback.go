package plugin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
)

func (b *backend) pathCallback() *framework.Path {
	query := func(description string, sensitive bool) *framework.FieldSchema {
		schema := &framework.FieldSchema{Type: framework.TypeString, Query: true, Description: description}
		if sensitive {
			schema.DisplayAttrs = &framework.DisplayAttributes{Sensitive: true}
		}
		return schema
	}
	return &framework.Path{
		Pattern:      callbackPattern,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "callback"},
		Fields: map[string]*framework.FieldSchema{
			"state":             query("The state that the issuer sent the browser back with.", true),
			"code":              query("The code that it sent the browser back with.", true),
			"iss":               query("What the issuer calls itself (RFC 9207).", false),
			"error":             query("Why the issuer did not log the person in.", false),
			"error_description": query("The same in words.", false),
			"error_uri":         query("Where more is said of it.", false),
			"id_token": {
				Type:         framework.TypeString,
				Description:  "The ID token that the issuer sent the browser back with, in a form.",
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			"confirmation": {
				Type:         framework.TypeString,
				Description:  "What the page that asks a person whether it was they who began the login sends back.",
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			"client_nonce":       clientNonceField,
			"user_public_key":    userPublicKeyField,
			"user_key_signature": userKeySignatureField,
			"user_key_time":      userKeyTimeField,
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:                  b.callback,
				Summary:                   "Complete the login of a person.",
				ForwardPerformanceStandby: true,
				Responses:                 responds(http.StatusOK, "A Vault token in auth, and NATS credentials in data unless the role has credentials_on_login=false; a page, with callback_mode=direct.", credentialsResponse()),
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                  b.callbackForm,
				Summary:                   "Take the form that an issuer sends a browser back with.",
				DisplayAttrs:              &framework.DisplayAttributes{OperationSuffix: "form-post"},
				ForwardPerformanceStandby: true,
				Responses:                 responds(http.StatusOK, "A page that says what came of it.", nil),
			},
		},
		HelpSynopsis:    "Complete the login of a person.",
		HelpDescription: oidcHelp,
	}
}

// A visit is a login that comes back, with all that belongs to it.
type visit struct {
	login  *people.Login
	state  string
	role   *role
	issuer *issuer
}

// resume finds what a login belongs to, and holds it against what has become of that
// since it began.
func (b *backend) resume(ctx context.Context, s logical.Storage, login *people.Login, state string) (*visit, error) {
	role, err := b.roleOfPeople(ctx, s, login.Role)
	if err != nil {
		return nil, err
	}
	issuer, err := b.peopleIssuer(ctx, s, role)
	if err != nil {
		return nil, err
	}
	if role.entry.Issuer != login.Issuer || issuer.people.Client() != login.Client {
		return nil, fault.In("state", "is of a login with another issuer than role %q has now", role.name)
	}
	if role.entry.CallbackMode != login.Mode {
		return nil, fault.In("state", "is of a login with callback_mode=%s, which role %q has no more", login.Mode, role.name)
	}
	if login.Mode != people.ModeDevice && !people.RedirectAllowed(login.RedirectURI, role.entry.AllowedRedirectURIs) {
		return nil, fault.In("state", "is of a login with a redirect_uri that role %q allows no more", role.name)
	}
	return &visit{login: login, state: state, role: role, issuer: issuer}, nil
}

// callback is where a login comes back: from the person's program, which gets the
// answer of a login, or from their browser, which gets a page.
func (b *backend) callback(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	now, state := time.Now(), textOf(d, "state")
	login, err := b.people.Open(state, now)
	if login == nil && people.FromBrowser(state) || login != nil && login.Mode == people.ModeDirect {
		return b.arrive(d, login, err, now)
	}
	var role *role
	var resp *logical.Response
	if err == nil {
		role, resp, err = b.comeBack(ctx, req, d, login, state, now)
	}
	b.counted(byOIDC, role, err)
	if err != nil {
		return b.refuse(err)
	}
	return resp, nil
}

// comeBack completes the login of a person's program. The role is that of a login that is
// refused, too.
func (b *backend) comeBack(ctx context.Context, req *logical.Request, d *framework.FieldData, login *people.Login, state string, now time.Time) (*role, *logical.Response, error) {
	if !login.IsOf(textOf(d, "client_nonce")) {
		return nil, nil, errors.Join(fault.In("client_nonce", "is not that of the program which began the login"), b.people.Use(login, now))
	}
	v, err := b.resume(ctx, req.Storage, login, state)
	if err != nil {
		return nil, nil, err
	}
	if err := checkAddress(req, v.role); err != nil {
		return v.role, nil, err
	}
	person, err := b.people.Take(login, now)
	if person == nil && err == nil {
		person, err = b.complete(ctx, d, v, now)
	}
	if err != nil {
		return v.role, nil, err
	}
	resp, err := b.welcome(ctx, req, d, v, person, now)
	return v.role, resp, err
}

// welcome answers whoever fetches a login, as any login is answered. One that is
// refused can be fetched again: a key may be missing.
func (b *backend) welcome(ctx context.Context, req *logical.Request, d *framework.FieldData, v *visit, person *people.Person, now time.Time) (*logical.Response, error) {
	bound, err := v.role.bind(person.Identity, now)
	if err != nil {
		return nil, err
	}
	resp, err := b.grant(ctx, req, d, v.role, bound, evidence{by: v.state, role: v.role.name}, now)
	if err != nil {
		_ = b.people.Keep(v.login, person, now) // if there is room
	}
	return resp, err
}

// complete has the issuer say who the person is.
func (b *backend) complete(ctx context.Context, d *framework.FieldData, v *visit, now time.Time) (*people.Person, error) {
	if problem := textOf(d, "error"); problem != "" {
		return nil, b.people.Denied(v.login, problem, now)
	}
	code, idToken := textOf(d, "code"), textOf(d, "id_token")
	if code == noCode {
		code = ""
	}
	if code == "" && idToken == "" {
		return nil, fault.In("code", "is missing: the issuer sent none")
	}
	if err := v.issuer.people.CheckResponder(ctx, textOf(d, "iss"), v.login.Mode == people.ModeDirect, now); err != nil {
		return nil, err
	}
	var person *people.Person
	var err error
	if code != "" {
		person, err = b.people.Exchange(ctx, v.issuer.people, v.login, v.state, code, v.role.want(), now)
	} else {
		person, err = b.people.Accept(ctx, v.issuer.people, v.login, v.state, idToken, v.role.want(), now)
	}
	return b.complement(ctx, v, person, err)
}

// noCode is what Vault's own pages say in place of a code that came with a form.
const noCode = "no_code"

// complement adds to what the issuer said of a person what its directory does.
func (b *backend) complement(ctx context.Context, v *visit, person *people.Person, err error) (*people.Person, error) {
	var userinfo *people.UserinfoError
	if errors.As(err, &userinfo) {
		b.Logger().Warn("a person is known by their ID token alone", "role", v.role.name, "error", userinfo)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if person.Identity, err = b.enrich(ctx, v.issuer, v.role, person.Identity, person.AccessToken, false); err != nil {
		return nil, err
	}
	if v.role.entry.VerboseOIDCLogging && b.Logger().IsDebug() {
		b.Logger().Debug("the issuer says of a person", "role", v.role.name, "claims", people.Loggable(person.Identity.Profile().Claims))
	}
	return person, nil
}

// enrich adds to what a token says what its issuer's provider_config does, if it has
// one. presented says that the access token is from whoever logs in.
func (b *backend) enrich(ctx context.Context, issuer *issuer, role *role, identity *claims.Identity, accessToken string, presented bool) (*claims.Identity, error) {
	if issuer.source == nil {
		return identity, nil
	}
	profile := identity.Profile()
	more, err := people.Ask(ctx, issuer.source, &people.Subject{
		Claims: profile.Claims, User: role.compiled.UserOf(profile), GroupsClaim: role.entry.GroupsClaim, AccessToken: accessToken, Presented: presented,
	})
	switch {
	case isUnavailable(err):
		return nil, b.unavailable("error completing claims", err)
	case err != nil:
		return nil, fault.New("error completing claims: %s", err)
	}
	return identity.With(more), nil
}

func isUnavailable(err error) bool { return errors.Is(err, claims.ErrUnavailable) }
