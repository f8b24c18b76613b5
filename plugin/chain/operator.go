package chain

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

const (
	// DefaultNATSURL is where the NATS servers are unless config says otherwise.
	DefaultNATSURL = "nats://127.0.0.1:4222"

	// DefaultOperatorName is the operator's name unless config says otherwise.
	DefaultOperatorName = "nats"

	// systemAccountName is the name of the system account that the mount makes.
	systemAccountName = "SYS"
)

// operatorEntry is the operator in storage, with what the mount needs to reach
// its servers.
type operatorEntry struct {
	// None: the mount issues users for the accounts of someone else's NATS. Of
	// the rest only ServiceURL is used then.
	None bool `json:"none,omitempty"`

	Name      string        `json:"name"`
	PublicKey string        `json:"public_key"`
	Seed      string        `json:"seed,omitempty"` // of the identity key; empty if it is kept elsewhere
	JWT       string        `json:"jwt"`
	Claims    jwt.Operator  `json:"claims"`             // of JWT
	Imported  *importedJWT  `json:"imported,omitempty"` // the latest operator_jwt that was taken over
	Keys      []operatorKey `json:"keys"`               // in the order in which they sign, the ones to come after the one in use
	Signers   []string      `json:"signers,omitempty"`  // public keys that sign, may sign or did so once: what they signed is ours

	// Removed are keys of operator_jwt, by public key, that were rotated away here. A
	// later operator_jwt lists them still, as long as only the mount knows.
	Removed []string `json:"removed,omitempty"`

	// Generation counts the signing keys that were in use before, and
	// SignedSince is when the present one came, in Unix time: see version.
	Generation  int64 `json:"generation"`
	SignedSince int64 `json:"signed_since"`

	SystemAccount string `json:"system_account"` // public key
	SystemUser    string `json:"system_user"`    // seed of the user that delivers

	ClockSkew           *int64   `json:"clock_skew,omitempty"` // in seconds; nil for the default
	AccountJWTServerURL []string `json:"account_jwt_server_url"`
	ServiceURL          []string `json:"service_url"`
	CAPEM               string   `json:"nats_ca_pem,omitempty"`
	ClientCertPEM       string   `json:"nats_client_cert_pem,omitempty"`
	ClientKeyPEM        string   `json:"nats_client_key_pem,omitempty"`

	Unfinished *unfinished `json:"unfinished,omitempty"` // of the write that stored it; nil once that is done
}

// operatorKey signs account JWTs. It may be the identity key, where
// strict_signing_key_usage is off.
//
// nats-server learns which keys to trust when it starts. So that a new key can
// sign at once, the one that comes next is in the operator's JWT ahead of its
// time.
type operatorKey struct {
	PublicKey string `json:"public_key"`
	Seed      string `json:"seed,omitempty"`
	Created   int64  `json:"created"`
	RetireAt  int64  `json:"retire_at,omitempty"` // Unix time until which it is still in the operator's JWT; 0: it signs, or will
	Imported  bool   `json:"imported,omitempty"`  // operator_jwt listed it; else only the mount knows it
}

func newOperatorKey(now time.Time) (operatorKey, error) {
	key, err := trust.Generate(trust.Operator)
	if err != nil {
		return operatorKey{}, err
	}
	return operatorKey{PublicKey: key.Public(), Seed: key.Seed(), Created: now.Unix()}, nil
}

// live are the key in use and those to come.
func (e *operatorEntry) live() []operatorKey {
	var live []operatorKey
	for _, key := range e.Keys {
		if key.RetireAt == 0 {
			live = append(live, key)
		}
	}
	return live
}

func (e *operatorEntry) clone() *operatorEntry {
	copied := *e
	copied.Keys, copied.Removed = slices.Clone(e.Keys), slices.Clone(e.Removed)
	return &copied
}

// operator is an operatorEntry ready for use. Both keys are nil where the mount
// has no operator.
type operator struct {
	entry      *operatorEntry
	signing    *trust.Key
	systemUser *trust.Key
}

func (e *operatorEntry) open() (*operator, error) {
	opened := &operator{entry: e}
	if e.None {
		return opened, nil
	}
	e.noteSigners()
	live := e.live()
	if len(live) == 0 {
		return nil, fmt.Errorf("the stored operator has no signing key")
	}
	var err error
	if opened.signing, err = trust.ParseSeed(trust.Operator, live[0].Seed); err != nil {
		return nil, fmt.Errorf("the stored signing key of the operator %w", err)
	}
	if opened.systemUser, err = trust.ParseSeed(trust.User, e.SystemUser); err != nil {
		return nil, fmt.Errorf("the stored key of the system user %w", err)
	}
	return opened, nil
}

