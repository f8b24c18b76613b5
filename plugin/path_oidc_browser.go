package plugin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
)

// arrive is the callback of a browser: the person is asked whether it was they who
// began the login. Somebody else could have sent them here, to get what they get
// (RFC 8628 section 5.4).
func (b *backend) arrive(d *framework.FieldData, login *people.Login, err error, now time.Time) (*logical.Response, error) {
	if err != nil {
		return b.turnAway(nil, err, now)
	}
	if problem := textOf(d, "error"); problem != "" {
		err := b.people.Denied(login, problem, now)
		if !errors.Is(err, people.ErrUsed) {
			b.countedEnd(login, err)
		}
		return b.turnAway(nil, err, now)
	}
	if textOf(d, "code") == "" && textOf(d, "id_token") == "" {
		return b.turnAway(nil, fault.In("code", "is missing: the issuer sent none"), now)
	}
	fields := []people.Field{{Name: "confirmation", Value: b.people.Confirmation(login)}}
	for _, name := range []string{"state", "code", "id_token", "iss"} {
		if value := textOf(d, name); value != "" {
			fields = append(fields, people.Field{Name: name, Value: value})
		}
	}
	return pageResponse(http.StatusOK, people.Page{Ask: &people.Question{Role: login.Role, Address: login.Address, Fields: fields}})
}

// callbackForm takes what a browser brings in a form: from the issuer, or from the
// page that asked the person.
func (b *backend) callbackForm(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	now, state := time.Now(), textOf(d, "state")
	login, err := b.people.Open(state, now)
	if err != nil {
		return b.turnAway(nil, err, now)
	}
	v, err := b.resume(ctx, req.Storage, login, state)
	if err != nil {
		return b.turnAway(nil, err, now)
	}
	confirmation := textOf(d, "confirmation")
	switch {
	case login.Mode == people.ModeDevice:
		return b.turnAway(nil, fault.In("state", "is of a login that no browser comes back from"), now)
	case confirmation == "" && !v.issuer.people.FormPost():
		return pageResponse(http.StatusMethodNotAllowed, people.Page{Fault: "Issuer \"" + v.role.entry.Issuer + "\" has no oidc_response_mode=form_post: a form is not expected."})
	case login.Mode == people.ModeDirect && confirmation == "":
		return b.arrive(d, login, nil, now)
	case login.Mode == people.ModeDirect && confirmation != b.people.Confirmation(login):
		return b.turnAway(nil, fault.In("confirmation", "is not that of this login"), now)
	case login.Mode == people.ModeClient && textOf(d, "client_nonce") != "" && !login.IsOf(textOf(d, "client_nonce")):
		return b.turnAway(nil, fault.In("client_nonce", "is not that of the program which began the login"), now)
	}
	person, err := b.complete(ctx, d, v, now)
	if err == nil {
		_, err = v.role.bind(person.Identity, now) // so that the page can say so
	}
	if err == nil {
		err = b.people.Keep(login, person, now)
	}
	switch {
	case errors.Is(err, people.ErrUsed):
		return b.turnAway(nil, err, now) // which is no news of the login itself
	case err != nil:
		return b.turnAway(login, err, now)
	}
	return pageResponse(http.StatusOK, people.Page{Role: login.Role})
}

// turnAway shows a person why they are not logged in. What is known to be of their
// login is told to the program that asks for it, too.
func (b *backend) turnAway(login *people.Login, err error, now time.Time) (*logical.Response, error) {
	if login != nil {
		b.countedEnd(login, err)
	}
	err = b.explain(err)
	text, status := err.Error(), http.StatusBadRequest
	var theirs *fault.Error
	var coded logical.HTTPCodedError
	switch {
	case errors.As(err, &theirs):
	case errors.As(err, &coded):
		status = coded.Code()
	default:
		return nil, err
	}
	if login != nil {
		b.people.Failed(login, text, now)
	}
	return pageResponse(status, people.Page{Fault: text})
}

// pageHeaders are for whatever a page might be made to do. They leave Vault only
// where the mount is tuned for it; the page itself has what of them a page can have.
var pageHeaders = map[string][]string{
	"Content-Security-Policy": {people.Policy + "; frame-ancestors 'none'"},
	"X-Content-Type-Options":  {"nosniff"},
	"X-Frame-Options":         {"DENY"},
	"Referrer-Policy":         {"no-referrer"},
}

func pageResponse(status int, page people.Page) (*logical.Response, error) {
	body, err := page.Render()
	if err != nil {
		return nil, err
	}
	resp := rawResponse(status, "text/html; charset=utf-8", body)
	resp.Data[logical.HTTPCacheControlHeader] = "no-store"
	resp.Headers = pageHeaders
	return resp, nil
}
