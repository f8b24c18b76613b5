package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

// secretUser is the type of the leases of creds/:role.
const secretUser = "nats_user"

func (b *backend) pathsCreds() []*framework.Path {
	responses := responds(http.StatusOK, "NATS credentials, with a lease that ends with the user JWT.", credentialsResponse())
	return []*framework.Path{{
		Pattern:      credsPattern,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "credentials"},
		Fields: map[string]*framework.FieldSchema{
			"role": {
				Type:        framework.TypeString,
				Description: "Role to get credentials of, in lower case as it was written: Vault's policies tell paths apart by case.",
				Required:    true,
			},
			"jwt": {
				Type:         framework.TypeString,
				Description:  "The workload's token, for a role of an issuer: it is verified again, and must be of the workload that the Vault token belongs to.",
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			"distributed_claim_access_token": distributedTokenField,

			"user_public_key":    userPublicKeyField,
			"user_key_signature": userKeySignatureField,
			"user_key_time":      userKeyTimeField,
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.creds,
				Summary:      "Get NATS credentials for the caller's Vault entity, without a token.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read"},
				Responses:    responses,
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:     b.creds,
				Summary:      "Get NATS credentials for a workload that sends its token again.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "generate"},
				Responses:    responses,
			},
		},
		HelpSynopsis:    "Get NATS credentials, as a lease, with a Vault token.",
		HelpDescription: credsHelp,
	}}
}

func (b *backend) secretUser() *framework.Secret {
	return &framework.Secret{
		Type:   secretUser,
		Fields: credentialsResponse(),
		Renew:  b.renewCreds,
		Revoke: b.revokeCreds,
	}
}

// creds answers who asks for credentials, and counts it.
func (b *backend) creds(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	role, resp, err := b.lease(ctx, req, d)
	b.counted(byCreds, role, err)
	if err != nil {
		return answer(err)
	}
	b.metrics.lease(leaseIssued)
	return resp, nil
}

// lease makes credentials with a lease. The role is that of a caller who is refused, too.
func (b *backend) lease(ctx context.Context, req *logical.Request, d *framework.FieldData) (*role, *logical.Response, error) {
	now := time.Now()
	name := d.Get("role").(string)
	if name != strings.ToLower(name) {
		// A policy for the role's own path does not hold for this one.
		return nil, nil, fault.In("role", "%q is not in lower case", name)
	}
	role, err := b.namedRole(ctx, req.Storage, name)
	if err != nil {
		return nil, nil, err
	}
	bound, err := b.identifyCaller(ctx, req, d, role, now)
	if err != nil {
		return role, nil, err
	}
	key, err := userKeyOf(req, d, role, proof.Creds, evidence{by: textOf(d, "jwt"), role: name}, now)
	if err != nil {
		return role, nil, err
	}
	creds, err := b.issue(ctx, req.Storage, role, bound, key, now)
	if err != nil {
		return role, nil, err
	}

	resp := b.Secret(secretUser).Response(creds.response(), map[string]any{
		"role":               role.name,
		"account":            creds.account,
		"account_public_key": creds.accountPublicKey,
		"user_public_key":    creds.userPublicKey,
		"issued":             creds.issued.Unix(),
		"expires":            creds.expires.Unix(),
	})
	resp.Secret.TTL = creds.expires.Sub(now)
	resp.Secret.MaxTTL = resp.Secret.TTL
	resp.Warnings = creds.warnings()
	if creds.external {
		resp.AddWarning(fmt.Sprintf("account %q is one of someone else's NATS: when this lease is revoked, the user is not cut off before its JWT ends", creds.account))
	}
	return role, resp, nil
}

// identifyCaller says who the credentials are for: the caller's entity for a
// role of type vault, else the workload whose token the caller sends.
func (b *backend) identifyCaller(ctx context.Context, req *logical.Request, d *framework.FieldData, role *role, now time.Time) (*roles.Bound, error) {
	token := d.Get("jwt").(string)
	if role.entry.RoleType == roles.TypeVault {
		if token != "" {
			return nil, fault.In("jwt", "is given, but role %q is of type vault: its identity is the caller's Vault entity", role.name)
		}
		return b.bindEntity(req, role)
	}
	if role.entry.RoleType == roles.TypeOIDC {
		return nil, fault.In("role", "%q is of type oidc: its credentials come with the login, and afterwards from a role of type vault", role.name)
	}
	// A read has no body, and so its fields are in the query string.
	const inBody = "send %s in a body, as vault write %screds/%s jwt=... does"
	switch {
	case token == "":
		return nil, fault.In("jwt", "is missing: role %q takes the tokens of issuer %q: "+inBody, role.name, role.entry.Issuer, "one", mountOf(req), role.name)
	case req.Operation == logical.ReadOperation:
		return nil, fault.In("jwt", "is in a query string, which access logs keep: "+inBody, "it", mountOf(req), role.name)
	}
	bound, err := b.identify(ctx, req, role, token, textOf(d, "distributed_claim_access_token"), now)
	if err != nil {
		return nil, err
	}
	return bound, b.checkSameWorkload(req, bound)
}

