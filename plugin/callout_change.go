package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/callout"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// xkeyOverlap is how long requests are taken that are sealed for the former curve
// key, of nats-servers that the account's new JWT has not reached, unless the caller
// says otherwise.
const xkeyOverlap = 24 * time.Hour

// apply changes the fields that were given.
func (e *calloutEntry) apply(name string, stored *calloutEntry, d *framework.FieldData, now time.Time) error {
	for field, kept := range map[string]*string{"account": &e.Account, "user": &e.User} {
		given := textOf(d, field)
		if stored != nil && given != "" && given != *kept {
			return fault.In(field, "cannot be changed: it is %q; delete the callout and create another", *kept)
		}
		if stored == nil {
			*kept = given
		}
	}
	if e.User == "" {
		e.User = "callout-" + name
	}
	setStrings(d, "roles", &e.Roles)
	setStrings(d, "allowed_accounts", &e.AllowedAccounts)
	setString(d, "default_role", &e.DefaultRole)
	e.Roles = slices.Clone(e.Roles)
	for i, glob := range e.Roles {
		e.Roles[i] = strings.ToLower(glob)
	}
	sealed := e.Sealed
	setBool(d, "xkey", &sealed)
	switch {
	case sealed && (!e.Sealed || len(e.XKeys) == 0):
		e.Sealed = true
		return e.newXKey(now, xkeyOverlap)
	case !sealed && e.Sealed:
		e.Sealed = false
		e.retireXKey(now, xkeyOverlap)
	}
	return nil
}

// checkCallout refuses a callout that could not work.
func (b *backend) checkCallout(ctx context.Context, s logical.Storage, name string, entry *calloutEntry) error {
	if entry.Account == "" {
		return fault.In("account", "is missing: the users of an account are those about whom nats-servers ask")
	}
	if err := fault.CheckName("user", entry.User); err != nil {
		return err
	}
	if err := b.chain.CheckCallout(ctx, s, entry.Account, name); err != nil {
		return err
	}
	ofAccount, err := store.AccountOfRoles.Dependent(ctx, s, entry.Account, roleDepends(s, func(of place) bool { return of.Account == entry.Account }))
	if err != nil {
		return err
	}
	if len(ofAccount) > 0 {
		return fault.In("account", "%q has roles (%s), about whose users nats-servers would ask the callout too: give it an account of its own", entry.Account, fault.ShortList(ofAccount))
	}
	if len(entry.Roles) == 0 {
		return fault.In("roles", "is missing: it lists the roles that clients may ask for, and there may be * in it")
	}
	if entry.DefaultRole != "" && !entry.takes(entry.DefaultRole) {
		return fault.In("default_role", "%q is not among the roles", entry.DefaultRole)
	}
	if _, err := b.allowedAccounts(ctx, s, entry); err != nil {
		return err
	}
	for _, role := range namesAmong(entry) {
		if err := b.checkCalloutRole(ctx, s, entry, role); err != nil {
			return err
		}
	}
	_, err = b.responder(ctx, s, entry)
	return err
}

// namesAmong are the roles that the callout names without a glob.
func namesAmong(entry *calloutEntry) []string {
	names := slices.DeleteFunc(slices.Clone(entry.Roles), func(role string) bool { return strings.Contains(role, "*") })
	if entry.DefaultRole != "" && !slices.Contains(names, entry.DefaultRole) {
		names = append(names, entry.DefaultRole)
	}
	return names
}

func (b *backend) checkCalloutRole(ctx context.Context, s logical.Storage, entry *calloutEntry, name string) error {
	if err := fault.CheckName("roles", name); err != nil {
		return err
	}
	role, err := b.role(ctx, s, name)
	if role == nil || err != nil {
		return err // it may come later
	}
	account, err := b.chain.Account(ctx, s, role.entry.Account)
	if err != nil {
		return err
	}
	return entry.checkRole(role, account)
}

// allowedAccounts are the public keys of the accounts that clients may be put into.
func (b *backend) allowedAccounts(ctx context.Context, s logical.Storage, entry *calloutEntry) ([]string, error) {
	if len(entry.AllowedAccounts) == 0 {
		return []string{jwt.AnyAccount}, nil
	}
	var ids []string
	for _, name := range entry.AllowedAccounts {
		account, err := b.chain.Account(ctx, s, name)
		switch {
		case err != nil:
			return nil, err
		case account == nil:
			return nil, fault.In("allowed_accounts", "has %q, which does not exist", name)
		case account.External:
			return nil, fault.In("allowed_accounts", "has %q, which is an account of someone else's NATS", name)
		case name == entry.Account:
			return nil, fault.In("allowed_accounts", "has %q, the callout's own account, which takes no clients", name)
		}
		ids = append(ids, account.PublicKey)
	}
	return ids, nil
}

