package plugin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func (b *backend) pathsConfigServer() []*framework.Path {
	return []*framework.Path{{
		Pattern:      "config/server$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "server-configuration"},
		Fields: map[string]*framework.FieldSchema{
			"resolver": {
				Type:          framework.TypeString,
				Query:         true,
				Default:       string(trust.ResolverFull),
				AllowedValues: []any{string(trust.ResolverFull), string(trust.ResolverCache), string(trust.ResolverMemory), string(trust.ResolverURL)},
				Description:   `How the servers get at accounts: "full" (each keeps all of them), "cache" (those in use), "memory" (all stand in the configuration) or "url" (fetched from the mount).`,
			},
			"dir": {
				Type:        framework.TypeString,
				Query:       true,
				Default:     "./jwt",
				Description: `Directory in which a server with the resolver full or cache keeps account JWTs; each server needs its own.`,
			},
			"vault_addr": {
				Type:        framework.TypeString,
				Query:       true,
				Description: `URL at which the servers reach Vault, for the resolver url.`,
			},
			"callout": {
				Type:        framework.TypeString,
				Query:       true,
				Description: `Auth callout that clients come to who bring no JWT: its sentinel becomes the servers' default_sentinel. Default: the one of the mount, and none where it has several.`,
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readConfigServer,
				Summary:  "Read the nats-server configuration that makes a server trust the mount.",
				Responses: responds(http.StatusOK, "The configuration.", map[string]*framework.FieldSchema{
					"config":                    {Type: framework.TypeString, Required: true, Description: "Text for nats-server's configuration file."},
					"operator_jwt":              {Type: framework.TypeString, Description: "JWT of the operator."},
					"system_account_public_key": {Type: framework.TypeString, Description: "Public key of the system account."},
					"system_account_jwt":        {Type: framework.TypeString, Description: "JWT of the system account."},
					"callout":                   {Type: framework.TypeString, Description: "Name of the auth callout whose sentinel is the default_sentinel. Absent if there is none."},
				}),
			},
		},
		HelpSynopsis:    "Read a nats-server configuration that trusts the mount.",
		HelpDescription: configServerHelp,
	}}
}

func (b *backend) readConfigServer(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	config, err := b.serverConfig(ctx, req, d)
	if err != nil {
		return answer(err)
	}
	data := map[string]any{
		"operator_jwt":              config.OperatorJWT,
		"system_account_public_key": config.SystemAccount,
		"system_account_jwt":        config.SystemAccountJWT,
	}
	account, err := b.serverCallout(ctx, req.Storage, d.Get("callout").(string))
	if err != nil {
		return answer(err)
	}
	if account != nil {
		data["callout"] = account.Callout.Name
		if config.Sentinel, err = b.chain.Sentinel(ctx, req.Storage, account); err != nil {
			return nil, err
		}
	}
	data["config"] = config.Text()
	return &logical.Response{Data: data}, nil
}

// serverCallout is the account of the callout of that name, or else of the only one
// of the mount, nil if there is none.
func (b *backend) serverCallout(ctx context.Context, s logical.Storage, given string) (*chain.Account, error) {
	name := given
	if name == "" {
		names, err := store.List(ctx, s, calloutPrefix)
		if err != nil || len(names) != 1 {
			return nil, err
		}
		name = names[0]
	}
	callout, err := b.callout(ctx, s, name)
	if err != nil {
		return nil, err
	}
	var account *chain.Account
	if callout != nil {
		account, err = b.calloutAccount(ctx, s, callout)
	}
	switch {
	case err != nil || account != nil || given == "":
		return account, err
	case callout == nil:
		return nil, fault.In("callout", "%q does not exist", name)
	default:
		return nil, errLostAccount("callout", callout)
	}
}

func (b *backend) serverConfig(ctx context.Context, req *logical.Request, d *framework.FieldData) (*trust.ServerConfig, error) {
	operator, err := b.chain.Operator(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if operator == nil || operator.None {
		return nil, fault.In("config", "has no operator yet: write config first")
	}
	system, err := b.chain.AccountJWT(ctx, req.Storage, operator.SystemAccount)
	if err != nil {
		return nil, err
	}
	if system == "" {
		return nil, fault.In("config", "names system account %s, which is not in the mount: import it at jwt/ first", operator.SystemAccount)
	}
	config := &trust.ServerConfig{
		OperatorJWT:      operator.JWT,
		SystemAccount:    operator.SystemAccount,
		SystemAccountJWT: system,
		Resolver:         trust.Resolver(d.Get("resolver").(string)),
		Dir:              d.Get("dir").(string),
	}
	switch config.Resolver {
	case trust.ResolverFull, trust.ResolverCache:
		if config.Dir == "" || strings.ContainsAny(config.Dir, "\"\\\n\r") {
			return nil, fault.In("dir", "is not a path that can stand in a configuration file")
		}
	case trust.ResolverMemory:
		config.Accounts, err = b.allAccounts(ctx, req.Storage)
	case trust.ResolverURL:
		config.URL, err = accountServerURL(d.Get("vault_addr").(string), req.MountPoint)
	default:
		err = fault.In("resolver", "is %q: allowed are full, cache, memory and url", config.Resolver)
	}
	return config, err
}

// allAccounts makes the JWTs of all accounts, for servers that have no other
// way to them.
func (b *backend) allAccounts(ctx context.Context, s logical.Storage) ([]trust.PreloadedAccount, error) {
	var accounts []trust.PreloadedAccount
	for id, err := range b.chain.Source(s).All(ctx) {
		if err != nil {
			return nil, err
		}
		accountJWT, err := b.chain.AccountJWT(ctx, s, id)
		if err != nil {
			return nil, err
		}
		if accountJWT != "" {
			accounts = append(accounts, trust.PreloadedAccount{ID: id, JWT: accountJWT})
		}
	}
	return accounts, nil
}

// accountServerURL is where the mount serves accounts: see path_account_server.go.
func accountServerURL(vault, mount string) (string, error) {
	if vault == "" {
		return "", fault.In("vault_addr", "is missing: with the resolver url the servers fetch accounts from Vault")
	}
	u, err := url.Parse(vault)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.ContainsAny(vault, " \"()") {
		return "", fault.In("vault_addr", "is not an http or https URL")
	}
	return fmt.Sprintf("%s/v1/%s/jwt/v1/accounts/", strings.TrimSuffix(vault, "/"), strings.Trim(mount, "/")), nil
}

const configServerHelp = `
The field config is ready text: with it in its configuration file, and as it
stands, a nats-server trusts the mount's operator and its accounts.

With an auth callout in the mount, default_sentinel (since nats-server 2.11) has
clients come to it who bring no JWT: they present their token, and nothing else.

The operator's JWT holds the key that comes next when config/rotate is written.
Servers read it when they start, so they need this text again before a second
rotation.
`
