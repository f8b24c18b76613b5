package plugin

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// What a role depends on cannot be deleted under it. Each role is listed under
// its account and under its issuer, so that the question who uses one costs a
// list of its users and not a read of every role.
const (
	usesAccount = "account"
	usesIssuer  = "issuer"
)

func useKey(kind, name, role string) string {
	return "uses/" + kind + "/" + name + "/" + role
}

// rolesUsing returns the roles that depend on an account or an issuer.
func rolesUsing(ctx context.Context, s logical.Storage, kind, name string) ([]string, error) {
	roles, err := s.List(ctx, useKey(kind, name, ""))
	if err != nil {
		return nil, fmt.Errorf("listing the roles of %s %q: %w", kind, name, err)
	}
	return roles, nil
}

// addUse is called before the role is written, dropUse after it is gone or
// changed: a crash in between leaves a use too many, which the next write or
// deletion of the role mends, and never one too few.
func addUse(ctx context.Context, s logical.Storage, kind, name, role string) error {
	if name == "" {
		return nil
	}
	if err := s.Put(ctx, &logical.StorageEntry{Key: useKey(kind, name, role), Value: []byte("{}")}); err != nil {
		return fmt.Errorf("listing the role under its %s: %w", kind, err)
	}
	return nil
}

func dropUse(ctx context.Context, s logical.Storage, kind, name, role string) error {
	if name == "" {
		return nil
	}
	if err := s.Delete(ctx, useKey(kind, name, role)); err != nil {
		return fmt.Errorf("unlisting the role from its %s: %w", kind, err)
	}
	return nil
}
