package plugin

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// ours is what delivery asks about an account JWT.
func (m *chainMount) ours(accountJWT string) bool {
	m.t.Helper()
	settings, err := m.chain.DeliverySettings(m.t.Context(), m.storage)
	require.NoError(m.t, err)
	return m.chain.DeliveryConfig(m.storage, settings).Ours(accountJWT)
}

func TestWhatAFormerKeyOfTheOperatorSignedIsOursStill(t *testing.T) {
	m := newAccountMount(t)
	var signed []string
	for range 3 {
		m.deliverPending()
		signed = append(signed, m.read("jwt/orders")["jwt"].(string))
		m.write("config/rotate", map[string]any{"overlap": 0})
		_, err := m.chain.Retire(t.Context(), m.storage, time.Now().Add(time.Hour))
		require.NoError(t, err)
	}
	m.restart()
	for _, accountJWT := range signed {
		require.NotContains(t, operatorClaims(t, m.read("config")["operator_jwt"]).SigningKeys, accountClaims(t, accountJWT).Issuer)
		require.True(t, m.ours(accountJWT))
	}

	n := newTree(t, true)
	require.False(t, m.ours(n.ordersJWT), "another operator signed it")
	require.False(t, m.ours(signed[0][:len(signed[0])-8]+"AAAAAAAA"), "nobody signed it")
	require.False(t, m.ours(""))

	// A later JWT of an operator made elsewhere drops keys too.
	imported := newChainMount(t)
	n.importOperator(imported)
	n.importAccounts(imported)
	next := newKey(t, trust.Operator)
	imported.write("config", map[string]any{"operator_jwt": n.operatorBy(n.identity, next), "operator_signing_seeds": next.Seed()})
	require.True(t, imported.ours(n.ordersJWT))
	imported.restart()
	require.True(t, imported.ours(n.ordersJWT))

	// An identity key may have signed accounts, before that was forbidden.
	require.True(t, imported.ours(n.account(n.identity, n.orders, "orders", &jwt.Account{})))
}

// linkedMount is a mount whose server has a leafnode listener, or is linked as a
// leafnode with that of another mount.
func linkedMount(t *testing.T, hub *chainMount, hubServer *server.Server) (*chainMount, *server.Server) {
	t.Helper()
	m := &chainMount{t: t, storage: storetest.New()}
	m.startDelivering()
	m.write("config", map[string]any{"account_jwt_server_url": "nats://127.0.0.1:1"})
	o := serverOptions(t, m.must(logical.ReadOperation, "config/server", map[string]any{"dir": t.TempDir()})["config"].(string))
	if hub == nil {
		o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", server.RANDOM_PORT
	} else {
		shown, err := hubServer.Varz(nil)
		require.NoError(t, err)
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{{
			LocalAccount: m.read("config")["system_account_public_key"].(string), Credentials: hub.systemCreds(),
			URLs: []*url.URL{{Scheme: "nats-leaf", Host: fmt.Sprintf("127.0.0.1:%d", shown.LeafNode.Port)}},
		}}
	}
	running := runServer(t, o)
	m.deliverTo(running)
	return m, running
}

// systemCreds is a creds file of a user of the system account who may do anything.
func (m *chainMount) systemCreds() string {
	m.t.Helper()
	system, err := m.chain.Account(m.t.Context(), m.storage, "SYS")
	require.NoError(m.t, err)
	signer, err := system.Signer(chain.PlainSigner)
	require.NoError(m.t, err)
	user := newKey(m.t, trust.User)
	token, err := trust.UserToken{Issuer: signer, Subject: user.Public(), Name: "leaf", IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour),
		NATS: []byte(`{"pub":{},"sub":{},"subs":-1,"data":-1,"payload":-1,"issuer_account":"` + system.PublicKey + `","type":"user","version":2}`)}.Encode()
	require.NoError(m.t, err)
	file := filepath.Join(m.t.TempDir(), "leaf.creds")
	require.NoError(m.t, os.WriteFile(file, []byte(trust.Creds(token, user.Seed())), 0o600))
	return file
}

// Both mounts reach both servers, and each leaves the other's alone.
func TestTwoMountsWhoseServersAreLinkedLeaveEachOtherAlone(t *testing.T) {
	hub, hubServer := linkedMount(t, nil, nil)
	leaf, leafServer := linkedMount(t, hub, hubServer)
	for _, m := range []*chainMount{hub, leaf} {
		m.write("jwt/orders", map[string]any{"type": "account"})
	}
	operatorOf := func(m *chainMount) string { return m.read("config")["operator_public_key"].(string) }
	for m, other := range map[*chainMount]*chainMount{hub: leaf, leaf: hub} {
		require.Eventually(t, func() bool { return m.foreignOperator() == operatorOf(other) }, 30*time.Second, 50*time.Millisecond, "the other's server is not listed as foreign")
	}
	held := func(s *server.Server, m *chainMount) error {
		accountJWT, err := s.AccountResolver().Fetch(m.read("jwt/orders")["public_key"].(string))
		if err == nil && accountJWT != m.read("jwt/orders")["jwt"] {
			err = errors.New("it is another one")
		}
		return err
	}
	require.NoError(t, held(leafServer, leaf))
	for _, m := range []*chainMount{hub, leaf} {
		report := m.mustSync(logical.UpdateOperation, map[string]any{"prune": true})
		require.Empty(t, report["unknown"])
		require.EqualValues(t, 0, report["pruned"])
		require.EqualValues(t, 2, report["delivered"])
		one := m.pages(map[string]any{"account": "orders"})
		require.Equal(t, 1, one[0].Servers)
	}
	require.NoError(t, held(leafServer, leaf))
	require.NoError(t, held(hubServer, hub))
	hub.must(logical.DeleteOperation, "jwt/orders", nil)
	require.Empty(t, hub.pages(map[string]any{"pending": true}), "the other operator's server is waited for")
	require.NoError(t, held(leafServer, leaf))
}

// foreignOperator is that of a server that is none of the mount's, as sync shows it.
func (m *chainMount) foreignOperator() string {
	m.t.Helper()
	servers, _ := m.mustSync(logical.ReadOperation, nil)["servers"].([]any)
	for _, shown := range servers {
		if operator, ok := shown.(map[string]any)["foreign_operator"].(string); ok {
			return operator
		}
	}
	return ""
}
