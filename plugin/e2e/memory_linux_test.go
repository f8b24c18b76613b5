package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// Whoever can reach Vault can send it a body as large as Vault takes, without a
// token. What the plugin does with it is bounded by the body's size, whatever its
// shape.
func TestALargeBodyFromAnyoneCostsThePluginAFewTimesItsSize(t *testing.T) {
	t.Parallel()
	vault := ownVault(t, stack.VaultConfig{})
	e := start(t, onVault(vault), withoutNATS)
	e.account("orders", nil)
	e.role("dev", fields{"user_template": `{"pub":{"allow":["orders.{{claim(project)}}.>"]}}`})
	token := e.token(fields{"project": "shop"})
	e.login("dev", token)
	plugin := pluginProcess(t, vault)

	// Vault refuses larger forms itself, and JSON of more entries or tokens.
	const size, entries, tokens = 9 << 20, 10_000, 500_000
	objects := "[" + strings.Repeat("{},", size/len("%7B%7D%2C")) + "{}]"
	lists := strings.Repeat(strings.Repeat("[],", 3000)+"[]],[", tokens/4/3002)
	form := func(field, value string) (string, string) {
		return "application/x-www-form-urlencoded", url.Values{field: {value}}.Encode()
	}
	object := func(body string) (string, string) { return "application/json", body }
	for name, shape := range map[string]func() (string, string){
		"claims of many objects":         func() (string, string) { return form("claims", `{"a":`+objects+`}`) },
		"bound_claims of many objects":   func() (string, string) { return form("bound_claims", `{"a":`+objects+`}`) },
		"a template of many objects":     func() (string, string) { return form("user_template", `{"a":`+objects+`}`) },
		"a token of one segment":         func() (string, string) { return form("jwt", strings.Repeat("x", size)) },
		"a token of dots":                func() (string, string) { return form("jwt", strings.Repeat(".", size)) },
		"a role's name":                  func() (string, string) { return form("role", strings.Repeat("r", size)) },
		"a key":                          func() (string, string) { return form("user_public_key", strings.Repeat("U", size)) },
		"lists in JSON":                  func() (string, string) { return object(`{"jwt":[[` + lists + `]]}`) },
		"many fields that are not there": func() (string, string) { return object(manyFields(entries - 1)) },
	} {
		for _, path := range []string{"login", "jwt/v1/accounts/AAAA"} {
			t.Run(name+" to "+path, func(t *testing.T) {
				contentType, body := shape()
				plugin.forgetPeak()
				before := plugin.memory("VmRSS")
				var callers sync.WaitGroup
				for range 4 {
					callers.Go(func() {
						req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, vault.Addr+"/v1/auth/"+e.mount+"/"+path, strings.NewReader(body))
						if err != nil {
							t.Error(err)
							return
						}
						req.Header.Set("Content-Type", contentType)
						resp, err := http.DefaultClient.Do(req)
						if err != nil {
							t.Error(err)
							return
						}
						answer, err := io.ReadAll(resp.Body)
						resp.Body.Close()
						// A form that Vault does not read says nothing of the plugin.
						if err != nil || resp.StatusCode < 400 || bytes.Contains(answer, []byte("too large")) {
							t.Errorf("answered with %s, %s, %v", resp.Status, answer, err)
						}
					})
				}
				callers.Wait()
				grown := plugin.memory("VmHWM") - before
				t.Logf("4 bodies of %d kB: the plugin grew from %d by %d kB at most", len(body)>>10, before>>10, grown>>10)
				require.Less(t, grown, int64(4*4*size), "more than four times of what was sent")
			})
		}
	}
	e.login("dev", token)
	require.Less(t, plugin.memory("VmRSS"), int64(10*4*size), "what is left of all of them adds up")
}

func manyFields(count int) string {
	var body strings.Builder
	body.WriteString(`{"role":"dev"`)
	for i := range count {
		fmt.Fprintf(&body, `,"field%d":{}`, i)
	}
	body.WriteString("}")
	return body.String()
}

// A processOf is a process that is looked at from outside.
type processOf struct {
	t   *testing.T
	pid string
}

// pluginProcess finds the plugin's process of a Vault, which is the only one that
// runs a program of its plugin directory.
func pluginProcess(t *testing.T, vault *stack.Vault) processOf {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	require.NoError(t, err)
	var found []string
	for _, link := range links {
		program, err := os.Readlink(link)
		if err == nil && filepath.Dir(program) == vault.PluginDir {
			found = append(found, filepath.Base(filepath.Dir(link)))
		}
	}
	require.NotEmpty(t, found, "no process runs the plugin")
	return processOf{t: t, pid: found[len(found)-1]}
}

// memory reads a figure of /proc/<pid>/status, in bytes.
func (p processOf) memory(name string) int64 {
	p.t.Helper()
	file, err := os.Open("/proc/" + p.pid + "/status")
	require.NoError(p.t, err)
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			require.NoError(p.t, err)
			return kilobytes << 10
		}
	}
	p.t.Fatalf("the process has no %s", name)
	return 0
}

// forgetPeak makes the peak of the process's memory what it has now.
func (p processOf) forgetPeak() {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile("/proc/"+p.pid+"/clear_refs", []byte("5"), 0o600))
}
