package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

// The fields of a workload that brings its own key. With a read they are in the
// query string, where nothing of them is secret.
var (
	userPublicKeyField = &framework.FieldSchema{
		Type:        framework.TypeString,
		Query:       true,
		Description: "Public key (U...) of the NATS user, when the workload brings its own: the answer then has no creds, and no seed exists outside the workload.",
	}
	userKeySignatureField = &framework.FieldSchema{
		Type:        framework.TypeString,
		Query:       true,
		Description: "Proof that the workload has the key of user_public_key: its signature, in standard base64, over a text that docs/credentials.md describes. Needed at creds/:role, and at a login where the role has user_key_proof.",
	}
	userKeyTimeField = &framework.FieldSchema{
		Type:        framework.TypeInt64,
		Query:       true,
		Description: "The Unix time in seconds that stands in the text of user_key_signature. It may be five minutes from Vault's.",
	}
)

// credentials are what a workload connects to NATS with.
type credentials struct {
	jwt              string
	seed             string // empty when the workload brought its own key
	userPublicKey    string
	userName         string
	account          string
	accountPublicKey string
	external         bool      // of someone else's NATS: nothing can be revoked
	asked            time.Time // when they were asked for
	issued           time.Time // as the JWT has it, which may be later
	expires          time.Time
	url              string
}

func credentialsResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"jwt":                {Type: framework.TypeString, Description: "The NATS user JWT."},
		"creds":              {Type: framework.TypeString, Description: "The creds file: the user JWT and the seed of its key. Absent when the workload brought its own key."},
		"user_public_key":    {Type: framework.TypeString, Description: "Public key of the NATS user."},
		"account":            {Type: framework.TypeString, Description: "Name of the user's account."},
		"account_public_key": {Type: framework.TypeString, Description: "Public key of the user's account."},
		"expiration":         {Type: framework.TypeTime, Description: "When the user JWT ends (RFC 3339)."},
		"ttl":                {Type: framework.TypeDurationSecond, Description: "How long that is from now, in seconds, for those whose clock is not Vault's. The JWT's time of issue does not tell it: after a revocation it is ahead of the clock."},
		"url":                {Type: framework.TypeString, Description: "URL of the NATS servers: the service_url of config."},
	}
}

func (c *credentials) response() map[string]any {
	data := map[string]any{
		"jwt":                c.jwt,
		"user_public_key":    c.userPublicKey,
		"account":            c.account,
		"account_public_key": c.accountPublicKey,
		"expiration":         c.expires.UTC().Format(time.RFC3339),
		"ttl":                int64(c.expires.Sub(c.asked) / time.Second),
		"url":                c.url,
	}
	if c.seed != "" {
		data["creds"] = trust.Creds(c.jwt, c.seed)
	}
	return data
}

// connectRoom is how long a user JWT may be to fit into nats-server's
// max_control_line of 4096 bytes, with all else that a client sends to connect.
const connectRoom = 3700

// warnings are what a workload would learn only when it connects.
func (c *credentials) warnings() []string {
	if len(c.jwt) <= connectRoom {
		return nil
	}
	return []string{fmt.Sprintf("the user JWT has %d bytes: unless max_control_line of the NATS servers is raised, they take about %d; "+
		"with scoped=true the role's permissions need no room in it", len(c.jwt), connectRoom)}
}

// userKey is the key that a user JWT is for: the workload's own, of which only
// the public half is known, or a new one.
type userKey struct {
	public string
	seed   string
}

// evidence is what a caller has shown who they are with, and the role as they named it:
// what a proof of their own key is bound to.
type evidence struct {
	by   string // the workload's token, or the state of a person's login; empty: the Vault token
	role string // empty: it was left to the mount which one is the default
}

// userKeyOf takes the caller's own key from the request, or makes one. The
// role may insist on the former. purpose is what a proof of the key is for.
func userKeyOf(req *logical.Request, d *framework.FieldData, role *role, purpose string, who evidence, now time.Time) (userKey, error) {
	public := textOf(d, "user_public_key")
	if public == "" {
		if role.entry.UserKey == roles.UserKeyClient {
			return userKey{}, fault.In("user_public_key", "is missing: role %q has user_key=client, so the workload brings its own key", role.name)
		}
		key, err := trust.Generate(trust.User)
		if err != nil {
			return userKey{}, err
		}
		return userKey{public: key.Public(), seed: key.Seed()}, nil
	}
	public, err := trust.ParsePublicKey(trust.User, public)
	if err != nil {
		return userKey{}, fault.In("user_public_key", "%s", err)
	}
	if purpose == proof.Creds || role.entry.UserKeyProof {
		if err := checkProof(req, d, role, purpose, public, who, now); err != nil {
			return userKey{}, err
		}
	}
	return userKey{public: public}, nil
}

