// Command nats-engine-standin stands in for a NATS secrets engine, of which none can
// be had as a Go module. A read of creds/:name does the least that such an engine must
// do: it reads account and template from storage, makes a user key, and signs a user
// JWT with the account's. It checks nothing, keeps no lease and delivers nothing, so a
// real engine is slower.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	b := &framework.Backend{
		BackendType:  logical.TypeLogical,
		PathsSpecial: &logical.Paths{SealWrapStorage: []string{"account/"}},
		Paths: []*framework.Path{
			{
				Pattern: "account/(?P<name>[^/]+)",
				Fields: map[string]*framework.FieldSchema{
					"name":     {Type: framework.TypeString},
					"template": {Type: framework.TypeString, Description: "The nats member of the user JWTs, as JSON."},
				},
				Operations: map[logical.Operation]framework.OperationHandler{
					logical.UpdateOperation: &framework.PathOperation{Callback: writeAccount},
				},
			},
			{
				Pattern: "creds/(?P<name>[^/]+)",
				Fields:  map[string]*framework.FieldSchema{"name": {Type: framework.TypeString}},
				Operations: map[logical.Operation]framework.OperationHandler{
					logical.ReadOperation: &framework.PathOperation{Callback: readCreds},
				},
			},
		},
	}
	if err := b.Setup(ctx, conf); err != nil {
		return nil, err
	}
	return b, nil
}

type account struct {
	Seed string `json:"seed"`
}

// writeAccount makes an account key and stores it beside the template of its users.
func writeAccount(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	key, err := nkeys.CreateAccount()
	if err != nil {
		return nil, err
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, err
	}
	name := d.Get("name").(string)
	entry, err := logical.StorageEntryJSON("account/"+name, account{Seed: string(seed)})
	if err != nil {
		return nil, err
	}
	if err := req.Storage.Put(ctx, entry); err != nil {
		return nil, err
	}
	return nil, req.Storage.Put(ctx, &logical.StorageEntry{Key: "template/" + name, Value: []byte(d.Get("template").(string))})
}

func readCreds(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	signer, template, err := load(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	public, err := user.PublicKey()
	if err != nil {
		return nil, err
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, err
	}
	claims := jwt.NewUserClaims(public)
	claims.Name = name
	claims.Expires = time.Now().Add(time.Hour).Unix()
	if err := template.DecodeJSON(&claims.UserPermissionLimits); err != nil {
		return nil, err
	}
	token, err := claims.Encode(signer)
	if err != nil {
		return nil, err
	}
	creds, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"jwt": token, "creds": string(creds)}}, nil
}

// load reads what a user JWT is made of: account and template.
func load(ctx context.Context, s logical.Storage, name string) (nkeys.KeyPair, *logical.StorageEntry, error) {
	stored, err := s.Get(ctx, "account/"+name)
	if err != nil {
		return nil, nil, err
	}
	template, err := s.Get(ctx, "template/"+name)
	if err != nil {
		return nil, nil, err
	}
	if stored == nil || template == nil {
		return nil, nil, errors.New("no such account")
	}
	var entry account
	if err := stored.DecodeJSON(&entry); err != nil {
		return nil, nil, err
	}
	key, err := nkeys.FromSeed([]byte(entry.Seed))
	if err != nil {
		return nil, nil, err
	}
	return key, template, nil
}
