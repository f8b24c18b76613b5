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

// A tool that sends every field it knows, empty or not, reads back what the role
// does.
func TestAnEmptyChoiceReadsBackAsItsDefault(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", map[string]any{"bound_claims_type": "glob", "user_key": "client", "signing_key": "role", "alias_name_source": "serviceaccount_uid"})
	choices := []string{"role_type", "issuer", "bound_claims_type", "alias_name_source", "user_key", "signing_key"}
	empty := map[string]any{}
	for _, field := range choices {
		empty[field] = ""
	}
	m.write("role/dev", empty)
	m.vaultRole("ops", map[string]any{"bound_claims_type": "", "alias_name_source": "", "user_key": "", "signing_key": ""})
	for _, restart := range []bool{false, true} {
		if restart {
			m.restart()
		}
		dev, ops := m.read("role/dev"), m.read("role/ops")
		for _, field := range choices {
			want := newBackend(&logical.BackendConfig{}).Route("role/dev").Fields[field].Default
			if field == "role_type" {
				want = "jwt"
			}
			require.Equal(t, want, dev[field], field)
			if field != "role_type" && field != "issuer" {
				require.Equal(t, want, ops[field], field)
			}
		}
		require.Empty(t, ops["issuer"])
	}
}

func TestATokenParametersFaultNamesItAsItWasWritten(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	for fault, data := range map[string]map[string]any{
		`bound_cidrs has "999.0.0.0/8", which is not a CIDR block`:                           {"bound_cidrs": "10.0.0.0/8,999.0.0.0/8"},
		`token_bound_cidrs has "999.0.0.0/8", which is not a CIDR block`:                     {"token_bound_cidrs": "999.0.0.0/8"},
		`num_uses is negative: -1`:                                                           {"num_uses": -1},
		`ttl is 10m0s, more than max_ttl, which is 5m0s`:                                     {"ttl": "10m", "max_ttl": "5m"},
		`ttl is 10m0s, more than token_max_ttl, which is 5m0s`:                               {"ttl": "10m", "token_max_ttl": "5m"},
		`period is 48h0m0s, more than the mount's maximum lease TTL of 24h0m0s`:              {"period": "48h"},
		`token_period is 48h0m0s, more than the mount's maximum lease TTL of 24h0m0s`:        {"token_period": "48h"},
		`user_ttl is 10m0s, more than max_ttl of 5m0s: a NATS user never outlives its token`: {"max_ttl": "5m"},
	} {
		resp, err := m.do(logical.UpdateOperation, "role/dev", data)
		require.NoError(t, err)
		require.EqualError(t, resp.Error(), fault)
	}
}
