package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	sockaddr "github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/vault/sdk/helper/tokenutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

const rolePrefix = "role/"

// roleEntry is a role in storage.
type roleEntry struct {
	roles.Role
	tokenutil.TokenParams

	// The token parameters under the names of older Vault versions, kept only to
	// be read back by whoever wrote them so.
	Policies   []string                      `json:"policies,omitempty"`
	NumUses    int                           `json:"num_uses,omitempty"`
	TTL        time.Duration                 `json:"ttl,omitempty"`
	MaxTTL     time.Duration                 `json:"max_ttl,omitempty"`
	Period     time.Duration                 `json:"period,omitempty"`
	BoundCIDRs []*sockaddr.SockAddrMarshaler `json:"bound_cidrs,omitempty"`
}

// place is where a role has left its marks: in its account's and its issuer's
// lists of users, and maybe with a signing key in the account.
type place struct {
	Account string `json:"account"`
	Issuer  string `json:"issuer,omitempty"`
	OwnsKey bool   `json:"owns_key,omitempty"`
}

func (e *roleEntry) place() place { return place{e.Account, e.Issuer, e.OwnsKey()} }

// roleDepends returns what says of a role, by name, whether it is of that place. One
// that cannot be read may be.
func roleDepends(s logical.Storage, here func(place) bool) func(context.Context, string) bool {
	return func(ctx context.Context, name string) bool {
		entry, err := readRole(ctx, s, name)
		return err != nil || entry != nil && here(entry.place())
	}
}

func newRoleEntry() *roleEntry {
	return &roleEntry{Role: *roles.New(), TokenParams: tokenutil.TokenParams{}}
}

// role is a roleEntry ready for use.
type role struct {
	name     string
	entry    *roleEntry
	compiled *roles.Compiled
	logins   *loginCounts // nil of a role that is being written
}

// signer names the signing key of the role's users as chain.Account takes it:
// the role's own if it has one, else the account's.
func (r *role) signer() chain.SignerName {
	if r.entry.OwnsKey() {
		return chain.SignerName{Role: r.name, Scoped: r.entry.Scoped}
	}
	return chain.PlainSigner
}

func (e *roleEntry) compile(name string) (*role, error) {
	e.Role.TokenBoundCIDRs = len(e.TokenParams.TokenBoundCIDRs) > 0
	e.VaultPolicies = e.TokenPolicies
	compiled, err := e.Role.Compile()
	if err != nil {
		return nil, err
	}
	return &role{name: name, entry: e, compiled: compiled}, nil
}

// compileAt is compile for a role that is being written. One that reads the
// aliases of this mount keeps the mount's accessor: Vault tells it of a write, for
// which it has routed an existence check before, and not of a read of creds/:role.
func (e *roleEntry) compileAt(req *logical.Request, name string) (*role, error) {
	e.MountAccessor = req.MountAccessor
	ready, err := e.compile(name)
	if err != nil {
		return nil, userFault(err)
	}
	switch {
	case !ready.compiled.ReadsAlias():
		e.MountAccessor = ""
	case e.MountAccessor == "":
		return nil, errors.New("the request lacks the mount's accessor, by which the role is to tell the aliases of this mount from others")
	}
	return ready, nil
}

// userTTL is the role's user_ttl; 0 stands for the token's.
func (e *roleEntry) userTTL() time.Duration { return time.Duration(e.UserTTL) * time.Second }

// readRole returns the role of that name as it is stored, nil if there is none.
// The numbers in its bound_claims stay as they were written; a choice that was
// written empty is its default.
func readRole(ctx context.Context, s logical.Storage, name string) (*roleEntry, error) {
	stored, err := store.Get(ctx, s, rolePrefix+name)
	if stored == nil || err != nil {
		return nil, err
	}
	entry := new(roleEntry)
	if err := stored.DecodeJSON(entry); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", stored.Key, err)
	}
	entry.SetDefaults()
	return entry, nil
}

// role returns the role of that name ready for use, nil if there is none.
func (b *backend) role(ctx context.Context, s logical.Storage, name string) (*role, error) {
	return b.roles.Get(ctx, name, func(ctx context.Context, name string) (*role, error) {
		generation := b.roles.Generation()
		entry, err := readRole(ctx, s, name)
		if entry == nil || err != nil {
			return nil, err
		}
		ready, err := entry.compile(name)
		if err != nil {
			return nil, err
		}
		ready.logins = b.metrics.logins.of(name, entry)
		if b.roles.Generation() != generation {
			b.metrics.logins.changed(name) // it may have been deleted meanwhile
		}
		return ready, nil
	})
}

// roleChanged drops what was made of a role that was written or deleted.
func (b *backend) roleChanged(name string) {
	b.roles.Forget(name)
	b.metrics.logins.changed(name)
}

// setRoleType gives the role the type of its issuer, or refuses a given one
// that contradicts it.
func (b *backend) setRoleType(ctx context.Context, s logical.Storage, entry *roleEntry) error {
	if entry.RoleType == roles.TypeVault {
		if entry.Issuer != "" {
			return fault.In("issuer", "%q is set on a role of type vault, whose identities are Vault entities", entry.Issuer)
		}
		return nil
	}
	issuer, err := readIssuer(ctx, s, entry.Issuer)
	if err != nil {
		return err
	}
	if issuer == nil {
		if entry.Issuer == defaultIssuer {
			return fault.In("issuer", "%q is not configured: write a key source to config first", entry.Issuer)
		}
		return fault.In("issuer", "%q does not exist: write it at issuer/%s first", entry.Issuer, entry.Issuer)
	}
	kind := string(issuer.kind()) // which roles call their type
	switch {
	case entry.RoleType == "" && kind == roles.TypeJWT && len(entry.AllowedRedirectURIs) > 0:
		entry.RoleType = roles.TypeOIDC
	case entry.RoleType == "":
		entry.RoleType = kind
	}
	if entry.RoleType == roles.TypeOIDC && kind == roles.TypeJWT {
		if issuer.OIDCClientID == "" {
			return fault.In("role_type", "is oidc, but issuer %q has no oidc_client_id: people cannot log in with it", entry.Issuer)
		}
		return nil
	}
	if entry.RoleType != kind {
		return fault.In("role_type", "%q contradicts issuer %q, which is of kind %s", entry.RoleType, entry.Issuer, kind)
	}
	return nil
}
