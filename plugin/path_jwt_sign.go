package plugin

import (
	"context"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

func (b *backend) pathJWTSign() *framework.Path {
	return &framework.Path{
		Pattern:      signPattern,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "sign", OperationSuffix: "nonce"},
		Fields: map[string]*framework.FieldSchema{
			"name":  {Type: framework.TypeString, Required: true, Description: "Name of the user."},
			"nonce": {Type: framework.TypeString, Required: true, Description: "The challenge that nats-server sent."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.signJWT,
				Summary:  "Sign a nats-server's nonce with the key of a named user.",
				Responses: responds(http.StatusOK, "The signature.", map[string]*framework.FieldSchema{
					"signed_nonce": {Type: framework.TypeString, Required: true, Description: "The signature over nonce, in standard base64."},
				}),
			},
		},
		HelpSynopsis: "Sign a nats-server's nonce with the key of a named user.",
		HelpDescription: `
A client that connects as the user gives the user's JWT, from jwt/:name, and this
signature of the nonce that the server sent: its key never leaves the mount.
`,
	}
}

func (b *backend) signJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	named, err := b.chain.Named(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if named == nil {
		return b.missing(fault.In("name", "%q does not exist", name))
	}
	signed, err := named.SignNonce(d.Get("nonce").(string))
	if err != nil {
		return answer(err)
	}
	return &logical.Response{Data: map[string]any{"signed_nonce": signed}}, nil
}
