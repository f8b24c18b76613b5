package plugin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func (b *backend) writeJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeJWT(ctx, req, d, false)
}

// patchJWT differs from writeJWT in what config does.
func (b *backend) patchJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeJWT(ctx, req, d, true)
}

func (b *backend) changeJWT(ctx context.Context, req *logical.Request, d *framework.FieldData, patch bool) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkName("name", name); err != nil {
		return answer(err)
	}
	nonce, nonceGiven := d.GetOk("nonce")
	if nonceGiven && nonce == "" {
		return answer(badField("nonce", "is empty"))
	}
	entry, changed, err := b.chain.writeNamed(ctx, req.Storage, name, d, patch)
	if err != nil {
		return answer(err)
	}
	data, err := b.jwtAnswer(ctx, req.Storage, name, entry)
	if err != nil {
		return answer(err)
	}
	if nonceGiven {
		if data["signed_nonce"], err = signNonce(entry, nonce.(string)); err != nil {
			return answer(err)
		}
	}
	resp := &logical.Response{Data: data}
	if changed && entry.Type == typeAccount && !entry.External {
		for _, warning := range b.deliver(ctx, req.Storage, entry.PublicKey) {
			resp.AddWarning(warning)
		}
	}
	for _, warning := range entry.warnings(name) {
		resp.AddWarning(warning)
	}
	return resp, nil
}

// warnings are the things about an entry that are allowed and rarely meant.
func (e *namedEntry) warnings(name string) []string {
	if e.Type == typeAccount && e.key(defaultKey) == nil && e.Seed == "" {
		return []string{fmt.Sprintf("account %q has no signing key that logins can be signed with: give its seed at jwt/%s/keys/%s", name, name, defaultKey)}
	}
	return nil
}

// signNonce signs a nats-server's challenge with a user's key.
func signNonce(entry *namedEntry, nonce string) (string, error) {
	if nonce == "" {
		return "", badField("nonce", "is empty")
	}
	key, err := parseUserSeed(entry)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(key.Sign([]byte(nonce))), nil
}

func parseUserSeed(entry *namedEntry) (*trust.Key, error) {
	key, err := trust.ParseSeed(trust.User, entry.Seed)
	if err != nil {
		return nil, fmt.Errorf("the stored key of the user %w", err)
	}
	return key, nil
}

// writeNamed creates or changes the account or user of that name, and says
// whether there was anything to store.
func (c *chain) writeNamed(ctx context.Context, s logical.Storage, name string, d *framework.FieldData, patch bool) (*namedEntry, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stored, err := readNamed(ctx, s, name)
	if err != nil {
		return nil, false, err
	}
	kind := d.Get("type").(string)
	switch {
	case stored == nil && patch:
		return nil, false, badField("name", "%q does not exist", name)
	case kind == "" && stored == nil:
		return nil, false, badField("type", `is missing: "account" or "user"`)
	case kind == "":
		kind = stored.Type
	case kind != typeAccount && kind != typeUser:
		return nil, false, badField("type", `is %q: allowed are "account" and "user"`, kind)
	case stored != nil && kind != stored.Type:
		return nil, false, badField("type", "is %s, but %q is the name of an existing %s", kind, name, stored.Type)
	}
	if err := refuseFieldsOf(d, kind); err != nil {
		return nil, false, err
	}
	var entry *namedEntry
	if kind == typeAccount {
		entry, err = c.planAccount(ctx, s, name, stored, d, patch)
	} else {
		entry, err = c.planUser(ctx, s, stored, d, patch)
	}
	if err != nil {
		return nil, false, err
	}
	if stored != nil && same(stored, entry) {
		return entry, false, nil
	}
	if kind == typeUser {
		return entry, true, c.storeUser(ctx, s, name, stored, entry)
	}
	return entry, true, c.storeAccount(ctx, s, name, entry)
}

// refuseFieldsOf refuses fields that only the other type has.
func refuseFieldsOf(d *framework.FieldData, kind string) error {
	fields, other := []string{"account", "signing_key", "ttl", "nonce"}, typeUser
	if kind == typeUser {
		fields, other = []string{"account_jwt", "public_key", "signing_seeds"}, typeAccount
	}
	for _, field := range fields {
		if _, ok := d.GetOk(field); ok {
			return badField(field, "is a field of type %s, and this is type %s", other, kind)
		}
	}
	return nil
}

// planAccount is the account as the write makes it, checked.
func (c *chain) planAccount(ctx context.Context, s logical.Storage, name string, stored *namedEntry, d *framework.FieldData, patch bool) (*namedEntry, error) {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return nil, err
	}
	given, now := givenAccount(d), time.Now()
	config, configGiven := d.GetOk("config")
	var entry *namedEntry
	switch {
	case given.any() && configGiven:
		return nil, badField("config", "is given with an account that was made elsewhere: import that first, then write its config")
	case given.any():
		if entry, err = given.account(name, stored, operator, now); err == nil && stored != nil {
			err = entry.takePlaceOf(name, stored)
		}
	case stored != nil:
		entry = stored.clone()
	case !operator.signs():
		return nil, badField("type", "account needs an operator in the mount: write config first; for an account of someone else's NATS give its public_key and signing_seeds")
	default:
		entry, err = generateAccount(now)
	}
	if err != nil {
		return nil, err
	}
	if configGiven && entry.External {
		return nil, badField("config", "cannot be written: someone else operates the account's NATS")
	}
	if configGiven {
		if err := entry.takeConfig(config.(string), patch); err != nil {
			return nil, err
		}
	}
	if stored == nil {
		err = c.checkNewIdentity(ctx, s, name, entry)
	} else {
		err = c.checkWayIn(ctx, s, stored, entry)
	}
	if err != nil {
		return nil, err
	}
	if entry.External {
		return entry, nil
	}
	if given.jwt == "" {
		if err := c.checkImports(ctx, s, entry); err != nil {
			return nil, err
		}
	}
	return entry, c.checkAccount(ctx, s, name, entry)
}

