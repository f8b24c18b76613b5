package plugin

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
)

// operatorOverlap is how long the operator's former signing key stays in its JWT,
// unless the caller says otherwise.
const operatorOverlap = 24 * time.Hour

func (b *backend) pathsConfigRotate() []*framework.Path {
	return []*framework.Path{{
		Pattern:      "config/rotate$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "rotate", OperationSuffix: "operator-signing-key"},
		Fields: map[string]*framework.FieldSchema{
			"overlap": {
				Type:        framework.TypeDurationSecond,
				Default:     int(operatorOverlap.Seconds()),
				Description: `How long the former signing key stays in the operator's JWT, for servers that start before every account has reached them. Default: 24 hours.`,
			},
			"force": {
				Type:        framework.TypeBool,
				Description: `Rotate even if there is no next key that servers may know already: a new one is made and used at once. Servers trust it only when they have been started with the new operator JWT.`,
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.rotateConfig,
				Summary:  "Put a new operator signing key into use.",
				Responses: responds(http.StatusOK, "The operator after the rotation.", map[string]*framework.FieldSchema{
					"rotated":               {Type: framework.TypeBool, Required: true, Description: "Whether a new key is in use. If not, one was added, which the next call puts into use."},
					"operator_jwt":          {Type: framework.TypeString, Required: true, Description: "The new JWT of the operator."},
					"operator_signing_keys": {Type: framework.TypeSlice, Required: true, Description: "The operator's signing keys and their state."},
				}),
			},
		},
		HelpSynopsis:    "Rotate the operator's signing key.",
		HelpDescription: configRotateHelp,
	}}
}

func (b *backend) rotateConfig(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	overlap := time.Duration(d.Get("overlap").(int)) * time.Second
	b.writing.Lock()
	after, rotated, err := b.chain.RotateOperator(ctx, req.Storage, overlap, d.Get("force").(bool))
	b.writing.Unlock()
	if err != nil {
		return answer(err)
	}
	resp := &logical.Response{Data: map[string]any{
		"rotated":               rotated,
		"operator_jwt":          after.JWT,
		"operator_signing_keys": operatorKeysData(after),
	}}
	if !rotated {
		resp.AddWarning("nothing is signed with the new key yet: start every nats-server with the new operator JWT (config/server), then write config/rotate again")
		return resp, nil
	}
	if slices.ContainsFunc(after.Keys, func(key chain.OperatorKey) bool { return key.State == chain.KeyNext }) {
		resp.AddWarning("start every nats-server with the new operator JWT (config/server) before the next rotation")
	}
	for _, warning := range b.deliverAll(ctx, req.Storage) {
		resp.AddWarning(warning)
	}
	return resp, nil
}

const configRotateHelp = `
Signs every account with the operator's next signing key and delivers them. A
nats-server learns the operator's keys only when it starts, so the next key
stands in the operator's JWT ahead of its time; servers that were started with
that JWT follow the rotation without a restart.

A rotation makes another next key. Start the servers with the new JWT, which
config/server has, before the next rotation.

The former key stays in the operator's JWT for the overlap. An account signed
with it that has not reached a server yet is still good there for so long.
`
