package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// mostInfo is how many names are listed together with what is behind them,
// which takes a read each.
const mostInfo = 1000

func (b *backend) readJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	named, err := b.chain.Named(ctx, req.Storage, name)
	if named == nil || err != nil {
		return nil, err
	}
	if named.Type == chain.TypeUser && b.onStandby() {
		return nil, logical.ErrReadOnly // it issues, and the leader knows of every revocation
	}
	data, warnings, err := b.jwtAnswer(ctx, req.Storage, named)
	if err != nil {
		return answer(err)
	}
	if err := describeNamed(named, data); err != nil {
		return nil, err
	}
	if named.Delivers() {
		pending, err := b.chain.Pending(ctx, req.Storage, named.PublicKey)
		if err != nil {
			return nil, err
		}
		data["delivered"] = !pending
	}
	return &logical.Response{Data: data, Warnings: warnings}, nil
}

// jwtAnswer is what writes and reads both answer with.
func (b *backend) jwtAnswer(ctx context.Context, s logical.Storage, named *chain.Named) (data map[string]any, warnings []string, err error) {
	data = map[string]any{"type": named.Type, "public_key": named.PublicKey}
	switch {
	case named.Type == chain.TypeUser:
		warnings, err = b.userAnswer(ctx, s, named, data)
	case named.Delivers():
		var accountJWT string
		accountJWT, err = b.chain.AccountJWT(ctx, s, named.PublicKey)
		if err == nil && accountJWT == "" {
			err = fmt.Errorf("account %q was deleted meanwhile", named.Name)
		}
		data["jwt"] = accountJWT
	}
	return data, warnings, err
}

// userAnswer adds a user's JWT, or says why there is none.
func (b *backend) userAnswer(ctx context.Context, s logical.Storage, named *chain.Named, data map[string]any) (warnings []string, err error) {
	now := time.Now()
	initial, most, err := b.limits.get(ctx, s, b.System(), now)
	if err != nil {
		return nil, err
	}
	token, at, err := b.chain.UserJWT(ctx, s, named, now, initial, most)
	switch {
	case err != nil:
		return nil, err
	case token != "":
		data["jwt"], data["expiration"] = token, rfc3339(at)
		return nil, nil
	case at.After(now):
		return []string{fmt.Sprintf("user %q starts at %s, which a JWT that is made now would not live to see", named.Name, rfc3339(at))}, nil
	default:
		return []string{fmt.Sprintf("user %q has ended at %s, and has no JWT any more", named.Name, rfc3339(at))}, nil
	}
}

// describeNamed adds what only reads answer with.
func describeNamed(named *chain.Named, data map[string]any) error {
	raw, err := named.Config()
	if err != nil {
		return err
	}
	var config map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&config); err != nil {
		return fmt.Errorf("decoding the stored config: %w", err)
	}
	data["config"] = config
	data["seed_set"], data["nats_name"] = named.SeedSet, named.NATSName
	if named.Type == chain.TypeUser {
		data["account"], data["signing_key"], data["ttl"] = named.Account, named.SigningKey, int64(named.TTL/time.Second)
		for field, at := range map[string]time.Time{"not_before": named.NotBefore, "fixed_end": named.Expires} {
			if !at.IsZero() {
				data[field] = rfc3339(at)
			}
		}
		return nil
	}
	data["external"] = named.External
	keys := make([]map[string]any, 0, len(named.Keys))
	for _, key := range named.Keys {
		shown, err := signingKeyData(key)
		if err != nil {
			return err
		}
		keys = append(keys, shown)
	}
	data["signing_keys"] = keys
	return nil
}

func signingKeyData(key chain.SigningKey) (map[string]any, error) {
	shown := map[string]any{"name": key.Name, "public_key": key.PublicKey, "state": key.State, "created": rfc3339(key.Created)}
	if key.State == chain.KeyRetiring {
		shown["retires"] = rfc3339(key.Retires)
	}
	if key.Role != "" {
		shown["role"] = key.Role
	}
	if key.Scope == nil {
		return shown, nil
	}
	var scope map[string]any
	if err := json.Unmarshal(key.Scope, &scope); err != nil {
		return nil, err
	}
	shown["scope"] = scope
	return shown, nil
}

func (b *backend) listJWTs(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	names, err := b.chain.Names(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	names = page(names, d)
	if len(names) > mostInfo {
		resp := logical.ListResponse(names)
		resp.AddWarning(fmt.Sprintf("what is behind the names is shown for up to %d of them: list with limit and after", mostInfo))
		return resp, nil
	}
	info := make(map[string]any, len(names))
	for _, name := range names {
		shown, err := b.jwtInfo(ctx, req.Storage, name)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil: // it is this one's fault, and no other's
			info[name] = map[string]any{"error": err.Error()}
		case shown != nil: // nil: it was deleted meanwhile
			info[name] = shown
		}
	}
	return logical.ListResponseWithInfo(names, info), nil
}

// jwtInfo is what is behind a name, nil if nothing is.
func (b *backend) jwtInfo(ctx context.Context, s logical.Storage, name string) (map[string]any, error) {
	named, err := b.chain.Named(ctx, s, name)
	if named == nil || err != nil {
		return nil, err
	}
	info := map[string]any{"type": named.Type, "public_key": named.PublicKey}
	switch {
	case named.Type == chain.TypeUser:
		info["account"] = named.Account
	case named.External:
		info["external"] = true
	default:
		pending, err := b.chain.Pending(ctx, s, named.PublicKey)
		if err != nil {
			return nil, err
		}
		info["delivered"] = !pending
	}
	return info, nil
}

// deleteJWT keeps roles from coming to depend on an account meanwhile.
func (b *backend) deleteJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := fault.CheckName("name", name); err != nil {
		return answer(err)
	}
	changed, err := b.deleteNamed(ctx, req.Storage, name, d.Get("force").(bool))
	if err != nil {
		return answer(err)
	}
	warnings := b.deletionDelivered(ctx, req.Storage, len(changed) > 0, changed...)
	if len(warnings) == 0 {
		return nil, nil
	}
	return &logical.Response{Warnings: warnings}, nil
}

func (b *backend) deleteNamed(ctx context.Context, s logical.Storage, name string, force bool) ([]string, error) {
	longest, err := b.limits.longestLife(ctx, s, b.System(), time.Now())
	if err != nil {
		return nil, err
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.finishConfig(ctx, s); err != nil {
		return nil, err
	}
	roles, err := store.AccountOfRoles.Dependent(ctx, s, name, roleDepends(s, func(of place) bool { return of.Account == name }))
	if err != nil {
		return nil, err
	}
	callouts, err := b.calloutsOf(ctx, s, name)
	if err != nil {
		return nil, err
	}
	return b.chain.Delete(ctx, s, name, chain.Deletion{Roles: roles, Callouts: callouts, Force: force, Longest: longest})
}
