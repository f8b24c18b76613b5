package plugin

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func TestAPreviewShowsWhatALoginWouldGiveAndIssuesNothing(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", map[string]any{
		"user_name": "ci-{{claim(project)}}", "groups_claim": "groups", "claim_mappings": map[string]any{"project": "project"},
		"user_template": `{"pub":{"allow":["{{claim(project)}}.{{claim(groups)}}.>"]},"sub":{"allow":["_INBOX.{{subject()}}.>"]},"tags":["project:{{claim(project)}}"]}`,
	})
	own := newKey(t, trust.User)
	key := own.Public()
	claims := map[string]any{"sub": "runner", "project": "web", "groups": []any{"a", "b"}}
	token := m.token(claims)
	login := userClaims(t, m.lease("dev", proven(own, proof.Claim{Purpose: proof.Creds, Role: "dev", Token: token})).Data["jwt"])
	before := m.stored()
	for name, data := range map[string]map[string]any{
		"of claims":         {"claims": claims},
		"of claims as text": {"claims": `{"sub":"runner","project":"web","groups":["a","b"]}`},
		"of a token":        {"jwt": token},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			data["user_public_key"] = key
			preview := m.write("role/dev/preview", data)
			require.Equal(t, true, preview["allowed"])
			require.Empty(t, preview["errors"])
			require.Equal(t, "runner", preview["alias"])
			require.Equal(t, []string{"a", "b"}, preview["groups"])
			require.Equal(t, map[string]string{"project": "web"}, preview["metadata"])
			user := preview["user"].(map[string]any)
			require.Equal(t, login.Name, user["name"])
			nats, err := asJSON[map[string]any](login.User)
			require.NoError(t, err)
			require.Equal(t, nats, user["nats"])
			require.Contains(t, preview["subjects"], map[string]any{
				"place": "pub.allow[0]", "rendered": "web.b.>", "template": "{{claim(project)}}.{{claim(groups)}}.>",
				"values": []any{
					map[string]any{"placeholder": "{{claim(project)}}", "value": "web"},
					map[string]any{"placeholder": "{{claim(groups)}}", "value": "b"},
				},
			})
		})
	}
	m.t = t
	require.Equal(t, before, m.stored(), "a preview stored something")
}

func TestAPreviewTellsAllThatIsWrong(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", map[string]any{"bound_subject": "runner", "bound_claims": map[string]any{"env": "prod"}})
	preview := m.write("role/dev/preview", map[string]any{"claims": map[string]any{"sub": "another", "env": "test", "project": "a.b"}})
	require.Equal(t, false, preview["allowed"])
	require.NotContains(t, preview, "user")
	faults := preview["errors"].([]string)
	require.Len(t, faults, 3)
	require.Contains(t, faults[0], "bound_subject")
	require.Contains(t, faults[1], "env")
	require.Contains(t, faults[2], "claim(project)")
}

func TestAPreviewOfARoleOfTypeVaultIsOfAnEntity(t *testing.T) {
	m := newCredsMount(t)
	m.vaultRole("ops", nil)
	preview := m.write("role/ops/preview", map[string]any{"entity_id": entityID})
	require.Equal(t, true, preview["allowed"], preview["errors"])
	require.Equal(t, "ann", preview["user"].(map[string]any)["name"])

	m.system.EntityVal = nil
	m.refuse(logical.UpdateOperation, "role/ops/preview", map[string]any{"entity_id": entityID}, "the Vault entity does not exist")
}

func TestABadPreviewIsRefused(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	m.vaultRole("ops", nil)
	claims := map[string]any{"sub": "runner"}
	for name, test := range map[string]struct {
		path  string
		data  map[string]any
		fault string
	}{
		"an unknown role":                    {"role/nobody/preview", map[string]any{"claims": claims}, `name "nobody" is not a role`},
		"neither claims nor a token":         {"role/dev/preview", nil, "claims or jwt must be given"},
		"claims and a token":                 {"role/dev/preview", map[string]any{"claims": claims, "jwt": m.token(nil)}, "claims or jwt must be given, and not both"},
		"claims for a role of type vault":    {"role/ops/preview", map[string]any{"claims": claims}, "claims and jwt are for roles of an issuer"},
		"no entity for a role of type vault": {"role/ops/preview", nil, "entity_id is missing"},
		"claims that are no JSON":            {"role/dev/preview", map[string]any{"claims": "sub=runner"}, "claims is not a JSON object"},
		"a key of another kind":              {"role/dev/preview", map[string]any{"claims": claims, "user_public_key": newKey(t, trust.Account).Public()}, "user_public_key is an account"},
		"a token that nobody signed":         {"role/dev/preview", map[string]any{"jwt": m.token(nil) + "x"}, "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			m.refuse(logical.UpdateOperation, test.path, test.data, test.fault)
		})
	}
}

func TestAPreviewOfAServiceAccount(t *testing.T) {
	r := &role{entry: newRoleEntry()}
	r.entry.RoleType, r.entry.Issuer = "kubernetes", "cluster"
	for name, sample := range map[string]map[string]any{
		"a projected token": {"kubernetes.io": map[string]any{
			"namespace": "shop", "serviceaccount": map[string]any{"name": "runner", "uid": "u-1"},
		}},
		"a token in a Secret": {
			"kubernetes.io/serviceaccount/namespace":            "shop",
			"kubernetes.io/serviceaccount/service-account.name": "runner",
			"kubernetes.io/serviceaccount/service-account.uid":  "u-1",
		},
	} {
		profile := sampleProfile(r, sample)
		require.Equal(t, "cluster", profile.Issuer)
		require.Equal(t, &claims.ServiceAccount{Namespace: "shop", Name: "runner", UID: "u-1"}, profile.ServiceAccount, name)
	}
	require.Nil(t, sampleProfile(r, map[string]any{"kubernetes.io": "x"}).ServiceAccount, "the role says that there is none")
}
