package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/nats-callout/responder"
)

// A webPage is served with a script, which asks its server for a token and tells it what it sees.
type webPage struct {
	url    string
	told   *transcript
	unload func() // has the browser be done with it
}

func (e *env) webPage(script, token string) *webPage {
	e.t.Helper()
	wanted := make(chan struct{})
	p := &webPage{told: &transcript{}, unload: sync.OnceFunc(func() { close(wanted) })}
	mux := http.NewServeMux()
	for path, answer := range map[string][2]string{
		"/{$}":       {"text/html", `<!doctype html><img src="/image"><script type="module" src="/script.js"></script>`},
		"/script.js": {"text/javascript", script},
		"/token":     {"text/plain", token},
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", answer[0])
			io.WriteString(w, answer[1]) //nolint:errcheck // the test sees what did not come
		})
	}
	mux.HandleFunc("GET /image", func(http.ResponseWriter, *http.Request) { <-wanted }) // keeps the page loading
	mux.HandleFunc("POST /told", func(_ http.ResponseWriter, request *http.Request) {
		line, err := io.ReadAll(request.Body)
		if err == nil {
			fmt.Fprintf(p.told, "%s\n", line)
		}
	})
	server := httptest.NewServer(mux)
	e.t.Cleanup(server.Close)
	e.t.Cleanup(p.unload)
	p.url = server.URL
	return p
}

// browse opens a page in Chromium, which ends when the page is loaded; wait waits for that.
func (e *env) browse(url string) (wait func()) {
	e.t.Helper()
	chromium, err := exec.LookPath("chromium")
	require.NoError(e.t, err, "install Chromium, such as Debian's package chromium")
	dir := e.t.TempDir()
	// Without the flags about its background it looks for its maker's servers.
	cmd := exec.CommandContext(e.t.Context(), chromium, "--headless", "--dump-dom", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+dir, url)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	require.NoError(e.t, cmd.Start())
	wait = sync.OnceFunc(func() { require.NoError(e.t, cmd.Wait()) })
	e.t.Cleanup(wait)
	return wait
}

// bundled makes one script for browsers of a program in JavaScript.
func (e *env) bundled(program string) string {
	e.t.Helper()
	dir := e.programDir("page.mjs", program)
	esbuild := exec.CommandContext(e.ctx(), filepath.Join(dir, "node_modules/.bin/esbuild"),
		"page.mjs", "--bundle", "--format=esm", "--outfile=bundle.js", "--log-level=warning")
	esbuild.Dir = dir
	out, err := esbuild.CombinedOutput()
	require.NoError(e.t, err, "%s", out)
	text, err := os.ReadFile(filepath.Join(dir, "bundle.js"))
	require.NoError(e.t, err)
	return string(text)
}

// The lines of docs/callout.md for a browser, run by a real one over WebSocket.
func TestAPageInABrowserPresentsItsToken(t *testing.T) {
	t.Parallel()
	doors, text := openDoors(t)
	c := startCallouts(t, map[string]fields{
		"web":      {"user_template": `{"pub":{"allow":["orders.{{claim(namespace_path)}}.>"]},"allowed_connection_types":["WEBSOCKET"]}`},
		"dev":      dev,
		"listener": {"user_template": `{"sub":{"allow":["orders.>"]}}`},
	}, withNATS(text))
	c.answers(responder.Login{})
	orders := c.letsIn("listener", nil).subscribes("orders.>")
	lines := c.guide("callout.md", map[string]string{"wss://nats.example.com": doors.websocket}).
		section(t, "Clients").subsection(t, "A browser, over WebSocket").blocks("js")
	require.Len(t, lines, 1)
	script := c.bundled("const idToken = await (await fetch('/token')).text();\n" + lines[0] + c.clientFile("page.js"))
	token := c.token(gitLab(nil))

	page := c.webPage(script, token)
	wait := c.browse(page.url)
	message, err := orders.NextMsg(patience)
	require.NoError(t, err)
	require.Equal(t, "orders.shop.new from a browser", message.Subject+" "+string(message.Data))
	c.waitFor("the page to be refused elsewhere", func() error {
		if text := page.told.String(); !strings.Contains(text, `error Permissions Violation for Publish to "orders.bank.new"`) {
			return fmt.Errorf("it has told:\n%s", text)
		}
		return nil
	})
	page.unload()
	wait()
	c.turnsAway(nats.UserInfo("web", token)) // over TCP
}
