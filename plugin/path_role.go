package plugin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

func (b *backend) pathsRole() []*framework.Path {
	list := func(pattern, suffix string) *framework.Path {
		return &framework.Path{
			Pattern:      pattern,
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: suffix, Navigation: true, ItemType: "Role"},
			Fields:       pageFields(),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback:  b.listRoles,
					Summary:   "List the roles.",
					Responses: listed("Names of the roles."),
				},
			},
			HelpSynopsis:    "List the roles.",
			HelpDescription: "The list holds the names of all roles of the mount.",
		}
	}
	fields := roleFields()
	fields["name"] = &framework.FieldSchema{
		Type:        framework.TypeLowerCaseString,
		Description: "Name of the role.",
		Required:    true,
	}
	return []*framework.Path{
		list("role/?$", "roles"),
		list("roles/?$", "all-roles"),
		b.pathRolePreview(),
		{
			Pattern:      "role/(?P<name>.+)",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "role", ItemType: "Role", Action: "Create"},
			Fields:       fields,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback:  b.readRolePath,
					Summary:   "Read a role.",
					Responses: responds(http.StatusOK, "The role.", roleResponse()),
				},
				logical.CreateOperation: &framework.PathOperation{
					Callback:  b.writeRolePath,
					Summary:   "Create a role.",
					Responses: noContent("The role was stored."),
				},
				logical.UpdateOperation: &framework.PathOperation{
					Callback:  b.writeRolePath,
					Summary:   "Change the given fields of a role.",
					Responses: noContent("The role was stored."),
				},
				logical.DeleteOperation: &framework.PathOperation{
					Callback:  b.deleteRolePath,
					Summary:   "Delete a role.",
					Responses: noContent("The role is gone: its tokens are not renewed."),
				},
			},
			ExistenceCheck:  b.roleExists,
			HelpSynopsis:    "Manage a role: which workloads get which NATS account, subjects and Vault token.",
			HelpDescription: roleHelp,
		},
	}
}

// writeRolePath stores the role only if it is whole: its bindings and template
// compile, and its account and issuer exist.
func (b *backend) writeRolePath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}

	ready, accounts, err := b.changeRole(ctx, req, d, name)
	if err != nil {
		return answer(err)
	}
	account, err := b.chain.Account(ctx, req.Storage, ready.entry.Account)
	if account == nil || err != nil {
		return nil, err // deleted meanwhile
	}
	return written(req, d, append(b.roleWarnings(ready, account), b.delivered(ctx, req.Storage, accounts...)...)...), nil
}

// changeRole stores the role as the write makes it. It returns the public keys
// of the accounts that are to be delivered: those whose signing keys the role
// owns.
func (b *backend) changeRole(ctx context.Context, req *logical.Request, d *framework.FieldData, name string) (*role, []string, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	stored, err := readRole(ctx, req.Storage, name)
	if err != nil {
		return nil, nil, err
	}
	entry := newRoleEntry()
	if stored != nil {
		changed := *stored
		entry = &changed
	}
	if err := entry.apply(req, d); err != nil {
		return nil, nil, err
	}
	if err := b.checkRole(ctx, req.Storage, entry); err != nil {
		return nil, nil, err
	}
	ready, err := entry.compileAt(req, name)
	if err != nil {
		return nil, nil, err
	}
	account, err := b.chain.Account(ctx, req.Storage, entry.Account)
	if err != nil {
		return nil, nil, err
	}
	if err := ready.compiled.CheckAccount(account.Claims); err != nil {
		return nil, nil, userFault(err)
	}
	places, err := b.storeRole(ctx, req.Storage, ready, stored)
	if err != nil {
		return nil, nil, err
	}
	accounts, err := b.scopedAccounts(ctx, req.Storage, places)
	return ready, accounts, err
}

// scopedAccounts are the public keys of the accounts in which a role owns, or
// owned, a signing key.
func (b *backend) scopedAccounts(ctx context.Context, s logical.Storage, places []place) ([]string, error) {
	var keys []string
	for _, place := range places {
		if !place.OwnsKey {
			continue
		}
		account, err := b.chain.Account(ctx, s, place.Account)
		if err != nil {
			return nil, err
		}
		if account != nil && !slices.Contains(keys, account.PublicKey) {
			keys = append(keys, account.PublicKey)
		}
	}
	return keys, nil
}