// checkSameWorkload refuses a workload's token in the hands of another's Vault
// token: its alias must be one of the caller's entity on this mount. Vault tells
// the mount's accessor only of a request that it has routed once before, as it
// does for the existence check of a write.
func (b *backend) checkSameWorkload(req *logical.Request, bound *roles.Bound) error {
	if req.EntityID == "" {
		return fault.In("jwt", "cannot be used with this Vault token, which has no entity")
	}
	if req.MountAccessor == "" {
		return errors.New("the request lacks the mount's accessor, by which the aliases of the caller's entity are told apart")
	}
	entity, err := b.System().EntityInfo(req.EntityID)
	if err != nil {
		return fmt.Errorf("looking up the caller's entity: %w", err)
	}
	name := strings.ToLower(bound.Alias) // by which Vault's identity store tells aliases apart
	if entity == nil || !slices.ContainsFunc(entity.Aliases, func(alias *logical.Alias) bool {
		return alias.MountAccessor == req.MountAccessor && strings.ToLower(alias.Name) == name
	}) {
		return fault.In("jwt", "is of %q, which is not the workload that the Vault token belongs to", bound.Alias)
	}
	return nil
}

// bindEntity holds the caller's Vault entity against a role of type vault.
func (b *backend) bindEntity(req *logical.Request, role *role) (*roles.Bound, error) {
	if err := checkAddress(req, role); err != nil {
		return nil, err
	}
	caller, err := b.entity(req.EntityID, role.compiled.ReadsGroups())
	if err != nil {
		return nil, err
	}
	bound, err := role.compiled.BindEntity(*caller)
	if err != nil {
		return nil, fault.New("error validating the caller's entity: %s", err)
	}
	return bound, nil
}

// entity looks a Vault entity and its aliases up, and if wanted its groups: each is
// a call to Vault. No ID stands for no entity: tokens of auth/token, such as the root
// token, may have none.
func (b *backend) entity(id string, withGroups bool) (*roles.Entity, error) {
	if id == "" {
		return &roles.Entity{}, nil
	}
	entity, err := b.System().EntityInfo(id)
	if err != nil {
		return nil, fmt.Errorf("looking up the entity: %w", err)
	}
	if entity == nil {
		return nil, fault.New("%s", "the Vault entity does not exist in this namespace: it was deleted, or merged into another, which tokens of a new login belong to")
	}
	if entity.Disabled {
		return nil, logical.ErrPermissionDenied
	}
	found := &roles.Entity{ID: entity.ID, Name: entity.Name, Metadata: maps.Clone(entity.Metadata)}
	for _, alias := range entity.Aliases {
		found.Aliases = append(found.Aliases, roles.Alias{Mount: alias.MountAccessor, Name: alias.Name, Metadata: alias.Metadata})
	}
	if !withGroups {
		return found, nil
	}
	groups, err := b.System().GroupsForEntity(id)
	if err != nil {
		return nil, fmt.Errorf("looking up the entity's groups: %w", err)
	}
	for _, group := range groups {
		found.Groups = append(found.Groups, group.Name)
	}
	slices.Sort(found.Groups)
	return found, nil
}

// renewCreds tells how long the lease still is: nothing extends a user JWT.
func (b *backend) renewCreds(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	user, err := leasedUser(req.Secret)
	if err != nil {
		return nil, err
	}
	left := time.Until(user.expires)
	if left <= 0 {
		return logical.ErrorResponse("the NATS user JWT has ended: get new credentials"), nil
	}
	resp := &logical.Response{Secret: req.Secret}
	// Vault counts from whole seconds. A lease that ended before its JWT would
	// have the user revoked, instead of costing nothing.
	resp.Secret.TTL = left + time.Second
	resp.Secret.MaxTTL = user.expires.Sub(req.Secret.IssueTime) + time.Second
	b.metrics.lease(leaseRenewed)
	resp.AddWarning("a renewal does not extend the NATS user JWT: get new credentials before it ends")
	return resp, nil
}

// revokeCreds cuts the user off. A lease that ended with its JWT costs nothing.
func (b *backend) revokeCreds(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	user, err := leasedUser(req.Secret)
	if err != nil {
		return nil, err
	}
	if !time.Now().Before(user.expires) {
		b.metrics.lease(leaseExpired)
		return nil, nil
	}
	// What was issued later for the same key has a lease of its own.
	wanted := chain.Revocation{User: user.publicKey, At: user.issued.Unix(), Until: user.expires.Unix()}
	if err := b.chain.Revoke(ctx, req.Storage, user.accountPublicKey, wanted, true); err != nil {
		b.metrics.lease(leaseFailed)
		return nil, err
	}
	b.metrics.lease(leaseRevoked)
	return nil, nil
}

// leased is what a lease keeps of its user: nothing that is secret.
type leased struct {
	accountPublicKey string
	publicKey        string
	issued           time.Time
	expires          time.Time
}

func leasedUser(secret *logical.Secret) (leased, error) {
	if secret == nil {
		return leased{}, errors.New("the request has no lease")
	}
	account, _ := secret.InternalData["account_public_key"].(string)
	user, _ := secret.InternalData["user_public_key"].(string)
	issued, issuedErr := asUnix(secret.InternalData["issued"])
	expires, expiresErr := asUnix(secret.InternalData["expires"])
	if account == "" || user == "" || issuedErr != nil || expiresErr != nil {
		return leased{}, errors.New("the lease does not say which NATS user it is of")
	}
	return leased{accountPublicKey: account, publicKey: user, issued: issued, expires: expires}, nil
}

const credsHelp = `
Answers with fresh NATS credentials under a Vault lease, which ends with the user
JWT. When the lease is revoked earlier, by itself, by prefix, with the Vault token
or with the mount, the user is revoked in its account and cut off.

For a role of an issuer the workload sends its token again as jwt. It is verified
afresh, and must be of the workload that the Vault token belongs to. It is sent with
a write: a read has its fields in the request's address, which access logs keep.

A role of type vault takes no token: its identity is the caller's Vault entity, of
whichever auth method, and the alias that this mount gave it at a login. So a plain
read does. Vault policy decides who may read creds/<role>, and bound_issuers and
bound_aliases of the role who of them gets credentials.
`
