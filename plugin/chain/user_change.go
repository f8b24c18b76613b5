package chain

import (
	"context"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// planUser is the user as the write makes it, checked.
func (c *Chain) planUser(ctx context.Context, s logical.Storage, name string, stored *namedEntry, change Change) (*namedEntry, error) {
	var entry *namedEntry
	var err error
	if change.User.JWT != nil {
		entry, err = c.planUserImport(ctx, s, name, stored, change)
	} else if entry, err = change.userBefore(stored); err == nil {
		err = entry.takeUser(name, stored, change, time.Now())
	}
	if err != nil {
		return nil, err
	}
	if stored != nil && same(stored, entry) && change.User.JWT != nil {
		return entry, nil // an import that is repeated; perhaps its key was rotated away
	}
	account, err := c.accountOf(ctx, s, entry)
	if err != nil {
		return nil, err
	}
	if issuer := entry.User.IssuerAccount; issuer != "" && issuer != account.PublicKey {
		return nil, fault.In("config", "has the issuer_account %s, but account %q is %s", issuer, entry.Account, account.PublicKey)
	}
	entry.User.IssuerAccount = ""
	operator, err := c.operator(ctx, s)
	if err != nil {
		return nil, err
	}
	if _, err := account.userSigner(entry, operator); err != nil {
		return nil, err
	}
	if !account.External && account.Claims.Limits.DisallowBearer && account.makesBearer(entry) {
		return nil, fault.In("config", "has bearer_token, which disallow_bearer of account %q forbids: nats-server would refuse the user", entry.Account)
	}
	if err := entry.checkName(name, account); err != nil {
		return nil, err
	}
	_, err = entry.userClaims(account)
	return entry, err
}

// accountOf is the account of a user.
func (c *Chain) accountOf(ctx context.Context, s logical.Storage, user *namedEntry) (*namedEntry, error) {
	account, err := readNamed(ctx, s, user.Account)
	if err == nil && (account == nil || account.Type != TypeAccount) {
		err = fault.In("account", "%q does not exist: write it at jwt/%s first", user.Account, user.Account)
	}
	return account, err
}

// userBefore is the user that the write changes, or a new one.
func (g Change) userBefore(stored *namedEntry) (*namedEntry, error) {
	if stored != nil {
		return g.knownUser(stored)
	}
	account := ""
	set(&account, g.User.Account)
	if account == "" {
		return nil, fault.In("account", "is missing: a user belongs to an account")
	}
	user, err := trust.ParseUserConfig([]byte("{}"))
	if err != nil {
		return nil, err
	}
	entry := &namedEntry{Type: TypeUser, Account: account, User: user, ForeignUsers: g.Seed != nil || g.PublicKey != nil}
	return entry, g.newUserKey(entry)
}

// newUserKey gives a new user its key: a new one, the one of the seed, or one that
// is elsewhere.
func (g Change) newUserKey(entry *namedEntry) error {
	if g.User.Creds && entry.ForeignUsers {
		return fault.In("creds", "cannot be given for a key that was not made here: whoever has the key has the seed")
	}
	if g.PublicKey != nil {
		public, err := trust.ParsePublicKey(trust.User, *g.PublicKey)
		if err != nil {
			return fault.In("public_key", "%s", err)
		}
		entry.PublicKey = public
		return g.takeUserSeed(entry)
	}
	key, err := trust.Generate(trust.User)
	if g.Seed != nil {
		key, err = trust.ParseSeed(trust.User, *g.Seed)
	}
	if err != nil {
		return fault.In("seed", "%s", err)
	}
	entry.PublicKey, entry.Seed, entry.fresh = key.Public(), key.Seed(), g.Seed == nil
	return nil
}

// takeUserSeed takes the seed of a key that is known by its public half.
func (g Change) takeUserSeed(entry *namedEntry) error {
	if g.Seed == nil {
		return nil
	}
	key, err := trust.ParseSeed(trust.User, *g.Seed)
	if err != nil {
		return fault.In("seed", "%s", err)
	}
	if key.Public() != entry.PublicKey {
		return fault.In("seed", "is that of %s, not of user %s", key.Public(), entry.PublicKey)
	}
	entry.Seed = key.Seed()
	return nil
}

// knownUser is a user that exists, in a copy. Its account and its key stay what
// they are; the seed of the key may come later.
func (g Change) knownUser(stored *namedEntry) (*namedEntry, error) {
	switch {
	case g.User.Account != nil && *g.User.Account != "" && *g.User.Account != stored.Account:
		return nil, fault.In("account", "cannot be changed: the user belongs to account %q; delete it and create another", stored.Account)
	case g.PublicKey != nil && strings.TrimSpace(*g.PublicKey) != stored.PublicKey:
		return nil, fault.In("public_key", "cannot be changed: the user is %s; delete it and create another", stored.PublicKey)
	case g.Seed != nil && stored.Seed != "" && strings.TrimSpace(*g.Seed) != stored.Seed:
		return nil, fault.In("seed", "cannot be changed: the user has its key; delete it and create another")
	case g.User.Creds:
		return nil, fault.In("creds", "can be given only as the user is created: its key does not leave the mount any more; delete the user and create another")
	}
	entry := stored.clone()
	user := *stored.User
	entry.User = &user
	return entry, g.takeUserSeed(entry)
}

// takeUser changes what is given of the user.
func (e *namedEntry) takeUser(name string, stored *namedEntry, change Change, now time.Time) error {
	if change.Config != nil {
		if err := e.takeConfig(*change.Config, change.Patch); err != nil {
			return err
		}
	}
	set(&e.SigningKey, change.User.SigningKey)
	if e.SigningKey == "" {
		e.SigningKey = DefaultKey
	}
	set(&e.TTL, change.User.TTL)
	if err := e.takeName(name, change.NATSName, false); err != nil {
		return err
	}
	return e.takeTimes(stored, change.User, now)
}

// takeTimes sets the user's start and end. An end that has come is refused, but
// where it is the one that the user has.
func (e *namedEntry) takeTimes(stored *namedEntry, given UserChange, now time.Time) error {
	for _, field := range []struct {
		name  string
		given *time.Time
		value *int64
	}{{"not_before", given.NotBefore, &e.NotBefore}, {"expiration", given.Expires, &e.Expires}} {
		switch {
		case field.given == nil:
			continue
		case field.given.Unix() < 0:
			return fault.In(field.name, "is before the time when anything was issued: %s", field.given.UTC().Format(time.RFC3339))
		default:
			*field.value = field.given.Unix() // 0 for none
		}
	}
	switch {
	case given.Creds && e.NotBefore > now.Unix():
		return fault.In("creds", "cannot be given for a user who starts later: no JWT is good yet")
	case e.Expires == 0:
		return nil
	case e.Expires <= e.NotBefore:
		return fault.In("expiration", "is not after not_before")
	case e.Expires <= now.Unix() && (stored == nil || stored.Expires != e.Expires):
		return fault.In("expiration", "is in the past: %s", time.Unix(e.Expires, 0).UTC().Format(time.RFC3339))
	}
	return nil
}

// checkName refuses a name that could widen the scope of the key that signs the
// user: nats-server puts it in the place of {{name()}} as it is.
func (e *namedEntry) checkName(name string, account *namedEntry) error {
	key, natsName := account.key(e.SigningKey), e.natsName(name)
	if key == nil || key.Scope == nil || !strings.ContainsFunc(natsName, unfitForSubject) {
		return nil
	}
	return fault.In("nats_name", "is %q: a user of the scoped signing key %q has no space, '*' or '>' in its name, which may stand in the subjects of the scope", natsName, key.Name)
}

func unfitForSubject(r rune) bool {
	return r == '*' || r == '>' || unicode.IsSpace(r) || unicode.IsControl(r)
}
