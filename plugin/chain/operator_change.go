package chain

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// An OperatorChange is what a write of config says about NATS; what is nil stays
// as it is.
type OperatorChange struct {
	None   *bool // there is to be no operator
	Import OperatorImport

	Name   *string
	Tags   *[]string
	Strict *bool

	AccountJWTServerURL *[]string
	ServiceURL          *[]string
	ClockSkew           *int64 // in seconds
	CAPEM               *string
	ClientCertPEM       *string
	ClientKeyPEM        *string
}

// An OperatorPlan is a checked change of the operator that is not stored yet.
type OperatorPlan struct {
	before, after *operatorEntry
}

// PlanOperator checks a change, and makes of it what CommitOperator stores. A
// fault in it names the field of config.
func (c *Chain) PlanOperator(ctx context.Context, s logical.Storage, change OperatorChange) (*OperatorPlan, error) {
	stored, err := c.operator(ctx, s)
	if err != nil {
		return nil, err
	}
	plan := &OperatorPlan{}
	if stored != nil {
		plan.before = stored.entry
	}
	if plan.after, err = change.operator(plan.before, time.Now()); err != nil {
		return nil, err
	}
	if err := plan.after.apply(change); err != nil {
		return nil, err
	}
	if err := plan.after.check(); err != nil {
		return nil, err
	}
	return plan, c.checkStrict(ctx, s, plan.after)
}

// operator is the operator whose settings the change gives: the stored one, one
// that is imported, or a new one.
func (g OperatorChange) operator(before *operatorEntry, now time.Time) (*operatorEntry, error) {
	none := before != nil && before.None
	set(&none, g.None)
	switch {
	case none && before != nil && !before.None:
		return nil, fault.In("no_operator", "cannot be set: the mount has an operator, which its accounts depend on")
	case none && g.Import.any():
		return nil, fault.In("no_operator", "contradicts the operator that is given")
	case none:
		return &operatorEntry{None: true, ServiceURL: serviceURLOf(before)}, nil
	case g.Import.any():
		return g.Import.operator(before, now)
	case before != nil && !before.None:
		return before.clone(), nil
	default:
		entry, err := generateOperator(now)
		if err != nil {
			return nil, err
		}
		entry.Name = DefaultOperatorName
		entry.ServiceURL = serviceURLOf(before)
		return entry, nil
	}
}

// set changes a value to the given one, if one is given.
func set[T any](value *T, given *T) {
	if given != nil {
		*value = *given
	}
}

func serviceURLOf(before *operatorEntry) []string {
	if before == nil {
		return nil
	}
	return before.ServiceURL
}

// apply changes the settings that were given.
func (e *operatorEntry) apply(given OperatorChange) error {
	set(&e.AccountJWTServerURL, given.AccountJWTServerURL)
	set(&e.ServiceURL, given.ServiceURL)
	if len(e.ServiceURL) == 0 {
		e.ServiceURL = []string{DefaultNATSURL}
	}
	if e.None {
		return nil
	}
	if len(e.AccountJWTServerURL) == 0 {
		e.AccountJWTServerURL = []string{DefaultNATSURL}
	}
	if given.ClockSkew != nil {
		e.ClockSkew = given.ClockSkew
	}
	set(&e.CAPEM, given.CAPEM)
	set(&e.ClientCertPEM, given.ClientCertPEM)
	set(&e.ClientKeyPEM, given.ClientKeyPEM)

	name, tags, strict := e.Name, []string(e.Claims.Tags), e.Claims.StrictSigningKeyUsage
	set(&name, given.Name)
	set(&tags, given.Tags)
	set(&strict, given.Strict)
	tags = trust.Tags(tags)
	if e.Seed == "" {
		return e.refuseChange(name, tags, strict)
	}
	if name == "" {
		name = DefaultOperatorName
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
			return fault.In(field.name, "cannot be changed: the operator's identity key is not in the mount; change its JWT where the key is, and import that as operator_jwt")
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
	if skew := e.clockSkew(); skew < 0 || skew > maxClockSkew {
		return fault.In("clock_skew", "is %s, and has to be between 0 and %s", skew, maxClockSkew)
	}
	if e.CAPEM != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(e.CAPEM)) {
		return fault.In("nats_ca_pem", "holds no PEM certificate")
	}
	switch {
	case e.ClientKeyPEM == "" && e.ClientCertPEM != "":
		return fault.In("nats_client_key_pem", "is missing: nats_client_cert_pem needs its key")
	case e.ClientKeyPEM != "" && e.ClientCertPEM == "":
		return fault.In("nats_client_cert_pem", "is missing: nats_client_key_pem is the key of one")
	case e.ClientCertPEM != "":
		if _, err := tls.X509KeyPair([]byte(e.ClientCertPEM), []byte(e.ClientKeyPEM)); err != nil {
			return fault.In("nats_client_cert_pem", "does not go with nats_client_key_pem: %s", err)
		}
	}
	config := delivery.Config{ServerURLs: e.AccountJWTServerURL, ServiceURLs: e.ServiceURL}
	if err := config.Check(); err != nil {
		return fault.New("%s", err)
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
			return fault.In(field, "holds something that is not a URL")
		case u.User != nil:
			return fault.In(field, "holds a URL with credentials in it, which would be shown to others")
		case !slices.Contains(schemes, u.Scheme):
			return fault.In(field, "%q has the scheme %q: allowed are %s", raw, u.Scheme, strings.Join(schemes, ", "))
		case u.Hostname() == "":
			return fault.In(field, "%q names no host", raw)
		}
	}
	return nil
}
