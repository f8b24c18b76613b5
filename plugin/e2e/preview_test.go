package e2e

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPreviewIsWhatALoginGives(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", fields{"user_template": devTemplate, "user_name": "ci-{{claim(project)}}"})
	token := e.token(fields{"project": "shop"})

	preview := e.write("role/dev/preview", fields{"jwt": token}).Data
	require.Equal(t, true, preview["allowed"])
	login := e.user(e.login("dev", token).JWT)
	user := preview["user"].(map[string]any)
	require.Equal(t, login.Name, user["name"])
	raw, err := json.Marshal(login.User)
	require.NoError(t, err)
	shown, err := json.Marshal(user["nats"])
	require.NoError(t, err)
	require.JSONEq(t, string(raw), string(shown))
	require.NotContains(t, preview, "jwt")
	require.NotContains(t, preview, "creds")

	// From the command line, with claims that nobody has yet.
	text := e.cli("write", "-format=json", e.path("role/dev/preview"), `claims={"sub":"job","project":"a.b"}`)
	var answer struct {
		Data struct {
			Allowed  bool             `json:"allowed"`
			Errors   []string         `json:"errors"`
			Subjects []map[string]any `json:"subjects"`
		} `json:"data"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &answer))
	require.False(t, answer.Data.Allowed)
	require.Contains(t, answer.Data.Errors[0], "claim(project)")

	e.refused("role/dev/preview", nil, "claims or jwt must be given")
	e.refused("role/dev/preview", fields{"jwt": token + "x"}, "signature")
	e.refused("role/nobody/preview", fields{"jwt": token}, `"nobody" is not a role`)
}

func TestAPreviewForAnEntity(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("dev", nil)
	e.role("ops", fields{
		"role_type": "vault", "bound_audiences": nil, "user_claim": nil,
		"user_template": `{"pub":{"allow":["{{entity-id()}}.{{entity-metadata(team)}}"]}}`,
	})
	entity := e.login("dev", e.token(nil)).Auth.EntityID
	preview := e.write("role/ops/preview", fields{"entity_id": entity}).Data
	require.Equal(t, false, preview["allowed"])
	require.Contains(t, preview["errors"].([]any)[0], "entity-metadata(team)")
	_, err := e.client.Logical().WriteWithContext(e.ctx(), "identity/entity/id/"+entity, fields{"metadata": fields{"team": "shop"}})
	require.NoError(t, err)
	preview = e.write("role/ops/preview", fields{"entity_id": entity}).Data
	require.Equal(t, true, preview["allowed"])
	require.Contains(t, preview["subjects"], map[string]any{
		"place": "pub.allow[0]", "template": "{{entity-id()}}.{{entity-metadata(team)}}", "rendered": entity + ".shop",
		"values": []any{
			map[string]any{"placeholder": "{{entity-id()}}", "value": entity},
			map[string]any{"placeholder": "{{entity-metadata(team)}}", "value": "shop"},
		},
	})
	e.refused("role/ops/preview", nil, "entity_id is missing")
}
