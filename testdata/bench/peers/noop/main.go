// Command noop is a Vault auth method that does nothing: it answers every login with
// the same auth. No plugin that runs outside of Vault's process logs in faster, so it
// is the ceiling that the benchmarks measure against.
package main

import (
	"context"
	"fmt"
	"os"

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
	b := &framework.Backend{
		BackendType:  logical.TypeCredential,
		PathsSpecial: &logical.Paths{Unauthenticated: []string{"login"}},
		Paths: []*framework.Path{{
			Pattern: "login$",
			// The fields of the other methods' logins, so that all are sent the same.
			Fields: map[string]*framework.FieldSchema{
				"role": {Type: framework.TypeString},
				"jwt":  {Type: framework.TypeString},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{Callback: login},
			},
		}},
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
