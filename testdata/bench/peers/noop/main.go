// Command noop is a Vault auth method that does nothing: it answers every login with
// the same auth, and every read of creds/:bytes with a lease of the same secret. No
// plugin that runs outside of Vault's process does either faster, so it is the ceiling
// that the benchmarks measure against.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	var b *framework.Backend
	b = &framework.Backend{
		BackendType:  logical.TypeCredential,
		PathsSpecial: &logical.Paths{Unauthenticated: []string{"login"}},
		Paths: []*framework.Path{
			{
				Pattern: "login$",
				// The fields of the other methods' logins, so that all are sent the same.
				Fields: map[string]*framework.FieldSchema{
					"role": {Type: framework.TypeString},
					"jwt":  {Type: framework.TypeString},
				},
				Operations: map[logical.Operation]framework.OperationHandler{
					logical.UpdateOperation: &framework.PathOperation{Callback: login},
				},
			},
			{
				Pattern: `creds/(?P<bytes>\d+)$`,
				Fields: map[string]*framework.FieldSchema{
					"bytes": {Type: framework.TypeInt, Description: "How long the secret is."},
				},
				Operations: map[logical.Operation]framework.OperationHandler{
					logical.ReadOperation: &framework.PathOperation{Callback: lease},
				},
			},
			{
				Pattern: `known/(?P<bytes>\d+)$`,
				Fields: map[string]*framework.FieldSchema{
					"bytes": {Type: framework.TypeInt, Description: "How long the secret is."},
				},
				Operations: map[logical.Operation]framework.OperationHandler{
					logical.ReadOperation: &framework.PathOperation{Callback: func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
						if _, err := b.System().EntityInfo(req.EntityID); err != nil {
							return nil, err
						}
						return lease(ctx, req, d)
					}},
				},
			},
		},
		Secrets: []*framework.Secret{secret},
	}
	if err := b.Setup(ctx, conf); err != nil {
		return nil, err
	}
	return b, nil
}

// login answers as the other methods do: with an alias, since Vault's work on the
// alias's entity is part of every login.
func login(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{Auth: &logical.Auth{
		DisplayName: "workload",
		Policies:    []string{"bench"},
		Alias:       &logical.Alias{Name: "workload", Metadata: map[string]string{"role": "bench"}},
		Metadata:    map[string]string{"role": "bench"},
	}}, nil
}

// secret is the type of the leases. To revoke one is nothing.
var secret = &framework.Secret{
	Type:            "noop",
	Fields:          map[string]*framework.FieldSchema{"secret": {Type: framework.TypeString}},
	DefaultDuration: time.Hour,
	Renew: func(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
		return &logical.Response{Secret: req.Secret}, nil
	},
	Revoke: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
		return nil, nil
	},
}

// lease answers with a secret that is always the same. How long it is counts: Vault
// keeps the answer with the lease.
func lease(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return secret.Response(map[string]any{"secret": strings.Repeat("x", d.Get("bytes").(int))}, nil), nil
}
