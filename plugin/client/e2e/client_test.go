package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/client"
)

// What is issued after the revocation has a time of issue ahead of all clocks, which is
// later than its end where it does not live long.
func TestAClientComesBackAfterEveryoneWasRevoked(t *testing.T) {
	t.Parallel()
	e := startShared(t)
	e.role("dev", fields{"user_ttl": "1m"})
	service := e.connect(e.client("dev"))
	e.write("jwt/orders/revoke", fields{"everyone": true})
	e.waitForReconnects(service, 1)
	e.waitFor("a message", func() error { return service.delivered("orders.new") })
	another := e.connect(e.client("dev"))
	e.waitFor("a message", func() error { return another.delivered("orders.new") })
}

// A service publishes all the time, each message until it is acknowledged, while its user
// JWT is renewed again and again and nats-server is restarted. The server never has to end
// a connection, and in the end it has each acknowledged message once, in order.
func TestNoAcknowledgedMessageIsLostAcrossRenewals(t *testing.T) {
	t.Parallel()
	e := startShared(t)
	e.role("dev", nil)
	publisher := e.connect(e.client("dev"))
	js, err := jetstream.New(publisher.Conn)
	require.NoError(t, err)
	_, err = js.CreateStream(e.ctx(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	require.NoError(t, err)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	acknowledged := make(chan int)
	go func() {
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		n := 0
		for ; ctx.Err() == nil; n++ {
			for !published(t.Context(), js, n) && t.Context().Err() == nil {
				<-pace.C
			}
			<-pace.C
		}
		acknowledged <- n
	}()
	e.waitForReconnects(publisher, 3)
	_, errs := publisher.seen()
	for _, err := range errs {
		require.NotErrorIs(t, err, nats.ErrAuthExpired, "a JWT was renewed too late")
	}
	before, _ := publisher.seen()
	require.NoError(t, e.nats.Restart(e.ctx()))
	e.waitForReconnects(publisher, before+3)
	stop()
	count := <-acknowledged
	require.Greater(t, count, 10)

	e.role("reader", fields{"user_ttl": "10m"})
	reader := e.connect(e.client("reader"))
	js, err = jetstream.New(reader.Conn)
	require.NoError(t, err)
	stream, err := js.Stream(e.ctx(), "ORDERS")
	require.NoError(t, err)
	consumer, err := stream.OrderedConsumer(e.ctx(), jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	messages, err := consumer.Messages()
	require.NoError(t, err)
	defer messages.Stop()
	inTime := jetstream.NextContext(e.ctx())
	for n := range count {
		message, err := messages.Next(inTime)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(n), string(message.Data()))
	}
	info, err := stream.Info(e.ctx())
	require.NoError(t, err)
	require.EqualValues(t, count, info.State.Msgs)
}

// published reports whether a message was acknowledged. Its ID has the server store it
// once, however often it comes.
func published(ctx context.Context, js jetstream.JetStream, n int) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := js.Publish(ctx, "orders.new", fmt.Append(nil, n), jetstream.WithMsgID(fmt.Sprint(n)))
	return err == nil
}

func TestAChangeOfTheRoleHoldsFromTheNextRenewal(t *testing.T) {
	t.Parallel()
	e := startShared(t)
	only := func(subject string) string {
		return fmt.Sprintf(`{"pub":{"allow":[%q]},"sub":{"allow":[">"]}}`, subject)
	}
	e.role("dev", fields{"user_template": only("orders.a")})
	s := e.connect(e.client("dev"))
	require.NoError(t, s.delivered("orders.a"))
	require.Error(t, s.delivered("orders.b"))
	e.role("dev", fields{"user_template": only("orders.b")})
	e.waitFor("the new permission", func() error { return s.delivered("orders.b") })
	require.Error(t, s.delivered("orders.a"))
}

func TestAConnectionComesBackAfterAnOutageOfVault(t *testing.T) {
	t.Parallel()
	vault, err := stack.StartVault(t.Context(), stack.VaultConfig{Storage: "raft"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, vault.Close()) })
	require.NoError(t, vault.Install(t.Context(), shared.program))
	e := start(t, vault, "nats")
	e.role("dev", nil)
	s := e.connect(e.client("dev"))

	vault.Stop()
	e.waitFor("the server to end the connection", func() error {
		if !s.IsReconnecting() {
			return fmt.Errorf("it is %s", s.Status())
		}
		return nil
	})
	e.waitFor("the error handler to be told why", func() error {
		_, errs := s.seen()
		if err := errors.Join(errs...); !strings.Contains(fmt.Sprint(err), "the NATS user JWT has ended") {
			return fmt.Errorf("it was told: %w", err)
		}
		return nil
	})
	require.NoError(t, s.Publish("orders.buffered", nil))
	require.NoError(t, vault.Start(e.ctx()))
	e.waitFor("the connection to come back", func() error { return s.delivered("orders.a") })
	_, errs := s.seen()
	require.NotContains(t, errors.Join(errs...).Error(), "eyJ", "a token in an error")
}

