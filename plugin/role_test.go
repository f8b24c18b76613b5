package plugin

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// A float64 takes this one for its neighbour, which is somebody else's.
func TestANumberInBoundClaimsStaysAsItWasWritten(t *testing.T) {
	m := newChainMount(t)
	m.write("config", map[string]any{"jwt_validation_pubkeys": newWorkloads(t)[2].publicPEM(t)})
	m.write("jwt/orders", map[string]any{"type": "account"})
	number := json.Number("9007199254740993")
	m.write("role/dev", map[string]any{
		"user_claim": "sub", "bound_audiences": "vault", "account": "orders",
		"bound_claims": map[string]any{"project_id": number, "run_id": []any{number}},
	})
	m.restart()
	role := m.must(logical.ReadOperation, "role/dev", nil)
	require.Equal(t, map[string]any{"project_id": number, "run_id": []any{number}}, role["bound_claims"])
}
