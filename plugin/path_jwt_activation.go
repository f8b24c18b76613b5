package plugin

import (
	"context"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

func (b *backend) pathJWTActivation() *framework.Path {
	return &framework.Path{
		Pattern:      "jwt/(?P<name>[^/]+)/activation$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "generate", OperationSuffix: "activation"},
		Fields: map[string]*framework.FieldSchema{
			"name":    {Type: framework.TypeString, Required: true, Description: "Name of the exporting account."},
			"account": {Type: framework.TypeString, Required: true, Description: "The importing account: its name in the mount, or its public key."},
			"subject": {Type: framework.TypeString, Required: true, Description: "The subject that may be imported: an exported one, or a part of it."},
			"type":    {Type: framework.TypeString, Required: true, AllowedValues: []any{"stream", "service"}, Description: `"stream" or "service".`},
			"ttl":     {Type: framework.TypeDurationSecond, Description: "How long the token lives. Default: until it is revoked in the export."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.activate,
				Summary:  "Make the activation token with which another account imports an export that has token_req.",
				Responses: responds(http.StatusOK, "The token.", map[string]*framework.FieldSchema{
					"token": {Type: framework.TypeString, Required: true, Description: "The token, for the import's token in the config of the importing account."},
				}),
			},
		},
		HelpSynopsis: "Let another account import what this one exports with token_req.",
		HelpDescription: `
The token names the importing account and the subject; only that account can use
it. It is revoked by the export's revocations in the config of the exporting
account.
`,
	}
}

func (b *backend) activate(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	token, err := b.chain.ActivationToken(ctx, req.Storage, chain.Activation{
		Exporter: name,
		Importer: d.Get("account").(string),
		Subject:  d.Get("subject").(string),
		Type:     d.Get("type").(string),
		TTL:      time.Duration(d.Get("ttl").(int)) * time.Second,
	})
	if err != nil {
		return answer(err)
	}
	return &logical.Response{Data: map[string]any{"token": token}}, nil
}
