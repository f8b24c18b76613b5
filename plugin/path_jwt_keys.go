package plugin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

func (b *backend) pathsJWTKeys() []*framework.Path {
	return []*framework.Path{b.withDryRun(&framework.Path{
		Pattern:      "jwt/(?P<name>[^/]+)/keys/(?P<key>.+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "signing-key"},
		Fields: map[string]*framework.FieldSchema{
			"name": {Type: framework.TypeString, Required: true, Description: "Name of the account."},
			"key":  {Type: framework.TypeString, Required: true, Description: `Name of the signing key. "` + chain.DefaultKey + `" signs logins.`},
			"seed": {
				Type:         framework.TypeString,
				Description:  `Seed (SA...) of the key. It is not shown again. Default: a new key.`,
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			"config": {
				Type:        framework.TypeString,
				Description: `Scope of the key, as NATS writes it in an account JWT: a JSON object with template, role and description. Users signed with it have the permissions of the template. Default: a plain key.`,
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:  b.readKey,
				Summary:   "Read a signing key of an account.",
				Responses: responds(http.StatusOK, "The key, without its seed.", signingKeyResponse()),
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:  b.writeKey,
				Summary:   "Add a signing key to an account, or change the scope of one.",
				Responses: responds(http.StatusOK, "The key, without its seed.", signingKeyResponse()),
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback:  b.deleteKey,
				Summary:   "Remove a signing key from an account, which cuts off the users signed with it.",
				Responses: noContent("The key is gone."),
			},
		},
		HelpSynopsis:    "Manage a signing key of an account.",
		HelpDescription: keysHelp,
	}, false)}
}

func signingKeyResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"name":       {Type: framework.TypeString, Required: true, Description: "Name of the key."},
		"public_key": {Type: framework.TypeString, Required: true, Description: "Public key."},
		"state":      {Type: framework.TypeString, Required: true, Description: `"signing".`},
		"created":    {Type: framework.TypeTime, Description: "When the key came into the mount (RFC 3339)."},
		"scope":      {Type: framework.TypeMap, Description: "Scope of a scoped key."},
		"role":       {Type: framework.TypeString, Description: "The role that the key belongs to."},
	}
}

// keyAnswer shows the key of that name, if the changed account has one, once the
// account is delivered.
func (b *backend) keyAnswer(ctx context.Context, s logical.Storage, account *chain.Named, key string) (*logical.Response, error) {
	resp := &logical.Response{}
	if k := account.Key(key); k != nil {
		var err error
		if resp.Data, err = signingKeyData(*k); err != nil {
			return nil, err
		}
	}
	if account.Delivers() {
		resp.Warnings = b.delivered(ctx, s, account.PublicKey)
	}
	if resp.Data == nil && len(resp.Warnings) == 0 {
		return nil, nil
	}
	return resp, nil
}

// keyNames are the names of the account and of its key, and of the latter only
// that it is one where it may be new.
func keyNames(d *framework.FieldData) (account, key string, err error) {
	account, key = d.Get("name").(string), d.Get("key").(string)
	return account, key, fault.CheckName("name", account)
}

func (b *backend) writeKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, key, err := keyNames(d)
	if err == nil {
		err = fault.CheckName("key", key)
	}
	if err != nil {
		return answer(err)
	}
	account, err := b.chain.PutKey(ctx, req.Storage, name, key, strings.TrimSpace(d.Get("seed").(string)), d.Get("config").(string))
	if err != nil {
		return answer(err)
	}
	return b.keyAnswer(ctx, req.Storage, account, key)
}

func (b *backend) readKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, keyName, err := keyNames(d)
	if err != nil {
		return answer(err)
	}
	account, err := b.chain.Named(ctx, req.Storage, name)
	if account == nil || err != nil {
		return nil, err
	}
	key := account.Key(keyName)
	if key == nil {
		return nil, nil
	}
	data, err := signingKeyData(*key)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) deleteKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, key, err := keyNames(d)
	if err != nil {
		return answer(err)
	}
	account, err := b.chain.DeleteKey(ctx, req.Storage, name, key)
	if err != nil {
		return answer(err)
	}
	return b.keyAnswer(ctx, req.Storage, account, key)
}

func (b *backend) pathJWTRotate() *framework.Path {
	return &framework.Path{
		Pattern:      "jwt/(?P<name>[^/]+)/rotate$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "rotate", OperationSuffix: "signing-key"},
		Fields: map[string]*framework.FieldSchema{
			"name": {Type: framework.TypeString, Required: true, Description: "Name of the account."},
			"key":  {Type: framework.TypeString, Default: chain.DefaultKey, Description: `Name of the signing key. Default: "` + chain.DefaultKey + `".`},
			"seed": {
				Type:         framework.TypeString,
				Description:  `Seed (SA...) of the key that comes. It is not shown again. Default: a new key.`,
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			"overlap": {
				Type:        framework.TypeDurationSecond,
				Description: `How long users signed with the former key are still let in. Default: the longest maximum lease TTL that the mount has had, which no user JWT outlives.`,
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:  b.rotateJWT,
				Summary:   "Replace a signing key of an account by a new one.",
				Responses: responds(http.StatusOK, "The new key, without its seed.", signingKeyResponse()),
			},
		},
		HelpSynopsis:    "Rotate a signing key of an account.",
		HelpDescription: rotateHelp,
	}
}

func (b *backend) rotateJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, key, err := keyNames(d)
	if err != nil {
		return answer(err)
	}
	overlap, err := b.limits.longestLife(ctx, req.Storage, b.System(), time.Now())
	if err != nil {
		return nil, err
	}
	if given, ok := d.GetOk("overlap"); ok {
		overlap = time.Duration(given.(int)) * time.Second
	}
	account, err := b.chain.RotateKey(ctx, req.Storage, name, key, strings.TrimSpace(d.Get("seed").(string)), overlap)
	if err != nil {
		return answer(err)
	}
	resp, err := b.keyAnswer(ctx, req.Storage, account, key)
	if err == nil && key == chain.DefaultKey && account.HasGatedExports() {
		resp.AddWarning(fmt.Sprintf("activation tokens signed with the former key end with the overlap, and the imports that they are for with them: have new ones made at jwt/%s/activation and write them to the importing accounts", name))
	}
	return resp, err
}

const keysHelp = `
An account's JWT lists its signing keys. The one called "default" signs logins of
roles; others can sign named users (signing_key at jwt/:name). A key with a scope
gives every user signed with it the permissions of the scope's template: changing
the scope changes what they may do, at once.

Roles with scoped=true or signing_key=role have keys of their own, called
role/<role>, which are managed through the role.

The scopes of an account at someone else's NATS stand in its JWT, which they make.
For a key that is scoped there, write config={}. A scoped role of such an account
signs with the scoped key of the role's name, or else with the one called
"default", and has no permissions or limits in its user_template.
`

const rotateHelp = `
A new key signs from now on. The former one stays in the account's JWT for the
overlap, so that users signed with it go on until their JWTs have expired; with
overlap=0 they are cut off at once. So do activation tokens that the key called
"default" signed: make new ones before the overlap ends.
`
