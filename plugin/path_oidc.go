package plugin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

// The paths through which people log in. They need no Vault token.
const (
	authURLPattern  = "oidc/auth_url$"
	callbackPattern = "oidc/callback$"
	pollPattern     = "oidc/poll$"
)

// mostNonce is how long a client_nonce may be, in bytes. Vault's own is of 20.
const mostNonce = 512

var clientNonceField = &framework.FieldSchema{
	Type:         framework.TypeString,
	Query:        true,
	Description:  "The client_nonce that oidc/auth_url was given.",
	DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
}

func (b *backend) pathsOIDC() []*framework.Path {
	return []*framework.Path{
		{
			Pattern:      authURLPattern,
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "request", OperationSuffix: "authorization-url"},
			Fields: map[string]*framework.FieldSchema{
				"role": {
					Type:        framework.TypeLowerCaseString,
					Description: "Role to log in with, of type oidc. Default: the default_role of config.",
				},
				"redirect_uri": {
					Type:        framework.TypeString,
					Description: "Where the browser is to come back to: one of the role's allowed_redirect_uris. Not used with callback_mode=device.",
				},
				"client_nonce": {
					Type:         framework.TypeString,
					Description:  "A text that only the program that logs in knows, of its own making. Who fetches the login has to give it again. Needed with callback_mode direct and device.",
					DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
				},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{
					Callback:                  b.authURL,
					Summary:                   "Begin the login of a person.",
					ForwardPerformanceStandby: true,
					Responses:                 responds(http.StatusOK, "Where the person's browser is to go.", authURLResponse()),
				},
			},
			HelpSynopsis:    "Begin the login of a person, with a browser.",
			HelpDescription: oidcHelp,
		},
		b.pathCallback(),
		b.pathPoll(),
	}
}

func authURLResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"auth_url":      {Type: framework.TypeString, Required: true, Description: "The address at the issuer that the person's browser is to open."},
		"state":         {Type: framework.TypeString, Description: "For oidc/poll, with callback_mode direct and device."},
		"poll_interval": {Type: framework.TypeString, Description: "How many seconds to wait between two polls, with callback_mode direct and device."},
		"user_code":     {Type: framework.TypeString, Description: "The code that the person is to type there, with callback_mode device, unless auth_url has it."},
	}
}

// authURL answers who begins a login. One that cannot begin has come to its end.
func (b *backend) authURL(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	role, resp, err := b.begin(ctx, req, d)
	if err != nil {
		b.counted(byOIDC, role, err)
		return b.refuse(err)
	}
	return resp, nil
}

// begin begins a login. It asks the issuer for nothing but what is kept of it, and keeps
// nothing itself. The role is that of a login that cannot begin, too.
func (b *backend) begin(ctx context.Context, req *logical.Request, d *framework.FieldData) (*role, *logical.Response, error) {
	now := time.Now()
	role, err := b.peopleRole(ctx, req.Storage, d)
	if err != nil {
		return nil, nil, err
	}
	issuer, err := b.peopleIssuer(ctx, req.Storage, role)
	if err != nil {
		return role, nil, err
	}
	login := &people.Login{Mode: role.entry.CallbackMode, Role: role.name, Address: remoteAddress(req)}
	nonce := textOf(d, "client_nonce")
	switch {
	case len(nonce) > mostNonce:
		return role, nil, fault.In("client_nonce", "has %d bytes: at most %d are taken", len(nonce), mostNonce)
	case nonce == "" && login.Mode != people.ModeClient:
		return role, nil, fault.In("client_nonce", "is missing: in callback_mode=%s it tells who may fetch the login", login.Mode)
	}
	login.SetClientNonce(nonce)
	if login.Mode == people.ModeDevice {
		resp, err := b.beginDevice(ctx, issuer, role, login, now)
		return role, resp, err
	}
	redirect, namespace, err := redirectOf(d, issuer, role)
	if err != nil {
		b.Logger().Warn("a login was refused", "role", role.name, "redirect_uri", textOf(d, "redirect_uri"), "error", err)
		return role, nil, err
	}
	login.RedirectURI, login.Interval = redirect, pollInterval(role, 0)
	address, state, err := b.people.AuthURL(ctx, issuer.people, login, role.want(), now)
	if err != nil {
		return role, nil, err
	}
	if namespace != "" {
		address = people.WithNamespace(address, state, namespace)
	}
	resp := &logical.Response{Data: map[string]any{"auth_url": address}}
	if login.Mode == people.ModeDirect {
		resp.Data["state"] = state
		resp.Data["poll_interval"] = strconv.Itoa(login.Interval)
	}
	return role, resp, nil
}

