package chain

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// An Operator is what may be seen of the mount's operator: all but its seeds.
type Operator struct {
	None bool // the mount issues users for the accounts of someone else's NATS; of the rest only ServiceURL counts then

	Name          string
	PublicKey     string
	JWT           string
	SeedSet       bool // the mount has its identity key
	Keys          []OperatorKey
	SystemAccount string // public key
	Tags          []string
	Strict        bool // nats-server takes only what signing keys signed

	AccountJWTServerURL []string
	ServiceURL          []string
	ClockSkew           time.Duration // how far clocks may be apart
	CAPEM               string
	ClientCertPEM       string
	ClientKeySet        bool
}

// An OperatorKey is one of the operator's signing keys.
type OperatorKey struct {
	PublicKey string
	State     string // KeySigning, KeyNext or KeyRetiring
	Created   time.Time
	Retires   time.Time // of one that is retiring
}

// The states of a signing key.
const (
	KeySigning  = "signing"
	KeyNext     = "next"     // of an operator's: it is trusted already, and signs after the next rotation
	KeyRetiring = "retiring" // what it signed is still good
)

// Operator returns the mount's operator, nil before the first write of config.
func (c *Chain) Operator(ctx context.Context, s logical.Storage) (*Operator, error) {
	operator, err := c.operator(ctx, s)
	if operator == nil || err != nil {
		return nil, err
	}
	return operator.entry.view(), nil
}

func (e *operatorEntry) view() *Operator {
	if e.None {
		return &Operator{None: true, ServiceURL: e.ServiceURL}
	}
	return &Operator{
		Name:                e.Name,
		PublicKey:           e.PublicKey,
		JWT:                 e.JWT,
		SeedSet:             e.Seed != "",
		Keys:                e.viewKeys(),
		SystemAccount:       e.SystemAccount,
		Tags:                e.Claims.Tags,
		Strict:              e.Claims.StrictSigningKeyUsage,
		AccountJWTServerURL: e.AccountJWTServerURL,
		ServiceURL:          e.ServiceURL,
		ClockSkew:           e.clockSkew(),
		CAPEM:               e.CAPEM,
		ClientCertPEM:       e.ClientCertPEM,
		ClientKeySet:        e.ClientKeyPEM != "",
	}
}

func (e *operatorEntry) viewKeys() []OperatorKey {
	var shown []OperatorKey
	state := KeySigning
	for _, key := range e.Keys {
		view := OperatorKey{PublicKey: key.PublicKey, State: state, Created: time.Unix(key.Created, 0)}
		if key.RetireAt != 0 {
			view.State, view.Retires = KeyRetiring, time.Unix(key.RetireAt, 0)
		} else {
			state = KeyNext
		}
		shown = append(shown, view)
	}
	return shown
}
