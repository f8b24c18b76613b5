package chain

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// systemUserTTL is how long a JWT of the user that delivers lives; a new one is
// made at every connect.
const systemUserTTL = time.Hour

// systemUser makes a JWT of the user that delivers, and signs with its key.
func (c *Chain) systemUser(ctx context.Context, s logical.Storage) (string, func([]byte) ([]byte, error), error) {
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
	claims, err := json.Marshal(trust.DeliveryUser(system.PublicKey))
	if err != nil {
		return "", nil, err
	}
	now := time.Now()
	notBefore, err := c.NotBefore(ctx, s, system, operator.systemUser.Public())
	if err != nil {
		return "", nil, err
	}
	token, err := trust.UserToken{Issuer: signer, Subject: operator.systemUser.Public(), Name: "vault",
		IssuedAt: time.Unix(max(now.Unix(), notBefore), 0), Expires: now.Add(systemUserTTL), NATS: claims}.Encode()
	return token, operator.signNonce, err
}

// signNonce signs a nats-server's challenge with the key of the system user.
func (o *operator) signNonce(nonce []byte) ([]byte, error) {
	if proof.Reserved(string(nonce)) {
		return nil, errors.New("the server's nonce is the text of a proof of the user's key")
	}
	return o.systemUser.Sign(nonce), nil
}

var errNoSystemAccount = errors.New("the system account is not in the mount")

func (c *Chain) systemAccount(ctx context.Context, s logical.Storage, operator *operator) (*Account, error) {
	index, err := readIndex(ctx, s, operator.entry.SystemAccount)
	if err != nil {
		return nil, err
	}
	if index == nil {
		return nil, errNoSystemAccount
	}
	system, err := c.Account(ctx, s, index.Name)
	if system == nil && err == nil {
		err = errNoSystemAccount
	}
	return system, err
}

// systemSigner is the key that signs the user who delivers. While a change of
// the system account is on its way, some servers may know only the key that was
// there before: so it is one or the other by chance, as a connect that fails is
// tried again.
func (c *Chain) systemSigner(ctx context.Context, s logical.Storage, system *Account) (*trust.Key, error) {
	if system.former != nil {
		pending, err := c.Pending(ctx, s, system.PublicKey)
		if err != nil {
			return nil, err
		}
		if pending && rand.N(2) == 0 {
			return system.former()
		}
	}
	return system.Signer(PlainSigner)
}

// checkWayIn holds a change of the system account against the need of the mount
// to connect as a user of it, to servers that may not have the change yet.
func (c *Chain) checkWayIn(ctx context.Context, s logical.Storage, before, after *namedEntry) error {
	operator, err := c.operator(ctx, s)
	if err != nil || !operator.signs() || operator.entry.SystemAccount != after.PublicKey {
		return err
	}
	if after.Claims.Limits.Conn == 0 {
		return fault.In("config", "has limits.conn 0: the mount delivers accounts as a user of the system account")
	}
	if err := trust.CheckSystemAccount(after.Claims); err != nil {
		return fault.In("config", "%s", err)
	}
	former := before.plainSeed(operator.strict())
	switch after.plainSeed(operator.strict()) {
	case former:
		return nil
	case "":
		return fault.In("key", "%q signs the user with which the mount delivers accounts: rotate it instead", DefaultKey)
	}
	pending, err := c.Pending(ctx, s, after.PublicKey)
	if err != nil {
		return err
	}
	if pending && former != "" {
		return fault.In("key", "%q of the system account cannot be changed before the NATS servers have its last change (see sync): the mount could not connect any more", DefaultKey)
	}
	after.Former = former
	return nil
}

// checkStrict refuses strict_signing_key_usage where the operator's identity key
// signs accounts, or the system account's the user who delivers.
func (c *Chain) checkStrict(ctx context.Context, s logical.Storage, after *operatorEntry) error {
	if after.None || !after.Claims.StrictSigningKeyUsage {
		return nil
	}
	if after.live()[0].PublicKey == after.PublicKey {
		return fault.In("strict_signing_key_usage", "cannot be set: the operator's identity key signs the accounts; write config/rotate first, until a signing key does")
	}
	if after.SystemAccount == "" {
		return nil
	}
	index, err := readIndex(ctx, s, after.SystemAccount)
	if index == nil || err != nil {
		return err
	}
	system, err := readNamed(ctx, s, index.Name)
	if system == nil || err != nil {
		return err
	}
	if system.Seed != "" && system.plainSeed(true) == "" {
		return fault.In("strict_signing_key_usage", "cannot be set: the system account has no signing key in the mount, and its identity key could deliver no more; add one at jwt/%s/keys/%s", index.Name, DefaultKey)
	}
	return nil
}
