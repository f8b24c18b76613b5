package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// platforms are those of docs/ci.md, with the issuers that it has for them.
var platforms = map[string]string{
	"GitLab":         "https://gitlab.example.com",
	"GitHub Actions": "https://token.actions.githubusercontent.com",
	"Bitbucket":      "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
	"CircleCI":       "https://oidc.circleci.com/org/0f7d5c3e-6e6f-4b57-9a0c-7d7a3a6b1c55",
	"Buildkite":      "https://agent.buildkite.com",
	"Azure DevOps":   "https://vstoken.dev.azure.com/0ca3ddd9-f0b0-4635-a98c-5866526961b6",
	"Jenkins":        "https://jenkins.example.com/oidc",
	"HCP Terraform":  "https://app.terraform.io",
}

// A pipeline is a section of docs/ci.md, and what its platform does for a job.
type pipeline struct {
	claims  fields // of a job's token, in the shape that the platform documents
	alias   string // of its login
	subject string // that the job publishes to

	// strangers are the claims of tokens that must be refused, with what names the reason.
	strangers map[string]fields

	// job reads the pipeline's file: the commands of its job, and the variables that it sets.
	job func(t *testing.T, file guide) (commands string, variables fields)
	// platform gives the job its token: as variables, or as programs in a folder on its PATH.
	platform func(t *testing.T, token, bin string) fields
}

// none is a claim that is null; nil would leave it out.
var none = json.RawMessage("null")

