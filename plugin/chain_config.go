package plugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

const (
	defaultNATSURL      = "nats://127.0.0.1:4222"
	defaultOperatorName = "nats"
)

// operatorFields are the fields of `config` that concern NATS.
func operatorFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"operator_name": {
			Type:        framework.TypeString,
			Description: `Name of the operator in its JWT. Default: "` + defaultOperatorName + `".`,
		},
		"tags": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Tags of the operator.`,
		},
		"account_jwt_server_url": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Where account JWTs are delivered: nats or tls URLs of one cluster, or http or https URLs of account servers. Default: "` + defaultNATSURL + `".`,
		},
		"account_jwt_url": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Another name of account_jwt_server_url.`,
		},
		"service_url": {
			Type:        framework.TypeCommaStringSlice,
			Description: `The nats, tls, ws or wss URLs at which clients find the NATS servers; logins answer with them. With http or https in account_jwt_server_url, changes of accounts are announced there. Default: "` + defaultNATSURL + `".`,
		},
		"strict_signing_key_usage": {
			Type:        framework.TypeBool,
			Description: `Have nats-server take only what signing keys signed, and nothing signed by an identity key. Default: true for an operator that the mount makes.`,
		},
		"nats_ca_pem": {
			Type:        framework.TypeString,
			Description: `CA certificates, in PEM, of the servers at account_jwt_server_url and service_url. Default: those of the system.`,
		},
		"nats_client_cert_pem": {
			Type:        framework.TypeString,
			Description: `Client certificate chain, in PEM, with which account JWTs are delivered.`,
		},
		"nats_client_key_pem": {
			Type:         framework.TypeString,
			Description:  `Private key, in PEM, of nats_client_cert_pem. It is not shown again.`,
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"operator_jwt": {
			Type:        framework.TypeString,
			Description: `JWT of an operator made elsewhere, which the mount takes over instead of making one. It needs operator_signing_seeds, or operator_seed.`,
		},
		"operator_seed": {
			Type:         framework.TypeString,
			Description:  `Seed (SO...) of the identity key of operator_jwt. Without it the operator's JWT stays as it was imported. It is not shown again.`,
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"operator_signing_seeds": {
			Type:         framework.TypeCommaStringSlice,
			Description:  `Seeds (SO...) of signing keys of operator_jwt. The first signs, the others come after it when config/rotate is written. They are not shown again.`,
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"no_operator": {
			Type:        framework.TypeBool,
			Description: `Make no operator: the mount issues users of accounts at a NATS that someone else operates, and delivers nothing.`,
		},
	}
}

// operatorResponse describes what reading config answers about NATS.
func operatorResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"operator_name":             {Type: framework.TypeString, Description: "Name of the operator."},
		"operator_public_key":       {Type: framework.TypeString, Description: "Public key of the operator's identity."},
		"operator_jwt":              {Type: framework.TypeString, Description: "JWT of the operator, which nats-servers are configured with."},
		"operator_seed_set":         {Type: framework.TypeBool, Description: "Whether the mount has the operator's identity key."},
		"operator_signing_keys":     {Type: framework.TypeSlice, Description: "The operator's signing keys: public_key, state (signing, next or retiring), created, and retires for one that is."},
		"system_account_public_key": {Type: framework.TypeString, Description: "Public key of the system account."},
		"tags":                      {Type: framework.TypeStringSlice, Description: "Tags of the operator."},
		"account_jwt_server_url":    {Type: framework.TypeString, Description: "Where account JWTs are delivered; several URLs are separated by commas."},
		"service_url":               {Type: framework.TypeString, Description: "Where clients find the NATS servers; several URLs are separated by commas."},
		"strict_signing_key_usage":  {Type: framework.TypeBool, Description: "Whether nats-server takes only what signing keys signed."},
		"nats_ca_pem":               {Type: framework.TypeString, Description: "CA certificates of the NATS servers."},
		"nats_client_cert_pem":      {Type: framework.TypeString, Description: "Client certificate with which account JWTs are delivered."},
		"nats_client_key_set":       {Type: framework.TypeBool, Description: "Whether there is a key of the client certificate."},
		"no_operator":               {Type: framework.TypeBool, Description: "Whether the mount has no operator."},
	}
}

