package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

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

// Users returns the names of those that are listed under what has that name.
func (k Kind) Users(ctx context.Context, s logical.Storage, name string) ([]string, error) {
	users, err := s.List(ctx, k.prefix(name))
	if err != nil {
		return nil, fmt.Errorf("listing the %ss of %s %q: %w", k.user, k.what, name, err)
	}
	return users, nil
}

// asked is how many of the users of something are looked at whether they are. Who
// asks has one too many already.
const asked = 5

// Dependent returns the names of those that depend on what has that name. depends says
// of a user whether it does: a crash, or a write that failed, may have listed one too
// many, which is unlisted. The caller keeps users from coming and going.
func (k Kind) Dependent(ctx context.Context, s logical.Storage, name string, depends func(ctx context.Context, user string) bool) ([]string, error) {
	users, err := k.Users(ctx, s, name)
	if err != nil {
		return nil, err
	}
	var depending []string
	for i, user := range users {
		if len(depending) == asked {
			return append(depending, users[i:]...), nil
		}
		if depends(ctx, user) {
			depending = append(depending, user)
		} else if err := k.Drop(ctx, s, name, user); err != nil {
			return nil, err
		}
	}
	return depending, nil
}

// UsedBy returns the names of all that have the user listed.
func (k Kind) UsedBy(ctx context.Context, s logical.Storage, user string) ([]string, error) {
	names, err := List(ctx, s, "uses/"+k.key+"/")
	if err != nil {
		return nil, err
	}
	var used []string
	for _, name := range names {
		name = strings.TrimSuffix(name, "/")
		users, err := List(ctx, s, k.prefix(name))
		if err != nil {
			return nil, err
		}
		if slices.Contains(users, user) {
			used = append(used, name)
		}
	}
	return used, nil
}

// Add notes that user depends on what has that name. It is called before the
// user is written, and Drop after it is gone or changed: a crash in between
// leaves a use too many, which the next write or deletion of the user mends, and
// never one too few: see Dependent. Without a name nothing is noted.
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
