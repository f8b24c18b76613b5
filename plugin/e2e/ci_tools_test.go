package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tool logs in to Vault and reads a path. These are the requests that it makes for that, from its source.
type tool struct {
	login   string            // the login's method; its body has jwt and role, and no more
	headers map[string]string // of both requests, beside X-Vault-Token of the read
}

var (
	// gitlab-runner, helpers/vault; it takes OpenBao's Go library, whose Write puts.
	gitlabRunner = tool{login: http.MethodPut, headers: map[string]string{"X-Vault-Request": "true", "X-Vault-Namespace": ""}}
	// hashicorp/vault-action v3, src/auth.js and src/secrets.js.
	vaultAction = tool{login: http.MethodPost, headers: map[string]string{"X-Vault-Namespace": ""}}
	// community.hashi_vault 7, with hvac.
	ansible = tool{login: http.MethodPost, headers: map[string]string{"X-Vault-Request": "true"}}
	// Those with Vault's own Go library: HCP Terraform and the Vault Secrets Operator.
	goLibrary = tool{login: http.MethodPut, headers: map[string]string{"X-Vault-Request": "true"}}
	// vault-csi-provider 1.5, internal/client, which makes its requests by hand.
	csiProvider = tool{login: http.MethodPost, headers: map[string]string{"X-Vault-Request": "true"}}
)

