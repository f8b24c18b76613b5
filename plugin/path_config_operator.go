package plugin

import (
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
)

// operatorFields are the fields of `config` that concern NATS.
func operatorFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"operator_name": {
			Type:        framework.TypeString,
			Description: `Name of the operator in its JWT. Default: "` + chain.DefaultOperatorName + `".`,
		},
		"tags": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Tags of the operator.`,
		},
		"account_jwt_server_url": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Where account JWTs are delivered: nats or tls URLs of one cluster, or http or https URLs of account servers. Default: "` + chain.DefaultNATSURL + `".`,
		},
		"account_jwt_url": {
			Type:        framework.TypeCommaStringSlice,
			Description: `Another name of account_jwt_server_url.`,
		},
		"service_url": {
			Type:        framework.TypeCommaStringSlice,
			Description: `The nats, tls, ws or wss URLs at which clients find the NATS servers; logins answer with them. With http or https in account_jwt_server_url, changes of accounts are announced there. Default: "` + chain.DefaultNATSURL + `".`,
		},
		"clock_skew": {
			Type:        framework.TypeDurationSecond,
			Description: `How far the clocks of Vault's nodes and the NATS servers may be apart. Revocations reach so far ahead that they hold at all of them. Default: 10 minutes.`,
		},
		"strict_signing_key_usage": {
			Type:        framework.TypeBool,
			Description: `Have nats-server take only what signing keys signed, and nothing signed by an identity key. Default: true for an operator that the mount makes.`,
		},
		"nats_ca_pem": {
			Type:        framework.TypeString,
			Description: `CA certificates, in PEM, of the servers at account_jwt_server_url and service_url. Default: those of the system. With it, as with a client certificate, the mount connects with TLS only, to nats:// URLs too.`,
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
		"clock_skew":                {Type: framework.TypeDurationSecond, Description: "How far clocks may be apart, in seconds."},
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

// givenOperator is what a write of config says about NATS.
func givenOperator(d *framework.FieldData) chain.OperatorChange {
	change := chain.OperatorChange{
		None:                given[bool](d, "no_operator"),
		Name:                given[string](d, "operator_name"),
		Tags:                given[[]string](d, "tags"),
		Strict:              given[bool](d, "strict_signing_key_usage"),
		AccountJWTServerURL: given[[]string](d, "account_jwt_server_url"),
		ServiceURL:          given[[]string](d, "service_url"),
		CAPEM:               given[string](d, "nats_ca_pem"),
		ClientCertPEM:       given[string](d, "nats_client_cert_pem"),
		ClientKeyPEM:        given[string](d, "nats_client_key_pem"),
	}
	if skew := given[int](d, "clock_skew"); skew != nil {
		seconds := int64(*skew)
		change.ClockSkew = &seconds
	}
	if change.AccountJWTServerURL == nil {
		change.AccountJWTServerURL = given[[]string](d, "account_jwt_url")
	}
	setString(d, "operator_jwt", &change.Import.JWT)
	change.Import.JWT = strings.TrimSpace(change.Import.JWT)
	setString(d, "operator_seed", &change.Import.Seed)
	setStrings(d, "operator_signing_seeds", &change.Import.SigningSeeds)
	return change
}

func operatorData(o *chain.Operator) map[string]any {
	if o.None {
		return map[string]any{"no_operator": true, "service_url": strings.Join(o.ServiceURL, ",")}
	}
	return map[string]any{
		"no_operator":               false,
		"operator_name":             o.Name,
		"operator_public_key":       o.PublicKey,
		"operator_jwt":              o.JWT,
		"operator_seed_set":         o.SeedSet,
		"operator_signing_keys":     operatorKeysData(o),
		"system_account_public_key": o.SystemAccount,
		"tags":                      orEmpty(o.Tags),
		"account_jwt_server_url":    strings.Join(o.AccountJWTServerURL, ","),
		"service_url":               strings.Join(o.ServiceURL, ","),
		"strict_signing_key_usage":  o.Strict,
		"clock_skew":                int64(o.ClockSkew / time.Second),
		"nats_ca_pem":               o.CAPEM,
		"nats_client_cert_pem":      o.ClientCertPEM,
		"nats_client_key_set":       o.ClientKeySet,
	}
}

func operatorKeysData(o *chain.Operator) []map[string]any {
	shown := []map[string]any{}
	for _, key := range o.Keys {
		k := map[string]any{"public_key": key.PublicKey, "state": key.State, "created": rfc3339(key.Created)}
		if key.State == chain.KeyRetiring {
			k["retires"] = rfc3339(key.Retires)
		}
		shown = append(shown, k)
	}
	return shown
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
