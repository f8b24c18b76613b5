package plugin

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

func (b *backend) writeJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeJWT(ctx, req, d, false)
}

// patchJWT differs from writeJWT in what config does.
func (b *backend) patchJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeJWT(ctx, req, d, true)
}

func (b *backend) changeJWT(ctx context.Context, req *logical.Request, d *framework.FieldData, patch bool) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	change := givenJWT(d, patch)
	if change.User.Nonce != nil && *change.User.Nonce == "" {
		return answer(fault.In("nonce", "is empty"))
	}
	named, changed, err := b.chain.Write(ctx, req.Storage, name, change)
	if err != nil {
		return answer(err)
	}
	data, err := b.jwtAnswer(ctx, req.Storage, named)
	if err != nil {
		return answer(err)
	}
	if change.User.Nonce != nil {
		if data["signed_nonce"], err = named.SignNonce(*change.User.Nonce); err != nil {
			return answer(err)
		}
	}
	resp := &logical.Response{Data: data}
	if changed && named.Delivers() {
		for _, warning := range b.delivered(ctx, req.Storage, named.PublicKey) {
			resp.AddWarning(warning)
		}
	}
	for _, warning := range named.Warnings() {
		resp.AddWarning(warning)
	}
	return resp, nil
}

// givenJWT is what a write of an account or user gives.
func givenJWT(d *framework.FieldData, patch bool) chain.Change {
	change := chain.Change{
		Type:   d.Get("type").(string),
		Config: given[string](d, "config"),
		Patch:  patch,
		Seed:   given[string](d, "seed"),
		Account: chain.AccountChange{
			JWT:          given[string](d, "account_jwt"),
			PublicKey:    given[string](d, "public_key"),
			SigningSeeds: given[[]string](d, "signing_seeds"),
		},
		User: chain.UserChange{
			Account:    given[string](d, "account"),
			SigningKey: given[string](d, "signing_key"),
			Nonce:      given[string](d, "nonce"),
		},
	}
	if ttl := given[int](d, "ttl"); ttl != nil {
		seconds := int64(*ttl)
		change.User.TTL = &seconds
	}
	return change
}
