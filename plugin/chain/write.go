package chain

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// A Change is what a write of an account or user gives; what is nil or empty
// stays as it is, or is the default.
type Change struct {
	Type      string  // TypeAccount or TypeUser; of one that exists it may be empty
	Config    *string // the "nats" claim of its JWT
	Patch     bool    // Config is a JSON merge patch (RFC 7396) of the present one
	NATSName  *string // its name in its JWT
	Seed      *string // of the identity key
	PublicKey *string // of an account of someone else's NATS, or of a user whose key is elsewhere
	Force     bool    // take over what was deleted here
	Account   AccountChange
	User      UserChange
}

// AccountChange is what only an account has.
type AccountChange struct {
	JWT          *string   // the field account_jwt
	SigningSeeds *[]string // the field signing_seeds

	// Check may refuse what the account is to be, on behalf of those who depend on
	// it and whom the chain does not know; nil if there are none.
	Check func(*jwt.Account) error
}

// UserChange is what only a user has.
type UserChange struct {
	JWT        *string    // the field user_jwt
	Account    *string    // its name
	SigningKey *string    // name of the account's key that signs it
	TTL        *int64     // life of its JWTs, in seconds
	Expires    *time.Time // that no JWT of it outlives; Unix time 0 for none
	NotBefore  *time.Time // from which on its JWTs are good; Unix time 0 for at once
	Nonce      *string    // that its key is to sign: it is not stored
	Creds      bool       // its new key is to be given out: see Named.Creds
}

// Write creates or changes the account or user of that name. What changes nothing
// stores nothing.
func (c *Chain) Write(ctx context.Context, s logical.Storage, name string, change Change) (*Named, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stored, err := readNamed(ctx, s, name)
	if err != nil {
		return nil, err
	}
	kind, err := change.kind(name, stored)
	if err != nil {
		return nil, err
	}
	var entry *namedEntry
	if kind == TypeAccount {
		entry, err = c.planAccount(ctx, s, name, stored, change)
	} else {
		entry, err = c.planUser(ctx, s, name, stored, change)
	}
	if err != nil {
		return nil, err
	}
	view, err := entry.view(name)
	if err != nil || stored != nil && same(stored, entry) {
		return view, err
	}
	if kind == TypeUser {
		return view, c.storeUser(ctx, s, name, stored, entry)
	}
	if err := c.storeAccount(ctx, s, name, entry); err != nil {
		return nil, err
	}
	return view, forgetDeleted(ctx, s, entry)
}

// kind is the type of what the change is about, once it is known that the change
// has no field of the other one.
func (g Change) kind(name string, stored *namedEntry) (string, error) {
	kind := g.Type
	switch {
	case stored == nil && g.Patch:
		return "", fault.In("name", "%q does not exist", name)
	case kind == "" && stored == nil:
		return "", fault.In("type", `is missing: "account" or "user"`)
	case kind == "":
		kind = stored.Type
	case kind != TypeAccount && kind != TypeUser:
		return "", fault.In("type", `is %q: allowed are "account" and "user"`, kind)
	case stored != nil && kind != stored.Type:
		return "", fault.In("type", "is %s, but %q is the name of an existing %s", kind, name, stored.Type)
	}
	return kind, g.refuseFieldsOf(kind)
}

// refuseFieldsOf refuses fields that only the other type has.
func (g Change) refuseFieldsOf(kind string) error {
	other := TypeUser
	fields := []givenField{
		{"user_jwt", g.User.JWT != nil}, {"account", g.User.Account != nil}, {"signing_key", g.User.SigningKey != nil},
		{"ttl", g.User.TTL != nil}, {"expiration", g.User.Expires != nil}, {"not_before", g.User.NotBefore != nil},
		{"nonce", g.User.Nonce != nil}, {"creds", g.User.Creds},
	}
	if kind == TypeUser {
		other = TypeAccount
		fields = []givenField{
			{"account_jwt", g.Account.JWT != nil}, {"signing_seeds", g.Account.SigningSeeds != nil},
		}
	}
	for _, field := range fields {
		if field.given {
			return fault.In(field.name, "is a field of type %s, and this is type %s", other, kind)
		}
	}
	return nil
}

type givenField struct {
	name  string
	given bool
}

// warnings are the things about an entry that are allowed and rarely meant.
func (e *namedEntry) warnings(name string) []string {
	warnings := slices.Clone(e.notes)
	if e.Type == TypeAccount && e.key(DefaultKey) == nil && e.Seed == "" {
		warnings = append(warnings, fmt.Sprintf("account %q has no signing key that logins can be signed with: give its seed at jwt/%s/keys/%s", name, name, DefaultKey))
	}
	return warnings
}
