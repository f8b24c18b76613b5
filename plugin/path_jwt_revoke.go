package plugin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func (b *backend) pathsJWTRevoke() []*framework.Path {
	return []*framework.Path{{
		Pattern:      "jwt/(?P<name>[^/]+)/revoke$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"name": nameField(),
			"user_public_key": {
				Type:        framework.TypeString,
				Description: `Of an account: public key (U...) of the user to revoke.`,
			},
			"role": {
				Type:        framework.TypeLowerCaseString,
				Description: `Of an account: role whose users to revoke, all of them. It needs signing_key=role or scoped=true.`,
			},
			"everyone": {
				Type:        framework.TypeBool,
				Description: `Of an account: revoke all of its users.`,
			},
			"before": {
				Type:        framework.TypeTime,
				Description: `Revoke what was issued up to this time, as Unix time or as RFC 3339 writes it. Default: all that was issued by now, at whichever node, which is a time ahead of the clock by the clock_skew of config. Not for role.`,
			},
			"undo": {
				Type:        framework.TypeBool,
				Description: `Take the revocation of the same user_public_key, of everyone, or of the named user back.`,
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:     b.revokeJWT,
				Summary:      "Revoke users of an account, or a named user, or undo it.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "revoke", OperationSuffix: "users"},
				Responses: responds(http.StatusOK, "What is revoked now.", map[string]*framework.FieldSchema{
					"revokes":          {Type: framework.TypeString, Description: "What is revoked, in words. Absent after an undo."},
					"account":          {Type: framework.TypeString, Required: true, Description: "Name of the account."},
					"user":             {Type: framework.TypeString, Description: "Name of the named user whose key it is, if it is one's."},
					"user_public_key":  {Type: framework.TypeString, Description: `Public key of the user, "*" for everyone. Absent for a role.`},
					"before":           {Type: framework.TypeTime, Description: "What was issued up to then is revoked (RFC 3339). Absent for a role, and after an undo."},
					"until":            {Type: framework.TypeTime, Description: "When all of that has expired and the revocation is forgotten (RFC 3339). Absent for a role, after an undo, and where users may have been issued elsewhere: then it is kept until it is undone."},
					"revocations":      {Type: framework.TypeInt, Required: true, Description: "How many revocations the account has now."},
					"revocations_room": {Type: framework.TypeInt, Required: true, Description: "How many fit into its JWT."},
				}),
			},
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.readRevoked,
				Summary:      "List what is revoked in an account, or of a named user.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "list", OperationSuffix: "revocations"},
				Responses: responds(http.StatusOK, "The revocations, the latest first.", map[string]*framework.FieldSchema{
					"revocations":      {Type: framework.TypeSlice, Required: true, Description: `For each user_public_key, which is "*" for everyone: before and until as RFC 3339 writes them, no until where it is kept until it is undone.`},
					"revocations_room": {Type: framework.TypeInt, Required: true, Description: "How many fit into the account's JWT."},
				}),
			},
		},
		HelpSynopsis:    "Revoke users of an account, or a named user, list what is revoked, or undo it.",
		HelpDescription: revokeHelp,
	}}
}

func (b *backend) revokeJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	of, err := b.revocable(ctx, req.Storage, name)
	if err == nil && of == nil {
		err = fault.In("name", "%q does not exist", name)
	}
	if err != nil {
		return answer(err)
	}
	data := map[string]any{"account": of.Name}
	if role := d.Get("role").(string); role != "" {
		err = b.revokeRole(ctx, req.Storage, of, role, d)
		data["revokes"] = fmt.Sprintf("all that was issued to users of role %q of account %q, whose signing key is replaced", role, of.Name)
	} else {
		err = b.revokeUsers(ctx, req.Storage, of, d, data)
	}
	if err != nil {
		return answer(err)
	}
	resp := &logical.Response{Data: data, Warnings: b.delivered(ctx, req.Storage, of.Account)}
	load, err := b.chain.RevocationLoad(ctx, req.Storage, of.Account)
	if err != nil {
		return nil, err
	}
	data["revocations"], data["revocations_room"] = load.Count, load.Room
	if warning := load.Warning(); warning != "" {
		resp.AddWarning(warning)
	}
	return resp, nil
}