// responder is the named user that answers, nil if it is to be made.
func (b *backend) responder(ctx context.Context, s logical.Storage, entry *calloutEntry) (*chain.Named, error) {
	user, err := b.chain.Named(ctx, s, entry.User)
	switch {
	case user == nil || err != nil:
		return nil, err
	case user.Type != chain.TypeUser || user.Account != entry.Account:
		return nil, fault.In("user", "%q is not a user of account %q", entry.User, entry.Account)
	case !user.SeedSet:
		return nil, fault.In("user", "%q has its key elsewhere, and the mount could not sign for it", entry.User)
	}
	return user, nil
}

// changeCallout stores the callout as the write makes it, and has its account's JWT
// name it. The entry comes first: what servers seal for a key has to be opened.
func (b *backend) changeCallout(ctx context.Context, s logical.Storage, name string, change func(entry, stored *calloutEntry) error) (account string, err error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.settleCallout(ctx, s, name); err != nil {
		return "", err
	}
	stored, err := readCallout(ctx, s, name)
	if err != nil {
		return "", err
	}
	entry := &calloutEntry{Sealed: true}
	if stored != nil {
		changed := *stored
		entry = &changed
	}
	if err := change(entry, stored); err != nil {
		return "", err
	}
	if err := b.checkCallout(ctx, s, name, entry); err != nil {
		return "", err
	}
	ctx, done := store.Whole(ctx)
	defer done()
	user, err := b.responder(ctx, s, entry)
	if err != nil {
		return "", err
	}
	entry.MadeUser = entry.MadeUser || user == nil
	entry.Unsettled = true
	if err := b.putCallout(ctx, s, name, entry); err != nil {
		return "", err
	}
	account, err = b.settleKept(ctx, s, name, entry)
	var theirs *fault.Error
	if errors.As(err, &theirs) { // nothing is changed by what is refused
		if stored == nil {
			_, undone := b.settleDeleted(ctx, s, name, entry) // with a user that was made for it
			return "", errors.Join(err, undone)
		}
		return "", errors.Join(err, b.putCallout(ctx, s, name, stored))
	}
	return account, err
}

// putIntoAccount makes the responder's user if there is none, and has the account's
// JWT name the callout.
func (b *backend) putIntoAccount(ctx context.Context, s logical.Storage, name string, entry *calloutEntry) (account string, err error) {
	user, err := b.responder(ctx, s, entry)
	if err != nil {
		return "", err
	}
	if user == nil {
		if user, err = b.makeResponder(ctx, s, entry); err != nil {
			return "", err
		}
	}
	allowed, err := b.allowedAccounts(ctx, s, entry)
	if err != nil {
		return "", err
	}
	ready, err := entry.open(name)
	if err != nil {
		return "", err
	}
	return b.chain.SetCallout(ctx, s, entry.Account, chain.Callout{Name: name, User: user.PublicKey, Allowed: allowed, XKey: ready.xkey()})
}

func (b *backend) makeResponder(ctx context.Context, s logical.Storage, entry *calloutEntry) (*chain.Named, error) {
	raw, err := trust.UserConfig(trust.ResponderUser(callout.Subject, callout.Queue))
	if err != nil {
		return nil, err
	}
	config := string(raw)
	user, err := b.chain.Write(ctx, s, entry.User, chain.Change{
		Type: chain.TypeUser, Config: &config, User: chain.UserChange{Account: &entry.Account},
	})
	return user, err
}

// calloutWarnings are the things about a callout that are allowed and rarely meant.
func (b *backend) calloutWarnings(ctx context.Context, s logical.Storage, entry *calloutEntry) (warnings []string, err error) {
	for _, name := range namesAmong(entry) {
		role, err := b.role(ctx, s, name)
		if err != nil {
			return nil, err
		}
		if role == nil {
			warnings = append(warnings, fmt.Sprintf("role %q does not exist yet", name))
		}
	}
	users, err := b.chain.Users(ctx, s, entry.Account)
	if err != nil {
		return nil, err
	}
	users = slices.DeleteFunc(users, func(user string) bool { return user == entry.User })
	if len(users) > 0 {
		warnings = append(warnings, fmt.Sprintf("account %q has further users (%s): nats-servers ask the callout about them too, so that none of them can connect", entry.Account, fault.ShortList(users)))
	}
	return warnings, nil
}
