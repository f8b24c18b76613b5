package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// accountServerCache lets caches keep an account JWT, but ask each time whether
// it is still the one: an account may be changed at any moment.
const accountServerCache = "no-cache"

func (b *backend) pathsAccountServer() []*framework.Path {
	return []*framework.Path{
		{
			Pattern:      "jwt/v1/accounts/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "account-server"},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback:  b.probeAccountServer,
					Summary:   "Tell that accounts are served here.",
					Responses: responds(http.StatusOK, "An empty text: nats-server asks for it when it starts with a URL resolver.", nil),
				},
			},
			HelpSynopsis:    "Answer nats-server's start-up check of a URL resolver.",
			HelpDescription: accountServerHelp,
		},
		{
			Pattern:      "jwt/v1/accounts/(?P<id>.+)",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "served-account"},
			Fields: map[string]*framework.FieldSchema{
				"id":     {Type: framework.TypeString, Required: true, Description: "Public key of the account."},
				"text":   {Type: framework.TypeBool, Query: true, Description: "Answer with content type text/plain, for people to look at."},
				"decode": {Type: framework.TypeBool, Query: true, Description: "Answer with the JWT's header and claims as JSON, for people to look at."},
				"check":  {Type: framework.TypeBool, Query: true, Description: "Answer 404 if the JWT is expired. Those of the mount do not expire."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback:  b.serveAccount,
					Summary:   "Fetch an account JWT, as nats-server does with a URL resolver.",
					Responses: responds(http.StatusOK, "The JWT itself, as application/jwt.", nil),
				},
			},
			HelpSynopsis:    "Serve account JWTs to nats-servers.",
			HelpDescription: accountServerHelp,
		},
		{
			Pattern:      "jwt/v1/operator$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "served-operator"},
			Fields: map[string]*framework.FieldSchema{
				"text":   {Type: framework.TypeBool, Query: true, Description: "Answer with content type text/plain, for people to look at."},
				"decode": {Type: framework.TypeBool, Query: true, Description: "Answer with the JWT's header and claims as JSON, for people to look at."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback:  b.serveOperator,
					Summary:   "Fetch the operator's JWT, as nsc does when it adds an operator by URL.",
					Responses: responds(http.StatusOK, "The JWT itself, as application/jwt.", nil),
				},
			},
			HelpSynopsis:    "Serve the operator's JWT to nsc.",
			HelpDescription: accountServerHelp,
		},
	}
}

func (b *backend) serveOperator(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	operator, err := b.chain.ServeOperator(ctx, req.Storage)
	if operator == nil || err != nil {
		return nil, err
	}
	return servedResponse(operator, req, d.Get("text").(bool), d.Get("decode").(bool))
}

func (b *backend) probeAccountServer(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return rawResponse(http.StatusOK, "text/plain", nil), nil
}

func (b *backend) serveAccount(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	id := d.Get("id").(string)
	// What is no key is not looked for, in storage or in the cache.
	if err := trust.CheckPublicKey(trust.Account, id); err != nil {
		return answer(fault.In("id", "%s", err))
	}
	account, err := b.chain.Serve(ctx, req.Storage, id)
	if account == nil || err != nil {
		return nil, err
	}
	return servedResponse(account, req, d.Get("text").(bool), d.Get("decode").(bool))
}

func servedResponse(a *chain.Served, req *logical.Request, text, decode bool) (*logical.Response, error) {
	contentType, status, body := "application/jwt", http.StatusOK, []byte(a.JWT)
	if text || decode {
		contentType = "text/plain"
	}
	switch {
	case matches(a.ETag, req.Headers):
		status, body = http.StatusNotModified, nil
	case decode:
		var err error
		if body, err = decodedText(a.JWT); err != nil {
			return nil, err
		}
	}
	resp := rawResponse(status, contentType, body)
	resp.Headers = map[string][]string{"ETag": {a.ETag}}
	return resp, nil
}

// matches holds If-None-Match (RFC 9110 section 13.1.2) against the tag of a JWT.
func matches(etag string, headers map[string][]string) bool {
	for name, values := range headers {
		if !strings.EqualFold(name, "If-None-Match") {
			continue
		}
		for tag := range strings.SplitSeq(strings.Join(values, ","), ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == etag || tag == "*" {
				return true
			}
		}
	}
	return false
}

func rawResponse(status int, contentType string, body []byte) *logical.Response {
	if body == nil {
		body = []byte{}
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPStatusCode:         status,
		logical.HTTPContentType:        contentType,
		logical.HTTPRawBody:            body,
		logical.HTTPCacheControlHeader: accountServerCache,
	}}
}

// decodedText shows a JWT's header and claims, one after the other.
func decodedText(token string) ([]byte, error) {
	var text bytes.Buffer
	for part := range 2 {
		var raw json.RawMessage
		if err := trust.DecodePart(token, part, &raw); err != nil {
			return nil, err
		}
		if err := json.Indent(&text, raw, "", "  "); err != nil {
			return nil, err
		}
		text.WriteByte('\n')
	}
	return text.Bytes(), nil
}

const accountServerHelp = `
The API of nats-account-server, for nats-servers with "resolver: URL(...)": the
account JWT with that public key as application/jwt, or 404. The operator's JWT is
at jwt/v1/operator, for "nsc add operator --url". No token is needed; these JWTs hold
no secrets.

The JWT's ID is its ETag. Vault passes If-None-Match and ETag only where the
mount is tuned with passthrough_request_headers=If-None-Match and
allowed_response_headers=ETag.
`
