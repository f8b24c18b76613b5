package plugin

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// fillDisk leaves, beside each entry of a Vault's file storage, what that leaves of a
// write for which the disk had no room: a file with the entry's name and some digits
// after it (os.CreateTemp), which has the beginning of what was to be written. It is
// listed as an entry, and cannot be read. It returns their keys by that of the entry.
func fillDisk(t *testing.T, dir string) map[string]string {
	t.Helper()
	leftovers := map[string]string{}
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, path)
		}
		return err
	}))
	for i, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		digits := fmt.Sprint(1391283192 + i)
		require.NoError(t, os.WriteFile(path+digits, text[:len(text)/2], 0o600))
		below, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		key := strings.ReplaceAll(below, "_", "") // which the names of files begin with
		leftovers[key] = key + digits
	}
	return leftovers
}

// A disk that was full for a while leaves entries that cannot be read. They do no harm:
// where nobody could ever read them they are cleared away, and where they stand among
// names they are shown as what they are, and can be deleted.
func TestLeftoversOfAFullDiskStopNothing(t *testing.T) {
	dir := t.TempDir()
	physical, err := file.NewFileBackend(map[string]string{"path": dir}, hclog.NewNullLogger())
	require.NoError(t, err)
	m := &chainMount{t: t, storage: &storetest.Storage{Storage: logical.NewLogicalStorage(physical)}}
	m.startDelivering()
	m.write("config", map[string]any{"account_jwt_server_url": "nats://127.0.0.1:1"})
	text := m.must(logical.ReadOperation, "config/server", map[string]any{"dir": t.TempDir()})["config"].(string)
	running := runServer(t, serverOptions(t, text))
	m.deliverTo(running)
	type fields = map[string]any
	scoped := fields{"role_type": "vault", "account": "orders", "scoped": true, "user_template": `{"pub":{"allow":["a"]},"sub":{"allow":["a"]}}`}
	user := func() string { return newKey(t, trust.User).Public() }

	for _, account := range []string{"orders", "billing", "gone"} {
		m.write("jwt/"+account, fields{"type": "account"})
	}
	m.write("jwt/alice", fields{"type": "user", "account": "orders"})
	m.write("role/dev", scoped)
	m.write("issuer/other", fields{"jwks_url": "https://127.0.0.1:1", "skip_jwks_validation": true})
	m.write("role/web", fields{"issuer": "other", "account": "billing", "bound_audiences": "vault", "user_claim": "sub"})
	m.write("jwt/orders/revoke", fields{"user_public_key": user()})
	m.write("jwt/orders/rotate", fields{"overlap": 1})
	m.must(logical.DeleteOperation, "jwt/gone", nil)
	running.Shutdown()
	running.WaitForShutdown()
	m.write("jwt/billing", fields{"config": `{"description":"pending"}`})

	leftovers := fillDisk(t, dir)
	require.Greater(t, len(leftovers), 15)
	m.backend.Cleanup(t.Context())
	logs := m.startDelivering()
	running = runServer(t, serverOptions(t, text))
	m.deliverTo(running)
	request := &logical.Request{Storage: m.storage}

	require.NoError(t, m.periodic(t.Context(), request))
	listed := m.must(logical.ListOperation, "jwt/", nil)
	info := listed["key_info"].(fields)
	for _, name := range []string{"orders", "billing", "alice", "SYS"} {
		require.NotContains(t, info[name], "error")
		leftover := strings.TrimPrefix(leftovers["jwt/"+name], "jwt/")
		require.Contains(t, listed["keys"], leftover)
		require.Contains(t, info[leftover].(fields)["error"], "unexpected EOF")
	}
	m.write("jwt/orders/revoke", fields{"user_public_key": user()})
	require.Len(t, m.read("jwt/orders/revoke")["revocations"], 2)
	report := m.mustSync(logical.UpdateOperation, nil)
	require.EqualValues(t, 0, report["failed"])
	require.EqualValues(t, 3, report["delivered"])
	require.Empty(t, m.pages(fields{"pending": true}))
	require.Len(t, m.pages(fields{}), 3)
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.NoError(c, m.inStep(running)) }, 20*time.Second, 5*time.Millisecond)

	refused := func(path, fault string) {
		resp, err := m.do(logical.DeleteOperation, path, nil)
		require.NoError(t, err)
		require.ErrorContains(t, resp.Error(), fault)
	}
	// What is used goes on to be so, and what is not any more can go.
	refused("issuer/other", "is the issuer of roles, which must go or change first: web")
	refused("jwt/orders", "roles depend on it (dev)")
	m.must(logical.DeleteOperation, "role/web", nil)
	m.must(logical.DeleteOperation, "issuer/other", nil)
	billing := m.read("jwt/billing")["public_key"].(string)
	m.must(logical.DeleteOperation, "jwt/billing", nil)
	m.must(logical.DeleteOperation, "role/dev", nil)
	m.must(logical.DeleteOperation, "jwt/alice", nil)
	m.must(logical.DeleteOperation, "jwt/orders", nil)

	// The leftover of a name goes if somebody says so.
	refused(leftovers["jwt/orders"], "cannot be read")
	for _, name := range []string{"orders", "billing", "alice", "SYS"} {
		m.must(logical.DeleteOperation, leftovers["jwt/"+name], fields{"force": true})
	}
	for _, name := range m.must(logical.ListOperation, "role/", nil)["keys"].([]string) {
		m.must(logical.DeleteOperation, "role/"+name, nil)
	}
	m.must(logical.DeleteOperation, leftovers["issuer/other"], nil)

	m.mustSync(logical.UpdateOperation, nil)
	require.NoError(t, m.periodic(t.Context(), request))
	_, err = m.chain.Retire(t.Context(), m.storage, time.Now().Add(time.Minute))
	require.NoError(t, err)
	keys := storetest.KeysBelow(t, m.storage, "")
	for of, leftover := range leftovers {
		if strings.Contains(of, "/") { // the others are listed by nobody
			require.NotContains(t, keys, leftover)
		}
	}
	require.Contains(t, logs.String(), leftovers["account-id/"+billing])
	require.NotRegexp(t, seedForm, logs.String())
}

