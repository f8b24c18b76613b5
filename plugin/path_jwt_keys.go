package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func (b *backend) pathsJWTKeys() []*framework.Path {
	return []*framework.Path{{
		Pattern:      "jwt/(?P<name>[^/]+)/keys/(?P<key>.+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "signing-key"},
		Fields: map[string]*framework.FieldSchema{
			"name": {Type: framework.TypeString, Required: true, Description: "Name of the account."},
			"key":  {Type: framework.TypeString, Required: true, Description: `Name of the signing key. "` + defaultKey + `" signs logins.`},
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
	}}
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

// changeKeys stores what change makes of an account's keys, delivers it, and
// answers with the key of that name, if there is one then.
func (b *backend) changeKeys(ctx context.Context, s logical.Storage, name, key string, change func(*namedEntry) error) (*logical.Response, error) {
	if err := checkName("name", name); err != nil {
		return answer(err)
	}
	var after *namedEntry
	err := b.chain.changeAccount(ctx, s, name, func(entry *namedEntry) error {
		after = entry
		return change(entry)
	})
	if errors.Is(err, errNoAccount) {
		err = badField("name", "%q is not an account", name)
	}
	if err != nil {
		return answer(err)
	}
	var resp *logical.Response
	if k := after.key(key); k != nil {
		data, err := k.response()
		if err != nil {
			return nil, err
		}
		resp = &logical.Response{Data: data}
	}
	if after.External {
		return resp, nil
	}
	for _, warning := range b.deliver(ctx, s, after.PublicKey) {
		if resp == nil {
			resp = &logical.Response{}
		}
		resp.AddWarning(warning)
	}
	return resp, nil
}

func (b *backend) writeKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, keyName := d.Get("name").(string), d.Get("key").(string)
	if err := checkName("key", keyName); err != nil {
		return answer(err)
	}
	return b.changeKeys(ctx, req.Storage, name, keyName, func(entry *namedEntry) error {
		return entry.putKey(keyName, d, time.Now())
	})
}

// putKey adds the key, or changes the scope of the one of that name.
func (e *namedEntry) putKey(name string, d *framework.FieldData, now time.Time) error {
	seed := strings.TrimSpace(d.Get("seed").(string))
	scope, err := e.scopeOf(d, name)
	if err != nil {
		return err
	}
	if present := e.key(name); present != nil {
		if seed != "" && seed != present.Seed {
			return badField("seed", "is that of another key than %q has: rotate it at jwt/:name/rotate", name)
		}
		if (present.Scope == nil) != (scope == nil) {
			return badField("config", "cannot make a plain key scoped or a scoped one plain: users signed with it would be cut off; use another name")
		}
		present.Scope = scope
		return nil
	}
	if seed == "" && e.External {
		return badField("seed", "is missing: someone else operates the account's NATS, so its keys are made there")
	}
	added, err := newSigningKey(name, now.Unix())
	if err != nil {
		return err
	}
	if seed != "" {
		key, err := trust.ParseSeed(trust.Account, seed)
		if err != nil {
			return badField("seed", "%s", err)
		}
		if e.hasKey(key.Public()) {
			return badField("seed", "is that of a key that the account has already")
		}
		added.PublicKey, added.Seed = key.Public(), key.Seed()
		e.ForeignUsers = true
	}
	added.Scope = scope
	e.Keys = append(e.Keys, added)
	e.forgetListed(added.PublicKey)
	return nil
}

// forgetListed takes a key that the mount has from now on out of those that the
// account's config lists.
func (e *namedEntry) forgetListed(public string) {
	if _, listed := e.Claims.SigningKeys[public]; !listed {
		return
	}
	claims := *e.Claims
	claims.SigningKeys = jwt.SigningKeys{}
	for key, scope := range e.Claims.SigningKeys {
		if key != public {
			claims.SigningKeys[key] = scope
		}
	}
	e.Claims = &claims
}

// scopeOf reads the scope that was given, nil if there is none.
func (e *namedEntry) scopeOf(d *framework.FieldData, name string) (*jwt.UserScope, error) {
	config, ok := d.GetOk("config")
	if !ok || config == "" {
		return nil, nil
	}
	if name == defaultKey && !e.External {
		return nil, badField("config", "cannot be given for %q, which signs logins with the permissions of their roles", name)
	}
	scope, err := trust.ParseScope([]byte(config.(string)))
	if err != nil {
		return nil, badField("config", "%s", err)
	}
	scope.Key = ""
	if scope.Role == "" {
		scope.Role = name
	}
	return scope, nil
}

func (b *backend) readKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkName("name", name); err != nil {
		return answer(err)
	}
	entry, err := readNamed(ctx, req.Storage, name)
	if entry == nil || err != nil {
		return nil, err
	}
	key := entry.key(d.Get("key").(string))
	if key == nil {
		return nil, nil
	}
	data, err := key.response()
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) deleteKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	keyName := d.Get("key").(string)
	return b.changeKeys(ctx, req.Storage, d.Get("name").(string), keyName, func(entry *namedEntry) error {
		if key := entry.key(keyName); key != nil && key.Role != "" {
			return badField("key", "%q belongs to role %q: delete that", keyName, key.Role)
		}
		entry.Keys = slices.DeleteFunc(entry.Keys, func(key signingKey) bool { return key.Name == keyName })
		return nil
	})
}

func (b *backend) pathJWTRotate() *framework.Path {
	return &framework.Path{
		Pattern:      "jwt/(?P<name>[^/]+)/rotate$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "rotate", OperationSuffix: "signing-key"},
		Fields: map[string]*framework.FieldSchema{
			"name": {Type: framework.TypeString, Required: true, Description: "Name of the account."},
			"key":  {Type: framework.TypeString, Default: defaultKey, Description: `Name of the signing key. Default: "` + defaultKey + `".`},
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
	name, keyName := d.Get("name").(string), d.Get("key").(string)
	overlap, err := b.limits.longestLife(ctx, req.Storage, b.System(), time.Now())
	if err != nil {
		return nil, err
	}
	if given, ok := d.GetOk("overlap"); ok {
		overlap = time.Duration(given.(int)) * time.Second
	}
	seed := strings.TrimSpace(d.Get("seed").(string))
	gates := false
	resp, err := b.changeKeys(ctx, req.Storage, name, keyName, func(entry *namedEntry) error {
		gates = keyName == defaultKey && entry.hasGatedExports()
		if entry.External && seed == "" {
			return badField("seed", "is missing: someone else operates the account's NATS, so its keys are made there")
		}
		now := time.Now()
		if _, err := entry.rotateKey(keyName, seed, now, overlap); err != nil {
			return err
		}
		entry.forgetListed(entry.key(keyName).PublicKey)
		return nil
	})
	if err == nil && gates && !resp.IsError() {
		resp.AddWarning(fmt.Sprintf("activation tokens signed with the former key end with the overlap, and the imports that they are for with them: have new ones made at jwt/%s/activation and write them to the importing accounts", name))
	}
	return resp, err
}

// hasGatedExports reports whether there are exports that take an activation token
// to import.
func (e *namedEntry) hasGatedExports() bool {
	return slices.ContainsFunc(e.Claims.Exports, func(export *jwt.Export) bool { return export.TokenReq })
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
