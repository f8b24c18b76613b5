package plugin

import (
	"context"
	"maps"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// settingsKey is where the settings are stored.
const settingsKey = "settings"

// settings are the fields of `config` that belong neither to the operator nor
// to the default issuer.
type settings struct {
	DefaultRole    string `json:"default_role"`
	DefaultAccount string `json:"default_account,omitempty"`
}

func (b *backend) pathsConfig() []*framework.Path {
	fields := issuerFields()
	maps.Copy(fields, operatorFields())
	fields["default_role"] = &framework.FieldSchema{
		Type:        framework.TypeLowerCaseString,
		Description: "Role of a login that names none. Default: a login must name one.",
	}
	fields["default_account"] = &framework.FieldSchema{
		Type:        framework.TypeString,
		Description: "Account of roles that are written without one, as by tools made for Vault's own methods. Default: a role must name one.",
	}
	return []*framework.Path{b.withDryRun(&framework.Path{
		Pattern:      "config$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       fields,
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.readConfig,
				Summary:      "Read the configuration of the mount.",
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "configuration"},
				Responses:    responds(http.StatusOK, "The operator and the default issuer. Secrets are shown as set or not.", configResponse()),
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:     b.writeConfig,
				Summary:      "Configure the NATS operator and the default issuer.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "configure"},
				Responses:    responds(http.StatusOK, "What a nats-server needs to trust the mount.", operatorWriteResponse()),
			},
		},
		HelpSynopsis:    "Configure the NATS operator and the default issuer of workload tokens.",
		HelpDescription: configHelp,
	}, false)}
}

func configResponse() map[string]*framework.FieldSchema {
	fields := issuerResponse()
	maps.Copy(fields, operatorResponse())
	fields["default_role"] = &framework.FieldSchema{Type: framework.TypeString, Description: "Role of a login that names none."}
	fields["default_account"] = &framework.FieldSchema{Type: framework.TypeString, Description: "Account of roles that are written without one."}
	return fields
}

// writeConfig checks all that was given before it stores anything: a fault in
// the issuer leaves the operator as it was, and the other way round.
func (b *backend) writeConfig(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.configuring.Lock()
	defer b.configuring.Unlock()
	if err := b.finishConfigFirst(ctx, req.Storage); err != nil {
		return nil, err
	}
	issuer, err := b.planDefaultIssuer(ctx, req.Storage, d)
	if err != nil {
		return answer(err)
	}
	data, err := b.commitConfig(ctx, req.Storage, d, issuer)
	if err != nil {
		return answer(err)
	}
	resp := &logical.Response{Data: data}
	if issuer != nil {
		resp.Warnings = issuer.warnings
	}
	for _, warning := range b.deliverNow(ctx, req.Storage) {
		resp.AddWarning(warning)
	}
	return resp, nil
}

// commitConfig stores the operator, and with it whatever else was given.
func (b *backend) commitConfig(ctx context.Context, s logical.Storage, d *framework.FieldData, issuer *issuerPlan) (map[string]any, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	plan, err := b.chain.PlanOperator(ctx, s, givenOperator(d))
	if err != nil {
		return nil, err
	}
	var together, settings []*logical.StorageEntry
	if issuer != nil {
		if err := b.checkIssuerChange(ctx, s, defaultIssuer, issuer); err != nil {
			return nil, err
		}
		if together, err = issuer.entries(defaultIssuer); err != nil {
			return nil, err
		}
	}
	if settings, err = b.planSettings(ctx, s, d); err != nil {
		return nil, err
	}
	if !plan.Changes() && (issuer == nil || settings == nil) { // one of them, by itself
		if err := b.storeEntries(ctx, s, append(together, settings...)); err != nil {
			return nil, err
		}
		together, settings = nil, nil
	}
	operatorJWT, systemJWT, err := b.chain.CommitOperator(ctx, s, plan, append(together, settings...), b.forget)
	if err != nil {
		return nil, err
	}
	data := map[string]any{}
	if operatorJWT != "" {
		data["operator_jwt"], data["system_account_jwt"] = operatorJWT, systemJWT
	}
	return data, nil
}

// planSettings is what is stored of the settings if the write changes any.
func (b *backend) planSettings(ctx context.Context, s logical.Storage, d *framework.FieldData) ([]*logical.StorageEntry, error) {
	before, err := b.readSettings(ctx, s)
	if err != nil {
		return nil, err
	}
	after := *before
	setString(d, "default_role", &after.DefaultRole)
	setString(d, "default_account", &after.DefaultAccount)
	if after == *before {
		return nil, nil
	}
	entry, err := logical.StorageEntryJSON(settingsKey, after)
	return []*logical.StorageEntry{entry}, err
}

// planDefaultIssuer checks a write of the default issuer: nil if none of its
// fields is given. A mount without any is fine: roles can have issuers of their
// own.
func (b *backend) planDefaultIssuer(ctx context.Context, s logical.Storage, d *framework.FieldData) (*issuerPlan, error) {
	for field := range issuerFields() {
		if _, ok := d.GetOk(field); ok && field != "skip_jwks_validation" {
			return b.planIssuer(ctx, s, defaultIssuer, d)
		}
	}
	return nil, nil
}

// readSettings returns the settings, never nil.
func (b *backend) readSettings(ctx context.Context, s logical.Storage) (*settings, error) {
	return b.settings.Get(ctx, settingsKey, func(ctx context.Context, key string) (*settings, error) {
		stored, err := store.Read[settings](ctx, s, key)
		if stored == nil && err == nil {
			stored = &settings{}
		}
		return stored, err
	})
}

func (b *backend) readConfig(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	operator, err := b.chain.Operator(ctx, req.Storage)
	if operator == nil || err != nil {
		return nil, err
	}
	entry, err := readIssuer(ctx, req.Storage, defaultIssuer)
	if err != nil {
		return nil, err
	}
	if entry == nil {
		entry = newIssuerEntry()
	}
	set, err := b.readSettings(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	data := entry.response()
	maps.Copy(data, operatorData(operator))
	data["default_role"] = set.DefaultRole
	data["default_account"] = set.DefaultAccount
	return &logical.Response{Data: data}, nil
}

const configHelp = `
The first write creates the NATS operator, the system account and the user with
which the mount speaks to the NATS servers; later writes change only the fields
that they give, and never a key. Each answers with the operator's and the system
account's JWT; config/server has them as a ready nats-server configuration.

The fields of an issuer configure the default one, whose tokens roles take unless
they name another (see issuer/). They are those of Vault's JWT method, or with
kubernetes_host those of its Kubernetes method.

A NATS that is not up is no error: that it cannot be reached, or what is still to
be delivered, is told in a warning, shown at sync, and delivered once NATS is
there.
`