// pipelines are the sections whose jobs log in. The claims are those that the platforms'
// documentation shows for a job of the main branch.
var pipelines = map[string]pipeline{
	"GitLab": {
		claims: with(gitlabClaims("project_path:acme/web.shop:ref_type:branch:ref:main"), fields{
			"namespace_path": "acme", "project_path": "acme/web.shop",
		}),
		alias:     "acme/web.shop",
		subject:   "orders.acme/web%2Eshop.new",
		strangers: map[string]fields{"namespace_path": {"namespace_path": "other"}, "ref_protected": {"ref_protected": "false"}},
		job: func(t *testing.T, file guide) (string, fields) {
			job := at(t, parsed(t, file), "publish").(fields)
			require.Equal(t, "vault", at(t, job, "id_tokens", "VAULT_ID_TOKEN", "aud"))
			return lines(t, job, "script"), at(t, job, "variables").(fields)
		},
		platform: func(_ *testing.T, token, _ string) fields { return fields{"VAULT_ID_TOKEN": token} },
	},
	"GitHub Actions": {
		claims: with(githubClaims("repo:acme/web.shop:ref:refs/heads/main"), fields{
			"repository": "acme/web.shop", "repository_owner": "acme", "environment": nil,
		}),
		alias:     "acme/web.shop",
		subject:   "orders.acme/web%2Eshop.new",
		strangers: map[string]fields{"repository_owner_id": {"repository_owner_id": "66"}, "ref": {"ref": "refs/pull/3/merge"}},
		job: func(t *testing.T, file guide) (string, fields) {
			workflow := parsed(t, file)
			require.Equal(t, "write", at(t, workflow, "permissions", "id-token"))
			job := at(t, workflow, "jobs", "publish").(fields)
			return at(t, job, "steps", 0, "run").(string), at(t, job, "env").(fields)
		},
		platform: func(t *testing.T, token, _ string) fields {
			url := tokenServer(t, http.MethodGet, "bearer", "audience=vault", fields{"count": 1, "value": token})
			return fields{"ACTIONS_ID_TOKEN_REQUEST_URL": url + "/token?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": requestToken}
		},
	},
	"Bitbucket": {
		claims: fields{
			"sub":            "{8864cd24-449d-4441-8862-cf4fe8ad6caa}:{2a9d3e11-5b0c-4f0e-8d4e-0d5f6c1b7a90}:{d5ff2daf-063f-4c13-82fc-cb51af94c2cb}",
			"aud":            "ari:cloud:bitbucket::workspace/e2b9cba7-4ecf-452c-bb1c-87add4084c99",
			"workspaceUuid":  "{e2b9cba7-4ecf-452c-bb1c-87add4084c99}",
			"repositoryUuid": "{8864cd24-449d-4441-8862-cf4fe8ad6caa}", "branchName": "main",
			"pipelineUuid": "{805b0ca6-1086-4d23-b526-de1d38cf3706}", "stepUuid": "{d5ff2daf-063f-4c13-82fc-cb51af94c2cb}",
			"deploymentEnvironmentUuid": "{2a9d3e11-5b0c-4f0e-8d4e-0d5f6c1b7a90}",
		},
		alias:   "{8864cd24-449d-4441-8862-cf4fe8ad6caa}",
		subject: "orders.%7B8864cd24-449d-4441-8862-cf4fe8ad6caa%7D.new",
		strangers: map[string]fields{
			"deploymentEnvironmentUuid": {"deploymentEnvironmentUuid": nil},
			"iss":                       {"iss": "https://api.bitbucket.org/2.0/workspaces/other/pipelines-config/identity/oidc"},
			"aud":                       {"aud": "ari:cloud:bitbucket::workspace/00000000-4ecf-452c-bb1c-87add4084c99"},
		},
		job: func(t *testing.T, file guide) (string, fields) {
			step := at(t, parsed(t, file), "pipelines", "branches", "main", 0, "step").(fields)
			require.Equal(t, true, step["oidc"])
			return lines(t, step, "script"), nil
		},
		platform: func(_ *testing.T, token, _ string) fields { return fields{"BITBUCKET_STEP_OIDC_TOKEN": token} },
	},
	"CircleCI": {
		claims: fields{
			"sub":                           "org/0f7d5c3e-6e6f-4b57-9a0c-7d7a3a6b1c55/project/3d9f1c2a-7b1e-4c55-a1ce-5a0b6a3e9f10/user/9b2f0c5d-2f63-4b0d-8f0e-3c1c5f7d2a44",
			"aud":                           "vault",
			"oidc.circleci.com/project-id":  "3d9f1c2a-7b1e-4c55-a1ce-5a0b6a3e9f10",
			"oidc.circleci.com/context-ids": []string{"a74579f1-2e7d-451e-b009-5c082ad2729e"},
			"oidc.circleci.com/vcs-origin":  "github.com/acme/web.shop",
			"oidc.circleci.com/vcs-ref":     "refs/heads/main",
			"oidc.circleci.com/ssh-rerun":   false,
		},
		alias:   "3d9f1c2a-7b1e-4c55-a1ce-5a0b6a3e9f10",
		subject: "orders.3d9f1c2a-7b1e-4c55-a1ce-5a0b6a3e9f10.new",
		strangers: map[string]fields{
			"ssh-rerun":  {"oidc.circleci.com/ssh-rerun": true},
			"vcs-ref":    {"oidc.circleci.com/vcs-ref": nil},
			"iss":        {"iss": "https://oidc.circleci.com/org/00000000-6e6f-4b57-9a0c-7d7a3a6b1c55"},
			"vcs-origin": {"oidc.circleci.com/vcs-origin": "github.com/fork/web.shop"},
		},
		job: func(t *testing.T, file guide) (string, fields) {
			job := at(t, parsed(t, file), "jobs", "publish").(fields)
			return at(t, job, "steps", 0, "run", "command").(string), at(t, job, "environment").(fields)
		},
		platform: func(t *testing.T, token, bin string) fields {
			program(t, bin, "circleci", `[ "$*" = 'run oidc get --claims {"aud": "vault"}' ] && echo "$ISSUED"`)
			return fields{"ISSUED": token}
		},
	},
	"Buildkite": {
		claims: fields{
			"sub": "organization:acme:pipeline:web-shop:ref:refs/heads/main:commit:9f3182061f1e2cca4702c368cbc039b7dc9d4485:step:publish",
			"aud": "vault", "jti": "0194b014-8517-7cef-b232-76a827315f08",
			"organization_slug": "acme", "pipeline_slug": "web-shop", "build_number": 5, "build_branch": "main", "build_tag": none,
			"build_commit": "9f3182061f1e2cca4702c368cbc039b7dc9d4485", "step_key": "publish",
			"job_id": "0184990a-477b-4fa8-9968-496074483cee", "agent_id": "0184990a-4782-42b5-afc1-16715b10b8ff",
			"build_source": "webhook", "runner_environment": "self-hosted",
		},
		alias:     "web-shop",
		subject:   "orders.web-shop.new",
		strangers: map[string]fields{"organization_slug": {"organization_slug": "other"}, "build_branch": {"build_branch": "feature"}},
		job: func(t *testing.T, file guide) (string, fields) {
			build := parsed(t, file)
			// Uploading a pipeline fills in $NAME and makes $ of $$: no single one may be left.
			command := at(t, build, "steps", 0, "command").(string)
			require.NotRegexp(t, `(^|[^$])\$([^$]|$)`, command)
			return strings.ReplaceAll(command, "$$", "$"), at(t, build, "env").(fields)
		},
		platform: func(t *testing.T, token, bin string) fields {
			program(t, bin, "buildkite-agent", `[ "$*" = 'oidc request-token --audience vault' ] && echo "$ISSUED"`)
			return fields{"ISSUED": token}
		},
	},
	"Azure DevOps": {
		claims: fields{
			"jti": "90b75b0a-61b6-4b71-ba6f-11107d95f4c5", "sub": "p://acme/shop/acme.web", "aud": "api://AzureADTokenExchange",
			"org_id": "0ca3ddd9-f0b0-4635-a98c-5866526961b6", "prj_id": "271ef6f7-5998-4b0f-86fb-4b54d9129990", "def_id": "1",
			"rpo_id": "acme/web", "rpo_uri": "https://github.com/acme/web.git",
			"rpo_ver": "c291ea713801eb300054d353d279e7b02331f671", "rpo_ref": "refs/heads/main", "run_id": "5",
		},
		alias:   "p://acme/shop/acme.web",
		subject: "orders.p://acme/shop/acme%2Eweb.new",
		strangers: map[string]fields{
			"prj_id": {"prj_id": "00000000-5998-4b0f-86fb-4b54d9129990"},
			"iss":    {"iss": "https://vstoken.dev.azure.com/00000000-f0b0-4635-a98c-5866526961b6"}, // signed with the same keys
		},
		job: func(t *testing.T, file guide) (string, fields) {
			build := parsed(t, file)
			require.Equal(t, "$(System.AccessToken)", at(t, build, "steps", 0, "env", "SYSTEM_ACCESSTOKEN"))
			return at(t, build, "steps", 0, "script").(string), at(t, build, "variables").(fields)
		},
		platform: func(t *testing.T, token, _ string) fields {
			url := tokenServer(t, http.MethodPost, "Bearer", "api-version=7.1", fields{"oidcToken": token})
			return fields{"SYSTEM_OIDCREQUESTURI": url + "/oidctoken", "SYSTEM_ACCESSTOKEN": requestToken}
		},
	},
	"Jenkins": {
		claims: fields{
			"sub": "https://jenkins.example.com/job/acme/job/web/job/main/", "aud": "vault", "build_number": 12,
		},
		alias:     "https://jenkins.example.com/job/acme/job/web/job/main/",
		subject:   "orders.https://jenkins%2Eexample%2Ecom/job/acme/job/web/job/main/.new",
		strangers: map[string]fields{"sub": {"sub": "https://jenkins.example.com/job/acme/job/web/job/PR-7/"}},
		job: func(t *testing.T, file guide) (string, fields) {
			blocks := file.blocks("groovy")
			require.Len(t, blocks, 1)
			require.Equal(t, strings.Count(blocks[0], "{"), strings.Count(blocks[0], "}"))
			variables := fields{}
			for _, match := range regexp.MustCompile(`(?m)^ +([A-Z_]+) = '(.*)'$`).FindAllStringSubmatch(blocks[0], -1) {
				variables[match[1]] = match[2]
			}
			require.Contains(t, blocks[0], "string(credentialsId: 'vault-id-token', variable: 'VAULT_ID_TOKEN')")
			script := regexp.MustCompile(`(?s)sh '''(.*)'''`).FindStringSubmatch(blocks[0])
			require.Len(t, script, 2)
			return script[1], variables
		},
		platform: func(_ *testing.T, token, _ string) fields { return fields{"VAULT_ID_TOKEN": token} },
	},
}

