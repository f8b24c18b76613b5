package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

func (b *backend) pathsIssuer() []*framework.Path {
	fields := issuerFields()
	fields["name"] = &framework.FieldSchema{
		Type:        framework.TypeLowerCaseString,
		Description: `Name of the issuer. "default" is the one that config writes.`,
		Required:    true,
	}
	return []*framework.Path{
		{
			Pattern:      "issuer/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "issuers", Navigation: true, ItemType: "Issuer"},
			Fields:       pageFields(),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback:  b.listIssuers,
					Summary:   "List the issuers of workload tokens.",
					Responses: listed("Names of the issuers."),
				},
			},
			HelpSynopsis:    "List the issuers of workload tokens that the mount trusts.",
			HelpDescription: `The default issuer, which config writes, is listed as "default".`,
		},
		{
			Pattern:      "issuer/(?P<name>.+)",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "issuer", ItemType: "Issuer", Action: "Create"},
			Fields:       fields,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback:  b.readIssuerPath,
					Summary:   "Read an issuer.",
					Responses: responds(http.StatusOK, "The issuer. Secrets are shown as set or not.", issuerResponse()),
				},
				logical.CreateOperation: &framework.PathOperation{
					Callback:  b.writeIssuerPath,
					Summary:   "Create an issuer.",
					Responses: noContent("The issuer was stored."),
				},
				logical.UpdateOperation: &framework.PathOperation{
					Callback:  b.writeIssuerPath,
					Summary:   "Change the given fields of an issuer.",
					Responses: noContent("The issuer was stored."),
				},
				logical.DeleteOperation: &framework.PathOperation{
					Callback:  b.deleteIssuerPath,
					Summary:   "Delete an issuer that no role uses.",
					Responses: noContent("The issuer is gone."),
				},
			},
			ExistenceCheck:  b.issuerExists,
			HelpSynopsis:    "Manage an issuer of workload tokens.",
			HelpDescription: issuerHelp,
		},
	}
}

func (b *backend) writeIssuerPath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}

	b.configuring.Lock()
	defer b.configuring.Unlock()
	if err := b.finishConfigFirst(ctx, req.Storage); err != nil {
		return nil, err
	}
	plan, err := b.planIssuer(ctx, req.Storage, name, d)
	if err != nil {
		return answer(err)
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.checkIssuerChange(ctx, req.Storage, name, plan); err != nil {
		return answer(err)
	}
	entries, err := plan.entries(name)
	if err != nil {
		return nil, err
	}
	if err := b.storeEntries(ctx, req.Storage, entries); err != nil {
		return nil, err
	}
	return written(req, d, plan.warnings...), nil
}

func (b *backend) readIssuerPath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	entry, err := readIssuer(ctx, req.Storage, name)
	if entry == nil || err != nil {
		return nil, err
	}
	return &logical.Response{Data: entry.response()}, nil
}

func (b *backend) issuerExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	entry, err := readIssuer(ctx, req.Storage, d.Get("name").(string))
	return entry != nil, err
}

func (b *backend) listIssuers(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	names, err := req.Storage.List(ctx, issuerPrefix)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(page(names, d)), nil
}

func (b *backend) deleteIssuerPath(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	b.configuring.Lock()
	defer b.configuring.Unlock()
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.finishConfig(ctx, req.Storage); err != nil {
		return nil, err
	}
	using, err := store.IssuerOfRoles.Dependent(ctx, req.Storage, name, roleDepends(req.Storage, func(of place) bool { return of.Issuer == name }))
	if err != nil {
		return nil, err
	}
	if len(using) > 0 {
		return answer(fault.In("name", "%q is the issuer of roles, which must go or change first: %s", name, fault.ShortList(using)))
	}
	ctx, done := store.Whole(ctx)
	defer done()
	err = errors.Join(
		req.Storage.Delete(ctx, issuerPrefix+name),
		req.Storage.Delete(ctx, issuerKeysPrefix+name),
	)
	b.issuerChanged(name)
	if err != nil {
		return nil, fmt.Errorf("deleting issuer %q: %w", name, err)
	}
	return nil, nil
}

const issuerHelp = `
An issuer is a source of workload tokens. A role names the one whose tokens it
takes with its field "issuer"; a token of any other is refused.

An issuer has exactly one source of keys: oidc_discovery_url, jwks_url,
jwks_pairs, jwt_validation_pubkeys or kubernetes_host. A later write changes only
the fields that it gives; a source that it gives replaces the one there was.
Before an issuer is stored it is reached once, unless skip_jwks_validation is
set.

The identity alias of a workload is issuer:<name>:<value>, so that equal values
from two issuers are two entities; only the default issuer's has no prefix.
`