// ServiceURL is where clients find the NATS servers, several URLs separated by
// commas as nats.go takes them. It reads no storage in the steady state.
func (c *Chain) ServiceURL(ctx context.Context, s logical.Storage) (string, error) {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return "", err
	}
	if operator == nil {
		return DefaultNATSURL, nil
	}
	return strings.Join(operator.entry.ServiceURL, ","), nil
}

// operator returns the operator ready for use, nil before the first write of
// config.
func (c *Chain) operator(ctx context.Context, s logical.Storage) (*operator, error) {
	slot, err := c.operators.Get(ctx, operatorEntryKey, func(ctx context.Context, key string) (*operatorSlot, error) {
		entry, err := store.Read[operatorEntry](ctx, s, key)
		if entry == nil || err != nil {
			return &operatorSlot{}, err
		}
		opened, err := entry.open()
		return &operatorSlot{opened}, err
	})
	if err != nil {
		return nil, err
	}
	return slot.operator, nil
}

// operatorSlot holds the operator, or that there is none, which is cached too:
// logins ask for it.
type operatorSlot struct{ *operator }

// signs reports whether the mount has an operator.
func (o *operator) signs() bool { return o != nil && o.signing != nil }

// strict reports whether servers refuse what identity keys signed.
func (o *operator) strict() bool { return o.signs() && o.entry.Claims.StrictSigningKeyUsage }

// generateOperator is what the first write of config makes.
func generateOperator(now time.Time) (*operatorEntry, error) {
	identity, err := trust.Generate(trust.Operator)
	if err != nil {
		return nil, err
	}
	entry := &operatorEntry{PublicKey: identity.Public(), Seed: identity.Seed(), SignedSince: now.Unix()}
	entry.Claims.StrictSigningKeyUsage = true
	for range 2 { // the one in use and the next
		key, err := newOperatorKey(now)
		if err != nil {
			return nil, err
		}
		entry.Keys = append(entry.Keys, key)
	}
	return entry, entry.addSystemUser()
}

func (e *operatorEntry) addSystemUser() error {
	user, err := trust.Generate(trust.User)
	if err != nil {
		return err
	}
	e.SystemUser = user.Seed()
	return nil
}

// generateSystemAccount makes the system account of a new operator.
func generateSystemAccount(now time.Time) (*namedEntry, error) {
	identity, err := trust.Generate(trust.Account)
	if err != nil {
		return nil, err
	}
	key, err := newSigningKey(DefaultKey, now.Unix())
	if err != nil {
		return nil, err
	}
	return &namedEntry{
		Type: TypeAccount, PublicKey: identity.Public(), Seed: identity.Seed(),
		Claims: trust.SystemAccount(), Keys: []signingKey{key},
	}, nil
}

// sign brings the operator's JWT to the entry's keys and settings. An operator
// whose identity key is kept elsewhere keeps the JWT that was imported.
func (e *operatorEntry) sign(now time.Time) error {
	if e.Seed == "" {
		return nil
	}
	claims := e.Claims
	claims.SigningKeys = e.listedKeys()
	claims.SystemAccount = e.SystemAccount
	claims.AccountServerURL = e.AccountJWTServerURL[0]
	claims.OperatorServiceURLs = e.ServiceURL
	claims.GenericFields = jwt.GenericFields{Tags: e.Claims.Tags, Type: jwt.OperatorClaim, Version: 2}
	signed, err := jwt.DecodeOperatorClaims(e.JWT)
	if err == nil && signed.Name == e.Name && same(&signed.Operator, &claims) {
		return nil
	}
	identity, err := trust.ParseSeed(trust.Operator, e.Seed)
	if err != nil {
		return fmt.Errorf("the stored identity key of the operator %w", err)
	}
	token, err := trust.EncodeOperator(identity, e.Name, claims, now.Unix())
	if err != nil {
		return fault.In("config", "of the operator %s", err)
	}
	e.Claims, e.JWT = claims, token
	return nil
}

// listedKeys are the keys that the operator's JWT has to list: those of the
// mount, and of an imported operator those of which the mount has no seed.
func (e *operatorEntry) listedKeys() jwt.StringList {
	var keys jwt.StringList
	for _, key := range e.Keys {
		if key.PublicKey != e.PublicKey {
			keys.Add(key.PublicKey)
		}
	}
	keys.Add(e.Claims.SigningKeys...)
	return keys
}
