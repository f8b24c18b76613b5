package store

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// A Kind is what something can depend on, or be used by.
//
// What a role or a user depends on cannot be deleted under it. Each is listed
// under what it depends on, so that the question who uses that costs a list of
// its users and not a read of every role.
type Kind struct {
	key  string // where the users are listed
	what string // is used, as an error calls it
	user string // as an error calls it
}

// What can be depended on.
var (
	AccountOfRoles = Kind{"account", "account", "role"}
	AccountOfUsers = Kind{"account-user", "account", "user"}
	IssuerOfRoles  = Kind{"issuer", "issuer", "role"}
)

func (k Kind) prefix(name string) string { return "uses/" + k.key + "/" + name + "/" }

// Users returns the names of those that depend on what has that name.
func (k Kind) Users(ctx context.Context, s logical.Storage, name string) ([]string, error) {
	users, err := s.List(ctx, k.prefix(name))
	if err != nil {
		return nil, fmt.Errorf("listing the %ss of %s %q: %w", k.user, k.what, name, err)
	}
	return users, nil
}

// Add notes that user depends on what has that name. It is called before the
// user is written, and Drop after it is gone or changed: a crash in between
// leaves a use too many, which the next write or deletion of the user mends, and
// never one too few. Without a name nothing is noted.
func (k Kind) Add(ctx context.Context, s logical.Storage, name, user string) error {
	if name == "" {
		return nil
	}
	if err := s.Put(ctx, &logical.StorageEntry{Key: k.prefix(name) + user, Value: []byte("{}")}); err != nil {
		return fmt.Errorf("listing the %s under its %s: %w", k.user, k.what, err)
	}
	return nil
}

// Drop takes back what Add noted.
func (k Kind) Drop(ctx context.Context, s logical.Storage, name, user string) error {
	if name == "" {
		return nil
	}
	if err := s.Delete(ctx, k.prefix(name)+user); err != nil {
		return fmt.Errorf("unlisting the %s from its %s: %w", k.user, k.what, err)
	}
	return nil
}
