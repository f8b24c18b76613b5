package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// A terminal is where a person types what a guide says: with vault, nats and jq, and a
// program that opens a browser, or rather notes what it is to open.
type terminal struct {
	e    *env
	home string
}

func (e *env) terminal() *terminal {
	e.t.Helper()
	home := e.t.TempDir()
	bin := filepath.Join(home, "bin")
	require.NoError(e.t, os.Mkdir(bin, 0o755))
	nats, err := stack.NATSCLITool.Path(e.ctx())
	require.NoError(e.t, err)
	require.NoError(e.t, os.Symlink(nats, filepath.Join(bin, "nats")))
	require.NoError(e.t, os.Symlink(e.vault.Program(), filepath.Join(bin, "vault")))
	opener := "#!/bin/sh\necho \"$1\" >> \"$HOME/opened\"\n"
	require.NoError(e.t, os.WriteFile(filepath.Join(bin, "xdg-open"), []byte(opener), 0o755))
	return &terminal{e, home}
}

// typed are commands that run.
type typed struct {
	t    *terminal
	cmd  *exec.Cmd
	text string
	out  buffer
}

// begin starts commands; the environment may have more variables.
func (t *terminal) begin(commands string, environment ...string) *typed {
	t.e.t.Helper()
	run := &typed{t: t, cmd: exec.CommandContext(t.e.ctx(), "sh", "-e", "-c", commands), text: commands}
	run.cmd.Dir = t.home
	run.cmd.Env = append(environment, "HOME="+t.home, "VAULT_ADDR="+t.e.vault.Addr,
		"PATH="+filepath.Join(t.home, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	run.cmd.Stdout, run.cmd.Stderr = &run.out, &run.out
	require.NoError(t.e.t, run.cmd.Start())
	return run
}

// prints waits for the end of the commands and returns what they printed.
func (r *typed) prints() string {
	r.t.e.t.Helper()
	require.NoError(r.t.e.t, r.cmd.Wait(), "%s\n%s", r.text, &r.out)
	return r.out.String()
}

// run runs commands, and returns what they printed.
func (t *terminal) run(commands string, environment ...string) string {
	t.e.t.Helper()
	return t.begin(commands, environment...).prints()
}

// opened waits until so many pages were opened, and returns the last.
func (t *terminal) opened(count int) (url string) {
	t.e.t.Helper()
	t.e.waitFor("the browser to be opened", func() error {
		text, err := os.ReadFile(filepath.Join(t.home, "opened"))
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if len(lines) < count || !strings.HasSuffix(string(text), "\n") {
			return fmt.Errorf("opened: %s", text)
		}
		url = lines[count-1]
		return nil
	})
	return url
}

func (t *terminal) file(name string) string {
	t.e.t.Helper()
	text, err := os.ReadFile(filepath.Join(t.home, name))
	require.NoError(t.e.t, err)
	return string(text)
}

// The commands of docs/people.md run as they stand: what the administrator writes, what
// a person types, and what comes of it at a nats-server.
func TestTheGuideRunsAsItStands(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-guide")
	port, err := stack.FreePort()
	require.NoError(t, err)
	e.allow("http://localhost:" + strconv.Itoa(port) + "/oidc/callback")
	raw, err := os.ReadFile("../../../docs/people.md")
	require.NoError(t, err)
	guide := string(raw)
	for placeholder, value := range map[string]string{
		"auth/nats/":                   "auth/nats-guide/",
		`."nats/"`:                     `."nats-guide/"`,
		"-Policy nats\n":               "-Policy nats-guide\n",
		"-path=nats role=people":       fmt.Sprintf("-path=nats-guide role=people port=%d", port),
		"-path=nats -field=creds role": fmt.Sprintf("-path=nats-guide -field=creds port=%d role", port),
		"callback_mode=device \\":      "callback_mode=device poll_interval=1 \\", // the provider's is five seconds
		"https://sso.example.com":      shared.home.URL,
		"nats://nats.example.com:4222": e.nats.URL,
	} {
		require.Contains(t, guide, placeholder)
		guide = strings.ReplaceAll(guide, placeholder, value)
	}
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(guide, -1) {
		blocks = append(blocks, match[1])
	}
	require.Len(t, blocks, 12)
	administrator := func(block string) string {
		return e.terminal().run(block, "VAULT_TOKEN="+e.vault.Token, "OIDC_CLIENT_SECRET="+clientSecret)
	}
	for _, block := range append(blocks[:2:2], blocks[6], blocks[8], blocks[10], blocks[11]) {
		administrator(block)
	}
	require.Contains(t, administrator(blocks[2]), "orders.ada.>")
	page, err := http.Get(e.vault.Addr + "/v1/auth/nats-guide/oidc/callback?state=sd_x")
	require.NoError(t, err)
	require.NoError(t, page.Body.Close())
	require.Equal(t, "DENY", page.Header.Get("X-Frame-Options"))
	require.Contains(t, page.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'")

	person := e.terminal()
	login := person.begin(blocks[3])
	e.tab().consents(person.opened(1), "ada")
	require.Contains(t, login.prints(), "nats-engineers", "the policy of the group")

	login = person.begin(blocks[4])
	e.tab().consents(person.opened(2), "ada")
	require.Contains(t, login.prints(), "Published")
	e.maySpeakFor("ada", person.file("people.creds"))
	info, err := os.Stat(filepath.Join(person.home, "people.creds"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	again := blocks[5] + "nats pub orders.ada.new 'three apples'\n"
	require.Contains(t, person.run(again), "Published", "nobody is asked while the file is young")
	aged := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(person.home, "people.creds"), aged, aged))
	login = person.begin(again)
	e.tab().consents(person.opened(3), "ada")
	require.Contains(t, login.prints(), "Published")

	person.run(blocks[7])
	require.NoError(t, e.publish(e.connect(person.file("people.creds")), "people.ada.new"))

	remote := e.terminal()
	login = remote.begin(blocks[9])
	link := regexp.MustCompile(`Open (\S+)`)
	e.waitFor("the address to open", func() error {
		if !link.MatchString(login.out.String()) {
			return errors.New(login.out.String())
		}
		return nil
	})
	e.tab().allowsDevice(link.FindStringSubmatch(login.out.String())[1], "ada", "Allow")
	login.prints()
	e.maySpeakFor("ada", remote.file("people.creds"))
}

// What docs/people.md lists under "When it does not work" is what is said.
func TestTheGuideKnowsWhatIsSaid(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-said")
	raw, err := os.ReadFile("../../../docs/people.md")
	require.NoError(t, err)
	_, guide, found := strings.Cut(string(raw), "## When it does not work")
	require.True(t, found)
	deviceless, err := stack.StartIssuer(nil, "RS256")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, deviceless.Close()) })
	e.role("dev", nil)
	e.role("device", fields{"callback_mode": "device", "allowed_redirect_uris": nil})
	pending := e.begin(fields{"role": "device"})
	ask := func(path string, data fields) error {
		_, err := e.anyone().Logical().WriteWithContext(e.ctx(), e.path(path), data)
		return err
	}
	callback := "http://localhost:1/oidc/callback"
	for _, said := range []struct {
		text string
		do   func() error
	}{
		{"redirect_uri is none of the role's allowed_redirect_uris", func() error {
			return ask("oidc/auth_url", fields{"role": "dev", "redirect_uri": "http://127.0.0.1:1/oidc/callback"})
		}},
		{`role "x" is of type jwt: no browser logs in with it`, func() error {
			e.role("x", fields{"role_type": "jwt", "bound_audiences": "vault", "allowed_redirect_uris": nil, "oidc_scopes": nil})
			return ask("oidc/auth_url", fields{"role": "x", "redirect_uri": callback})
		}},
		{`role_type is oidc, but issuer "y" has no oidc_client_id`, func() error {
			e.write("issuer/y", fields{"oidc_discovery_url": shared.home.URL})
			_, err := e.root.Logical().WriteWithContext(e.ctx(), e.path("role/x"), fields{
				"role_type": "oidc", "issuer": "y", "account": "orders", "user_claim": "sub", "allowed_redirect_uris": callback,
			})
			return err
		}},
		{`issuer "y" has no device flow`, func() error {
			e.write("issuer/y", fields{"oidc_discovery_url": deviceless.URL, "oidc_client_id": clientID, "oidc_client_secret": clientSecret})
			e.role("x", fields{"issuer": "y", "callback_mode": "device", "allowed_redirect_uris": nil})
			return ask("oidc/auth_url", fields{"role": "x", "client_nonce": clientNonce})
		}},
		{"the issuer refused the login with unauthorized_client", func() error {
			e.write("issuer/y", fields{"oidc_discovery_url": shared.home.URL, "oidc_client_id": clientID, "oidc_client_secret": "another"})
			answer, err := e.anyone().Logical().WriteWithContext(e.ctx(), e.path("oidc/auth_url"), fields{"role": "x", "client_nonce": clientNonce})
			if err != nil {
				return err
			}
			return ask("oidc/poll", fields{"state": answer.Data["state"], "client_nonce": clientNonce})
		}},
		{"state cannot be used: the state is not known here", func() error {
			return ask("oidc/poll", fields{"state": "st_" + strings.Repeat("x", 300), "client_nonce": clientNonce})
		}},
		{"client_nonce is not that of the program which began the login", func() error {
			return ask("oidc/poll", fields{"state": pending.state, "client_nonce": "another"})
		}},
		{"authorization_pending", func() error { _, err := pending.poll(); return err }},
		{"slow_down", func() error { _, err := pending.poll(); return err }},
		{"code is missing: the issuer sent none", func() error {
			answer, err := e.anyone().Logical().WriteWithContext(e.ctx(), e.path("oidc/auth_url"), fields{"role": "dev", "redirect_uri": callback})
			require.NoError(t, err)
			address, err := url.Parse(answer.Data["auth_url"].(string))
			require.NoError(t, err)
			_, err = e.anyone().Logical().ReadWithDataWithContext(e.ctx(), e.path("oidc/callback"), url.Values{"state": {address.Query().Get("state")}})
			return err
		}},
	} {
		e.isStatus400(said.do(), said.text)
		require.Contains(t, guide, said.text)
	}
}
