package chain

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// checkNewIdentity refuses a second name for an account that the mount has.
func (c *Chain) checkNewIdentity(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	index, err := readIndex(ctx, s, entry.PublicKey)
	if index == nil || err != nil || index.Name == name {
		return err
	}
	other, err := readNamed(ctx, s, index.Name)
	if err != nil {
		return err
	}
	if other != nil && other.PublicKey == entry.PublicKey {
		return fault.In("name", "%q would be a second name of account %s, which the mount has as %q", name, entry.PublicKey, index.Name)
	}
	return nil
}

// checkAccount holds the whole account, with its keys and revocations, against
// what nats-server takes.
func (c *Chain) checkAccount(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	if entry.External {
		return nil
	}
	if err := entry.checkCallout(); err != nil {
		return err
	}
	if err := trust.ValidateAccount(entry.PublicKey, entry.claims()); err != nil {
		return fault.In("config", "%s", err)
	}
	operator, err := c.operator(ctx, s)
	if err != nil {
		return err
	}
	if !operator.signs() {
		return fault.In("config", "has no operator yet: write config first")
	}
	now := time.Now()
	revoked, err := c.revocations.list(ctx, s, entry.PublicKey, now, operator.entry.clockSkew())
	if err != nil {
		return err
	}
	_, _, err = entry.encode(operator, name, revoked, now.Unix())
	if errors.Is(err, trust.ErrTooLarge) {
		return fault.In("config", "%s", err)
	}
	return err
}

// checkImports refuses imports that nats-server would leave out, without a word to
// whoever wrote them: of what the other account does not export, or not to this one,
// and those that lead back to the account itself.
func (c *Chain) checkImports(ctx context.Context, s logical.Storage, entry *namedEntry) error {
	if len(entry.Claims.Imports) == 0 {
		return nil
	}
	accounts := map[string]*namedAccount{entry.PublicKey: {claims: entry.claims()}}
	of := func(id string) (*namedAccount, error) {
		if known, ok := accounts[id]; ok {
			return known, nil
		}
		found, err := readAccount(ctx, s, id)
		accounts[id] = found
		return found, err
	}
	now := time.Now()
	for i, imported := range entry.Claims.Imports {
		exporter, err := of(imported.Account)
		if err != nil {
			return err
		}
		if exporter == nil {
			return fault.In("config", "imports[%d] is from account %s, which is not in the mount", i, imported.Account)
		}
		err = trust.CheckImport(imported, entry.PublicKey, exporter.claims, now)
		switch {
		case errors.Is(err, trust.ErrNotExported):
			return fault.In("config", "imports[%d] names an unknown export: account %q exports no %s that holds %q",
				i, exporter.name, strings.ToLower(imported.Type.String()), trust.ExportedSubject(imported))
		case errors.Is(err, trust.ErrNeedsToken):
			return fault.In("config", "imports[%d] needs a token: account %q exports %q with token_req; have one made at jwt/%s/activation",
				i, exporter.name, trust.ExportedSubject(imported), exporter.name)
		case err != nil:
			return fault.In("config", "imports[%d] %s", i, err)
		}
	}
	err := trust.CheckCycles(entry.PublicKey, entry.Claims.Imports, func(id string) (*jwt.Account, error) {
		found, err := of(id)
		if found == nil || err != nil {
			return nil, err
		}
		return found.claims, nil
	})
	var cycle *trust.CycleError
	if errors.As(err, &cycle) {
		return fault.In("config", "%s", cycle)
	}
	return err
}

// namedAccount is an account of the mount with all of its signing keys.
type namedAccount struct {
	name   string
	claims *jwt.Account
}

// readAccount returns the account with that public key, nil if the mount has none.
func readAccount(ctx context.Context, s logical.Storage, id string) (*namedAccount, error) {
	index, err := readIndex(ctx, s, id)
	if index == nil || err != nil {
		return nil, err
	}
	entry, err := readNamed(ctx, s, index.Name)
	if entry == nil || err != nil || entry.PublicKey != id {
		return nil, err
	}
	return &namedAccount{name: index.Name, claims: entry.claims()}, nil
}

// checkUsers refuses what nats-server would refuse the account's named users for.
func (c *Chain) checkUsers(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	if !entry.Claims.Limits.DisallowBearer {
		return nil
	}
	users, err := store.AccountOfUsers.Users(ctx, s, name)
	if err != nil {
		return err
	}
	for _, user := range users {
		stored, err := readNamed(ctx, s, user)
		if err != nil {
			return err
		}
		if stored != nil && stored.Type == TypeUser && entry.makesBearer(stored) {
			return fault.In("config", "cannot have limits.disallow_bearer: user %q of the account is a bearer, whom nats-server would refuse", user)
		}
	}
	return nil
}

// makesBearer reports whether a user of the account connects with its JWT alone:
// by what it says itself, or by the scope of the key that signs it.
func (e *namedEntry) makesBearer(user *namedEntry) bool {
	if key := e.key(user.SigningKey); key != nil && key.Scope != nil {
		return key.Scope.Template.BearerToken
	}
	return user.User.BearerToken
}
