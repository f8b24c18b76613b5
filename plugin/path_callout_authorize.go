package plugin

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/cidrutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/callout"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func (b *backend) pathCalloutAuthorize() *framework.Path {
	return &framework.Path{
		Pattern:      authorizePattern,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "authorize", OperationSuffix: "callout"},
		Fields: map[string]*framework.FieldSchema{
			"name": calloutNameField(),
			"request": {
				Type:         framework.TypeString,
				Description:  "What the nats-server has sent, in standard base64.",
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			"server_xkey": {
				Type:        framework.TypeString,
				Description: "The message's header " + callout.XKeyHeader + ". Absent where the message had none.",
			},
			"batch_input": {
				Type:         framework.TypeSlice,
				Description:  fmt.Sprintf("In place of request and server_xkey: a list of objects with these, %d at most.", mostAsked),
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.authorizeOrForward,
				Summary:  "Answer what a nats-server asks about a client.",
				Responses: responds(http.StatusOK, "The answer, also where it is a refusal. batch_results alone for a batch_input.", map[string]*framework.FieldSchema{
					"response":        {Type: framework.TypeString, Description: "What is to be sent to the nats-server, in standard base64."},
					"allowed":         {Type: framework.TypeBool, Description: "Whether the client is let in. Why it is not stands in the response, which the nats-server logs."},
					"role":            {Type: framework.TypeString, Description: "Role of a client that is let in."},
					"account":         {Type: framework.TypeString, Description: "Account of a client that is let in."},
					"user_name":       {Type: framework.TypeString, Description: "Name of the NATS user of a client that is let in, which nats-server shows."},
					"user_public_key": {Type: framework.TypeString, Description: "Public key of that user, by which it can be revoked. nats-server does not show it."},
					"batch_results":   {Type: framework.TypeSlice, Description: "For each of batch_input, in its order, an object with the above; or with error, and status: that of HTTP which it has alone. One with status 503 takes long, or an issuer does not answer: ask for it once more, alone."},
				}),
			},
		},
		HelpSynopsis:    "Answer what a nats-server asks an auth callout about a client.",
		HelpDescription: authorizeHelp,
	}
}

// authorizeOrForward is authorize, but at a standby. Nothing is stored, so a standby
// answers too; it may not have yet what the leader has.
func (b *backend) authorizeOrForward(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	resp, err := b.authorize(ctx, req, d)
	if b.onStandby() && (err != nil || resp.IsError()) {
		return nil, logical.ErrReadOnly
	}
	return resp, err
}

// authorize is a login whose answer goes to the nats-server. What it makes is for a key
// of the server's, and no token of Vault's comes of it.
func (b *backend) authorize(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	open, err := b.openCallout(ctx, req.Storage, textOf(d, "name"))
	if err != nil {
		return answer(err)
	}
	if batch, ok := d.GetOk("batch_input"); ok {
		return b.authorizeBatch(ctx, req.Storage, open, d, batch.([]any))
	}
	data, err := b.reply(ctx, req.Storage, open, asking{textOf(d, "request"), textOf(d, "server_xkey")})
	if err != nil {
		return answer(err)
	}
	return &logical.Response{Data: data}, nil
}

// answering is a callout with what its answers take.
type answering struct {
	*authCallout
	account string // public key of its account
	signer  *trust.Key
}

