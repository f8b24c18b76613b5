package plugin

import (
	"context"
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

// What is answered until a login is completed, as in RFC 8628 section 3.5.
var errPending = fault.New("authorization_pending")

// poll answers the program that began a login, once the person is logged in.
func (b *backend) poll(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	now, state := time.Now(), textOf(d, "state")
	login, err := b.people.Open(state, now)
	if err != nil {
		return answer(err)
	}
	if login.Mode == people.ModeClient {
		return answer(fault.In("state", "is of a login that comes back to oidc/callback: nobody polls for it"))
	}
	if !login.IsOf(textOf(d, "client_nonce")) {
		return answer(fault.In("client_nonce", "is not that of the program which began the login"))
	}
	v, err := b.resume(ctx, req.Storage, login, state)
	if err != nil {
		return answer(err)
	}
	if err := checkAddress(req, v.role); err != nil {
		return nil, err
	}
	person, err := b.people.Take(login, now)
	if person == nil && err == nil && login.Mode == people.ModeDevice {
		person, err = b.people.PollDevice(ctx, v.issuer.people, login, v.role.want(), now)
		if person != nil {
			person, err = b.complement(ctx, v, person, err)
		}
	}
	switch {
	case err != nil:
		return b.refuse(err)
	case person == nil:
		return answer(errPending)
	}
	return b.welcome(ctx, req, d, v, person, now)
}

// beginDevice has the issuer give a code that the person types there.
func (b *backend) beginDevice(ctx context.Context, issuer *issuer, role *role, login *people.Login, now time.Time) (*logical.Response, error) {
	login.Interval = int(role.entry.PollInterval)
	device, err := b.people.BeginDevice(ctx, issuer.people, login, role.want(), now)
	if err != nil {
		return b.refuse(err)
	}
	data := map[string]any{"auth_url": device.Address, "state": device.State, "poll_interval": strconv.Itoa(login.Interval)}
	if device.UserCode != "" {
		data["user_code"] = device.UserCode
	}
	return &logical.Response{Data: data}, nil
}
