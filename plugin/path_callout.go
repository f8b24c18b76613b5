package plugin

import (
	"context"
	"maps"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

func (b *backend) pathsCallout() []*framework.Path {
	return []*framework.Path{
		{
			Pattern:      "callout/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "callouts", Navigation: true, ItemType: "Auth callout"},
			Fields:       pageFields(),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback:  b.listCallouts,
					Summary:   "List the auth callouts.",
					Responses: listed("Names of the auth callouts."),
				},
			},
			HelpSynopsis:    "List the auth callouts.",
			HelpDescription: "The list holds the names of all auth callouts of the mount.",
		},
		b.pathCalloutAuthorize(),
		b.pathCalloutRotate(),
		{
			Pattern:      "callout/(?P<name>.+)",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "callout", ItemType: "Auth callout", Action: "Create"},
			Fields:       calloutFields(),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback:  b.readCalloutPath,
					Summary:   "Read an auth callout.",
					Responses: responds(http.StatusOK, "The callout. Seeds are never shown.", calloutResponse()),
				},
				logical.CreateOperation: &framework.PathOperation{
					Callback:  b.writeCalloutPath,
					Summary:   "Create an auth callout, and have its account's JWT name it.",
					Responses: responds(http.StatusOK, "The callout.", calloutResponse()),
				},
				logical.UpdateOperation: &framework.PathOperation{
					Callback:  b.writeCalloutPath,
					Summary:   "Change the given fields of an auth callout.",
					Responses: responds(http.StatusOK, "The callout.", calloutResponse()),
				},
				logical.DeleteOperation: &framework.PathOperation{
					Callback:  b.deleteCalloutPath,
					Summary:   "Delete an auth callout: nobody is let in through it any more.",
					Responses: noContent("It is gone."),
				},
			},
			ExistenceCheck:  b.calloutExists,
			HelpSynopsis:    "Manage an auth callout: which clients nats-servers let in by a workload's token alone.",
			HelpDescription: calloutHelp,
		},
	}
}

func calloutNameField() *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Required: true, Description: "Name of the auth callout."}
}

func calloutFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"name": calloutNameField(),
		"account": {
			Type:        framework.TypeString,
			Description: "Name of the account about whose users nats-servers ask. It is one for that alone: it has no roles, and clients are put into those of their roles. Needed to create a callout; it cannot be changed.",
		},
		"roles": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Roles that clients may ask for, with * for any text. No other role is given.",
		},
		"default_role": {
			Type:        framework.TypeLowerCaseString,
			Description: "Role of a client that asks for none. Default: a client must ask for one.",
		},
		"allowed_accounts": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Names of the accounts that clients may be put into; nats-servers hold the callout to them. Default: those of all the roles.",
		},
		"xkey": {
			Type:        framework.TypeBool,
			Default:     true,
			Description: "Whether nats-servers seal what they ask, so that whoever carries it, or listens, sees no token. The key is made and kept here. Default: true.",
		},
		"user": {
			Type:        framework.TypeString,
			Description: "Named user of the account (jwt/:name) with which the responder connects. One that is not there is made, may hear and answer requests and nothing else, and goes with the callout. Default: callout- and the callout's name. It cannot be changed.",
		},
	}
}

func calloutResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"account":            {Type: framework.TypeString, Required: true, Description: "Name of the callout's account."},
		"account_public_key": {Type: framework.TypeString, Description: "Public key of the callout's account. Absent if that was deleted."},
		"roles":              {Type: framework.TypeStringSlice, Required: true, Description: "Roles that clients may ask for."},
		"default_role":       {Type: framework.TypeString, Required: true, Description: "Role of a client that asks for none; empty if it must."},
		"allowed_accounts":   {Type: framework.TypeStringSlice, Required: true, Description: "Names of the accounts that clients may be put into; empty for those of all the roles."},
		"xkey":               {Type: framework.TypeBool, Required: true, Description: "Whether nats-servers seal what they ask."},
		"xkey_public_key":    {Type: framework.TypeString, Description: "Public curve key (X...) for which they seal it."},
		"xkeys_retiring":     {Type: framework.TypeSlice, Description: "Former curve keys for which requests are still taken: public_key, and retires (RFC 3339)."},
		"user":               {Type: framework.TypeString, Required: true, Description: "Named user with which the responder connects."},
		"user_public_key":    {Type: framework.TypeString, Description: "Public key of that user."},
		"sentinel":           {Type: framework.TypeString, Description: "User JWT with which a client comes to the callout, and which lets it do nothing itself; config/server puts it into default_sentinel, so that clients need none. It does not expire."},
		"delivered":          {Type: framework.TypeBool, Description: "Whether the NATS servers have the account's JWT as it is now."},
	}
}

func (b *backend) writeCalloutPath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	account, err := b.changeCallout(ctx, req.Storage, name, func(entry, stored *calloutEntry) error {
		return entry.apply(name, stored, d, time.Now())
	})
	if err != nil {
		return answer(err)
	}
	return b.calloutAnswer(ctx, req.Storage, name, account)
}

// calloutAnswer waits a while for the account to be on the servers.
func (b *backend) calloutAnswer(ctx context.Context, s logical.Storage, name, account string) (*logical.Response, error) {
	warnings := b.delivered(ctx, s, account)
	resp, err := b.describeCallout(ctx, s, name)
	if resp == nil || err != nil {
		return resp, err
	}
	entry, err := readCallout(ctx, s, name)
	if entry == nil || err != nil {
		return nil, err // deleted meanwhile
	}
	more, err := b.calloutWarnings(ctx, s, entry)
	if err != nil {
		return nil, err
	}
	resp.Warnings = append(warnings, more...)
	return resp, nil
}