// An entry that cannot be read is the fault of what it is of, and of nothing else.
func TestAnEntryThatCannotBeReadStopsNoOther(t *testing.T) {
	m, running, _ := deliveringMount(t)
	type fields = map[string]any
	ids := map[string]string{}
	for _, account := range []string{"orders", "billing"} {
		ids[account] = m.write("jwt/"+account, fields{"type": "account"})["public_key"].(string)
	}
	gone := m.write("jwt/gone", fields{"type": "account"})["public_key"].(string)
	m.must(logical.DeleteOperation, "jwt/gone", nil)
	for i, key := range []string{"jwt/orders", "account-id/" + ids["orders"], "revoked/" + ids["orders"] + "/0", "removed/" + gone} {
		t.Run(strings.ReplaceAll(key, "/", " "), func(t *testing.T) {
			for account := range ids {
				m.write("jwt/"+account+"/revoke", fields{"user_public_key": newKey(t, trust.User).Public()})
				m.write("jwt/"+account+"/rotate", fields{"overlap": 60})
			}
			m.storage.FailOn(func(operation, of string) bool { return operation == "get" && of == key })
			defer m.storage.FailOn(nil)
			m.backend.Cleanup(t.Context())
			m.startDelivering()
			m.write("jwt/billing", fields{"config": fmt.Sprintf(`{"limits":{"conn":%d}}`, i)})
			m.write("jwt/billing/revoke", fields{"user_public_key": newKey(t, trust.User).Public()})
			require.Equal(t, true, m.read("jwt/billing")["delivered"])

			report := m.mustSync(logical.UpdateOperation, nil)
			faults := 1
			if key == "removed/"+gone {
				faults = 0
			}
			require.EqualValues(t, faults, report["failed"])
			require.EqualValues(t, 3-faults, report["delivered"])
			require.Empty(t, report["unknown"], "what the mount cannot read is not unknown to it")
			held, err := running.AccountResolver().Fetch(ids["orders"])
			require.NoError(t, err)
			require.NotEmpty(t, held, "the servers lose what the mount cannot read")
			shown := map[string]string{}
			for _, account := range m.pages(fields{}) {
				shown[account.Account] = account.Error
			}
			require.Len(t, shown, 3)
			require.Empty(t, shown[ids["billing"]])
			require.Equal(t, faults == 1, shown[ids["orders"]] != "")
			require.Len(t, m.must(logical.ListOperation, "jwt/", nil)["key_info"], 3)

			changed, err := m.chain.Retire(t.Context(), m.storage, time.Now().Add(time.Hour))
			require.Contains(t, changed, ids["billing"])
			require.Equal(t, faults == 1, err != nil)
			_, err = m.chain.PruneRevocations(t.Context(), m.storage, time.Now().Add(48*time.Hour))
			require.Equal(t, strings.HasPrefix(key, "revoked/"), err != nil)
			revoked, err := m.chain.Revocations(t.Context(), m.storage, ids["billing"])
			require.NoError(t, err)
			require.Empty(t, revoked)
		})
	}
	require.NoError(t, m.periodic(t.Context(), &logical.Request{Storage: m.storage}))
	m.mustSync(logical.UpdateOperation, nil)
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.NoError(c, m.inStep(running)) }, 20*time.Second, 5*time.Millisecond)
}