// operatorWriteResponse describes what writing config answers.
func operatorWriteResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"operator_jwt":       {Type: framework.TypeString, Description: "JWT of the operator, which nats-servers are configured with."},
		"system_account_jwt": {Type: framework.TypeString, Description: "JWT of the system account."},
	}
}

func (p *operatorPlan) response() map[string]any {
	if p.after.None {
		return map[string]any{}
	}
	return map[string]any{"operator_jwt": p.after.JWT, "system_account_jwt": p.systemJWT}
}

func (o *operator) response() map[string]any {
	e := o.entry
	if e.None {
		return map[string]any{"no_operator": true, "service_url": strings.Join(e.ServiceURL, ",")}
	}
	return map[string]any{
		"no_operator":               false,
		"operator_name":             e.Name,
		"operator_public_key":       e.PublicKey,
		"operator_jwt":              e.JWT,
		"operator_seed_set":         e.Seed != "",
		"operator_signing_keys":     e.keysResponse(),
		"system_account_public_key": e.SystemAccount,
		"tags":                      orEmpty(e.Claims.Tags),
		"account_jwt_server_url":    strings.Join(e.AccountJWTServerURL, ","),
		"service_url":               strings.Join(e.ServiceURL, ","),
		"strict_signing_key_usage":  e.Claims.StrictSigningKeyUsage,
		"nats_ca_pem":               e.CAPEM,
		"nats_client_cert_pem":      e.ClientCertPEM,
		"nats_client_key_set":       e.ClientKeyPEM != "",
	}
}

func (e *operatorEntry) keysResponse() []map[string]any {
	shown := []map[string]any{}
	signing := true
	for _, key := range e.Keys {
		k := map[string]any{"public_key": key.PublicKey, "created": rfc3339(key.Created)}
		switch {
		case key.RetireAt != 0:
			k["state"], k["retires"] = "retiring", rfc3339(key.RetireAt)
		case signing:
			k["state"], signing = "signing", false
		default:
			k["state"] = "next"
		}
		shown = append(shown, k)
	}
	return shown
}

func rfc3339(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }

// planOperator checks a write of config and makes of it what commitOperator
// stores.
func (c *chain) planOperator(ctx context.Context, s logical.Storage, d *framework.FieldData) (*operatorPlan, error) {
	stored, err := c.operator(ctx, s)
	if err != nil {
		return nil, err
	}
	plan := &operatorPlan{}
	if stored != nil {
		plan.before = stored.entry
	}
	if plan.after, err = operatorAfter(plan.before, d, time.Now()); err != nil {
		return nil, err
	}
	if err := plan.after.apply(d); err != nil {
		return nil, err
	}
	if err := plan.after.check(); err != nil {
		return nil, err
	}
	return plan, c.checkStrict(ctx, s, plan.after)
}

// operatorAfter is the operator whose settings the write gives: the stored one,
// one that is imported, or a new one.
func operatorAfter(before *operatorEntry, d *framework.FieldData, now time.Time) (*operatorEntry, error) {
	none := before != nil && before.None
	if v, ok := d.GetOk("no_operator"); ok {
		none = v.(bool)
	}
	given := givenImport(d)
	switch {
	case none && before != nil && !before.None:
		return nil, badField("no_operator", "cannot be set: the mount has an operator, which its accounts depend on")
	case none && given.any():
		return nil, badField("no_operator", "contradicts the operator that is given")
	case none:
		return &operatorEntry{None: true, ServiceURL: serviceURLOf(before)}, nil
	case given.any():
		return given.operator(before, now)
	case before != nil && !before.None:
		return before.clone(), nil
	default:
		entry, err := generateOperator(now)
		if err != nil {
			return nil, err
		}
		entry.Name = defaultOperatorName
		entry.ServiceURL = serviceURLOf(before)
		return entry, nil
	}
}

func serviceURLOf(before *operatorEntry) []string {
	if before == nil {
		return nil
	}
	return before.ServiceURL
}

