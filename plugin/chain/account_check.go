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
	_, err = entry.encode(operator, name, revoked, now.Unix())
	if errors.Is(err, trust.ErrTooLarge) {
		return fault.In("config", "%s", err)
	}
	return err
}

// checkImports refuses imports of what the other account does not export. A
// nats-server would drop them without a word to whoever wrote them.
func (c *Chain) checkImports(ctx context.Context, s logical.Storage, entry *namedEntry) error {
	for i, imported := range entry.Claims.Imports {
		index, err := readIndex(ctx, s, imported.Account)
		if err != nil {
			return err
		}
		var exporter *namedEntry
		if index != nil {
			if exporter, err = readNamed(ctx, s, index.Name); err != nil {
				return err
			}
		}
		if exporter == nil || exporter.PublicKey != imported.Account {
			return fault.In("config", "imports[%d] is from account %s, which is not in the mount", i, imported.Account)
		}
		subject := imported.Subject
		if imported.IsService() && imported.GetTo() != "" {
			subject = jwt.Subject(imported.GetTo())
		}
		found := false
		for _, export := range exporter.Claims.Exports {
			if export.Type != imported.Type || !subject.IsContainedIn(export.Subject) {
				continue
			}
			found = true
			if export.TokenReq && imported.Token == "" {
				return fault.In("config", "imports[%d] needs a token: account %q exports %q with token_req; have one made at jwt/%s/activation", i, index.Name, export.Subject, index.Name)
			}
		}
		if !found {
			return fault.In("config", "imports[%d] names an unknown export: account %q exports no %s that holds %q", i, index.Name, strings.ToLower(imported.Type.String()), subject)
		}
	}
	return nil
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