func (b *backend) openCallout(ctx context.Context, s logical.Storage, name string) (*answering, error) {
	ready, err := b.callout(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if ready == nil {
		return nil, fault.In("name", "%q is not a callout", name)
	}
	account, err := b.calloutAccount(ctx, s, ready)
	if err != nil {
		return nil, err
	}
	if account == nil {
		return nil, errLostAccount("name", ready)
	}
	signer, err := account.Callout.Signer()
	return &answering{ready, account.PublicKey, signer}, err
}

// asking is what a responder brings: a nats-server's message and its header.
type asking struct{ request, xkey string }

// reply is the login: read what the nats-server asks, role, verify, bind, issue, answer.
func (b *backend) reply(ctx context.Context, s logical.Storage, open *answering, what asking) (map[string]any, error) {
	now := time.Now()
	asked, err := readRequest(what, open, now)
	if err != nil {
		b.counted(byCallout, nil, err)
		return nil, err
	}
	admitted, creds, err := b.admit(ctx, s, open.authCallout, asked, now)
	b.counted(byCallout, admitted, err)
	if err != nil && !isTold(err) {
		return nil, err
	}
	data := map[string]any{"allowed": err == nil}
	var message []byte
	if err != nil {
		message, err = asked.Refuse(open.signer, err.Error(), now)
	} else {
		data["role"], data["account"] = admitted.name, creds.account
		data["user_name"], data["user_public_key"] = creds.userName, creds.userPublicKey
		message, err = asked.Admit(open.signer, creds.jwt, now)
	}
	if err != nil {
		return nil, err
	}
	data["response"] = base64.StdEncoding.EncodeToString(message)
	return data, nil
}

// readRequest reads what the nats-server asks.
func readRequest(what asking, open *answering, now time.Time) (*callout.Request, error) {
	if base64.StdEncoding.DecodedLen(len(what.request)) > callout.MaxRequest+2 {
		return nil, fault.In("request", "is too large: at most %d bytes are taken", callout.MaxRequest)
	}
	raw, err := base64.StdEncoding.DecodeString(what.request)
	if err != nil || len(raw) == 0 {
		return nil, fault.In("request", "is not what a nats-server has sent, in standard base64")
	}
	asked, err := callout.Read(raw, what.xkey, open.account, open.seal(now), now)
	if err != nil {
		return nil, fault.In("request", "%s", err)
	}
	return asked, nil
}

// admit is what a login does, for the user key that the nats-server has made. What
// is the callout's to say about a role is told only to whom the role takes. The role is
// that of a client that is refused, too.
func (b *backend) admit(ctx context.Context, s logical.Storage, ready *authCallout, asked *callout.Request, now time.Time) (*role, *credentials, error) {
	name, token, err := asked.Credentials()
	if err != nil {
		return nil, nil, fault.New("%s", err)
	}
	role, err := b.calloutRole(ctx, s, ready, name)
	switch {
	case err != nil && b.onStandby():
		return nil, nil, logical.ErrReadOnly // the leader may have it
	case err != nil:
		return nil, nil, err
	}
	cidrs := role.entry.TokenParams.TokenBoundCIDRs
	if len(cidrs) > 0 && !cidrutil.RemoteAddrIsOk(asked.Host, cidrs) {
		return role, nil, logical.ErrPermissionDenied
	}
	identity, err := b.verify(ctx, s, role, token, "", now)
	if err != nil {
		return role, nil, err
	}
	bound, err := role.compiled.Bind(identity.Profile(), now)
	if err != nil {
		return role, nil, fault.New("error validating claims: %s", err)
	}
	account, err := b.chain.Account(ctx, s, role.entry.Account)
	if err != nil {
		return role, nil, err
	}
	if err := ready.entry.checkRole(role, account); err != nil {
		b.Logger().Warn("a role cannot be used through a callout", "callout", ready.name, "role", role.name, "error", err)
		return role, nil, fault.New("role %q cannot be used through the callout", role.name)
	}
	// nats-server does not look at src of a callout's clients.
	if sources := role.compiled.Sources(); len(sources) > 0 {
		if ok, err := cidrutil.IPBelongsToCIDRBlocksSlice(asked.Host, sources); err != nil || !ok {
			return role, nil, logical.ErrPermissionDenied
		}
	}
	creds, err := b.issue(ctx, s, role, bound, userKey{public: asked.User}, now)
	return role, creds, err
}

// calloutRole is the role that the client asks for, or the default one. One that the
// callout does not take looks like one that does not exist.
func (b *backend) calloutRole(ctx context.Context, s logical.Storage, ready *authCallout, name string) (*role, error) {
	name = strings.ToLower(name)
	if name == "" {
		name = ready.entry.DefaultRole
	}
	if name == "" {
		return nil, fault.In("role", "is missing, and the callout has no default_role")
	}
	if err := fault.CheckLength("role", name); err != nil {
		return nil, err
	}
	if !ready.entry.takes(name) {
		return nil, errNoRole(name)
	}
	return b.roleOfIssuer(ctx, s, name)
}

// isTold tells a refusal, which the nats-server is told in the answer, from a fault
// of the mount, after which the responder may ask once more.
func isTold(err error) bool {
	var theirs *fault.Error
	return errors.As(err, &theirs) || isRefusal(err)
}

const authorizeHelp = `
The request is what a nats-server publishes to $SYS.REQ.USER.AUTH in the callout's
account, and the response what it is to be answered with, both as they stand. The
request is checked, and the client's token verified as at a login with its role.

The role is the client's user name and the token its password, or its token alone,
with the role and a colon in front of it or for the default role.

With batch_input many requests are answered at once, for much less of Vault's work.

A refusal is a response too. A status 400 is for a request that is no nats-server's,
or not for this callout.
`
