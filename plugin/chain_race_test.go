package plugin

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// A shufflingStorage lets others go first, by chance.
type shufflingStorage struct{ logical.Storage }

func shuffle() {
	for range rand.N(50) {
		runtime.Gosched()
	}
}

func (s shufflingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	shuffle()
	return s.Storage.Get(ctx, key)
}

func (s shufflingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	shuffle()
	return s.Storage.Put(ctx, entry)
}

func (s shufflingStorage) Delete(ctx context.Context, key string) error {
	shuffle()
	return s.Storage.Delete(ctx, key)
}

// An account is deleted while a role and a user come to depend on it: one of them
// is refused.
func TestNothingComesToDependOnAnAccountThatIsBeingDeleted(t *testing.T) {
	m := newChainMount(t)
	m.write("config", nil)
	outcomes := map[string]int{}
	for i := range 300 {
		account, role, user := fmt.Sprintf("account%d", i), fmt.Sprintf("role%d", i), fmt.Sprintf("user%d", i)
		m.write("jwt/"+account, map[string]any{"type": "account"})
		var requests sync.WaitGroup
		begin := make(chan struct{})
		for path, data := range map[string]map[string]any{
			"jwt/" + account: nil,
			"role/" + role:   {"role_type": "vault", "account": account, "scoped": i%2 == 0, "user_template": `{"pub":{"allow":["a"]},"sub":{"allow":["a"]}}`},
			"jwt/" + user:    {"type": "user", "account": account},
		} {
			requests.Go(func() {
				operation := logical.CreateOperation
				if data == nil {
					operation = logical.DeleteOperation
				}
				<-begin
				_, _ = m.HandleRequest(t.Context(), &logical.Request{Operation: operation, Path: path, Data: data, Storage: shufflingStorage{m.storage}, MountPoint: "auth/nats/"})
			})
		}
		close(begin)
		requests.Wait()

		entry, err := m.chain.Named(t.Context(), m.storage, account)
		require.NoError(t, err)
		dependsOn, err := readRole(t.Context(), m.storage, role)
		require.NoError(t, err)
		signs, err := m.chain.Named(t.Context(), m.storage, user)
		require.NoError(t, err)
		outcome := fmt.Sprintf("account %t, role %t, user %t", entry != nil, dependsOn != nil, signs != nil)
		if entry == nil {
			require.Nil(t, dependsOn, outcome)
			require.Nil(t, signs, outcome)
		}
		outcomes[outcome]++
	}
	t.Logf("who was first is chance: %v", outcomes)
}