// with returns claims with some changed; a nil leaves one out.
func with(claims, changes fields) fields {
	claims = maps.Clone(claims)
	maps.Copy(claims, changes)
	return claims
}

// ciPage is docs/ci.md with its commands run: a mount that trusts an issuer for each platform.
type ciPage struct {
	guide
	issuers map[string]*stack.Issuer // by platform
	watcher string                   // creds of one who sees all messages
}

func (e *env) ciPage() *ciPage {
	e.t.Helper()
	p := &ciPage{issuers: map[string]*stack.Issuer{}}
	placeholders := map[string]string{
		"https://vault.example.com:8200": e.vault.Addr, "nats://nats.example.com:4222": e.nats.URL,
		"VAULT_AUTH_PATH: nats": "VAULT_AUTH_PATH: " + e.mount, "mount_point: nats": "mount_point: " + e.mount,
		"path: nats\n": "path: " + e.mount + "\n", "TFC_VAULT_AUTH_PATH=nats": "TFC_VAULT_AUTH_PATH=" + e.mount,
		"policy write nats-ci": "policy write " + e.mount, "token_policies=nats-ci": "token_policies=" + e.mount,
	}
	for platform, url := range platforms {
		issuer, err := stack.StartIssuer(nil, "RS256")
		require.NoError(e.t, err)
		e.t.Cleanup(func() { require.NoError(e.t, issuer.Close()) })
		p.issuers[platform], placeholders[url] = issuer, issuer.URL
	}
	p.guide = e.guide("ci.md", placeholders)
	for _, block := range p.blocks("sh") { // each in its own time: a command of Vault's takes half a second of a processor
		e.shell(e.t.TempDir(), block)
	}
	e.role("watcher", fields{"user_template": `{"sub":{"allow":[">"]}}`})
	p.watcher = e.login("watcher", e.token(nil)).Creds
	return p
}

