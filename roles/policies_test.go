package roles

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

func policyRole(policies ...string) *Role {
	return jwtRole(func(r *Role) { r.TokenPoliciesTemplateClaims, r.VaultPolicies = true, policies })
}

func policiesOf(c *Compiled, all map[string]any) ([]string, error) {
	all["sub"] = "runner"
	b, err := c.Bind(&claims.Profile{Issuer: DefaultIssuer, Kind: claims.KindJWT, Claims: all}, now)
	if err != nil {
		return nil, err
	}
	return b.Policies, nil
}

// The examples are those of OpenBao's documentation and of its tests.
func TestPoliciesAreTemplatesOverClaims(t *testing.T) {
	all := func() map[string]any {
		return map[string]any{
			"project_id": json.Number("1234"), "environment": "prod", "branch": "main", "path": "acme/web", "protected": true, "empty": "",
			"nested": map[string]any{"policy": "policy_for_nested"}, "groups": []any{"a", "b"}, "user": "Ann@clients",
		}
	}
	for template, want := range map[string][]string{
		"static": {"static"},
		"project_{{.project_id}}/env_{{.environment}}/branch_{{.branch}}": {"project_1234/env_prod/branch_main"},
		`{{if eq "prod" .environment}}project_{{.project_id}}{{end}}`:     {"project_1234"},
		`{{if eq "test" .environment}}project_{{.project_id}}{{end}}`:     {},
		`{{if index . "missing"}}x_{{.missing}}{{end}}`:                   {},
		"{{ .nested.policy }}":          {"policy_for_nested"},
		"{{.empty}}":                    {},
		"{{.user}}":                     {"Ann@clients"},
		`p_{{.path | replace "/" "_"}}`: {"p_acme_web"},
		`p_{{.environment | uppercase | truncate 2}}`:          {"p_PR"},
		`{{if glob "acme/*" .path}}acme{{end}}`:                {"acme"},
		`{{if .protected}}protected-{{.protected}}{{end}}`:     {"protected-true"},
		`g{{range .groups}}-{{.}}{{end}}`:                      {"g-a-b"},
		`{{$p := .path}}{{with .branch}}b-{{.}}{{end}}`:        {"b-main"},
		`n-{{len .groups}}`:                                    {"n-2"},
		`{{define "x"}}x-{{.branch}}{{end}}{{template "x" .}}`: {"x-main"},
		`{{.path | hex | decode_hex | sha256 | truncate 4}}`:   {"3b3d"},
		`{{.branch | base64 | decode_base64}}`:                 {"main"},
		`{{.path | truncate_sha256 20 | replace "/" "-"}}`:     {"acme-web"},
		" trimmed ": {"trimmed"},
	} {
		got, err := policiesOf(compile(t, policyRole(template)), all())
		require.NoError(t, err, template)
		if template == `{{.path | hex | decode_hex | sha256 | truncate 4}}` {
			require.Len(t, got[0], 4)
			continue
		}
		require.Equal(t, want, got, template)
	}
	got, err := policiesOf(compile(t, policyRole("a", "{{.environment}}", "a", "p-{{.branch}}")), all())
	require.NoError(t, err)
	require.Equal(t, []string{"a", "prod", "p-main"}, got)

	untouched := jwtRole(func(r *Role) { r.VaultPolicies = []string{"x-{{.branch}}"} })
	got, err = policiesOf(compile(t, untouched), all())
	require.NoError(t, err)
	require.Equal(t, []string{"x-{{.branch}}"}, got, "a role that does not say so has no templates")
}