func generateAccount(now time.Time) (*namedEntry, error) {
	identity, err := trust.Generate(trust.Account)
	if err != nil {
		return nil, err
	}
	key, err := newSigningKey(defaultKey, now.Unix())
	if err != nil {
		return nil, err
	}
	claims, err := trust.ParseAccountConfig([]byte("{}"))
	if err != nil {
		return nil, err
	}
	return &namedEntry{Type: typeAccount, PublicKey: identity.Public(), Seed: identity.Seed(), Claims: claims, Keys: []signingKey{key}}, nil
}

// takePlaceOf lets an account that is imported once more bring a later JWT or
// further seeds.
func (e *namedEntry) takePlaceOf(name string, stored *namedEntry) error {
	if stored.PublicKey != e.PublicKey || stored.External != e.External {
		return badField("name", "%q exists already: it is account %s", name, stored.PublicKey)
	}
	if e.Seed == "" {
		e.Seed = stored.Seed
	}
	e.Former = stored.Former
	imported := e.Keys
	if !e.External && !e.isAfter(stored) {
		e.NATSName, e.Claims, e.Imported, e.Keys = stored.NATSName, stored.Claims, stored.Imported, stored.clone().Keys
		e.addListed(imported)
		return nil
	}
	e.Keys = nil
	for _, key := range stored.Keys {
		delete(e.Claims.SigningKeys, key.PublicKey)
		e.Keys = append(e.Keys, key)
	}
	for _, key := range imported {
		if !e.hasKey(key.PublicKey) {
			key.Name = e.freeKeyName(&key)
			e.Keys = append(e.Keys, key)
		}
	}
	return nil
}

// isAfter reports whether the account's JWT is later than the one that is stored.
// Of an account that the mount made, every JWT was made of what is stored.
func (e *namedEntry) isAfter(stored *namedEntry) bool {
	return stored.Imported != nil && stored.Imported.isBefore(&jwt.ClaimsData{ID: e.Imported.ID, IssuedAt: e.Imported.IssuedAt})
}

// addListed adds those of the keys that the account's claims list, with the
// scopes that they have there.
func (e *namedEntry) addListed(keys []signingKey) {
	for _, key := range keys {
		scope, listed := e.Claims.SigningKeys[key.PublicKey]
		if !listed {
			continue
		}
		key.Scope = nil
		if scoped, ok := scope.(*jwt.UserScope); ok && scoped != nil {
			key.Scope = scoped
		}
		key.Name = e.freeKeyName(&key)
		e.Keys = append(e.Keys, key)
		e.forgetListed(key.PublicKey)
	}
}

// hasKey reports whether the key is the account's identity or one of its
// signing keys in the mount.
func (e *namedEntry) hasKey(public string) bool {
	for _, key := range e.Keys {
		if key.PublicKey == public {
			return true
		}
	}
	return public == e.PublicKey
}

// takeConfig sets the account's or user's claims.
func (e *namedEntry) takeConfig(config string, patch bool) error {
	raw := []byte(config)
	if patch {
		var err error
		if raw, err = e.mergeConfig(raw); err != nil {
			return err
		}
	}
	if e.Type == typeUser {
		user, err := trust.ParseUserConfig(raw)
		if err != nil {
			return badField("config", "%s", err)
		}
		e.User = user
		return nil
	}
	claims, err := trust.ParseAccountConfig(raw)
	if err != nil {
		return badField("config", "%s", err)
	}
	// The mount lists its own keys, whether they are given or not.
	for _, key := range e.Keys {
		delete(claims.SigningKeys, key.PublicKey)
	}
	e.Claims = claims
	return nil
}

// config is what takeConfig would take.
func (e *namedEntry) config() ([]byte, error) {
	if e.Type == typeUser {
		return trust.UserConfig(e.User)
	}
	return trust.AccountConfig(e.Claims)
}

// mergeConfig applies a JSON merge patch (RFC 7396) to the present config.
func (e *namedEntry) mergeConfig(patch []byte) ([]byte, error) {
	present, err := e.config()
	if err != nil {
		return nil, err
	}
	var target, change any
	for _, decode := range []struct {
		raw  []byte
		into *any
	}{{present, &target}, {patch, &change}} {
		decoder := json.NewDecoder(bytes.NewReader(decode.raw))
		decoder.UseNumber()
		if err := decoder.Decode(decode.into); err != nil {
			return nil, badField("config", "is not valid JSON: %s", err)
		}
	}
	if _, isObject := change.(map[string]any); !isObject {
		return nil, badField("config", "is not a JSON object")
	}
	return json.Marshal(mergePatch(target, change))
}

func mergePatch(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for key, value := range changes {
		if value == nil {
			delete(object, key)
		} else {
			object[key] = mergePatch(object[key], value)
		}
	}
	return object
}
