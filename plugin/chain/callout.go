package chain

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A Callout is what an auth callout (ADR-26) asks of the JWT of its account: whom
// nats-server lets in without asking, where it may put others, and for whom it
// seals what it asks.
type Callout struct {
	Name    string   // in the mount; an account has one at most
	User    string   // public key of the user that answers
	Allowed []string // public keys of the accounts that clients are put into, or "*" alone
	XKey    string   // public curve key; empty: nothing is sealed
}

// accountCallout is the callout of an account as it is stored with it. Its key is
// no signing key among the others, since it goes when the callout goes and never
// before: it signs the answers, and the sentinel that stands in the configuration
// of the nats-servers. Its scope lets whomever it signed do nothing.
type accountCallout struct {
	Callout
	PublicKey string `json:"public_key"`
	Seed      string `json:"seed"`
	Sentinel  string `json:"sentinel"` // public key of a user whose seed nobody has
	Created   int64  `json:"created"`  // Unix time
}

// SetCallout has an account's JWT name the callout, and returns the account's
// public key.
func (c *Chain) SetCallout(ctx context.Context, s logical.Storage, account string, callout Callout) (string, error) {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return "", err
	}
	return c.changeCallout(ctx, s, account, func(entry *namedEntry) error {
		if err := entry.mayHaveCallout(account, callout.Name, operator); err != nil {
			return err
		}
		part, err := entry.Callout.with(callout)
		entry.Callout = part
		return err
	})
}

// CheckCallout refuses what SetCallout would refuse an account for.
func (c *Chain) CheckCallout(ctx context.Context, s logical.Storage, account, callout string) error {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return err
	}
	entry, err := readNamed(ctx, s, account)
	if err != nil {
		return err
	}
	if entry == nil || entry.Type != TypeAccount {
		return fault.In("account", "%q does not exist: write it at jwt/%s first", account, account)
	}
	return entry.mayHaveCallout(account, callout, operator)
}

func (e *namedEntry) mayHaveCallout(account, callout string, o *operator) error {
	switch {
	case e.External:
		return fault.In("account", "%q is an account of someone else's NATS, whose JWT they make", account)
	case o.signs() && o.entry.SystemAccount == e.PublicKey:
		return fault.In("account", "%q is the system account, whose users see and control all servers", account)
	case hasAuthorization(e.Claims):
		return fault.In("account", "%q has an authorization in its config, of an auth callout of somebody else's: take it out of the config first", account)
	case e.Claims.Limits.DisallowBearer:
		return fault.In("account", "%q has limits.disallow_bearer, and a sentinel is a bearer", account)
	case e.Callout != nil && e.Callout.Name != callout:
		return fault.In("account", "%q is that of callout %q: nats-server asks one for each account", account, e.Callout.Name)
	}
	return nil
}

// with is the part with a callout as it is now; the key and the sentinel of one
// that is there stay what they are.
func (a *accountCallout) with(callout Callout) (*accountCallout, error) {
	if a != nil {
		changed := *a
		changed.Callout = callout
		return &changed, nil
	}
	key, err := trust.Generate(trust.Account)
	if err != nil {
		return nil, err
	}
	sentinel, err := trust.Generate(trust.User)
	if err != nil {
		return nil, err
	}
	return &accountCallout{
		Callout: callout, PublicKey: key.Public(), Seed: key.Seed(), Sentinel: sentinel.Public(), Created: time.Now().Unix(),
	}, nil
}

// DropCallout takes the callout of that name out of an account again, and with it
// the key that signed its sentinel. It returns the account's public key.
func (c *Chain) DropCallout(ctx context.Context, s logical.Storage, account, name string) (string, error) {
	return c.changeCallout(ctx, s, account, func(entry *namedEntry) error {
		if entry.Callout != nil && entry.Callout.Name == name {
			entry.Callout = nil
		}
		return nil
	})
}

func (c *Chain) changeCallout(ctx context.Context, s logical.Storage, account string, change func(*namedEntry) error) (id string, err error) {
	err = c.changeAccount(ctx, s, account, func(entry *namedEntry) error {
		id = entry.PublicKey
		return change(entry)
	})
	return id, err
}

func hasAuthorization(a *jwt.Account) bool {
	return len(a.Authorization.AuthUsers) > 0 || len(a.Authorization.AllowedAccounts) > 0 || a.Authorization.XKey != ""
}

// checkCallout refuses what stands against the callout of an account.
func (e *namedEntry) checkCallout() error {
	switch {
	case e.Callout == nil:
		return nil
	case hasAuthorization(e.Claims):
		return fault.In("config", "has an authorization, which callout %q of the account sets: delete that first", e.Callout.Name)
	case e.Claims.Limits.DisallowBearer:
		return fault.In("config", "cannot have limits.disallow_bearer: the sentinel of callout %q of the account is a bearer", e.Callout.Name)
	}
	return nil
}

// addTo adds what the callout asks of the account's claims, in which nothing may
// be changed that they share with others.
func (a *accountCallout) addTo(claims *jwt.Account) {
	if a == nil {
		return
	}
	claims.Authorization = jwt.ExternalAuthorization{
		AuthUsers: jwt.StringList{a.User}, AllowedAccounts: slices.Clone(a.Allowed), XKey: a.XKey,
	}
	scope := trust.SentinelScope(a.Name)
	scope.Key = a.PublicKey
	claims.SigningKeys.AddScopedSigner(scope)
}

// An AccountCallout is the callout of an account made ready for use.
type AccountCallout struct {
	Name     string
	Signer   func() (*trust.Key, error) // of its answers
	sentinel string
	created  int64
}

func (a *accountCallout) open() *AccountCallout {
	if a == nil {
		return nil
	}
	return &AccountCallout{Name: a.Name, Signer: lazyKey(a.Seed), sentinel: a.Sentinel, created: a.Created}
}

// Sentinel is the JWT of the user as which everyone comes who has none of their
// own: the account's callout is asked who they are. It does not end, since it
// stands in the configuration of nats-servers, and it is no credential: its scope
// lets it do nothing. It is the same at each call until it is revoked with everyone
// of the account.
func (c *Chain) Sentinel(ctx context.Context, s logical.Storage, account *Account) (string, error) {
	callout := account.Callout
	signer, err := callout.Signer()
	if err != nil {
		return "", err
	}
	notBefore, err := c.NotBefore(ctx, s, account, callout.sentinel)
	if err != nil {
		return "", err
	}
	claims := jwt.User{IssuerAccount: account.PublicKey}
	claims.Type, claims.Version = jwt.UserClaim, 2
	nats, err := json.Marshal(&claims)
	if err != nil {
		return "", err
	}
	return trust.UserToken{
		Issuer: signer, Subject: callout.sentinel, Name: "sentinel of callout " + callout.Name,
		IssuedAt: time.Unix(max(callout.created, notBefore), 0), NATS: nats,
	}.Encode()
}

// Users lists the named users of an account.
func (c *Chain) Users(ctx context.Context, s logical.Storage, account string) ([]string, error) {
	return store.AccountOfUsers.Users(ctx, s, account)
}
