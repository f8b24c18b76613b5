package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// mostInfo is how many names are listed together with what is behind them,
// which takes a read each.
const mostInfo = 1000

func (b *backend) readJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkName("name", name); err != nil {
		return answer(err)
	}
	entry, err := readNamed(ctx, req.Storage, name)
	if entry == nil || err != nil {
		return nil, err
	}
	data, err := b.jwtAnswer(ctx, req.Storage, name, entry)
	if err != nil {
		return answer(err)
	}
	if err := entry.describe(name, data); err != nil {
		return nil, err
	}
	if entry.Type == typeAccount && !entry.External {
		pending, err := b.chain.isPending(ctx, req.Storage, entry.PublicKey)
		if err != nil {
			return nil, err
		}
		data["delivered"] = !pending
	}
	return &logical.Response{Data: data}, nil
}

// jwtAnswer is what writes and reads both answer with.
func (b *backend) jwtAnswer(ctx context.Context, s logical.Storage, name string, entry *namedEntry) (map[string]any, error) {
	data := map[string]any{"type": entry.Type, "public_key": entry.PublicKey}
	switch {
	case entry.Type == typeUser:
		token, expires, err := b.userJWT(ctx, s, name, entry)
		if err != nil {
			return nil, err
		}
		data["jwt"], data["expiration"] = token, expires.UTC().Format(time.RFC3339)
	case !entry.External:
		wanted, err := b.chain.want(ctx, s, entry.PublicKey)
		if err != nil {
			return nil, err
		}
		if wanted == nil {
			return nil, fmt.Errorf("account %q was deleted meanwhile", name)
		}
		data["jwt"] = wanted.jwt
	}
	return data, nil
}

// describe adds what only reads answer with.
func (e *namedEntry) describe(name string, data map[string]any) error {
	raw, err := e.config()
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
	data["seed_set"] = e.Seed != ""
	if e.Type == typeUser {
		data["account"], data["signing_key"], data["ttl"] = e.Account, e.SigningKey, e.TTL
		return nil
	}
	data["external"], data["nats_name"] = e.External, e.natsName(name)
	keys := make([]map[string]any, 0, len(e.Keys))
	for _, key := range e.Keys {
		shown, err := key.response()
		if err != nil {
			return err
		}
		keys = append(keys, shown)
	}
	data["signing_keys"] = keys
	return nil
}

func (k *signingKey) response() (map[string]any, error) {
	shown := map[string]any{"name": k.Name, "public_key": k.PublicKey, "state": "signing", "created": rfc3339(k.Created)}
	if !k.signs() {
		shown["state"], shown["retires"] = "retiring", rfc3339(k.RetireAt)
	}
	if k.Role != "" {
		shown["role"] = k.Role
	}
	if k.Scope == nil {
		return shown, nil
	}
	scope := *k.Scope
	scope.Key = k.PublicKey
	raw, err := trust.ScopeConfig(&scope)
	if err != nil {
		return nil, err
	}
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, err
	}
	shown["scope"] = object
	return shown, nil
}

func (b *backend) listJWTs(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	limit := d.Get("limit").(int)
	if limit < 0 {
		return answer(badField("limit", "is negative"))
	}
	names, err := req.Storage.List(ctx, namedPrefix)
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	if after := d.Get("after").(string); after != "" {
		first, found := slices.BinarySearch(names, after)
		if found {
			first++
		}
		names = names[first:]
	}
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	if len(names) > mostInfo {
		resp := logical.ListResponse(names)
		resp.AddWarning(fmt.Sprintf("what is behind the names is shown for up to %d of them: list with limit and after", mostInfo))
		return resp, nil
	}
	info := make(map[string]any, len(names))
	for _, name := range names {
		entry, err := readNamed(ctx, req.Storage, name)
		if err != nil {
			return nil, err
		}
		if entry == nil { // deleted meanwhile
			continue
		}
		if info[name], err = b.jwtInfo(ctx, req.Storage, entry); err != nil {
			return nil, err
		}
	}
	return logical.ListResponseWithInfo(names, info), nil
}

func (b *backend) jwtInfo(ctx context.Context, s logical.Storage, entry *namedEntry) (map[string]any, error) {
	info := map[string]any{"type": entry.Type, "public_key": entry.PublicKey}
	switch {
	case entry.Type == typeUser:
		info["account"] = entry.Account
	case entry.External:
		info["external"] = true
	default:
		pending, err := b.chain.isPending(ctx, s, entry.PublicKey)
		if err != nil {
			return nil, err
		}
		info["delivered"] = !pending
	}
	return info, nil
}

func (b *backend) deleteJWT(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkName("name", name); err != nil {
		return answer(err)
	}
	// A user is revoked before it is deleted, so that a crash leaves none that is
	// gone and let in; and after, for a JWT that a reader was given meanwhile.
	stored, err := readNamed(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if _, err := b.revokeNamedUser(ctx, req.Storage, stored); err != nil {
		return answer(err)
	}
	deleted, err := b.deleteNamed(ctx, req.Storage, name, d.Get("force").(bool))
	if err != nil {
		return answer(err)
	}
	changed, err := b.revokeNamedUser(ctx, req.Storage, deleted)
	if err != nil {
		return answer(err)
	}
	if deleted != nil && deleted.Type == typeAccount && !deleted.External {
		changed = append(changed, deleted.PublicKey)
	}
	warnings := b.deliver(ctx, req.Storage, changed...)
	if len(warnings) == 0 {
		return nil, nil
	}
	return &logical.Response{Warnings: warnings}, nil
}

// deleteNamed deletes what has that name and returns what it was, nil if there
// was none. Roles are kept from coming to depend on it meanwhile.
func (b *backend) deleteNamed(ctx context.Context, s logical.Storage, name string, force bool) (*namedEntry, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.chain.mu.Lock()
	defer b.chain.mu.Unlock()
	entry, err := readNamed(ctx, s, name)
	if entry == nil || err != nil {
		return nil, err
	}
	if entry.Type == typeUser {
		if err := b.chain.deleteNamed(ctx, s, name); err != nil {
			return nil, err
		}
		return entry, dropUse(ctx, s, usesUser, entry.Account, name)
	}
	operator, err := b.chain.operator(ctx, s)
	if err != nil {
		return nil, err
	}
	if operator.signs() && operator.entry.SystemAccount == entry.PublicKey {
		return nil, badField("name", "%q is the system account, which the NATS servers cannot do without", name)
	}
	if !force {
		if err := checkUnused(ctx, s, name); err != nil {
			return nil, err
		}
	}
	return entry, b.chain.deleteAccount(ctx, s, name, entry)
}

func checkUnused(ctx context.Context, s logical.Storage, name string) error {
	for _, use := range []struct{ kind, what string }{{usesAccount, "roles"}, {usesUser, "users"}} {
		names, err := rolesUsing(ctx, s, use.kind, name)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return badField("name", "%q cannot be deleted: %s depend on it (%s); with force=true it is, and they cannot be used", name, use.what, shortList(names))
		}
	}
	return nil
}
