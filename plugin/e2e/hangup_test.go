package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// A hungUpWrite is a write whose caller does not wait for the answer.
type hungUpWrite struct {
	write   func(ctx context.Context) error
	stored  func() bool                            // it is in the mount
	arrived func(held *natsjwt.AccountClaims) bool // and at the server
}

// What is stored is at the servers soon, though the caller never saw an answer: not
// only once the mount looks again, which takes up to a minute.
func TestWhatIsStoredIsDeliveredThoughItsCallerIsGone(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	id := e.read("jwt/orders")["public_key"].(string)
	put := func(path string, data fields) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			_, err := e.client.Logical().WriteWithContext(ctx, e.path(path), data)
			return err
		}
	}
	revokes := func(user string) func(held *natsjwt.AccountClaims) bool {
		return func(held *natsjwt.AccountClaims) bool { _, revoked := held.Revocations[user]; return revoked }
	}
	for name, write := range map[string]func(name string) hungUpWrite{
		"a user is revoked": func(string) hungUpWrite {
			key, err := nkeys.CreateUser()
			require.NoError(t, err)
			user, err := key.PublicKey()
			require.NoError(t, err)
			return hungUpWrite{put("jwt/orders/revoke", fields{"user_public_key": user}), func() bool {
				for _, revoked := range e.read("jwt/orders/revoke")["revocations"].([]any) {
					if revoked.(fields)["user_public_key"] == user {
						return true
					}
				}
				return false
			}, revokes(user)}
		},
		"an account is written": func(name string) hungUpWrite {
			return hungUpWrite{put("jwt/orders", fields{"config": fmt.Sprintf(`{"description":%q}`, name)}), func() bool {
				return e.read("jwt/orders")["config"].(fields)["description"] == name
			}, func(held *natsjwt.AccountClaims) bool { return held.Description == name }}
		},
		"a role with a key of its own is made": func(name string) hungUpWrite {
			key := func() (public string) {
				for _, shown := range e.read("jwt/orders")["signing_keys"].([]any) {
					if shown.(fields)["role"] == name {
						public = shown.(fields)["public_key"].(string)
					}
				}
				return public
			}
			return hungUpWrite{put("role/"+name, roleFields(fields{"signing_key": "role"})), func() bool { return key() != "" },
				func(held *natsjwt.AccountClaims) bool { return held.SigningKeys.Contains(key()) }}
		},
		"a user is deleted": func(name string) hungUpWrite {
			user := e.write("jwt/"+name, fields{"type": "user", "account": "orders"}).Data["public_key"].(string)
			return hungUpWrite{func(ctx context.Context) error {
				_, err := e.client.Logical().DeleteWithContext(ctx, e.path("jwt/"+name))
				return err
			}, func() bool {
				secret, err := e.client.Logical().ReadWithContext(e.ctx(), e.path("jwt/"+name))
				require.NoError(t, err)
				return secret == nil
			}, revokes(user)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for stored, attempt := 0, 0; stored < 3; attempt++ {
				require.Less(t, attempt, 500, "no write was stored whose caller hung up")
				write := write(fmt.Sprintf("try-%d", attempt))
				patience := 2 + attempt%7 + attempt/7 // on a slow machine it takes longer to get so far
				ctx, hangUp := context.WithTimeout(e.ctx(), time.Duration(patience)*time.Millisecond)
				err := write.write(ctx)
				hangUp()
				if err == nil || !e.in(t).turnsOut(write.stored) {
					continue
				}
				stored++
				since := time.Now()
				e.in(t).waitFor("what is stored to be at the server", func() error {
					held, err := natsjwt.DecodeAccountClaims(e.files(e.nats)[id])
					if err == nil && !write.arrived(held) {
						err = errors.New("the server has not got it")
					}
					return err
				})
				require.Less(t, time.Since(since), 10*time.Second, "it was delivered by the next look only")
			}
		})
	}
}

// turnsOut reports whether a write that nobody waited for is stored in the end, which
// may take a moment more.
func (e *env) turnsOut(stored func() bool) bool {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 300*time.Millisecond)
	defer cancel()
	return stack.WaitFor(ctx, "the write to be stored", func() error {
		if !stored() {
			return errors.New("it is not")
		}
		return nil
	}) == nil
}
