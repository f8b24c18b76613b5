package chain

import (
	"context"
	"slices"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// ours reports whether a key that the operator has, or has had, signed an account
// JWT. What others signed is not the mount's business, wherever it turns up.
func (c *Chain) ours(ctx context.Context, s logical.Storage, accountJWT string) bool {
	operator, err := c.operator(ctx, s)
	if err != nil || !operator.signs() {
		return false
	}
	issuer, err := trust.AccountIssuer(accountJWT)
	return err == nil && operator.entry.hasSigned(issuer)
}

// hasSigned reports whether a key is or was one of the operator's.
func (e *operatorEntry) hasSigned(public string) bool {
	return public == e.PublicKey || slices.Contains(e.Signers, public)
}

// noteSigners adds the present keys to those that are remembered. It is done
// whenever the entry is read, so before any change of it can drop a key.
func (e *operatorEntry) noteSigners() {
	keys := slices.Clone(e.Claims.SigningKeys)
	for _, key := range e.Keys {
		keys = append(keys, key.PublicKey)
	}
	for _, key := range keys {
		if !slices.Contains(e.Signers, key) {
			e.Signers = append(e.Signers, key)
		}
	}
}
