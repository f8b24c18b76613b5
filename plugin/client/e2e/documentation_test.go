package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// callExamples is added to the client's package for one test run: examples that need
// servers have no output to be compared with, and go test does not call them.
const callExamples = `package client_test

import "testing"

func TestExamples(t *testing.T) {
	Example()
	Example_tokenFile()
	ExampleNewFromVaultToken()
	ExampleWorkload_Login()
}
`

func TestTheExamplesRunAsTheyAreDocumented(t *testing.T) {
	t.Parallel()
	e := start(t, shared.vault, "nats") // the default
	e.role("dev", fields{"user_ttl": "10m", "token_policies": e.policy("creds/services", "read")})
	e.write("role/services", fields{"role_type": "vault", "account": "orders"})
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	caller := e.caller("")
	_, err := caller.Auth().Login(e.ctx(), e.workload("dev"))
	require.NoError(t, err)
	e.connect(e.client("dev")) // the examples take it that the account is there

	client, err := filepath.Abs("..")
	require.NoError(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(client, "call_examples_test.go"): write("call.go", callExamples),
	}})
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-v", "-count=1", "-timeout=60s", "-run=^TestExamples$", "-overlay="+write("overlay.json", string(overlay)), ".")
	cmd.Dir = client
	cmd.Env = append(os.Environ(), "VAULT_ADDR="+e.vault.Addr, "VAULT_TOKEN="+caller.Token(),
		"CI_JOB_JWT="+e.token(), "TOKEN_FILE="+write("token", e.token()))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, line := range []string{"published, connected as CONNECTED", "got an order", "connected: true", "logged in with the role dev"} {
		require.Contains(t, string(out), line+"\n")
	}
}

// What docs/client.md shows is taken from the examples.
func TestTheGuideShowsTheExamples(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../../docs/client.md")
	require.NoError(t, err)
	examples, err := os.ReadFile("../example_test.go")
	require.NoError(t, err)
	indent := regexp.MustCompile(`(?m)^[\t ]+`)
	text := indent.ReplaceAllString(string(examples), "")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(guide), -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		for part := range strings.SplitSeq(block[1], "\n\n") {
			require.Contains(t, text, indent.ReplaceAllString(part, ""), "not in an example:\n%s", part)
		}
	}
}