// A reload of the plugin, as in an upgrade, ends the process of all its mounts: requests
// of the others fail for a moment. Vault's clients would ask again; these do not.
func TestConnectionsStayThroughReloadsOfThePlugin(t *testing.T) {
	t.Parallel()
	vault, err := stack.StartVault(t.Context(), stack.VaultConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, vault.Close()) })
	require.NoError(t, vault.Install(t.Context(), shared.program))
	var services []*service
	envs := []*env{start(t, vault, "one"), start(t, vault, "other")}
	for _, e := range envs {
		e.role("dev", nil)
		for range 3 {
			services = append(services, e.connect(e.client("dev")))
		}
	}
	for range 5 {
		for _, s := range services {
			before, _ := s.seen()
			envs[0].waitForReconnects(s, before+1)
		}
		require.NoError(t, vault.ReloadPlugin(envs[0].ctx()))
	}
	for _, s := range services {
		envs[0].waitFor("a message", func() error { return s.delivered("orders.a") })
	}
}

func TestTheTokenFileMayBeReplaced(t *testing.T) {
	t.Parallel()
	e := startShared(t)
	e.role("dev", nil)
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(e.token()), 0o600))
	credentials, err := client.New(e.ctx(), e.caller(""), client.Workload{Mount: e.mount, Role: "dev", Token: client.TokenFile(file)})
	require.NoError(t, err)
	t.Cleanup(credentials.Close)
	s := e.connect(credentials)
	require.NoError(t, os.WriteFile(file, []byte("not a token"), 0o600))
	e.waitFor("the error of a bad token", func() error {
		_, errs := s.seen()
		if err := errors.Join(errs...); !strings.Contains(fmt.Sprint(err), "error validating token") {
			return fmt.Errorf("the errors are %w", err)
		}
		return nil
	})
	require.NoError(t, os.WriteFile(file, []byte(e.token()+"\n"), 0o600))
	before, _ := s.seen()
	e.waitForReconnects(s, before+2)
	require.NoError(t, s.delivered("orders.a"))
}

// Credentials for a Vault token are a lease of it: who revokes the token cuts the
// connection off, and with another token it comes back.
func TestCredentialsForAVaultTokenEndWithIt(t *testing.T) {
	t.Parallel()
	e := startShared(t)
	e.role("dev", fields{"user_ttl": nil, "token_ttl": "1h", "token_policies": e.policy("creds/services", "read"), "credentials_on_login": false})
	e.write("role/services", fields{"role_type": "vault", "account": "orders", "user_ttl": "10m", "user_key": "client"})
	caller := e.caller("")
	login := func() {
		_, err := caller.Auth().Login(e.ctx(), e.workload("dev"))
		require.NoError(t, err)
	}
	login()
	credentials, err := client.NewFromVaultToken(e.ctx(), caller, client.Workload{Mount: e.mount, Role: "services"})
	require.NoError(t, err)
	t.Cleanup(credentials.Close)
	s := e.connect(credentials)
	require.NoError(t, s.delivered("orders.a"))

	require.NoError(t, caller.Auth().Token().RevokeSelfWithContext(e.ctx(), ""))
	e.waitFor("the connection to be cut off", func() error {
		if !s.IsReconnecting() {
			return fmt.Errorf("it is %s", s.Status())
		}
		return nil
	})
	login()
	e.waitFor("the connection to come back", func() error { return s.delivered("orders.a") })
}

// With credentials_on_login=false the client gets credentials in a second step, as leases
// of the login's Vault token, and Close revokes them.
func TestARoleWithoutCredentialsOnLoginServesTheClientToo(t *testing.T) {
	t.Parallel()
	e := startShared(t)
	twoSteps := fields{"credentials_on_login": false, "token_ttl": "1h", "token_policies": e.policy("creds/*", "update")}
	e.role("dev", twoSteps)
	s := e.connect(e.client("dev"))
	e.waitForReconnects(s, 2)
	require.NoError(t, s.delivered("orders.a"))

	twoSteps["user_ttl"] = "10m"
	e.role("long", twoSteps)
	credentials := e.client("long")
	s = e.connect(credentials)
	require.NoError(t, s.delivered("orders.a"))
	credentials.Close()
	e.waitFor("the connection to be cut off", func() error {
		if !s.IsReconnecting() {
			return fmt.Errorf("it is %s", s.Status())
		}
		return nil
	})
}

func TestManyConnectionsShareAClient(t *testing.T) {
	t.Parallel()
	e := startShared(t)
	e.role("dev", nil)
	credentials := e.client("dev")
	var services []*service
	for range 10 {
		services = append(services, e.connect(credentials))
	}
	for _, s := range services {
		e.waitForReconnects(s, 2)
		require.NoError(t, s.delivered("orders.a"))
		_, errs := s.seen()
		require.Empty(t, errs)
	}
}
