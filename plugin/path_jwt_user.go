package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// planUser is the user as the write makes it, checked.
func (c *chain) planUser(ctx context.Context, s logical.Storage, stored *namedEntry, d *framework.FieldData, patch bool) (*namedEntry, error) {
	entry, err := userBefore(stored, d)
	if err != nil {
		return nil, err
	}
	if config, ok := d.GetOk("config"); ok {
		if err := entry.takeConfig(config.(string), patch); err != nil {
			return nil, err
		}
	}
	setString(d, "signing_key", &entry.SigningKey)
	if entry.SigningKey == "" {
		entry.SigningKey = defaultKey
	}
	if ttl, ok := d.GetOk("ttl"); ok {
		entry.TTL = int64(ttl.(int))
	}
	account, err := readNamed(ctx, s, entry.Account)
	if err != nil {
		return nil, err
	}
	if account == nil || account.Type != typeAccount {
		return nil, badField("account", "%q does not exist: write it at jwt/%s first", entry.Account, entry.Account)
	}
	if issuer := entry.User.IssuerAccount; issuer != "" && issuer != account.PublicKey {
		return nil, badField("config", "has the issuer_account %s, but account %q is %s", issuer, entry.Account, account.PublicKey)
	}
	entry.User.IssuerAccount = ""
	operator, err := c.operator(ctx, s)
	if err != nil {
		return nil, err
	}
	if _, err := account.userSigner(entry, operator); err != nil {
		return nil, err
	}
	_, err = entry.userClaims(account)
	return entry, err
}

// userBefore is the user that the write changes, or a new one.
func userBefore(stored *namedEntry, d *framework.FieldData) (*namedEntry, error) {
	account := d.Get("account").(string)
	seed, seedGiven := d.GetOk("seed")
	if stored != nil {
		if account != "" && account != stored.Account {
			return nil, badField("account", "cannot be changed: the user belongs to account %q; delete it and create another", stored.Account)
		}
		if seedGiven && seed != stored.Seed {
			return nil, badField("seed", "cannot be changed: the user has its key; delete it and create another")
		}
		entry := stored.clone()
		user := *stored.User
		entry.User = &user
		return entry, nil
	}
	if account == "" {
		return nil, badField("account", "is missing: a user belongs to an account")
	}
	key, err := trust.Generate(trust.User)
	if seedGiven {
		key, err = trust.ParseSeed(trust.User, seed.(string))
	}
	if err != nil {
		return nil, badField("seed", "%s", err)
	}
	user, err := trust.ParseUserConfig([]byte("{}"))
	if err != nil {
		return nil, err
	}
	return &namedEntry{Type: typeUser, PublicKey: key.Public(), Seed: key.Seed(), Account: account, User: user, ForeignUsers: seedGiven}, nil
}

// userClaims is the "nats" claim of the user's JWT. nats-server refuses a user
// of a scoped key that has permissions or limits of its own.
func (e *namedEntry) userClaims(account *namedEntry) ([]byte, error) {
	key := account.key(e.SigningKey)
	claims := *e.User
	if key != nil && key.Scope != nil {
		unlimited, err := trust.ParseUserConfig([]byte("{}"))
		if err != nil {
			return nil, err
		}
		if !same(&claims.UserPermissionLimits, &unlimited.UserPermissionLimits) {
			return nil, badField("config", "has permissions or limits, which a user of the scoped signing key %q takes from its scope", key.Name)
		}
		claims.UserPermissionLimits = jwt.UserPermissionLimits{}
	}
	claims.IssuerAccount = account.PublicKey
	claims.Type, claims.Version = jwt.UserClaim, 2
	return json.Marshal(&claims)
}

// storeUser lists the user under its account, then stores it: a crash in
// between leaves an entry too many in the list, never one too few.
func (c *chain) storeUser(ctx context.Context, s logical.Storage, name string, stored, entry *namedEntry) error {
	if stored == nil {
		if err := addUse(ctx, s, usesUser, entry.Account, name); err != nil {
			return err
		}
	}
	return c.storeNamed(ctx, s, name, entry)
}

// userJWT signs a new JWT of a named user.
func (b *backend) userJWT(ctx context.Context, s logical.Storage, name string, entry *namedEntry) (string, time.Time, error) {
	account, err := readNamed(ctx, s, entry.Account)
	if err != nil {
		return "", time.Time{}, err
	}
	if account == nil || account.Type != typeAccount {
		return "", time.Time{}, badField("account", "%q of the user does not exist any more", entry.Account)
	}
	operator, err := b.chain.operator(ctx, s)
	if err != nil {
		return "", time.Time{}, err
	}
	signer, err := account.userSigner(entry, operator)
	if err != nil {
		return "", time.Time{}, err
	}
	claims, err := entry.userClaims(account)
	if err != nil {
		return "", time.Time{}, err
	}
	now := time.Now()
	ttl, most, err := b.limits.get(ctx, s, b.System(), now)
	if err != nil {
		return "", time.Time{}, err
	}
	if entry.TTL > 0 {
		ttl = time.Duration(entry.TTL) * time.Second
	}
	expires := now.Add(min(ttl, most)).Truncate(time.Second)
	token, err := trust.UserToken{Issuer: signer, Subject: entry.PublicKey, Name: name, IssuedAt: now, Expires: expires, NATS: claims}.Encode()
	return token, expires, err
}

// userSigner is the key of the account that signs the user: the identity key in
// place of a default one that is not there, where nats-server takes that.
func (e *namedEntry) userSigner(user *namedEntry, o *operator) (*trust.Key, error) {
	seed := ""
	key := e.key(user.SigningKey)
	switch {
	case key != nil:
		seed = key.Seed
	case user.SigningKey == defaultKey && !o.strict():
		seed = e.Seed
	case user.SigningKey != defaultKey:
		return nil, badField("signing_key", "%q is not a signing key of account %q", user.SigningKey, user.Account)
	}
	if seed == "" {
		return nil, badField("account", "%q has no signing key in the mount: give its seed at jwt/%s/keys/%s", user.Account, user.Account, defaultKey)
	}
	signer, err := trust.ParseSeed(trust.Account, seed)
	if err != nil {
		return nil, fmt.Errorf("the stored signing key %w", err)
	}
	return signer, nil
}

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
	if err := checkName("name", name); err != nil {
		return answer(err)
	}
	entry, err := readNamed(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if entry == nil {
		return answer(badField("name", "%q does not exist", name))
	}
	if entry.Type != typeUser {
		return answer(badField("name", "%q is an account: only users sign", name))
	}
	signed, err := signNonce(entry, d.Get("nonce").(string))
	if err != nil {
		return answer(err)
	}
	return &logical.Response{Data: map[string]any{"signed_nonce": signed}}, nil
}
