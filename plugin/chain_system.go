package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// systemUserTTL is how long a JWT of the user that delivers lives; a new one is
// made at every connect.
const systemUserTTL = time.Hour

// systemUser makes a JWT of the user that delivers, and signs with its key.
func (c *chain) systemUser(ctx context.Context, s logical.Storage) (string, func([]byte) ([]byte, error), error) {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return "", nil, err
	}
	system, err := c.systemAccount(ctx, s, operator)
	if err != nil {
		return "", nil, err
	}
	signer, err := c.systemSigner(ctx, s, system)
	if err != nil {
		return "", nil, err
	}
	claims, err := json.Marshal(trust.DeliveryUser(system.publicKey))
	if err != nil {
		return "", nil, err
	}
	now := time.Now()
	token, err := trust.UserToken{Issuer: signer, Subject: operator.systemUser.Public(), Name: "vault",
		IssuedAt: now, Expires: now.Add(systemUserTTL), NATS: claims}.Encode()
	sign := func(nonce []byte) ([]byte, error) { return operator.systemUser.Sign(nonce), nil }
	return token, sign, err
}

var errNoSystemAccount = errors.New("the system account is not in the mount")

func (c *chain) systemAccount(ctx context.Context, s logical.Storage, operator *operator) (*account, error) {
	index, err := readEntry[accountIndex](ctx, s, accountIDPrefix+operator.entry.SystemAccount)
	if err != nil {
		return nil, err
	}
	if index == nil {
		return nil, errNoSystemAccount
	}
	system, err := c.account(ctx, s, index.Name)
	if system == nil && err == nil {
		err = errNoSystemAccount
	}
	return system, err
}

// systemSigner is the key that signs the user who delivers. While a change of
// the system account is on its way, some servers may know only the key that was
// there before: so it is one or the other by chance, as a connect that fails is
// tried again.
func (c *chain) systemSigner(ctx context.Context, s logical.Storage, system *account) (*trust.Key, error) {
	if system.former != nil {
		pending, err := c.isPending(ctx, s, system.publicKey)
		if err != nil {
			return nil, err
		}
		if pending && rand.N(2) == 0 {
			return system.former()
		}
	}
	return system.signer(plainSigner)
}

// checkWayIn holds a change of the system account against the need of the mount
// to connect as a user of it, to servers that may not have the change yet.
func (c *chain) checkWayIn(ctx context.Context, s logical.Storage, before, after *namedEntry) error {
	operator, err := c.operator(ctx, s)
	if err != nil || !operator.signs() || operator.entry.SystemAccount != after.PublicKey {
		return err
	}
	if after.Claims.Limits.Conn == 0 {
		return badField("config", "has limits.conn 0: the mount delivers accounts as a user of the system account")
	}
	former := before.plainSeed(operator.strict())
	switch after.plainSeed(operator.strict()) {
	case former:
		return nil
	case "":
		return badField("key", "%q signs the user with which the mount delivers accounts: rotate it instead", defaultKey)
	}
	pending, err := c.isPending(ctx, s, after.PublicKey)
	if err != nil {
		return err
	}
	if pending && former != "" {
		return badField("key", "%q of the system account cannot be changed before the NATS servers have its last change (see sync): the mount could not connect any more", defaultKey)
	}
	after.Former = former
	return nil
}

// checkStrict refuses strict_signing_key_usage where the operator's identity key
// signs accounts, or the system account's the user who delivers.
func (c *chain) checkStrict(ctx context.Context, s logical.Storage, after *operatorEntry) error {
	if after.None || !after.Claims.StrictSigningKeyUsage {
		return nil
	}
	if after.live()[0].PublicKey == after.PublicKey {
		return badField("strict_signing_key_usage", "cannot be set: the operator's identity key signs the accounts; write config/rotate first, until a signing key does")
	}
	if after.SystemAccount == "" {
		return nil
	}
	index, err := readEntry[accountIndex](ctx, s, accountIDPrefix+after.SystemAccount)
	if index == nil || err != nil {
		return err
	}
	system, err := readNamed(ctx, s, index.Name)
	if system == nil || err != nil {
		return err
	}
	if system.Seed != "" && system.plainSeed(true) == "" {
		return badField("strict_signing_key_usage", "cannot be set: the system account has no signing key in the mount, and its identity key could deliver no more; add one at jwt/%s/keys/%s", index.Name, defaultKey)
	}
	return nil
}

// plainSeed is the seed of the key that signs users who have no scope. The
// identity key takes the place of one that is not there, where nats-server lets
// its users in: without strict_signing_key_usage.
func (e *namedEntry) plainSeed(strict bool) string {
	if key := e.key(defaultKey); key != nil && key.Scope == nil && key.Seed != "" {
		return key.Seed
	}
	if strict {
		return ""
	}
	return e.Seed
}
