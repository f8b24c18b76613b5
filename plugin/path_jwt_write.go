package plugin

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
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
	if nonce := change.User.Nonce; nonce != nil {
		if err := chain.CheckNonce(*nonce); err != nil {
			return answer(err) // before anything is changed
		}
	}
	named, err := b.writeNamed(ctx, req.Storage, name, change)
	if err != nil {
		return answer(err)
	}
	data, warnings, err := b.jwtAnswer(ctx, req.Storage, named)
	if err != nil {
		return answer(err)
	}
	if token, ok := data["jwt"].(string); ok && change.User.Creds {
		if data["creds"], err = named.Creds(token); err != nil {
			return answer(err)
		}
	}
	if change.User.Nonce != nil {
		if data["signed_nonce"], err = named.SignNonce(*change.User.Nonce); err != nil {
			return answer(err)
		}
	}
	resp := &logical.Response{Data: data, Warnings: warnings}
	if named.Delivers() { // though nothing was changed, what was before may not be delivered
		for _, warning := range b.delivered(ctx, req.Storage, named.PublicKey) {
			resp.AddWarning(warning)
		}
	}
	for _, warning := range named.Warnings() {
		resp.AddWarning(warning)
	}
	return resp, nil
}

// writeNamed keeps roles from coming meanwhile, which the account has to suit.
func (b *backend) writeNamed(ctx context.Context, s logical.Storage, name string, change chain.Change) (*chain.Named, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.finishConfig(ctx, s); err != nil {
		return nil, err
	}
	change.Account.Check = func(account *jwt.Account) error { return b.checkRolesOf(ctx, s, name, account) }
	return b.chain.Write(ctx, s, name, change)
}

// checkRolesOf refuses an account that makes nats-server refuse the users of its
// roles. To know that takes a read of each of them, so it is asked only of what can
// be the fault of an account.
func (b *backend) checkRolesOf(ctx context.Context, s logical.Storage, name string, account *jwt.Account) error {
	if !account.Limits.DisallowBearer {
		return nil
	}
	names, err := store.AccountOfRoles.Users(ctx, s, name)
	if err != nil {
		return err
	}
	for _, of := range names {
		role, err := b.role(ctx, s, of)
		if err != nil || role == nil || role.entry.Account != name {
			continue // it cannot be read and gives nobody anything, is being made, or has moved
		}
		if err := role.compiled.CheckAccount(account); err != nil {
			return fault.In("config", "does not suit role %q of the account: its %s", of, err)
		}
	}
	return nil
}

// givenJWT is what a write of an account or user gives.
func givenJWT(d *framework.FieldData, patch bool) chain.Change {
	change := chain.Change{
		Type:      d.Get("type").(string),
		Config:    given[string](d, "config"),
		Patch:     patch,
		NATSName:  given[string](d, "nats_name"),
		Seed:      given[string](d, "seed"),
		PublicKey: given[string](d, "public_key"),
		Force:     d.Get("force").(bool),
		Account: chain.AccountChange{
			JWT:          given[string](d, "account_jwt"),
			SigningSeeds: given[[]string](d, "signing_seeds"),
		},
		User: chain.UserChange{
			JWT:        given[string](d, "user_jwt"),
			Account:    given[string](d, "account"),
			SigningKey: given[string](d, "signing_key"),
			Expires:    given[time.Time](d, "expiration"),
			NotBefore:  given[time.Time](d, "not_before"),
			Nonce:      given[string](d, "nonce"),
			Creds:      d.Get("creds").(bool),
		},
	}
	if ttl := given[int](d, "ttl"); ttl != nil {
		seconds := int64(*ttl)
		change.User.TTL = &seconds
	}
	return change
}
