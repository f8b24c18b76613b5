package plugin

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
	"github.com/stretchr/testify/require"
)

// What needs no token is what anyone can have the plugin take apart.
func TestWhatIsSentWithoutATokenIsBoundedBeforeItIsParsed(t *testing.T) {
	large := `{"claims":"` + strings.Repeat("x", mostUnauthenticated) + `"}`
	reached := false
	handler := func(context.Context, any) (any, error) {
		reached = true
		return nil, nil
	}
	for path, refused := range map[string]bool{
		"login":                       true,
		"jwt/v1/accounts/":            true,
		"jwt/v1/accounts/AAAA":        true,
		"role/dev":                    false,
		"jwt/orders":                  false,
		"jwt/v1":                      false,
		"login/elsewhere":             false,
		"jwt/v1/accountsandmore":      false,
		"creds/dev":                   false,
		"config":                      false,
		"role/dev/preview":            false,
		"jwt/orders/revoke":           false,
		"sync":                        false,
		"config/rotate":               false,
		"jwt/v1/accounts/AAAA/beyond": true,
	} {
		t.Run(path, func(t *testing.T) {
			reached = false
			reply, err := boundRequests(t.Context(), &pb.HandleRequestArgs{Request: &pb.Request{Path: path, Data: large}}, nil, handler)
			require.NoError(t, err)
			require.Equal(t, !refused, reached)
			if refused {
				resp, err := pb.ProtoResponseToLogicalResponse(reply.(*pb.HandleRequestReply).Response)
				require.NoError(t, err)
				require.ErrorContains(t, resp.Error(), "at most 262144 are taken without a Vault token")
			}
			reached = false
			_, err = boundRequests(t.Context(), &pb.HandleExistenceCheckArgs{Request: &pb.Request{Path: path, Data: large}}, nil, handler)
			require.NoError(t, err)
			require.Equal(t, !refused, reached)
			reached = false
			_, err = boundRequests(t.Context(), &pb.HandleRequestArgs{Request: &pb.Request{Path: path, Data: "{}"}}, nil, handler)
			require.NoError(t, err)
			require.True(t, reached)
		})
	}
	b := newBackend(&logical.BackendConfig{})
	for _, path := range b.SpecialPaths().Unauthenticated {
		require.True(t, needsNoToken(strings.TrimSuffix(path, "*")), "%s needs no token and is not bounded", path)
	}
}

func TestWhatIsNoObjectIsNotParsedToSayThatItDoesNotExist(t *testing.T) {
	b := newBackend(&logical.BackendConfig{})
	for path, answered := range map[string]bool{
		"login": true, "callout/edge/authorize": true,
		"role/login": false, "role/dev": false, "callout/edge": false, "callout/authorize": false, "jwt/orders": false,
	} {
		t.Run(path, func(t *testing.T) {
			reached := false
			_, err := boundRequests(t.Context(), &pb.HandleExistenceCheckArgs{Request: &pb.Request{Path: path, Data: "{}"}}, nil,
				func(context.Context, any) (any, error) {
					reached = true
					return nil, nil
				})
			require.NoError(t, err)
			require.Equal(t, !answered, reached)
			if !answered {
				return
			}
			found, exists, err := b.HandleExistenceCheck(t.Context(), &logical.Request{
				Operation: logical.CreateOperation, Path: path, Storage: &logical.InmemStorage{},
			})
			require.NoError(t, err)
			require.False(t, found || exists, "the backend says otherwise")
		})
	}
}

func TestAFieldThatAPathDoesNotDeclareCostsNothing(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	// It is no JSON, and a login knows nothing of it.
	resp, err := m.tryLogin(logical.UpdateOperation, map[string]any{"claims": "{", "bound_claims": "{", "config": 7, "user_template": "{"})
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.NotNil(t, resp.Auth)

	large := `{"a":"` + strings.Repeat("x", mostJSON) + `"}`
	for path, field := range map[string]string{"role/dev": "bound_claims", "role/other": "user_template", "role/dev/preview": "claims", "jwt/orders": "config", "jwt/orders/keys/x": "config"} {
		for name, value := range map[string]any{"text": large, "an object": map[string]any{"a": strings.Repeat("x", mostJSON)}} {
			resp, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: path, Storage: m.storage, Data: map[string]any{field: value}})
			require.NoError(t, err)
			require.ErrorContains(t, resp.Error(), field+" has ", "%s as %s", path, name)
			require.ErrorContains(t, resp.Error(), "bytes: at most", "%s as %s", path, name)
		}
	}
}

func TestANameIsBounded(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	before := m.storage.All()
	resp, err := m.tryLogin(logical.UpdateOperation, map[string]any{"role": strings.Repeat("r", 1000)})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "role has 1000 bytes, which is too long for a name")
	require.Equal(t, before, m.storage.All(), "it was looked for")
	require.Less(t, len(resp.Error().Error()), 200, "it is shown again")
}
