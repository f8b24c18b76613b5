package plugin

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A hangUpStorage is the storage as a request sees it whose caller hangs up at one of
// its operations. Like Vault's own, which a plugin reaches over gRPC, it answers a
// context that has ended with that, whether or not what was asked for is done.
type hangUpStorage struct {
	logical.Storage
	hangUp func()
	at     int  // the operation at which the caller hangs up, from 0
	done   bool // it is done all the same
	count  int
}

func (s *hangUpStorage) operation(ctx context.Context, do func(context.Context) error) error {
	s.count++
	if s.count-1 != s.at {
		if err := ctx.Err(); err != nil {
			return err
		}
		return do(ctx)
	}
	s.hangUp()
	if ctx.Err() == nil || s.done {
		if err := do(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *hangUpStorage) Get(ctx context.Context, key string) (entry *logical.StorageEntry, err error) {
	err = s.operation(ctx, func(ctx context.Context) (err error) {
		entry, err = s.Storage.Get(ctx, key)
		return err
	})
	return entry, err
}

func (s *hangUpStorage) List(ctx context.Context, prefix string) (keys []string, err error) {
	err = s.operation(ctx, func(ctx context.Context) (err error) {
		keys, err = s.Storage.List(ctx, prefix)
		return err
	})
	return keys, err
}

func (s *hangUpStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.operation(ctx, func(ctx context.Context) error { return s.Storage.Put(ctx, entry) })
}

func (s *hangUpStorage) Delete(ctx context.Context, key string) error {
	return s.operation(ctx, func(ctx context.Context) error { return s.Storage.Delete(ctx, key) })
}

// inStep checks that a server holds what the mount holds, and that the mount knows
// it.
func (m *chainMount) inStep(running *server.Server) error {
	ctx := context.Background()
	source := m.chain.Source(m.storage)
	for id, err := range source.All(ctx) {
		if err != nil {
			return err
		}
		wanted, ok, err := source.Wanted(ctx, id)
		if err != nil {
			return err
		}
		held, err := running.AccountResolver().Fetch(id)
		switch {
		case !ok:
			return fmt.Errorf("account %s is gone, and not forgotten", id)
		case err != nil:
			return fmt.Errorf("the server has not account %s: %w", id, err)
		case held != wanted:
			return fmt.Errorf("the server has another JWT of account %s", id)
		}
	}
	pending, err := source.Pending(ctx)
	if err == nil && len(pending) > 0 {
		err = fmt.Errorf("%d accounts are pending", len(pending))
	}
	return err
}

// What is stored reaches the servers at once, whatever becomes of the caller: who
// hangs up during a write does not put off for a minute what it has stored.
func TestWhatIsStoredIsDeliveredThoughTheCallerHangsUp(t *testing.T) {
	type fields = map[string]any
	scoped := fields{"role_type": "vault", "account": "orders", "scoped": true, "user_template": `{"pub":{"allow":["a"]},"sub":{"allow":["a"]}}`}
	user := func(m *chainMount) string { return newKey(m.t, trust.User).Public() }
	for name, write := range map[string]struct {
		operation logical.Operation
		path      string
		data      func(m *chainMount, try int) fields
		before    func(m *chainMount) // what the write finds
	}{
		"an account is made": {logical.CreateOperation, "jwt/new", func(*chainMount, int) fields { return fields{"type": "account"} },
			func(m *chainMount) { m.must(logical.DeleteOperation, "jwt/new", nil) }},
		"an account is written": {logical.UpdateOperation, "jwt/orders", func(_ *chainMount, try int) fields {
			return fields{"config": fmt.Sprintf(`{"limits":{"conn":%d}}`, 10+try)}
		}, nil},
		"an account is patched": {logical.PatchOperation, "jwt/orders", func(_ *chainMount, try int) fields {
			return fields{"config": fmt.Sprintf(`{"limits":{"subs":%d}}`, 10+try)}
		}, nil},
		"an account is deleted": {logical.DeleteOperation, "jwt/new", nil, func(m *chainMount) { m.write("jwt/new", fields{"type": "account"}) }},
		"a user is deleted": {logical.DeleteOperation, "jwt/alice", nil,
			func(m *chainMount) { m.write("jwt/alice", fields{"type": "user", "account": "orders"}) }},
		"a signing key is added": {logical.UpdateOperation, "jwt/orders/keys/second", nil,
			func(m *chainMount) { m.must(logical.DeleteOperation, "jwt/orders/keys/second", nil) }},
		"a signing key is removed": {logical.DeleteOperation, "jwt/orders/keys/second", nil,
			func(m *chainMount) { m.write("jwt/orders/keys/second", nil) }},
		"a signing key is rotated": {logical.UpdateOperation, "jwt/orders/rotate", nil,
			func(m *chainMount) {
				m.must(logical.DeleteOperation, "jwt/orders", nil)
				m.write("jwt/orders", fields{"type": "account"})
			}},
		"a user is revoked": {logical.UpdateOperation, "jwt/orders/revoke",
			func(m *chainMount, _ int) fields { return fields{"user_public_key": user(m)} }, nil},
		"a named user is revoked": {logical.UpdateOperation, "jwt/alice/revoke", nil,
			func(m *chainMount) { m.write("jwt/alice", fields{"type": "user", "account": "orders"}) }},
		"a revocation is undone": {logical.UpdateOperation, "jwt/orders/revoke", func(*chainMount, int) fields { return fields{"everyone": true, "undo": true} },
			func(m *chainMount) { m.write("jwt/orders/revoke", fields{"everyone": true}) }},
		"a role's users are revoked": {logical.UpdateOperation, "jwt/orders/revoke", func(*chainMount, int) fields { return fields{"role": "dev"} },
			func(m *chainMount) { m.write("role/dev", scoped) }},
		"a role with a key of its own is made": {logical.CreateOperation, "role/dev", func(*chainMount, int) fields { return scoped },
			func(m *chainMount) { m.must(logical.DeleteOperation, "role/dev", nil) }},
		"a role's scope changes": {logical.UpdateOperation, "role/dev", func(_ *chainMount, try int) fields {
			return fields{"user_template": fmt.Sprintf(`{"pub":{"allow":["a.%d"]},"sub":{"allow":["a"]}}`, try)}
		}, func(m *chainMount) { m.write("role/dev", scoped) }},
		"a role goes to another account": {logical.UpdateOperation, "role/dev", func(*chainMount, int) fields { return fields{"account": "other"} },
			func(m *chainMount) { m.write("jwt/other", fields{"type": "account"}); m.write("role/dev", scoped) }},
		"a role is deleted": {logical.DeleteOperation, "role/dev", nil, func(m *chainMount) { m.write("role/dev", scoped) }},
		"the operator changes": {logical.UpdateOperation, "config", func(_ *chainMount, try int) fields {
			return fields{"operator_name": fmt.Sprint("operator ", try)}
		}, nil},
		"the operator's key is rotated": {logical.UpdateOperation, "config/rotate", func(*chainMount, int) fields { return fields{"overlap": 3600} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := func() (m *chainMount, running *server.Server) {
				m, running, _ = deliveringMount(t)
				m.write("jwt/orders", fields{"type": "account"})
				return m, running
			}
			m, running := start()
			for at, over := 0, false; !over; at++ {
				for _, done := range []bool{false, true} {
					if write.before != nil {
						write.before(m)
					}
					if write.path == "config/rotate" && at > 0 {
						// A server that is not started anew trusts no more than the next key.
						m, running = start()
					}
					ctx, hangUp := context.WithCancel(t.Context())
					storage := &hangUpStorage{Storage: m.storage, hangUp: hangUp, at: at, done: done}
					request := &logical.Request{Operation: write.operation, Path: write.path, Storage: storage, MountPoint: "auth/nats/"}
					if write.data != nil {
						request.Data = maps.Clone(write.data(m, at))
					}
					_, err := m.HandleRequest(ctx, request)
					hangUp()
					if err != nil {
						require.ErrorIs(t, err, context.Canceled)
					}
					require.EventuallyWithT(t, func(c *assert.CollectT) {
						require.NoError(c, m.inStep(running))
					}, 20*time.Second, 5*time.Millisecond, "the caller hung up at operation %d, which was done: %t", at, done)
					over = storage.count <= at
				}
			}
		})
	}
}