// token mints a job's token, with some claims changed.
func (p *ciPage) token(t *testing.T, platform string, claims, changes fields) string {
	t.Helper()
	token, err := p.issuers[platform].Mint("RS256", with(claims, changes))
	require.NoError(t, err)
	return token
}

// role is the first that the commands of a section write.
func (p *ciPage) role(t *testing.T, section string) string {
	t.Helper()
	found := regexp.MustCompile(`/role/(\S+)`).FindStringSubmatch(string(p.section(t, section)))
	require.Len(t, found, 2)
	return found[1]
}

// publishes runs a job's commands, which publish to a subject, and returns the folder that they ran in.
func (e *env) publishes(p *ciPage, subject, commands string, variables fields, bin string) (dir string) {
	e.t.Helper()
	orders := e.connect(p.watcher).subscribes(subject)
	dir = e.runJob(commands, variables, bin)
	message, err := orders.NextMsg(patience)
	require.NoError(e.t, err)
	require.Equal(e.t, "two apples", string(message.Data))
	return dir
}

// The pipelines of docs/ci.md, on a real Vault and nats-server: the page's commands trust the platforms,
// each file is parsed, and the commands of its job run with what the platform gives it.
func TestTheJobsOfThePipelinesPublishWhereTheirClaimsSay(t *testing.T) {
	t.Parallel()
	e := start(t)
	p := e.ciPage()
	for platform, pipeline := range pipelines {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			e := e.in(t)
			role := p.role(t, platform)
			token := p.token(t, platform, pipeline.claims, nil)
			require.Equal(t, "issuer:"+role+":"+pipeline.alias, e.alias(e.login(role, token))["name"])
			for reason, changes := range pipeline.strangers {
				e.loginRefused(role, p.token(t, platform, pipeline.claims, changes), reason)
			}

			bin := t.TempDir()
			variables := pipeline.platform(t, token, bin)
			commands, own := pipeline.job(t, p.section(t, platform))
			maps.Copy(variables, own)
			dir := e.publishes(p, pipeline.subject, commands, variables, bin)
			creds, err := os.ReadFile(filepath.Join(dir, "job.creds"))
			require.NoError(t, err)
			job := e.connect(string(creds))
			job.mayNotPublish("orders.other.new")
			job.mayNotSubscribe("orders.>")
		})
	}
	e.testReaders(p)
}

// runJob runs a job's commands as platforms do, in a folder that it returns: with the
// variables, the programs in bin, vault and nats, and nothing of the root token's.
func (e *env) runJob(commands string, variables fields, bin string) (dir string) {
	e.t.Helper()
	for name, tool := range map[string]stack.Tool{"vault": stack.VaultTool, "nats": stack.NATSCLITool} {
		path, err := tool.Path(buildContext(e.t))
		require.NoError(e.t, err)
		require.NoError(e.t, os.Symlink(path, filepath.Join(bin, name)))
	}
	dir = e.t.TempDir()
	cmd := exec.CommandContext(e.ctx(), "sh", "-e", "-c", commands)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH")}
	for name, value := range variables {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%v", name, value))
	}
	out, err := cmd.CombinedOutput()
	require.NoError(e.t, err, "%s\n%s", commands, out)
	return dir
}

// parsed is the one YAML file of a section.
func parsed(t *testing.T, section guide) (file any) {
	t.Helper()
	blocks := section.blocks("yaml")
	require.Len(t, blocks, 1)
	require.NoError(t, yaml.Unmarshal([]byte(blocks[0]), &file))
	return file
}

// at follows keys and indices into what was parsed.
func at(t *testing.T, value any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			require.Contains(t, value, step)
			value = value.(fields)[step]
		case int:
			require.Greater(t, len(value.([]any)), step)
			value = value.([]any)[step]
		}
	}
	return value
}

// lines are the commands of a list, which run one after the other.
func lines(t *testing.T, value any, path ...any) string {
	t.Helper()
	var commands strings.Builder
	for _, line := range at(t, value, path...).([]any) {
		fmt.Fprintln(&commands, line.(string))
	}
	return commands.String()
}

// program writes a shell script by the name of one that a platform puts on a job's PATH.
func program(t *testing.T, bin, name, script string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

// requestToken is what a job shows to the platform that issues its token.
const requestToken = "of-the-job"

// tokenServer is the platform's endpoint that issues tokens to jobs.
func tokenServer(t *testing.T, method, scheme, query string, answer fields) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method || r.Header.Get("Authorization") != scheme+" "+requestToken || !strings.Contains(r.URL.RawQuery, query) {
			http.Error(w, "not a request for a token", http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(answer) // a job that went away needs none
	}))
	t.Cleanup(server.Close)
	return server.URL
}