// peopleRole is the role that the request names, or the default one.
func (b *backend) peopleRole(ctx context.Context, s logical.Storage, d *framework.FieldData) (*role, error) {
	name, err := b.loginRoleName(ctx, s, d)
	if err != nil {
		return nil, err
	}
	return b.roleOfPeople(ctx, s, name)
}

func (b *backend) roleOfPeople(ctx context.Context, s logical.Storage, name string) (*role, error) {
	role, err := b.namedRole(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if role.entry.RoleType != roles.TypeOIDC {
		return nil, fault.In("role", "%q is of type %s: no browser logs in with it", name, role.entry.RoleType)
	}
	return role, nil
}

// peopleIssuer is the role's issuer, which people log in with.
func (b *backend) peopleIssuer(ctx context.Context, s logical.Storage, role *role) (*issuer, error) {
	issuer, err := b.issuer(ctx, s, role.entry.Issuer)
	if err != nil {
		return nil, err
	}
	if issuer == nil || issuer.people == nil {
		return nil, fault.In("role", "%q names issuer %q, which has no oidc_client_id", role.name, role.entry.Issuer)
	}
	return issuer, nil
}

// want is what the role asks of a person's login.
func (r *role) want() people.Want {
	return people.Want{Scopes: r.entry.OIDCScopes, Token: r.compiled.Expected(), Audience: r.entry.BoundAudiences}
}

// redirectOf is where the browser is to come back to, without the namespace that goes
// into the state.
func redirectOf(d *framework.FieldData, issuer *issuer, role *role) (redirect, namespace string, err error) {
	redirect = textOf(d, "redirect_uri")
	if redirect == "" {
		return "", "", fault.In("redirect_uri", "is missing")
	}
	if !issuer.entry.NamespaceInQuery {
		if redirect, namespace, err = cutNamespace(redirect); err != nil {
			return "", "", err
		}
	}
	if !people.RedirectAllowed(redirect, role.entry.AllowedRedirectURIs) {
		return "", "", fault.In("redirect_uri", "is none of the role's allowed_redirect_uris")
	}
	return redirect, namespace, nil
}

func cutNamespace(redirect string) (without, namespace string, err error) {
	u, err := url.Parse(redirect)
	if err != nil {
		return "", "", fault.In("redirect_uri", "is not a URI")
	}
	query := u.Query()
	namespace = query.Get("namespace")
	if namespace == "" {
		return redirect, "", nil
	}
	query.Del("namespace")
	u.RawQuery = query.Encode()
	return u.String(), namespace, nil
}

// pollInterval is how many seconds a program is to wait between two polls.
func pollInterval(role *role, asked int) int {
	switch {
	case role.entry.PollInterval > 0:
		return int(role.entry.PollInterval)
	case asked > 0:
		return asked
	}
	return 5 // RFC 8628 section 3.2
}

func remoteAddress(req *logical.Request) string {
	if req.Connection == nil {
		return ""
	}
	return req.Connection.RemoteAddr
}

// refuse is answer for what logs people in: what only the log may say goes there.
func (b *backend) refuse(err error) (*logical.Response, error) {
	return answer(b.explain(err))
}

// explain makes an error of package people one that can be answered with.
func (b *backend) explain(err error) error {
	var refusal *people.Refusal
	switch {
	case errors.As(err, &refusal):
		if refusal.Detail != "" {
			b.Logger().Warn("a person was not logged in", "error", refusal.Text, "detail", refusal.Detail)
		}
		return fault.New("%s", refusal.Text)
	case errors.Is(err, people.ErrBusy):
		return logical.CodedError(http.StatusServiceUnavailable, err.Error())
	case isUnavailable(err):
		return b.unavailable("error logging in", err)
	}
	return err
}

const oidcHelp = `
People log in with a browser, in the way of Vault's JWT/OIDC method: a program asks
oidc/auth_url where the browser is to go, the person logs in at the issuer, and the
browser comes back with a code to the program, which brings it to oidc/callback, or
to Vault itself. The answer is that of a login: a Vault token, and NATS credentials.

A login takes five minutes at most, and its state is good once. It is known to the
node that leads: when another comes to lead, the login is begun again.
`
