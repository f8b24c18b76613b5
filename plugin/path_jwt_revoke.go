package plugin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

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
				Description: `Revoke what was issued up to this time, as Unix time or as RFC 3339 writes it. Default: now. Not for role.`,
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

// revocable is an account, and perhaps one user of it.
type revocable struct {
	name      string // of the account
	publicKey string
	user      string // public key of the named user; empty for the account
	foreign   bool   // there may be user JWTs that were issued elsewhere
}

// revocable returns what revocations under a name are about, nil if there is
// nothing of that name.
func (b *backend) revocable(ctx context.Context, s logical.Storage, name string) (*revocable, error) {
	if err := checkName("name", name); err != nil {
		return nil, err
	}
	entry, err := readNamed(ctx, s, name)
	if entry == nil || err != nil {
		return nil, err
	}
	found := &revocable{name: name}
	foreignUser := entry.Type == typeUser && entry.mayHaveForeignUsers()
	if entry.Type == typeUser {
		found.name, found.user = entry.Account, entry.PublicKey
		if entry, err = readNamed(ctx, s, entry.Account); err != nil {
			return nil, err
		}
		if entry == nil || entry.Type != typeAccount {
			return nil, badField("name", "%q is a user of account %q, which does not exist any more", name, found.name)
		}
	}
	if entry.External {
		return nil, badField("name", "%q is of an account of someone else's NATS: users are revoked where its JWT is made", name)
	}
	found.publicKey, found.foreign = entry.PublicKey, foreignUser || entry.mayHaveForeignUsers()
	return found, nil
}

func (b *backend) revokeJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	of, err := b.revocable(ctx, req.Storage, name)
	if err == nil && of == nil {
		err = badField("name", "%q does not exist", name)
	}
	if err != nil {
		return answer(err)
	}
	data := map[string]any{}
	if role := d.Get("role").(string); role != "" {
		err = b.revokeRole(ctx, req.Storage, of, role, d)
	} else {
		err = b.revokeUsers(ctx, req.Storage, of, d, data)
	}
	if err != nil {
		return answer(err)
	}
	resp := &logical.Response{Data: data, Warnings: b.deliver(ctx, req.Storage, of.publicKey)}
	load, err := b.chain.revocationLoad(ctx, req.Storage, of.publicKey)
	if err != nil {
		return nil, err
	}
	data["revocations"], data["revocations_room"] = load.count, load.room
	if warning := load.warning(); warning != "" {
		resp.AddWarning(warning)
	}
	return resp, nil
}

