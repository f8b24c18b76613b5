package plugin

import (
	"context"
	"maps"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
)

func (b *backend) pathsJWT() []*framework.Path {
	return append([]*framework.Path{
		{
			Pattern:      "jwt/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "jwts", Navigation: true, ItemType: "Account or user"},
			Fields:       pageFields(),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback: b.listJWTs,
					Summary:  "List accounts and users.",
					Responses: responds(http.StatusOK, "The names, and what is behind them.", map[string]*framework.FieldSchema{
						"keys":     {Type: framework.TypeStringSlice, Required: true, Description: "Names of accounts and users."},
						"key_info": {Type: framework.TypeMap, Description: "By name: type, public_key, for accounts whether they are delivered, for users their account; or the error with which it cannot be read."},
					}),
				},
			},
			HelpSynopsis:    "List the accounts of the mount, and the users whose keys stay in it.",
			HelpDescription: "Names come with type, public key and delivery state, as long as no more than 1000 are listed at once.",
		},
		b.pathJWTSign(),
		b.pathJWTRotate(),
		b.pathJWTActivation(),
	}, append(b.pathsJWTKeys(), b.pathJWTName())...)
}

func (b *backend) pathJWTName() *framework.Path {
	return b.withDryRun(&framework.Path{
		Pattern:      "jwt/(?P<name>.+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "jwt", ItemType: "Account or user", Action: "Create"},
		Fields:       jwtFields(),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:  b.readJWT,
				Summary:   "Read an account or a user, with its JWT.",
				Responses: responds(http.StatusOK, "The account or user. Seeds are never shown.", jwtResponse()),
			},
			logical.CreateOperation: &framework.PathOperation{
				Callback:  b.writeJWT,
				Summary:   "Create an account or a user.",
				Responses: responds(http.StatusOK, "Its public key and its JWT.", jwtWriteResponse()),
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:  b.writeJWT,
				Summary:   "Change the given fields of an account or a user; config is replaced as a whole.",
				Responses: responds(http.StatusOK, "Its public key and its JWT.", jwtWriteResponse()),
			},
			logical.PatchOperation: &framework.PathOperation{
				Callback:  b.patchJWT,
				Summary:   "Change an account or a user; config is a JSON merge patch of the present one.",
				Responses: responds(http.StatusOK, "Its public key and its JWT.", jwtWriteResponse()),
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback:  b.deleteJWT,
				Summary:   "Delete an account, from the NATS servers too, or a user, who is cut off.",
				Responses: noContent("It is gone."),
			},
		},
		ExistenceCheck:  b.jwtExists,
		HelpSynopsis:    "Manage a NATS account, or a NATS user whose key stays in the mount.",
		HelpDescription: jwtHelp,
	}, true)
}

func nameField() *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Required: true, Description: "Name of the account or user."}
}

func jwtFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"name": nameField(),
		"type": {
			Type:          framework.TypeString,
			AllowedValues: []any{chain.TypeAccount, chain.TypeUser},
			Description:   `"account" or "user". Needed to create one.`,
		},
		"config": {
			Type:        framework.TypeString,
			Description: `The account or user as NATS writes it in the "nats" claim of its JWT: a JSON object, or a string that holds one. What is left out is unlimited, but JetStream, which is off. Replaces the present one as a whole; a patch merges (RFC 7396).`,
		},
		"seed": {
			Type:         framework.TypeString,
			Description:  `Seed of the identity key of a user, or of the account of account_jwt. It is not shown again. Default: a new key, but for a user of user_jwt or public_key, whose key may stay elsewhere.`,
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},

		"account_jwt": {
			Type:        framework.TypeString,
			Description: `JWT, signed by the mount's operator, of an account made elsewhere, which the mount takes over.`,
		},
		"public_key": {
			Type:        framework.TypeString,
			Description: `Public key (A...) of an account at a NATS that someone else operates: the mount issues users with its signing_seeds, and delivers nothing. Or public key (U...) of a user whose key is elsewhere: the mount signs its JWT, and no nonce for it.`,
		},
		"nats_name": {
			Type:        framework.TypeString,
			Description: `Name in the JWT. nats-server shows it, and puts a user's in the place of {{name()}} in the scope of a signing key. Default: the name here.`,
		},
		"signing_seeds": {
			Type:         framework.TypeCommaStringSlice,
			Description:  `Seeds (SA...) of signing keys of account_jwt or public_key. The first that is not scoped signs logins. They are not shown again.`,
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"force": {
			Type:        framework.TypeBool,
			Query:       true,
			Description: `Delete an account that roles or users depend on; they cannot be used then; or what cannot be read. In a write: take over an account_jwt although the account was deleted here.`,
		},

		"user_jwt": {
			Type:        framework.TypeString,
			Description: `JWT, signed by a key of the account, of a user made elsewhere, which the mount takes over: its key, claims, name, start and end. One that was revoked, or has ended, is refused.`,
		},
		"account": {
			Type:        framework.TypeString,
			Description: `Name of the user's account. Needed to create a user.`,
		},
		"signing_key": {
			Type:        framework.TypeString,
			Description: `Name of the account's key that signs the user. Default: "` + chain.DefaultKey + `".`,
		},
		"ttl": {
			Type:        framework.TypeDurationSecond,
			Description: `How long a JWT of the user lives; each read and write answers with a new one. Never longer than the mount's maximum lease TTL. Default: the mount's default lease TTL.`,
		},
		"expiration": {
			Type:        framework.TypeTime,
			Description: `When the user ends, as Unix time or as RFC 3339 writes it: no JWT of it outlives that. 0 for none, which is the default.`,
		},
		"not_before": {
			Type:        framework.TypeTime,
			Description: `When the user starts, as Unix time or as RFC 3339 writes it: its JWTs are good from then on. 0 for at once, which is the default.`,
		},
		"creds": {
			Type:        framework.TypeBool,
			Description: `Answer with the creds file, which has the seed of the user's key: only as the user is created, with a key that the mount makes. The file's JWT ends as any of the user does; the user's later ones, from this path, go with the same seed.`,
		},
		"nonce": {
			Type:        framework.TypeString,
			Description: `Challenge of a nats-server, which the user's key signs: see signed_nonce. It is not stored.`,
		},
	}
}

func jwtWriteResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"type":         {Type: framework.TypeString, Description: `"account" or "user".`},
		"public_key":   {Type: framework.TypeString, Description: "Public key of the account or user."},
		"jwt":          {Type: framework.TypeString, Description: "Its JWT. Absent for an account of someone else's NATS, and for a user who has ended or not started yet."},
		"expiration":   {Type: framework.TypeTime, Description: "When a user's JWT ends (RFC 3339)."},
		"creds":        {Type: framework.TypeString, Description: "The creds file of a user that was created with creds=true."},
		"signed_nonce": {Type: framework.TypeString, Description: "The signature over nonce, in standard base64."},
	}
}

func jwtResponse() map[string]*framework.FieldSchema {
	fields := jwtWriteResponse()
	delete(fields, "signed_nonce")
	delete(fields, "creds")
	maps.Copy(fields, map[string]*framework.FieldSchema{
		"config":       {Type: framework.TypeMap, Description: "The account or user as it was written; of one that was imported, what can be written to have it. Defaults are not filled in."},
		"nats_name":    {Type: framework.TypeString, Description: "The name in the JWT."},
		"seed_set":     {Type: framework.TypeBool, Description: "Whether the mount has the identity key."},
		"external":     {Type: framework.TypeBool, Description: "Whether someone else operates the account's NATS."},
		"signing_keys": {Type: framework.TypeSlice, Description: "An account's keys in the mount: name, public_key, state (signing or retiring), created, retires for one that is, role for that of a role, scope for a scoped one."},
		"delivered":    {Type: framework.TypeBool, Description: "Whether the NATS servers have the account as it is now."},
		"account":      {Type: framework.TypeString, Description: "A user's account."},
		"signing_key":  {Type: framework.TypeString, Description: "Name of the account's key that signs the user."},
		"ttl":          {Type: framework.TypeDurationSecond, Description: "How long a user's JWTs live, in seconds; 0 stands for the mount's default lease TTL."},
		"not_before":   {Type: framework.TypeTime, Description: "When a user starts (RFC 3339). Absent if it has no start."},
		"fixed_end":    {Type: framework.TypeTime, Description: "When a user ends: the expiration that was written (RFC 3339). Absent if it has no end."},
	})
	return fields
}

func (b *backend) jwtExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	return b.chain.Exists(ctx, req.Storage, d.Get("name").(string))
}

const jwtHelp = `
type=account: a NATS account with new keys, or one made elsewhere that is taken
over with its account_jwt, or with public_key and signing_seeds one at a NATS that
someone else operates. The account's JWT is signed by the mount's operator and
delivered to the NATS servers; that a server is not up is no error.

type=user: a NATS user of an account. Its key stays in the mount, which signs the
nonce of a nats-server with it, here or at jwt/:name/sign; its JWT is a new one at
each read.

config is the "nats" claim of the account's or user's JWT, as JSON. A key that NATS
does not have is an error. Writing it replaces all of it; to change parts, patch:
keys are merged, and a null removes one.
`
