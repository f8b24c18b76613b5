package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// agentGuide is docs/vault-agent.md with its placeholders replaced by a test's own.
type agentGuide struct {
	guide
	env   *env
	token string // the file with the workload's token
	creds string // the file that Agent writes
}

func (e *env) agentGuide() *agentGuide {
	e.t.Helper()
	dir := e.t.TempDir()
	g := &agentGuide{env: e, token: filepath.Join(dir, "token"), creds: filepath.Join(dir, "dev.creds")}
	g.guide = e.guide("vault-agent.md", map[string]string{
		"https://vault.example.com:8200": e.vault.Addr,
		"policy write nats-dev":          "policy write " + e.mount,
		"token_policies=nats-dev":        "token_policies=" + e.mount,
		"/var/run/secrets/tokens/vault":  g.token,
		"/run/nats/dev.creds":            g.creds,
		"user_ttl=1h":                    "user_ttl=6s",
	})
	g.writeToken()
	return g
}

// writeToken replaces the workload's token, as its platform does.
func (g *agentGuide) writeToken() {
	g.env.t.Helper()
	next := g.token + ".new"
	require.NoError(g.env.t, os.WriteFile(next, []byte(g.env.token(nil)+"\n"), 0o600))
	require.NoError(g.env.t, os.Rename(next, g.token))
}

// environment is that of Vault's CLI, without some variables.
func (e *env) environment(without ...string) []string {
	return slices.DeleteFunc(e.vault.Command(e.ctx()).Env, func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(without, name)
	})
}

// startAgent runs Vault Agent with the guide's configuration.
func (g *agentGuide) startAgent() (output func() string) {
	g.env.t.Helper()
	blocks := g.blocks("hcl")
	require.Len(g.env.t, blocks, 1)
	return g.env.startAgent(filepath.Dir(g.token), blocks[0])
}

// startAgent runs Vault Agent until the test ends; output returns what it has printed.
func (e *env) startAgent(dir, text string) (output func() string) {
	t := e.t
	t.Helper()
	config := filepath.Join(dir, "agent.hcl")
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	log, err := os.Create(filepath.Join(dir, "agent.log"))
	require.NoError(t, err)
	output = func() string {
		text, err := os.ReadFile(log.Name())
		require.NoError(t, err)
		return string(text)
	}
	cmd := e.vault.Command(t.Context(), "agent", "-log-level=trace", "-config="+config)
	cmd.Env = e.environment("VAULT_TOKEN", "VAULT_ADDR")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Wait() // it was told to end
		if t.Failed() {
			t.Logf("the agent's log:\n%s", output())
		}
		require.NoError(t, log.Close())
	})
	return output
}

// Vault Agent, set up as docs/vault-agent.md says, keeps a creds file fresh. A service that
// uses the file publishes all the time, each message until it is acknowledged, across the
// ends of several user JWTs, a new workload token and a restart of nats-server.
func TestVaultAgentKeepsACredsFileFresh(t *testing.T) {
	t.Parallel()
	e := start(t, withNATS("jetstream {}"))
	e.account("orders", fields{"limits": fields{"mem_storage": -1, "disk_storage": -1}})
	guide := e.agentGuide()
	commands := guide.blocks("sh")
	require.Len(t, commands, 2)
	e.shell(t.TempDir(), commands[0])
	output := guide.startAgent()
	e.waitFor("the creds file", func() error {
		_, err := os.Stat(guide.creds)
		return err
	})
	info, err := os.Stat(guide.creds)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	var reconnects, revocations atomic.Int64
	service, err := e.dial(nats.UserCredentials(guide.creds), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		func(o *nats.Options) error { o.AllowReconnect = true; return nil }, // what dial switches off
		nats.ReconnectWait(100*time.Millisecond),
		nats.ReconnectHandler(func(*nats.Conn) { reconnects.Add(1) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrAuthRevoked) {
				revocations.Add(1)
			}
		}))
	require.NoError(t, err)
	reconnected := func(n int64) {
		t.Helper()
		e.waitFor(fmt.Sprintf("reconnect %d", n), func() error {
			if got := reconnects.Load(); got < n {
				return fmt.Errorf("reconnected %d times", got)
			}
			return nil
		})
	}
	acknowledged := publishOrders(t, service.Conn)
	reconnected(2)
	before, err := os.ReadFile(guide.creds)
	require.NoError(t, err)
	guide.writeToken()
	reconnected(3)
	require.NoError(t, e.nats.Restart(e.ctx()))
	reconnected(5)
	checkOrders(t, e.ctx(), service.Conn, acknowledged())

	after, err := os.ReadFile(guide.creds)
	require.NoError(t, err)
	token, err := os.ReadFile(guide.token)
	require.NoError(t, err)
	require.NotEqual(t, before, after)
	require.Zero(t, revocations.Load(), "a lease that ends with its JWT has its user revoked")
	require.NotContains(t, output(), strings.TrimSpace(string(token)), "the workload's token in the agent's log")
	require.NotRegexp(t, `SU[A-Z0-9]{56}`, output(), "a seed in the agent's log")
}

// publishOrders publishes numbers until they are to be counted: each until it is
// acknowledged, with an ID that has the server store it once.
func publishOrders(t *testing.T, conn *nats.Conn) (stop func() int) {
	t.Helper()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	count := make(chan int, 1)
	go func() {
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		n := 0
		for ; ctx.Err() == nil; n++ {
			for !publishOrder(t.Context(), js, n) && t.Context().Err() == nil {
				<-pace.C
			}
			<-pace.C
		}
		count <- n
	}()
	return func() int {
		cancel()
		return <-count
	}
}

func publishOrder(ctx context.Context, js jetstream.JetStream, n int) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := js.Publish(ctx, "orders.new", fmt.Append(nil, n), jetstream.WithMsgID(fmt.Sprint(n)))
	return err == nil
}

// checkOrders reads the numbers back: each once, in order.
func checkOrders(t *testing.T, ctx context.Context, conn *nats.Conn, count int) {
	t.Helper()
	require.Greater(t, count, 10)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	consumer, err := js.OrderedConsumer(ctx, "ORDERS", jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	messages, err := consumer.Messages()
	require.NoError(t, err)
	defer messages.Stop()
	for n := range count {
		message, err := messages.Next(jetstream.NextContext(ctx))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(n), string(message.Data()))
	}
	stream, err := js.Stream(ctx, "ORDERS")
	require.NoError(t, err)
	require.EqualValues(t, count, stream.CachedInfo().State.Msgs)
}

// The guide's way without an agent: a login, then a creds file under a lease.
func TestTheCLIWritesACredsFileThatEndsWithItsVaultToken(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	guide := e.agentGuide()
	commands := guide.blocks("sh")
	require.Len(t, commands, 2)
	dir := t.TempDir()
	e.shell(dir, commands[0])
	e.write("role/dev", fields{"user_ttl": "10m"})
	e.shell(dir, commands[1]+"\nprintf %s \"$VAULT_TOKEN\" > vault-token", "VAULT_TOKEN")
	creds, err := os.ReadFile(filepath.Join(dir, "dev.creds"))
	require.NoError(t, err)
	workload := e.connect(string(creds))
	workload.publishes("orders.new")

	token, err := os.ReadFile(filepath.Join(dir, "vault-token"))
	require.NoError(t, err)
	require.NoError(t, e.client.Auth().Token().RevokeTreeWithContext(e.ctx(), string(token)))
	e.isCutOff(workload)
	e.connectRefused(string(creds))
}
