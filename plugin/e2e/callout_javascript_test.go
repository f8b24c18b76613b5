package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
	"github.com/nats-vault/vault-plugin-auth-nats/cmd/nats-callout/responder"
)

// withTLS has a test's nats-server offer TLS to clients that ask for it. Its CA is in a file, as Node.js takes it.
func withTLS(t *testing.T) (caFile string, opt option) {
	t.Helper()
	ca, err := stack.NewCA()
	require.NoError(t, err)
	certificate, key, err := ca.ServerPEM()
	require.NoError(t, err)
	dir := t.TempDir()
	for name, text := range map[string][]byte{"ca.pem": []byte(ca.PEM), "cert.pem": certificate, "key.pem": key} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	return filepath.Join(dir, "ca.pem"), withNATS(fmt.Sprintf(`
		allow_non_tls: true
		tls { cert_file: %q, key_file: %q }`, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")))
}

// A script is a program in JavaScript that runs.
type script struct {
	t    *testing.T
	in   io.Writer
	out  *transcript
	done chan struct{} // it has ended, as err says
	err  error
}

// A transcript is what a script has printed so far.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *transcript) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(text)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// clientFile is a file of the folder for JavaScript.
func (e *env) clientFile(name string) string {
	e.t.Helper()
	root, err := stack.Root()
	require.NoError(e.t, err)
	text, err := os.ReadFile(filepath.Join(root, stack.JavaScriptDir, name))
	require.NoError(e.t, err)
	return string(text)
}

// programDir makes a folder with a program in JavaScript and the packages that it may import.
func (e *env) programDir(name, program string) string {
	e.t.Helper()
	modules, err := stack.NodeModules(e.ctx())
	require.NoError(e.t, err)
	dir := e.t.TempDir()
	require.NoError(e.t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	require.NoError(e.t, os.WriteFile(filepath.Join(dir, name), []byte(program), 0o600))
	return dir
}

// javaScript runs the page's lines for JavaScript, and what follows them: see workload.js.
func (c *callouts) javaScript(page guide, variables ...string) *script {
	t := c.t
	t.Helper()
	node, err := stack.Node()
	require.NoError(t, err)
	blocks := page.section(t, "Clients").subsection(t, "JavaScript").blocks("js")
	require.Len(t, blocks, 1)
	dir := c.programDir("main.mjs", blocks[0]+c.clientFile("workload.js"))
	s := &script{t: t, out: &transcript{}, done: make(chan struct{})}
	cmd := exec.CommandContext(t.Context(), node, "main.mjs")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, s.out, s.out
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, variables...)
	s.in, err = cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	go func() {
		s.err = cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		<-s.done // it was killed with the test's context
		if t.Failed() {
			t.Logf("the script has printed:\n%s", s.out)
		}
	})
	return s
}

// prints waits until the script has printed a line.
func (c *callouts) prints(s *script, line string) {
	c.t.Helper()
	c.waitFor("the script to print "+line, func() error {
		if text := s.out.String(); !strings.Contains(text, line+"\n") {
			return fmt.Errorf("it has printed:\n%s", text)
		}
		return nil
	})
}

// publishes has the script publish to a subject.
func (s *script) publishes(subject string) {
	s.t.Helper()
	_, err := fmt.Fprintln(s.in, subject)
	require.NoError(s.t, err)
}

// fails waits for the script to end in failure, and returns what it printed.
func (c *callouts) fails(s *script) string {
	c.t.Helper()
	select {
	case <-s.done:
	case <-c.ctx().Done():
	}
	require.Error(c.t, s.err, s.out)
	return s.out.String()
}

// The lines of docs/callout.md in JavaScript, run by Node.js with the real client.
func TestAClientInJavaScriptPresentsItsToken(t *testing.T) {
	t.Parallel()
	caFile, tls := withTLS(t)
	c := startCallouts(t, map[string]fields{
		"dev":      with(dev, fields{"user_ttl": "3s"}),
		"listener": {"user_template": `{"sub":{"allow":["orders.>"]}}`},
	}, tls)
	c.answers(responder.Login{})
	orders := c.letsIn("listener", nil).subscribes("orders.>")
	require.NoError(t, orders.SetPendingLimits(-1, -1))

	tokenFile := filepath.Join(t.TempDir(), "token")
	holds := func(token string) {
		require.NoError(t, os.WriteFile(tokenFile, []byte(token), 0o600))
	}
	page := func(server string) guide {
		return c.guide("callout.md", map[string]string{
			`"nats:4222"`: `"` + server + `"`, "/var/run/secrets/tokens/vault": tokenFile,
		})
	}
	server := strings.TrimPrefix(c.nats.URL, "nats://")
	trust := "NODE_EXTRA_CA_CERTS=" + caFile

	holds(c.token(gitLab(nil)))
	client := c.javaScript(page(server), trust)
	c.prints(client, "connected")
	client.publishes("orders.shop.new")
	c.prints(client, "published orders.shop.new")
	message, err := orders.NextMsg(patience)
	require.NoError(t, err)
	require.Equal(t, "orders.shop.new from JavaScript", message.Subject+" "+string(message.Data))
	client.publishes("orders.bank.new")
	c.prints(client, `error Permissions Violation for Publish to "orders.bank.new"`)

	// Its user JWT ends, and it is turned away with what there is then. It comes back when there is a good token.
	holds("hello")
	c.waitFor("the client to be turned away", func() error {
		if !strings.Contains(c.nats.Log(), "authentication error") {
			return errors.New("it was not")
		}
		return nil
	})
	holds(c.token(gitLab(fields{"namespace_path": "bank"})))
	c.waitFor("a message by the next token", func() error {
		client.publishes("orders.bank.old")
		_, err := orders.NextMsg(time.Second)
		return err
	})

	holds("hello")
	require.Contains(t, c.fails(c.javaScript(page(server), trust)), "Authorization Violation")
	require.Contains(t, c.fails(c.javaScript(page(server))), "certificate")
}

// The token is for nobody who listens on the way: a server that offers no TLS is not told it.
func TestAClientInJavaScriptTellsItsTokenToNoServerWithoutTLS(t *testing.T) {
	t.Parallel()
	c := &callouts{env: start(t, withoutNATS)}
	tokenFile := filepath.Join(t.TempDir(), "token")
	token := c.token(nil)
	require.NoError(t, os.WriteFile(tokenFile, []byte(token), 0o600))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	heard := &transcript{}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, `INFO {"server_id":"X","version":"2.15.2","proto":1,"headers":true,"max_payload":1048576}`+"\r\n")
			io.Copy(heard, conn) //nolint:errcheck // until the client is gone, however
			conn.Close()
		}
	})
	client := c.javaScript(c.guide("callout.md", map[string]string{
		`"nats:4222"`: `"` + listener.Addr().String() + `"`, "/var/run/secrets/tokens/vault": tokenFile,
	}))
	require.Contains(t, c.fails(client), "does not support 'tls'")
	require.NoError(t, listener.Close())
	accepting.Wait()
	require.NotContains(t, heard.String(), token)
}
