package chain

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// TestTheStoreOfNscIsReadable holds the import against JWTs that nsc wrote.
func TestTheStoreOfNscIsReadable(t *testing.T) {
	read := func(path string) string {
		raw, err := os.ReadFile(filepath.Join("..", "..", "testdata", "nsc", "ACME", filepath.FromSlash(path)))
		require.NoError(t, err)
		return string(raw)
	}
	entry := &operatorEntry{}
	_, err := entry.takeJWT(read("ACME.jwt"))
	require.NoError(t, err)
	require.Equal(t, []string{"nats://127.0.0.1:4222"}, entry.ServiceURL)
	for _, path := range []string{"accounts/SYS/SYS.jwt", "accounts/orders/orders.jwt", "accounts/billing/billing.jwt"} {
		claims, err := trust.DecodeAccount(read(path))
		require.NoError(t, err)
		require.True(t, entry.lists(claims.Issuer))
	}
}
