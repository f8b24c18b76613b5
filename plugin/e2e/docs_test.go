package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// A guide is a page of docs/ with its placeholders replaced by a test's own.
type guide string

// guide reads a page; each of the placeholders must be there.
func (e *env) guide(page string, placeholders map[string]string) guide {
	e.t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../docs", page))
	require.NoError(e.t, err)
	text := string(raw)
	placeholders["auth/nats"] = "auth/" + e.mount
	for placeholder, value := range placeholders {
		require.Contains(e.t, text, placeholder, page)
		text = strings.ReplaceAll(text, placeholder, value)
	}
	return guide(text)
}

// blocks returns the page's blocks of code in a language.
func (g guide) blocks(language string) []string {
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(g), -1) {
		blocks = append(blocks, match[1])
	}
	return blocks
}

// shell runs commands as a person does who has vault on PATH, and returns what they
// printed. Variables of Vault's CLI can be left out of its environment.
func (e *env) shell(dir, commands string, without ...string) string {
	e.t.Helper()
	out, err := e.tryShell(dir, commands, without...)
	require.NoError(e.t, err, commands)
	return out
}

// tryShell is shell for commands that may fail; the error has what they printed.
func (e *env) tryShell(dir, commands string, without ...string) (string, error) {
	e.t.Helper()
	vault, err := stack.VaultTool.Path(e.ctx())
	require.NoError(e.t, err)
	bin := e.t.TempDir()
	require.NoError(e.t, os.Symlink(vault, filepath.Join(bin, "vault")))
	cmd := exec.CommandContext(e.ctx(), "sh", "-e", "-c", commands)
	cmd.Dir = dir
	cmd.Env = append(e.environment(without...), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%w\n%s", err, out)
	}
	return string(out), nil
}

// The commands of docs/issuers.md run as they stand, and what they set up logs in.
func TestTheIssuersGuideRunsAsItStands(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	github, err := stack.StartIssuer(nil, "RS256")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, github.Close()) })
	n := e.namespace(sharedKubernetes(t), nil)
	n.account("api", nil)
	dir := t.TempDir()
	for name, text := range map[string]string{"ca.pem": n.cluster.CACert, "reviewer.jwt": n.reviewer()} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	blocks := e.guide("issuers.md", map[string]string{
		"https://gitlab.example.com":                  e.issuer.URL,
		"https://token.actions.githubusercontent.com": github.URL,
		"https://kubernetes.example.com:6443":         n.cluster.Host,
		"namespaces=shop":                             "namespaces=" + n.name,
	}).blocks("sh")
	require.Len(t, blocks, 4)
	var printed string
	for _, block := range blocks {
		printed = e.shell(dir, block)
	}
	require.Contains(t, printed, "orders.acme/web%2Eshop.>", "the preview shows the subject")

	e.login("gitlab", e.token(fields{"project_path": "acme/web", "ref_protected": "true"}))
	e.loginRefused("gitlab", e.token(fields{"project_path": "acme/web", "ref_protected": "false"}), "ref_protected")
	job, err := github.Mint("RS256", fields{"aud": "vault", "sub": "repo:acme/web:ref:refs/heads/main", "repository": "acme/web", "ref": "refs/heads/main"})
	require.NoError(t, err)
	require.Equal(t, "issuer:github:acme/web", e.alias(e.login("github", job))["name"])
	e.loginRefused("gitlab", job, "signature")
	e.login("pod", n.token("api", "vault", nil))
}