// revocable is the chain's, once the name is known to be one.
func (b *backend) revocable(ctx context.Context, s logical.Storage, name string) (*chain.Revocable, error) {
	if err := fault.CheckName("name", name); err != nil {
		return nil, err
	}
	return b.chain.Revocable(ctx, s, name)
}

// revokeRole replaces the signing key of the role: whom the former one signed is
// refused from then on.
func (b *backend) revokeRole(ctx context.Context, s logical.Storage, of *chain.Revocable, name string, d *framework.FieldData) error {
	for _, field := range []string{"user_public_key", "everyone", "before", "undo"} {
		if _, ok := d.GetOk(field); ok {
			return fault.In(field, "cannot be given with role: the role's users are revoked by replacing the key that signed them, all of them and for good")
		}
	}
	if of.User != "" {
		return fault.In("role", "is given, but %q is a user", d.Get("name"))
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	role, err := b.role(ctx, s, name)
	switch {
	case err != nil:
		return err
	case role == nil:
		return fault.In("role", "%q does not exist", name)
	case role.entry.Account != of.Name:
		return fault.In("role", "%q is of account %q", name, role.entry.Account)
	case !role.entry.OwnsKey():
		return fault.In("role", "%q signs its users with the key of the account, so they cannot be told from those of other roles: "+
			"write signing_key=role to it for the time to come, and now revoke single users, or everyone of the account", name)
	}
	return b.chain.ReplaceRoleKey(ctx, s, of.Name, name)
}

// revokeUsers revokes one user or everyone, or undoes that, and puts into data
// what is revoked then.
func (b *backend) revokeUsers(ctx context.Context, s logical.Storage, of *chain.Revocable, d *framework.FieldData, data map[string]any) error {
	user, err := whom(of, d)
	if err != nil {
		return err
	}
	data["user_public_key"] = user
	name, err := b.userName(ctx, s, of, user, d)
	if err != nil {
		return err
	}
	if name != "" {
		data["user"] = name
	}
	now := time.Now()
	before, given := d.GetOk("before")
	if d.Get("undo").(bool) {
		if given {
			return fault.In("before", "cannot be given with undo")
		}
		return b.undoRevocation(ctx, s, of.Account, user)
	}
	longest, err := b.limits.longestLife(ctx, s, b.System(), now)
	if err != nil {
		return err
	}
	if !given {
		err = b.chain.RevokeNow(ctx, s, of, user, longest)
	} else if err = checkBefore(before.(time.Time), now); err == nil {
		err = b.chain.RevokeUpTo(ctx, s, of, user, before.(time.Time), longest)
	}
	if err != nil {
		return err
	}
	// Perhaps it was revoked up to a later time before.
	revoked, err := b.chain.Revocation(ctx, s, of.Account, user)
	if err == nil {
		describeRevocation(revoked, data)
		data["revokes"] = fmt.Sprintf("what was issued up to %s to %s", data["before"], inWords(of, user, name))
	}
	return err
}

// inWords is who is revoked, by the name if it is a named user.
func inWords(of *chain.Revocable, user, name string) string {
	switch {
	case user == chain.EveryUser:
		return fmt.Sprintf("any user of account %q", of.Name)
	case name != "":
		return fmt.Sprintf("%q, a named user of account %q", name, of.Name)
	}
	return fmt.Sprintf("the user key %s in account %q, if anything was: the mount keeps no record of the keys that it issues to", user, of.Name)
}

// mostSearched is among how many named users of an account the one with a key is
// looked for, which takes a read each.
const mostSearched = 100

// userName is the name of the named user with a public key; empty if there is none,
// or the account has too many to look for it.
func (b *backend) userName(ctx context.Context, s logical.Storage, of *chain.Revocable, user string, d *framework.FieldData) (string, error) {
	switch {
	case of.User != "":
		return d.Get("name").(string), nil
	case user == chain.EveryUser:
		return "", nil
	}
	names, err := store.AccountOfUsers.Users(ctx, s, of.Name)
	if err != nil || len(names) > mostSearched {
		return "", err
	}
	for _, name := range names {
		named, err := b.chain.Named(ctx, s, name)
		if err != nil {
			return "", err
		}
		if named != nil && named.PublicKey == user {
			return name, nil
		}
	}
	return "", nil
}

// checkBefore refuses a time that is no time of issue.
func checkBefore(at, now time.Time) error {
	switch {
	case at.After(now):
		return fault.In("before", "is in the future: %s", rfc3339(at))
	case at.Unix() <= 0:
		return fault.In("before", "is before the time when anything was issued: %s", rfc3339(at))
	}
	return nil
}

// describeRevocation adds what is answered about a revocation.
func describeRevocation(r chain.Revocation, data map[string]any) {
	data["before"] = rfc3339(time.Unix(r.At, 0))
	if r.Until != 0 {
		data["until"] = rfc3339(time.Unix(r.Until, 0))
	}
}

// whom returns the public key that the request is about, chain.EveryUser for all.
// Nobody is the default of an account: a slip must not cut it off.
func whom(of *chain.Revocable, d *framework.FieldData) (string, error) {
	user, everyone := d.Get("user_public_key").(string), d.Get("everyone").(bool)
	switch {
	case of.User != "" && (user != "" || everyone):
		return "", fault.In("name", "%q is a user, so user_public_key and everyone have no meaning", d.Get("name"))
	case of.User != "":
		return of.User, nil
	case everyone && user != "":
		return "", fault.In("everyone", "cannot be given with user_public_key")
	case everyone:
		return chain.EveryUser, nil
	case user == "":
		return "", fault.In("user_public_key", "is missing: say whom to revoke with user_public_key, role or everyone=true")
	}
	user, err := trust.ParsePublicKey(trust.User, user)
	if err != nil {
		return "", fault.In("user_public_key", "%s", err)
	}
	return user, nil
}

func (b *backend) undoRevocation(ctx context.Context, s logical.Storage, account, user string) error {
	undone, err := b.chain.UndoRevocation(ctx, s, account, user)
	if err == nil && !undone {
		if user == chain.EveryUser {
			return fault.In("everyone", "is not revoked")
		}
		return fault.In("user_public_key", "%s is not revoked", user)
	}
	return err
}

func (b *backend) readRevoked(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	of, err := b.revocable(ctx, req.Storage, d.Get("name").(string))
	if err != nil {
		return answer(err)
	}
	if of == nil {
		return nil, nil
	}
	live, err := b.chain.Revocations(ctx, req.Storage, of.Account)
	if err != nil {
		return nil, err
	}
	if of.User != "" {
		live = slices.DeleteFunc(live, func(r chain.Revocation) bool { return r.User != of.User && r.User != chain.EveryUser })
	}
	slices.SortFunc(live, func(x, y chain.Revocation) int {
		return cmp.Or(cmp.Compare(y.At, x.At), strings.Compare(x.User, y.User))
	})
	shown := make([]map[string]any, len(live))
	for i, r := range live {
		shown[i] = map[string]any{"user_public_key": r.User}
		describeRevocation(r, shown[i])
	}
	load, err := b.chain.RevocationLoad(ctx, req.Storage, of.Account)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{Data: map[string]any{"revocations": shown, "revocations_room": load.Room}}
	if warning := load.Warning(); warning != "" {
		resp.AddWarning(warning)
	}
	return resp, nil
}

const revokeHelp = `
Users are revoked in the JWT of their account: what was issued to them up to a
time is refused from then on, and who is connected is cut off. The revocation is
stored before it is answered, delivered until the servers have it, and forgotten
when all that it concerns has expired. In an account that was imported, or has a
key whose seed came from outside, it is kept until it is undone: what was issued
elsewhere may never expire.

For an account, say who: user_public_key for one user, everyone=true for all, or
role for all of a role that has a signing key of its own, which is replaced. For a
named user, nothing is to be said. The answer says what is revoked, in words: that
a key is nobody's is no error, as no record is kept of whom the mount issues to.

Whoever is revoked and may still log in gets new credentials by doing so: take away
the role or the policy first.
`
