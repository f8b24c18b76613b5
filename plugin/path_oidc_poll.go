package plugin

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
)

func (b *backend) pathPoll() *framework.Path {
	return &framework.Path{
		Pattern:      pollPattern,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "poll"},
		Fields: map[string]*framework.FieldSchema{
			"state": {
				Type:         framework.TypeString,
				Description:  "The state that oidc/auth_url answered with.",
				Required:     true,
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			"client_nonce":       clientNonceField,
			"user_public_key":    userPublicKeyField,
			"user_key_signature": userKeySignatureField,
			"user_key_time":      userKeyTimeField,
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                  b.poll,
				Summary:                   "Fetch the login of a person, with callback_mode direct and device.",
				ForwardPerformanceStandby: true,
				Responses:                 responds(http.StatusOK, "A Vault token in auth, and NATS credentials in data unless the role has credentials_on_login=false. Until there is one, the error authorization_pending or slow_down.", credentialsResponse()),
			},
		},
		HelpSynopsis:    "Fetch the login of a person.",
		HelpDescription: oidcHelp,
	}
}

// errEnded is that a login came to its end, and was counted, before.
type errEnded struct{ error }

func (e errEnded) Unwrap() error { return e.error }

// poll answers the program that began a login, and counts it once it has come to its end.
func (b *backend) poll(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	role, resp, err := b.fetch(ctx, req, d)
	var before errEnded
	if !errors.As(err, &before) && !errors.Is(err, people.ErrPending) && !errors.Is(err, people.ErrSlowDown) {
		b.counted(byOIDC, role, err)
	}
	if err != nil {
		return b.refuse(err)
	}
	return resp, nil
}

// fetch fetches a login, once the person is logged in.
func (b *backend) fetch(ctx context.Context, req *logical.Request, d *framework.FieldData) (*role, *logical.Response, error) {
	now, state := time.Now(), textOf(d, "state")
	login, err := b.people.Open(state, now)
	if err != nil {
		return nil, nil, err
	}
	if login.Mode == people.ModeClient {
		return nil, nil, fault.In("state", "is of a login that comes back to oidc/callback: nobody polls for it")
	}
	if !login.IsOf(textOf(d, "client_nonce")) {
		return nil, nil, fault.In("client_nonce", "is not that of the program which began the login")
	}
	v, err := b.resume(ctx, req.Storage, login, state)
	if err != nil {
		return nil, nil, err
	}
	if err := checkAddress(req, v.role); err != nil {
		return v.role, nil, err
	}
	person, err := b.people.Take(login, now)
	if err != nil {
		return v.role, nil, errEnded{err}
	}
	if person == nil && login.Mode == people.ModeDevice {
		person, err = b.people.PollDevice(ctx, v.issuer.people, login, v.role.want(), now)
		if person != nil {
			person, err = b.complement(ctx, v, person, err)
		}
	}
	switch {
	case err != nil:
		return v.role, nil, err
	case person == nil:
		return v.role, nil, people.ErrPending
	}
	resp, err := b.welcome(ctx, req, d, v, person, now)
	return v.role, resp, err
}

// beginDevice has the issuer give a code that the person types there.
func (b *backend) beginDevice(ctx context.Context, issuer *issuer, role *role, login *people.Login, now time.Time) (*logical.Response, error) {
	login.Interval = int(role.entry.PollInterval)
	device, err := b.people.BeginDevice(ctx, issuer.people, login, role.want(), now)
	if err != nil {
		return nil, err
	}
	data := map[string]any{"auth_url": device.Address, "state": device.State, "poll_interval": strconv.Itoa(login.Interval)}
	if device.UserCode != "" {
		data["user_code"] = device.UserCode
	}
	return &logical.Response{Data: data}, nil
}
