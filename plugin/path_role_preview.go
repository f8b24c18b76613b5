package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

func (b *backend) pathRolePreview() *framework.Path {
	return &framework.Path{
		Pattern:      previewPattern,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "preview", OperationSuffix: "role"},
		Fields: map[string]*framework.FieldSchema{
			"name": {
				Type:        framework.TypeLowerCaseString,
				Description: "Name of the role.",
				Required:    true,
			},
			"claims": {
				Type:        framework.TypeMap,
				Description: "Claims of a token, for a role of an issuer. Nothing but the role's bindings and template is checked. A JSON object, or a string that holds one.",
			},
			"jwt": {
				Type:         framework.TypeString,
				Description:  "A token, for a role of an issuer: it is verified as at a login.",
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			"entity_id": {
				Type:        framework.TypeString,
				Description: "ID of a Vault entity, for a role of type vault. Default: the caller's, or none if its Vault token has none.",
			},
			"user_public_key": {
				Type:        framework.TypeString,
				Description: "Public key (U...) of the user, for templates with {{subject()}}. Default: an example.",
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:  b.previewRole,
				Summary:   "Show what a role gives an identity, without issuing anything.",
				Responses: responds(http.StatusOK, "What the role gives, or why it refuses.", previewResponse()),
			},
		},
		HelpSynopsis:    "Show what a role gives an identity, without issuing anything.",
		HelpDescription: previewHelp,
	}
}

func previewResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"allowed":  {Type: framework.TypeBool, Description: "Whether a login would be accepted.", Required: true},
		"errors":   {Type: framework.TypeStringSlice, Description: "All reasons for which it would not.", Required: true},
		"alias":    {Type: framework.TypeString, Description: "Name of the identity alias."},
		"groups":   {Type: framework.TypeStringSlice, Description: "Names of the group aliases."},
		"metadata": {Type: framework.TypeMap, Description: "Metadata of the Vault token."},
		"policies": {Type: framework.TypeStringSlice, Description: "Policies of the Vault token by the role's token_policies."},
		"user":     {Type: framework.TypeMap, Description: "The user JWT's claims: name, and nats as in the JWT. Absent when the login would be refused."},
		"subjects": {Type: framework.TypeSlice, Description: "For the user's name, each tag and each subject: its place in the template, the template's text, what it rendered to, and the value of each placeholder."},
	}
}

// previewRole goes the way of a login up to where a key would be made, and
// collects all that is wrong instead of stopping at the first fault.
func (b *backend) previewRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	role, err := b.role(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if role == nil {
		return b.missing(fault.In("name", "%q is not a role", name))
	}
	account, err := b.chain.Account(ctx, req.Storage, role.entry.Account)
	if err != nil {
		return nil, err
	}
	if account == nil {
		return nil, fmt.Errorf("role %q names account %q, which does not exist", role.name, role.entry.Account)
	}
	key, err := previewKey(d)
	if err != nil {
		return answer(err)
	}
	preview, err := b.preview(ctx, req, d, role, forRoles(account), key)
	if err != nil {
		return answer(err)
	}
	if err := role.compiled.CheckAccount(account.Claims); err != nil {
		preview.Errors, preview.NATS = append(preview.Errors, err), nil
	}
	return previewAnswer(preview)
}

// previewKey is the given key, or that of a user that is thrown away.
func previewKey(d *framework.FieldData) (string, error) {
	if public := d.Get("user_public_key").(string); public != "" {
		public, err := trust.ParsePublicKey(trust.User, public)
		if err != nil {
			return "", fault.In("user_public_key", "%s", err)
		}
		return public, nil
	}
	key, err := trust.Generate(trust.User)
	if err != nil {
		return "", err
	}
	return key.Public(), nil
}

func (b *backend) preview(ctx context.Context, req *logical.Request, d *framework.FieldData, role *role, account roles.Account, key string) (*roles.Preview, error) {
	sample, hasSample := d.GetOk("claims")
	token := d.Get("jwt").(string)
	now := time.Now()
	if role.entry.RoleType == roles.TypeVault {
		if hasSample || token != "" {
			return nil, fault.In("claims", "and jwt are for roles of an issuer: role %q is of type vault, whose identity is a Vault entity", role.name)
		}
		id := d.Get("entity_id").(string)
		if id == "" {
			id = req.EntityID
		}
		if id == "" && role.compiled.NeedsEntity() != "" {
			return nil, fault.In("entity_id", "is missing: %s asks for an entity, and this Vault token has none itself", role.compiled.NeedsEntity())
		}
		entity, err := b.entity(id, true)
		if err != nil {
			return nil, err
		}
		return role.compiled.PreviewEntity(*entity, account, key), nil
	}
	if hasSample == (token != "") {
		return nil, fault.In("claims", "or jwt must be given, and not both")
	}
	if hasSample {
		return role.compiled.Preview(sampleProfile(role, sample.(map[string]any)), account, key, now), nil
	}
	identity, err := b.verify(ctx, req.Storage, role, token, "", now)
	if err != nil {
		return nil, err
	}
	return role.compiled.Preview(identity.Profile(), account, key, now), nil
}

// sampleProfile is what a token with these claims would say.
func sampleProfile(role *role, sample map[string]any) *claims.Profile {
	profile := &claims.Profile{Issuer: role.entry.Issuer, Kind: claims.KindJWT, Claims: sample}
	if role.entry.RoleType != roles.TypeKubernetes {
		return profile
	}
	profile.Kind = claims.KindKubernetes
	// Nil if there is none, which the role then says.
	profile.ServiceAccount, _ = claims.ClaimedServiceAccount(sample)
	return profile
}

func previewAnswer(preview *roles.Preview) (*logical.Response, error) {
	faults := []string{}
	for _, fault := range preview.Errors {
		faults = append(faults, fault.Error())
	}
	subjects, err := asJSON[[]map[string]any](preview.Origins)
	if err != nil {
		return nil, err
	}
	data := map[string]any{
		"allowed":  len(faults) == 0,
		"errors":   faults,
		"alias":    preview.Alias,
		"groups":   orEmpty(preview.Groups),
		"metadata": preview.Metadata,
		"policies": orEmpty(preview.Policies),
		"subjects": subjects,
	}
	if preview.NATS != nil {
		nats, err := asJSON[map[string]any](preview.NATS)
		if err != nil {
			return nil, err
		}
		data["user"] = map[string]any{"name": preview.Name, "nats": nats}
	}
	return &logical.Response{Data: data}, nil
}

// asJSON gives a value the form that it has in JSON.
func asJSON[T any](value any) (T, error) {
	var object T
	raw, err := json.Marshal(value)
	if err != nil {
		return object, err
	}
	return object, json.Unmarshal(raw, &object)
}

const previewHelp = `
Renders the role for given claims, for a given token, or for a Vault entity, and
shows the user JWT's claims and what each subject came from, or all reasons for
which the login would be refused. Nothing is issued.
`