// apply changes the settings that were given.
func (e *operatorEntry) apply(d *framework.FieldData) error {
	serverURL := e.AccountJWTServerURL
	setStrings(d, "account_jwt_url", &serverURL)
	setStrings(d, "account_jwt_server_url", &serverURL)
	e.AccountJWTServerURL = serverURL
	setStrings(d, "service_url", &e.ServiceURL)
	if len(e.ServiceURL) == 0 {
		e.ServiceURL = []string{defaultNATSURL}
	}
	if e.None {
		return nil
	}
	if len(e.AccountJWTServerURL) == 0 {
		e.AccountJWTServerURL = []string{defaultNATSURL}
	}
	setString(d, "nats_ca_pem", &e.CAPEM)
	setString(d, "nats_client_cert_pem", &e.ClientCertPEM)
	setString(d, "nats_client_key_pem", &e.ClientKeyPEM)

	name, tags, strict := e.Name, []string(e.Claims.Tags), e.Claims.StrictSigningKeyUsage
	setString(d, "operator_name", &name)
	setStrings(d, "tags", &tags)
	setBool(d, "strict_signing_key_usage", &strict)
	tags = trust.Tags(tags)
	if e.Seed == "" {
		return e.refuseChange(name, tags, strict)
	}
	if name == "" {
		name = defaultOperatorName
	}
	e.Name, e.Claims.Tags, e.Claims.StrictSigningKeyUsage = name, tags, strict
	return nil
}

// refuseChange refuses to change what stands in the operator's JWT, which the
// mount cannot sign without the identity key.
func (e *operatorEntry) refuseChange(name string, tags []string, strict bool) error {
	for _, field := range []struct {
		name    string
		changed bool
	}{
		{"operator_name", name != e.Name},
		{"tags", !slices.Equal(tags, e.Claims.Tags)},
		{"strict_signing_key_usage", strict != e.Claims.StrictSigningKeyUsage},
	} {
		if field.changed {
			return badField(field.name, "cannot be changed: the operator's identity key is not in the mount; change its JWT where the key is, and import that as operator_jwt")
		}
	}
	return nil
}

// check says which setting is at fault.
func (e *operatorEntry) check() error {
	if err := checkURLs("service_url", e.ServiceURL, "nats", "tls", "ws", "wss"); err != nil {
		return err
	}
	if e.None {
		return nil
	}
	if err := checkURLs("account_jwt_server_url", e.AccountJWTServerURL, "nats", "tls", "http", "https"); err != nil {
		return err
	}
	if e.CAPEM != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(e.CAPEM)) {
		return badField("nats_ca_pem", "holds no PEM certificate")
	}
	switch {
	case e.ClientKeyPEM == "" && e.ClientCertPEM != "":
		return badField("nats_client_key_pem", "is missing: nats_client_cert_pem needs its key")
	case e.ClientKeyPEM != "" && e.ClientCertPEM == "":
		return badField("nats_client_cert_pem", "is missing: nats_client_key_pem is the key of one")
	case e.ClientCertPEM != "":
		if _, err := tls.X509KeyPair([]byte(e.ClientCertPEM), []byte(e.ClientKeyPEM)); err != nil {
			return badField("nats_client_cert_pem", "does not go with nats_client_key_pem: %s", err)
		}
	}
	config := delivery.Config{ServerURLs: e.AccountJWTServerURL, ServiceURLs: e.ServiceURL}
	if err := config.Check(); err != nil {
		return &fieldError{Fault: err.Error()}
	}
	return nil
}

// checkURLs refuses URLs that NATS would not take, and those with a password in
// them: they are shown to whoever logs in, and stand in the operator's JWT.
func checkURLs(field string, urls []string, schemes ...string) error {
	for _, raw := range urls {
		u, err := url.Parse(raw)
		switch {
		case err != nil:
			return badField(field, "holds something that is not a URL")
		case u.User != nil:
			return badField(field, "holds a URL with credentials in it, which would be shown to others")
		case !slices.Contains(schemes, u.Scheme):
			return badField(field, "%q has the scheme %q: allowed are %s", raw, u.Scheme, strings.Join(schemes, ", "))
		case u.Hostname() == "":
			return badField(field, "%q names no host", raw)
		}
	}
	return nil
}