// revokeRole replaces the signing key of the role: whom the former one signed is
// refused from then on.
func (b *backend) revokeRole(ctx context.Context, s logical.Storage, of *revocable, name string, d *framework.FieldData) error {
	for _, field := range []string{"user_public_key", "everyone", "before", "undo"} {
		if _, ok := d.GetOk(field); ok {
			return badField(field, "cannot be given with role: the role's users are revoked by replacing the key that signed them, all of them and for good")
		}
	}
	if of.user != "" {
		return badField("role", "is given, but %q is a user", d.Get("name"))
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	role, err := b.role(ctx, s, name)
	switch {
	case err != nil:
		return err
	case role == nil:
		return badField("role", "%q does not exist", name)
	case role.entry.Account != of.name:
		return badField("role", "%q is of account %q", name, role.entry.Account)
	case !role.entry.OwnsKey():
		return badField("role", "%q signs its users with the key of the account, so they cannot be told from those of other roles: "+
			"write signing_key=role to it for the time to come, and now revoke single users, or everyone of the account", name)
	}
	return b.chain.replaceRoleKey(ctx, s, of.name, name)
}

// revokeUsers revokes one user or everyone, or undoes that, and puts into data
// what is revoked then.
func (b *backend) revokeUsers(ctx context.Context, s logical.Storage, of *revocable, d *framework.FieldData, data map[string]any) error {
	user, err := of.whom(d)
	if err != nil {
		return err
	}
	data["user_public_key"] = user
	now := time.Now()
	before, given := d.GetOk("before")
	if !given {
		before = now
	}
	if d.Get("undo").(bool) {
		if given {
			return badField("before", "cannot be given with undo")
		}
		return b.undoRevocation(ctx, s, of.publicKey, user)
	}
	at := before.(time.Time)
	switch {
	case at.After(now):
		return badField("before", "is in the future: %s", at.UTC().Format(time.RFC3339))
	case at.Unix() <= 0:
		return badField("before", "is before the time when anything was issued: %s", at.UTC().Format(time.RFC3339))
	}
	if err := b.revokeUpTo(ctx, s, of.publicKey, user, at, of.foreign); err != nil {
		return err
	}
	// Perhaps it was revoked up to a later time before.
	revoked, err := b.chain.revocations.get(ctx, s, of.publicKey, user)
	if err == nil {
		revoked.describe(data)
	}
	return err
}

// describe adds what is answered about a revocation.
func (r revocation) describe(data map[string]any) {
	data["before"] = rfc3339(r.At)
	if r.Until != 0 {
		data["until"] = rfc3339(r.Until)
	}
}

// revokeUpTo stores the revocation of what was issued to a user, or to everyone,
// up to a time, until all of that has expired. It is kept until it is undone
// where something of it may be foreign: what was issued elsewhere may never expire.
func (b *backend) revokeUpTo(ctx context.Context, s logical.Storage, account, user string, at time.Time, foreign bool) error {
	longest, err := b.limits.longestLife(ctx, s, b.System(), time.Now())
	if err != nil {
		return err
	}
	wanted := revocation{User: user, At: at.Unix(), Until: at.Add(longest).Unix() + 1}
	if foreign {
		wanted.Until = 0
	}
	return b.chain.revocations.add(ctx, s, account, wanted, b.asChange(s, account))
}

// revokeNamedUser revokes a named user that is about to be deleted, and returns
// the public key of its account, which is to be delivered. There is nothing to be
// done for what is not a user, nor where someone else makes the account's JWT.
func (b *backend) revokeNamedUser(ctx context.Context, s logical.Storage, user *namedEntry) ([]string, error) {
	if user == nil || user.Type != typeUser {
		return nil, nil
	}
	account, err := readNamed(ctx, s, user.Account)
	if account == nil || err != nil || account.External {
		return nil, err
	}
	return []string{account.PublicKey}, b.revokeUpTo(ctx, s, account.PublicKey, user.PublicKey, time.Now(), user.mayHaveForeignUsers())
}

// whom returns the public key that the request is about, everyUser for all.
// Nobody is the default of an account: a slip must not cut it off.
func (r *revocable) whom(d *framework.FieldData) (string, error) {
	user, everyone := d.Get("user_public_key").(string), d.Get("everyone").(bool)
	switch {
	case r.user != "" && (user != "" || everyone):
		return "", badField("name", "%q is a user, so user_public_key and everyone have no meaning", d.Get("name"))
	case r.user != "":
		return r.user, nil
	case everyone && user != "":
		return "", badField("everyone", "cannot be given with user_public_key")
	case everyone:
		return everyUser, nil
	case user == "":
		return "", badField("user_public_key", "is missing: say whom to revoke with user_public_key, role or everyone=true")
	}
	if err := trust.CheckPublicKey(trust.User, user); err != nil {
		return "", badField("user_public_key", "%s", err)
	}
	return user, nil
}

func (b *backend) undoRevocation(ctx context.Context, s logical.Storage, account, user string) error {
	removed, err := b.chain.revocations.remove(ctx, s, account, func(r revocation) bool { return r.User == user }, b.asChange(s, account))
	if err == nil && removed == 0 {
		if user == everyUser {
			return badField("everyone", "is not revoked")
		}
		return badField("user_public_key", "%s is not revoked", user)
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
	live, err := b.chain.revocations.list(ctx, req.Storage, of.publicKey, time.Now())
	if err != nil {
		return nil, err
	}
	if of.user != "" {
		live = slices.DeleteFunc(live, func(r revocation) bool { return r.User != of.user && r.User != everyUser })
	}
	slices.SortFunc(live, func(x, y revocation) int {
		return cmp.Or(cmp.Compare(y.At, x.At), strings.Compare(x.User, y.User))
	})
	shown := make([]map[string]any, len(live))
	for i, r := range live {
		shown[i] = map[string]any{"user_public_key": r.User}
		r.describe(shown[i])
	}
	load, err := b.chain.revocationLoad(ctx, req.Storage, of.publicKey)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{Data: map[string]any{"revocations": shown, "revocations_room": load.room}}
	if warning := load.warning(); warning != "" {
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
named user, nothing is to be said. Whoever is revoked and may still log in gets new
credentials by doing so: take away the role or the policy first.
`