// request makes one request of a tool's, which must succeed, and returns what was answered.
func (e *env) request(tool tool, method, url, token string, body any) fields {
	e.t.Helper()
	var content bytes.Buffer
	if body != nil {
		require.NoError(e.t, json.NewEncoder(&content).Encode(body))
	}
	request, err := http.NewRequestWithContext(e.ctx(), method, url, &content)
	require.NoError(e.t, err)
	for name, value := range tool.headers {
		request.Header.Set(name, value)
	}
	if token != "" {
		request.Header.Set("X-Vault-Token", token)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(e.t, err)
	defer response.Body.Close()
	var answer fields
	if response.StatusCode != http.StatusNoContent {
		require.NoError(e.t, json.NewDecoder(response.Body).Decode(&answer))
	}
	require.Less(e.t, response.StatusCode, 300, "%s %s: %v", method, url, answer)
	return answer
}

// readBy logs in and reads a path as a tool does. It returns the Vault token and the answer to the read.
func (e *env) readBy(tool tool, vault, mount, role, jwt, path string) (token string, answer fields) {
	e.t.Helper()
	login := e.request(tool, tool.login, vault+"/v1/auth/"+mount+"/login", "", fields{"jwt": jwt, "role": role})
	token = login["auth"].(fields)["client_token"].(string)
	require.Nil(e.t, login["data"], "credentials that nobody asked for")
	answer = e.request(tool, http.MethodGet, vault+"/v1/"+path, token, nil)
	// Tools that read key-value stores too take a field data to be that of version 2.
	require.NotContains(e.t, answer["data"], "data")
	return token, answer
}

// testReaders tests the sections of docs/ci.md whose tools read.
func (e *env) testReaders(p *ciPage) {
	for section, test := range map[string]func(e *env, p *ciPage, section guide){
		"GitLab's secrets":      testGitLabSecrets,
		"GitHub's vault-action": testVaultAction,
		"HCP Terraform":         testHCPTerraform,
		"Ansible":               testAnsible,
	} {
		e.t.Run(section, func(t *testing.T) {
			t.Parallel()
			test(e.in(t), p, p.section(t, section))
		})
	}
}

func testGitLabSecrets(e *env, p *ciPage, section guide) {
	job := at(e.t, parsed(e.t, section), "publish").(fields)
	variables := job["variables"].(fields)
	secret := at(e.t, job, "secrets", "NATS_CREDS").(fields)
	require.Equal(e.t, "$VAULT_ID_TOKEN", secret["token"])
	require.Equal(e.t, "vault", at(e.t, job, "id_tokens", "VAULT_ID_TOKEN", "aud"))
	require.Equal(e.t, "generic", at(e.t, secret, "vault", "engine", "name")) // which joins the two paths
	from := path.Join(at(e.t, secret, "vault", "engine", "path").(string), at(e.t, secret, "vault", "path").(string))
	token := p.token(e.t, "GitLab", pipelines["GitLab"].claims, nil)
	_, answer := e.readBy(gitlabRunner, variables["VAULT_SERVER_URL"].(string), e.mount, variables["VAULT_AUTH_ROLE"].(string), token, from)

	file := filepath.Join(e.t.TempDir(), "NATS_CREDS")
	creds := at(e.t, answer, "data", at(e.t, secret, "vault", "field")).(string)
	require.NoError(e.t, os.WriteFile(file, []byte(creds), 0o600))
	e.publishes(p, "ci.gitlab.acme/web%2Eshop.new", lines(e.t, job, "script"), with(variables, fields{"NATS_CREDS": file}), e.t.TempDir())
	reader := e.connect(creds)
	require.Equal(e.t, "acme/web%2Eshop", e.user(answer["data"].(fields)["jwt"].(string)).Name)
	reader.mayNotPublish("ci.gitlab.acme/other.new")
	reader.mayNotPublish("ci.github.acme/web%2Eshop.new")
	e.loginRefused("gitlab-reader", p.token(e.t, "GitLab", pipelines["GitLab"].claims, fields{"ref_protected": "false"}), "ref_protected")
}

func testVaultAction(e *env, p *ciPage, section guide) {
	steps := at(e.t, parsed(e.t, section), "jobs", "publish", "steps").([]any)
	action := at(e.t, steps, 0, "with").(fields)
	require.Equal(e.t, "jwt", action["method"])
	require.Equal(e.t, "vault", action["jwtGithubAudience"])
	wanted := regexp.MustCompile(`^(\S+)\s+(\S+)\s+\|\s+(\S+)$`).FindStringSubmatch(strings.TrimSpace(action["secrets"].(string)))
	require.Len(e.t, wanted, 4)
	token := p.token(e.t, "GitHub Actions", pipelines["GitHub Actions"].claims, nil)
	_, answer := e.readBy(vaultAction, action["url"].(string), e.mount, action["role"].(string), token, wanted[1])

	creds := at(e.t, answer, "data", wanted[2]).(string)
	require.Equal(e.t, "${{ steps."+at(e.t, steps, 0, "id").(string)+".outputs."+wanted[3]+" }}", at(e.t, steps, 1, "env", "NATS_CREDS"))
	variables := with(at(e.t, parsed(e.t, section), "jobs", "publish", "env").(fields), fields{"NATS_CREDS": creds})
	e.publishes(p, "ci.github.acme/web%2Eshop.new", at(e.t, steps, 1, "run").(string), variables, e.t.TempDir())
}

func testHCPTerraform(e *env, p *ciPage, section guide) {
	workspace := fields{}
	for _, variable := range strings.Fields(section.blocks("ini")[0]) {
		name, value, _ := strings.Cut(variable, "=")
		workspace[name] = value
	}
	claims := fields{
		"jti": "1192426d-b525-4fde-9d52-f238be437bbf", "aud": workspace["TFC_VAULT_WORKLOAD_IDENTITY_AUDIENCE"],
		"sub":                       "organization:acme:project:shop:workspace:web:run_phase:apply",
		"terraform_organization_id": "org-GRNbCjYNpBB6NEBH", "terraform_organization_name": "acme",
		"terraform_project_id": "prj-vegSA59s1XPwMr2t", "terraform_project_name": "shop",
		"terraform_workspace_id": "ws-mbsd5E3Ktt5Rg2Xm", "terraform_workspace_name": "web",
		"terraform_full_workspace": "organization:acme:project:shop:workspace:web",
		"terraform_run_id":         "run-X3n1AUXNGWbfECsJ", "terraform_run_phase": "apply",
	}
	vault := workspace["TFC_VAULT_ADDR"].(string)
	from := regexp.MustCompile(`path = "(.*)"`).FindStringSubmatch(section.blocks("hcl")[0])[1]
	token, answer := e.readBy(goLibrary, vault, e.mount, workspace["TFC_VAULT_RUN_ROLE"].(string), p.token(e.t, "HCP Terraform", claims, nil), from)
	e.request(goLibrary, http.MethodGet, vault+"/v1/auth/token/lookup-self", token, nil) // as the provider does when it starts
	run := e.connect(at(e.t, answer, "data", "creds").(string))
	require.Equal(e.t, e.nats.URL, at(e.t, answer, "data", "url"))
	run.publishes("ci.terraform.ws-mbsd5E3Ktt5Rg2Xm.new")
	run.mayNotPublish("ci.terraform.other.new")
	e.loginRefused("terraform", p.token(e.t, "HCP Terraform", claims, fields{"terraform_organization_id": "org-other"}), "terraform_organization_id")

	e.request(goLibrary, http.MethodPut, vault+"/v1/auth/token/revoke-self", token, nil)
	e.isCutOff(run)
}

func testAnsible(e *env, p *ciPage, section guide) {
	play := at(e.t, parsed(e.t, section), 0, "tasks").([]any)
	read := at(e.t, play, 0, "community.hashi_vault.vault_read").(fields)
	require.Equal(e.t, "jwt", read["auth_method"])
	require.Equal(e.t, e.mount, read["mount_point"])
	token := p.token(e.t, "GitLab", pipelines["GitLab"].claims, nil)
	_, answer := e.readBy(ansible, read["url"].(string), read["mount_point"].(string), read["role_id"].(string), token, read["path"].(string))
	require.Equal(e.t, "{{ nats.data.data.creds }}", at(e.t, play, 1, "ansible.builtin.copy", "content")) // the answer is nats.data
	e.connect(at(e.t, answer, "data", "creds").(string)).publishes("ci.gitlab.acme/web%2Eshop.ansible")
}