// checkRole holds the role against what the mount has.
func (b *backend) checkRole(ctx context.Context, s logical.Storage, entry *roleEntry) error {
	if err := b.setRoleType(ctx, s, entry); err != nil {
		return err
	}
	if entry.Account == "" {
		set, err := b.readSettings(ctx, s)
		if err != nil {
			return err
		}
		if entry.Account = set.DefaultAccount; entry.Account == "" {
			return fault.In("account", "is missing: a role gives users of one account, and the mount has no default_account")
		}
	}
	account, err := b.chain.Account(ctx, s, entry.Account)
	if err != nil {
		return err
	}
	if account == nil {
		return fault.In("account", "%q does not exist: write it at jwt/%s first", entry.Account, entry.Account)
	}
	if account.Callout != nil {
		return fault.In("account", "%q is that of callout %q, which nats-servers would ask about the role's users: a callout has an account of its own", entry.Account, account.Callout.Name)
	}
	if account.System && !entry.AllowSystemAccount {
		return fault.In("account", "%q is the system account, whose users see and control all servers; a role of it needs allow_system_account=true", entry.Account)
	}
	if !entry.OwnsKey() {
		if err := account.CheckPlain(); err != nil {
			return err
		}
	}
	return checkLifetimes(entry, b.System().MaxLeaseTTL())
}

// checkLifetimes refuses what could only be cut at every login.
func checkLifetimes(entry *roleEntry, most time.Duration) error {
	if entry.TokenPeriod > most {
		return fault.In(entry.asWritten("period"), "is %s, more than the mount's maximum lease TTL of %s", entry.TokenPeriod, most)
	}
	for _, limit := range []struct {
		name string
		ttl  time.Duration
	}{
		{"the mount's maximum lease TTL", most},
		{entry.asWritten("max_ttl"), entry.TokenMaxTTL},
		{"token_explicit_max_ttl", entry.TokenExplicitMaxTTL},
	} {
		if ttl := entry.userTTL(); limit.ttl > 0 && ttl > limit.ttl {
			return fault.In("user_ttl", "is %s, more than %s of %s: a NATS user never outlives its token", ttl, limit.name, limit.ttl)
		}
	}
	return nil
}

// roleWarnings are the things about a role that are allowed and rarely meant.
func (b *backend) roleWarnings(r *role, account *chain.Account) []string {
	warnings := r.compiled.Warnings(account.Claims)
	most := b.System().MaxLeaseTTL()
	if r.entry.TokenMaxTTL > most {
		warnings = append(warnings, fmt.Sprintf("token_max_ttl is more than the mount's maximum lease TTL of %s, which tokens are cut to", most))
	}
	return warnings
}

func (b *backend) readRolePath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	entry, err := readRole(ctx, req.Storage, name)
	if entry == nil || err != nil {
		return nil, err
	}
	data, err := entry.response()
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) roleExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	entry, err := req.Storage.Get(ctx, rolePrefix+d.Get("name").(string))
	return entry != nil, err
}

func (b *backend) listRoles(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	names, err := req.Storage.List(ctx, rolePrefix)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(page(names, d)), nil
}

func (b *backend) deleteRolePath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	found, accounts, err := b.deleteRole(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	return written(req, d, b.deletionDelivered(ctx, req.Storage, found, accounts...)...), nil
}

// deleteRole returns the public keys of the accounts that are to be delivered.
func (b *backend) deleteRole(ctx context.Context, s logical.Storage, name string) (found bool, accounts []string, err error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	places, err := b.dropRole(ctx, s, name)
	if err != nil {
		return false, nil, err
	}
	accounts, err = b.scopedAccounts(ctx, s, places)
	return len(places) > 0, accounts, err
}

const roleHelp = `
A role binds workloads, by what their token says, to a NATS account and a user
template, and to the parameters of the Vault token that they get.

What is bound: for issuers of JWTs bound_audiences, bound_subject, bound_claims
and bound_expression, as in Vault's JWT method; for Kubernetes issuers service
account names and namespaces, as in Vault's Kubernetes method. A role that binds
nothing is refused. A role of type vault is for whom Vault's policies let read
creds/<role>, and of them for those that bound_issuers and bound_aliases name.

user_template is a NATS user as JSON. Its subjects can hold {{claim(name)}},
{{metadata(name)}} and the functions that nats-server has for signing key
templates. Each rendered value is exactly one subject token: a value that is
empty or holds '.', '*', '>', white space or control characters refuses the
login, unless it is escaped with {{claim(name)|escape}}.

A later write changes only the fields that it gives.
`