func (b *backend) readCalloutPath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	return b.describeCallout(ctx, req.Storage, name)
}

func (b *backend) describeCallout(ctx context.Context, s logical.Storage, name string) (*logical.Response, error) {
	ready, err := b.callout(ctx, s, name)
	if ready == nil || err != nil {
		return nil, err
	}
	entry := ready.entry
	retiring := []map[string]any{}
	for i, key := range entry.XKeys {
		if key.RetireAt != 0 {
			retiring = append(retiring, map[string]any{"public_key": ready.xkeys[i].Public(), "retires": rfc3339(time.Unix(key.RetireAt, 0))})
		}
	}
	data := map[string]any{
		"account":          entry.Account,
		"roles":            orEmpty(entry.Roles),
		"default_role":     entry.DefaultRole,
		"allowed_accounts": orEmpty(entry.AllowedAccounts),
		"xkey":             entry.Sealed,
		"xkeys_retiring":   retiring,
		"user":             entry.User,
	}
	if entry.Sealed {
		data["xkey_public_key"] = ready.xkey()
	}
	user, err := b.chain.Named(ctx, s, entry.User)
	if err != nil {
		return nil, err
	}
	if user != nil {
		data["user_public_key"] = user.PublicKey
	}
	of, err := b.describeCalloutAccount(ctx, s, ready)
	maps.Copy(data, of)
	return &logical.Response{Data: data}, err
}

// describeCalloutAccount shows nothing of an account that is not the callout's any
// more: it was deleted, and may have been made anew.
func (b *backend) describeCalloutAccount(ctx context.Context, s logical.Storage, ready *authCallout) (map[string]any, error) {
	account, err := b.calloutAccount(ctx, s, ready)
	if account == nil || err != nil {
		return nil, err
	}
	sentinel, err := b.chain.Sentinel(ctx, s, account)
	if err != nil {
		return nil, err
	}
	pending, err := b.chain.Pending(ctx, s, account.PublicKey)
	if err != nil {
		return nil, err
	}
	return map[string]any{"account_public_key": account.PublicKey, "sentinel": sentinel, "delivered": !pending}, nil
}

// calloutAccount is the account whose JWT names the callout, nil if there is none.
func (b *backend) calloutAccount(ctx context.Context, s logical.Storage, c *authCallout) (*chain.Account, error) {
	account, err := b.chain.Account(ctx, s, c.entry.Account)
	if account == nil || err != nil || account.Callout == nil || account.Callout.Name != c.name {
		return nil, err
	}
	return account, nil
}

func errLostAccount(field string, c *authCallout) error {
	return fault.In(field, "%q has lost its account %q, which was deleted: delete the callout and create it anew", c.name, c.entry.Account)
}

func (b *backend) calloutExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	entry, err := store.Get(ctx, req.Storage, calloutPrefix+d.Get("name").(string))
	return entry != nil, err
}

func (b *backend) listCallouts(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	names, err := store.List(ctx, req.Storage, calloutPrefix)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(page(names, d)), nil
}

func (b *backend) deleteCalloutPath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	accounts, err := b.deleteCallout(ctx, req.Storage, name)
	if err != nil {
		return answer(err)
	}
	return written(req, d, b.deletionDelivered(ctx, req.Storage, len(accounts) > 0, accounts...)...), nil
}

func (b *backend) pathCalloutRotate() *framework.Path {
	return &framework.Path{
		Pattern:      "callout/(?P<name>[^/]+)/rotate$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "rotate", OperationSuffix: "callout-xkey"},
		Fields: map[string]*framework.FieldSchema{
			"name": calloutNameField(),
			"overlap": {
				Type:        framework.TypeDurationSecond,
				Default:     int(xkeyOverlap.Seconds()),
				Description: "How long requests are still taken that are sealed for the former key, of servers that the account's new JWT has not reached. Default: 24 hours.",
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:  b.rotateCallout,
				Summary:   "Put a new curve key of an auth callout into use.",
				Responses: responds(http.StatusOK, "The callout.", calloutResponse()),
			},
		},
		HelpSynopsis: "Rotate the curve key for which nats-servers seal what they ask.",
		HelpDescription: `
A new key is made and put into the JWT of the callout's account. What a server has
sealed for the former one is taken for the overlap.
`,
	}
}

func (b *backend) rotateCallout(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	overlap := time.Duration(d.Get("overlap").(int)) * time.Second
	account, err := b.changeCallout(ctx, req.Storage, name, func(entry, stored *calloutEntry) error {
		switch {
		case stored == nil:
			return fault.In("name", "%q is not a callout", name)
		case !entry.Sealed:
			return fault.In("name", "%q has xkey=false, and so no key to rotate", name)
		case overlap < 0:
			return fault.In("overlap", "is negative: %s", overlap)
		}
		return entry.newXKey(time.Now(), overlap)
	})
	if err != nil {
		return answer(err)
	}
	return b.calloutAnswer(ctx, req.Storage, name, account)
}

const calloutHelp = `
A client that can run no Vault client presents its platform's token to the
nats-server as its password, and the role as its user. The server asks the callout
of its account (ADR-26); a responder (nats-callout) brings the question to
callout/:name/authorize and the answer back. It holds no key, and sees no token.

The mount sets the authorization in the JWT of the callout's account: its user,
the allowed accounts, and the curve key for which servers seal what they ask. It
takes all of that out again when the callout is deleted.

Clients come with the callout's sentinel, which config/server writes into the
servers' configuration. It is a user that can do nothing.
`