// checkProof has a key that is not of the mount's making prove that the workload
// holds it. At creds/:role that is demanded always: the end of the lease revokes
// the key, and nobody may have another's key revoked. At a login it is where the
// role says so.
func checkProof(req *logical.Request, d *framework.FieldData, role *role, purpose, public string, who evidence, now time.Time) error {
	const why = "is missing: a key that the workload brings has to prove itself at creds/:role, and where the role has user_key_proof"
	signature := textOf(d, "user_key_signature")
	if signature == "" {
		return fault.In("user_key_signature", why)
	}
	at, given := d.GetOk("user_key_time")
	if !given {
		return fault.In("user_key_time", why)
	}
	if purpose == proof.Creds && req.EntityID == "" {
		// A proof that names nobody would be good for whoever comes by it.
		return fault.In("user_public_key", "cannot be used with a Vault token without an entity, which the proof of a key names")
	}
	if req.MountPoint == "" {
		return errors.New("the request lacks the mount's path, which the proof of a user key names")
	}
	claim := proof.Claim{
		Purpose: purpose,
		Mount:   mountOf(req),
		Role:    role.name,
		Token:   who.by,
		Entity:  req.EntityID,
		User:    public,
		Time:    at.(int64),
	}
	if who.role == "" {
		claim.Role = ""
	}
	return claim.Check(signature, now)
}

// issue renders the role's template for who was bound and signs the user JWT.
// It neither reads nor writes storage once role and account are cached.
func (b *backend) issue(ctx context.Context, s logical.Storage, role *role, bound *roles.Bound, key userKey, now time.Time) (*credentials, error) {
	account, err := b.chain.Account(ctx, s, role.entry.Account)
	if err != nil {
		return nil, err
	}
	if account == nil {
		return nil, fmt.Errorf("role %q names account %q, which does not exist", role.name, role.entry.Account)
	}
	if account.System && !role.entry.AllowSystemAccount {
		return nil, fault.In("role", "%q has no allow_system_account, and its account %q has become the system account", role.name, account.Name)
	}
	signer, err := account.Signer(role.signer())
	if err != nil {
		return nil, err
	}
	began := time.Now()
	user, err := role.compiled.Render(bound, forRoles(account), key.public)
	b.metrics.render.Observe(time.Since(began).Seconds())
	if err != nil {
		return nil, fault.New("error rendering the role's template: %s", err)
	}

	ttl, err := b.limits.userTTL(ctx, s, b.System(), now, role.entry)
	if err != nil {
		return nil, err
	}
	expires := now.Add(ttl).Truncate(time.Second)
	issued, err := b.issuedAt(ctx, s, account, key, now)
	if err != nil {
		return nil, err
	}
	began = time.Now()
	token, err := trust.UserToken{
		Issuer:   signer,
		Subject:  key.public,
		Name:     user.Name,
		IssuedAt: issued,
		Expires:  expires,
		NATS:     user.NATS,
	}.Encode()
	b.metrics.sign.Observe(time.Since(began).Seconds())
	if err != nil {
		return nil, err
	}
	url, err := b.chain.ServiceURL(ctx, s)
	if err != nil {
		return nil, err
	}
	return &credentials{
		jwt:              token,
		seed:             key.seed,
		userPublicKey:    key.public,
		userName:         user.Name,
		account:          account.Name,
		accountPublicKey: account.PublicKey,
		external:         account.External,
		asked:            now,
		issued:           issued,
		expires:          expires,
		url:              url,
	}, nil
}

// issuedAt is the time of issue of a user JWT: now, or later where what was issued
// now is revoked. Only a key that the workload brought can have been revoked by
// itself.
func (b *backend) issuedAt(ctx context.Context, s logical.Storage, account *chain.Account, key userKey, now time.Time) (time.Time, error) {
	user := ""
	if key.seed == "" {
		user = key.public
	}
	notBefore, err := b.chain.NotBefore(ctx, s, account, user)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(max(now.Unix(), notBefore), 0), nil
}

// forRoles is what a role's template may ask of the account.
func forRoles(a *chain.Account) roles.Account {
	return roles.Account{Name: a.NATSName, PublicKey: a.PublicKey, Tags: a.Tags, IssuerAccount: a.PublicKey}
}
