package plugin

import (
	"context"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func (b *backend) pathJWTActivation() *framework.Path {
	return &framework.Path{
		Pattern:      "jwt/(?P<name>[^/]+)/activation$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "generate", OperationSuffix: "activation"},
		Fields: map[string]*framework.FieldSchema{
			"name":    {Type: framework.TypeString, Required: true, Description: "Name of the exporting account."},
			"account": {Type: framework.TypeString, Required: true, Description: "The importing account: its name in the mount, or its public key."},
			"subject": {Type: framework.TypeString, Required: true, Description: "The subject that may be imported: an exported one, or a part of it."},
			"type":    {Type: framework.TypeString, Required: true, AllowedValues: []any{"stream", "service"}, Description: `"stream" or "service".`},
			"ttl":     {Type: framework.TypeDurationSecond, Description: "How long the token lives. Default: until it is revoked in the export."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.activate,
				Summary:  "Make the activation token with which another account imports an export that has token_req.",
				Responses: responds(http.StatusOK, "The token.", map[string]*framework.FieldSchema{
					"token": {Type: framework.TypeString, Required: true, Description: "The token, for the import's token in the config of the importing account."},
				}),
			},
		},
		HelpSynopsis: "Let another account import what this one exports with token_req.",
		HelpDescription: `
The token names the importing account and the subject; only that account can use
it. It is revoked by the export's revocations in the config of the exporting
account.
`,
	}
}

func (b *backend) activate(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	token, err := b.activation(ctx, req.Storage, d)
	if err != nil {
		return answer(err)
	}
	return &logical.Response{Data: map[string]any{"token": token}}, nil
}

func (b *backend) activation(ctx context.Context, s logical.Storage, d *framework.FieldData) (string, error) {
	name := d.Get("name").(string)
	if err := checkName("name", name); err != nil {
		return "", err
	}
	exporter, err := readNamed(ctx, s, name)
	if err != nil {
		return "", err
	}
	if exporter == nil || exporter.Type != typeAccount {
		return "", badField("name", "%q is not an account", name)
	}
	kind, err := exportType(d.Get("type").(string))
	if err != nil {
		return "", err
	}
	subject := jwt.Subject(d.Get("subject").(string))
	if !exporter.exports(subject, kind) {
		return "", badField("subject", "%q is in no %s that account %q exports with token_req", subject, kind, name)
	}
	importer, err := publicKeyOf(ctx, s, d.Get("account").(string))
	if err != nil {
		return "", err
	}
	account, err := b.chain.account(ctx, s, name)
	if err != nil {
		return "", err
	}
	signer, err := account.signer(plainSigner)
	if err != nil {
		return "", err
	}
	now := time.Now()
	activation := trust.Activation{Exporter: exporter.PublicKey, Importer: importer, Subject: subject, Type: kind}
	if ttl := d.Get("ttl").(int); ttl > 0 {
		activation.Expires = now.Add(time.Duration(ttl) * time.Second)
	}
	token, err := activation.Encode(signer, now.Unix())
	if err != nil {
		return "", badField("subject", "%s", err)
	}
	return token, nil
}

func exportType(name string) (jwt.ExportType, error) {
	switch name {
	case "stream":
		return jwt.Stream, nil
	case "service":
		return jwt.Service, nil
	default:
		return jwt.Unknown, badField("type", `is %q: allowed are "stream" and "service"`, name)
	}
}

// exports reports whether the account has an export that needs a token and
// holds the subject.
func (e *namedEntry) exports(subject jwt.Subject, kind jwt.ExportType) bool {
	for _, export := range e.Claims.Exports {
		if export.TokenReq && export.Type == kind && subject != "" && subject.IsContainedIn(export.Subject) {
			return true
		}
	}
	return false
}

// publicKeyOf takes an account's name, or its public key.
func publicKeyOf(ctx context.Context, s logical.Storage, account string) (string, error) {
	if trust.CheckPublicKey(trust.Account, account) == nil {
		return account, nil
	}
	if err := checkName("account", account); err != nil {
		return "", err
	}
	entry, err := readNamed(ctx, s, account)
	if err != nil {
		return "", err
	}
	if entry == nil || entry.Type != typeAccount {
		return "", badField("account", "%q is neither an account in the mount nor a public key", account)
	}
	return entry.PublicKey, nil
}