// A claim must not name another policy than that which the template spells.
func TestAClaimThatIsMoreThanOneSegmentRefusesTheLogin(t *testing.T) {
	for _, template := range []string{
		"team/{{.x}}/read", "{{.x}}", `{{if .x}}t-{{.x}}{{end}}`, `{{with .x}}t-{{.}}{{end}}`, `{{range .list}}t-{{.}}{{end}}`,
		`{{$v := .x}}t-{{$v}}`, `{{define "d"}}t-{{.x}}{{end}}{{template "d" .}}`, `{{block "b" .x}}t-{{.}}{{end}}`,
		`{{printf "%s" .x}}`, `{{print .x}}`, `{{(index . "x")}}`, `{{if false}}{{else}}t-{{.x}}{{end}}`, `{{if false}}{{else if true}}t-{{.x}}{{end}}`,
	} {
		c := compile(t, policyRole(template))
		for _, value := range []string{"a/b", "/", "../admin", "..", ".", "*", "a*", "+", "a b", " a", "a\n", "a\x00", "\x00", "a,b", "a\u00a0", "\u212Aube", "\u0130x", "\xff", "\ufffd"} {
			got, err := policiesOf(c, map[string]any{"x": value, "list": []any{value}})
			require.ErrorContains(t, err, "token_policies[0] cannot be filled in", "%s of %q gives %q", template, value, got)
		}
		got, err := policiesOf(c, map[string]any{"x": "shop-1_a.b", "list": []any{"shop-1_a.b"}})
		require.NoError(t, err, template)
		require.Len(t, got, 1)
	}
	for template, fault := range map[string]string{
		"t-{{.missing}}":        `map has no entry for key "missing"`,
		"t-{{.empty}}":          "a value in it is empty",
		"t-{{.null}}":           "there is no value",
		"t-{{.object}}":         "a list or an object is not a name",
		"t-{{.list}}":           "a list or an object is not a name",
		"t-{{.}}":               "a list or an object is not a name",
		"{{.root}}":             "would be root, which no login gives",
		"ro{{.ot}}":             "would be root",
		"t-{{.object | upper}}": "",
	} {
		c, err := policyRole(template).Compile()
		if fault == "" {
			require.ErrorContains(t, err, `token_policies with token_policies_template_claims: [0]:1: function "upper" not defined`)
			continue
		}
		require.NoError(t, err)
		_, err = policiesOf(c, map[string]any{"empty": "", "null": nil, "object": map[string]any{}, "list": []any{}, "root": "Root", "ot": "OT"})
		require.ErrorContains(t, err, fault, template)
	}
}

func TestPoliciesThatAreNoTemplatesAreRefused(t *testing.T) {
	for _, source := range []string{"{{", "{{.x", "{{end}}", "{{if}}x{{end}}", "{{random 5}}", "{{unix_time}}", "{{template \"x\""} {
		_, err := policyRole("fine", source).Compile()
		var fault *FieldError
		require.ErrorAs(t, err, &fault, source)
		require.Equal(t, "token_policies", fault.Field)
		require.Contains(t, fault.Fault, "[1]", "which of them")
	}
	for _, role := range []*Role{kubernetesRole(nil), vaultRole(nil)} {
		role.TokenPoliciesTemplateClaims = true
		_, err := role.Compile()
		require.ErrorContains(t, err, "token_policies_template_claims is set, but a role of type")
	}
	_, err := policyRole(strings.Repeat("x", maxField)).Compile()
	require.ErrorContains(t, err, "token_policies is too large")
}

func TestAPolicyThatIsNothingButAClaimComesWithAWarning(t *testing.T) {
	warnings := func(policy string) string { return strings.Join(compile(t, policyRole(policy)).Warnings(nil), "\n") }
	const fault = "token_policies[0] has no text of its own"
	for _, policy := range []string{"{{.team}}", " {{.a}}{{.b}}", "{{if .a}}{{.a}}{{end}}", "{{range .a}}{{.}}{{end}}"} {
		require.Contains(t, warnings(policy), fault, policy)
	}
	for _, policy := range []string{"team-{{.team}}", "{{.team}}/read", "{{if .a}}a-{{.a}}{{end}}", "static"} {
		require.NotContains(t, warnings(policy), fault, policy)
	}
}

// FuzzPolicies: whatever a claim is, it takes the place of one segment.
func FuzzPolicies(f *testing.F) {
	for _, v := range append(values, "a/b", "..", "root", "+", "\u212A") {
		f.Add(v)
	}
	c := compile(f, policyRole("team/{{.x}}/p-{{.x}}-s"))
	f.Fuzz(func(t *testing.T, x string) {
		got, err := policiesOf(c, map[string]any{"x": x})
		if err != nil {
			return
		}
		require.Equal(t, []string{"team/" + x + "/p-" + x + "-s"}, got)
		segments := strings.Split(strings.ToLower(strings.TrimSpace(got[0])), "/") // as Vault takes it
		require.Len(t, segments, 3)
		require.NotContains(t, got[0], "*")
		require.NotEmpty(t, segments[1])
	})
}
