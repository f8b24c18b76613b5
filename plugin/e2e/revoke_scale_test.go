package e2e

import (
	"errors"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

const (
	revokedLeases = 1_000
	someClients   = 10
)

// liveLeases are so many that most of them stay. A revocation looks at no other lease:
// with 10,000 the test takes its time to issue them, and shows the same.
var liveLeases = flag.Int("leases", 3_000, "how many leases there are, of which a thousand are revoked")

// A thousand of many leases of one account are revoked at once, and Vault is killed in
// the middle: all of the thousand are cut off, and nobody else.
func TestAThousandOfManyLeasesAreRevokedThroughACrash(t *testing.T) {
	t.Parallel()
	e := start(t, onVault(ownVault(t, stack.VaultConfig{Storage: "raft"})))
	e.account("orders", nil)
	runner := e.runner(nil)
	for _, role := range []string{"doomed", "kept"} {
		e.role(role, fields{"role_type": "vault", "bound_audiences": nil, "user_claim": nil, "user_ttl": "1h"})
	}
	begun := time.Now()
	doomed := e.manyLeases(runner.client, "doomed", revokedLeases)
	kept := e.manyLeases(runner.client, "kept", *liveLeases-revokedLeases)
	t.Logf("%s to issue %d leases", time.Since(begun).Round(time.Millisecond), *liveLeases)
	cut, staying := e.connectSome(doomed), e.connectSome(kept)

	seen := e.watchUpdates("orders")
	revoking := make(chan error, 1)
	revoke := func() error {
		client, err := e.vault.Client()
		if err != nil {
			return err
		}
		client.SetClientTimeout(5 * time.Minute) // Vault answers when all are revoked, each with writes to its disk
		return client.Sys().RevokePrefixWithContext(e.t.Context(), e.path("creds/doomed"))
	}
	begun = time.Now()
	go func() { revoking <- revoke() }()
	e.waitFor("the first of the revocations to arrive", func() error {
		if seen.revoked.Load() == 0 {
			return errors.New("none has")
		}
		return nil
	})
	e.vault.Kill()
	killed := time.Now()
	atKill := seen.revoked.Load()
	require.Less(t, atKill, int64(revokedLeases), "all was over before Vault was killed")
	acknowledged := <-revoking == nil
	require.NoError(t, e.vault.Start(e.ctx()))
	if !acknowledged { // then whoever asked for it asks again
		require.NoError(t, revoke())
	}
	e.waitFor("all of them to be revoked", func() error {
		if n := seen.revoked.Load(); n < revokedLeases {
			return fmt.Errorf("%d of %d are", n, revokedLeases)
		}
		return nil
	})
	t.Logf("%d of %d were revoked when Vault was killed (the request was answered: %t); all %s after it was asked for, %s after the kill",
		atKill, revokedLeases, acknowledged, time.Since(begun).Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
	t.Logf("%d account updates; the account's JWT has %d bytes", seen.updates.Load(), seen.bytes.Load())
	require.Less(t, seen.updates.Load(), int64(revokedLeases/2), "revocations that come together are one update")

	for _, workload := range cut {
		e.isCutOff(workload)
	}
	for _, workload := range staying {
		require.True(t, workload.IsConnected())
		workload.publishes("anything")
	}
	e.waitForDelivery("orders")
	held := e.held(seen, "orders")
	require.Equal(t, revokedLeases, len(held.Revocations))
	for _, lease := range doomed {
		if held.Revocations[lease.user] < begun.Add(-time.Hour).Unix() {
			t.Fatalf("%s is not revoked", lease.user)
		}
	}
	for _, lease := range kept {
		if _, revoked := held.Revocations[lease.user]; revoked {
			t.Fatalf("%s is revoked", lease.user)
		}
	}
	e.connectRefused(doomed[0].creds)
}

// issued is what is remembered of one of many leases.
type issued struct {
	creds string
	user  string // public key
}

// manyLeases gets credentials by a few callers at the same time.
func (e *env) manyLeases(client *api.Client, role string, count int) []issued {
	e.t.Helper()
	leases := make([]issued, count)
	var next atomic.Int64
	var callers sync.WaitGroup
	failures := make(chan error, 6)
	for range cap(failures) {
		callers.Go(func() {
			for i := next.Add(1) - 1; i < int64(count); i = next.Add(1) - 1 {
				secret, err := client.Logical().ReadWithContext(e.t.Context(), e.path("creds/"+role))
				if err != nil {
					failures <- err
					return
				}
				leases[i] = issued{creds: secret.Data["creds"].(string), user: secret.Data["user_public_key"].(string)}
			}
		})
	}
	callers.Wait()
	select {
	case err := <-failures:
		require.NoError(e.t, err)
	default:
	}
	return leases
}

func (e *env) connectSome(leases []issued) []*workload {
	e.t.Helper()
	var connected []*workload
	for i := range someClients {
		connected = append(connected, e.connect(leases[i*len(leases)/someClients].creds))
	}
	return connected
}

// updates is what a nats-server is told of an account.
type updates struct {
	updates, revoked, bytes atomic.Int64
	system                  *workload
}

// watchUpdates sees, as a user of the system account does, what is delivered.
func (e *env) watchUpdates(account string) *updates {
	e.t.Helper()
	e.role("admin", fields{"account": "SYS", "allow_system_account": true})
	seen := &updates{system: e.connect(e.login("admin", e.token(nil)).Creds)}
	id := e.read("jwt/" + account)["public_key"].(string)
	watch := func(message *nats.Msg) {
		claims, err := natsjwt.DecodeAccountClaims(string(message.Data))
		if err != nil || claims.Subject != id {
			return
		}
		seen.updates.Add(1)
		seen.revoked.Store(int64(len(claims.Revocations)))
		seen.bytes.Store(int64(len(message.Data)))
	}
	for _, subject := range []string{"$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.ACCOUNT." + id + ".CLAIMS.UPDATE"} {
		_, err := seen.system.Subscribe(subject, watch)
		require.NoError(e.t, err)
	}
	require.NoError(e.t, seen.system.FlushTimeout(patience))
	return seen
}

// held is the account as the nats-server has it.
func (e *env) held(seen *updates, account string) *natsjwt.AccountClaims {
	e.t.Helper()
	id := e.read("jwt/" + account)["public_key"].(string)
	answer, err := seen.system.Request("$SYS.REQ.ACCOUNT."+id+".CLAIMS.LOOKUP", nil, patience)
	require.NoError(e.t, err)
	claims, err := natsjwt.DecodeAccountClaims(string(answer.Data))
	require.NoError(e.t, err)
	return claims
}
