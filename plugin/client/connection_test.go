package client

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
)

func TestAConnectionLivesAcrossRenewals(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault, server := newFakeVault(t), newFakeNATS(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		conn := server.connect(c)
		defer conn.Close()
		for range 24 * 60 {
			must(t, conn.Publish("orders.new", []byte("x")))
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		shown, expired := server.seen()
		if len(shown) < 26 || len(shown) > 36 || unique(shown) != len(shown) {
			t.Errorf("in a day %d JWTs were shown, %d different ones", len(shown), unique(shown))
		}
		if expired > 0 {
			t.Errorf("the server ended %d connections", expired)
		}
		if len(server.published) != 24*60 {
			t.Errorf("%d of %d messages came", len(server.published), 24*60)
		}
		if logins := len(vault.requested("auth/nats/login")); logins != len(shown) {
			t.Errorf("%d logins for %d JWTs", logins, len(shown))
		}
	})
}

func TestCredentialsOfAFewSecondsAreRenewedInTime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, ttl := range []time.Duration{2 * time.Second, 3 * time.Second, 5 * time.Second} {
			vault, server := newFakeVault(t), newFakeNATS(t)
			vault.ttl = ttl
			c, err := New(t.Context(), vault.client(), dev)
			must(t, err)
			conn := server.connect(c)
			time.Sleep(time.Minute)
			if _, expired := server.seen(); expired > 0 {
				t.Errorf("with a TTL of %s the server ended %d connections", ttl, expired)
			}
			conn.Close()
			c.Close()
		}
	})
}

func TestAFleetRenewsAtManyTimes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		began := time.Now()
		var renewals []time.Duration
		for range 200 {
			vault := newFakeVault(t)
			c, err := New(t.Context(), vault.client(), dev)
			must(t, err)
			renewals = append(renewals, c.current.renew.Sub(began))
			c.Close()
		}
		slices.Sort(renewals)
		if first, last := renewals[0], renewals[len(renewals)-1]; first < 41*time.Minute || last > 54*time.Minute || last-first < 8*time.Minute {
			t.Errorf("the first of 200 clients renews after %s, the last after %s", first, last)
		}
	})
}

func TestAReconnectShowsANewJWT(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault, server := newFakeVault(t), newFakeNATS(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		conn := server.connect(c)
		defer conn.Close()
		for range 3 {
			time.Sleep(10 * time.Second)
			server.drop()
		}
		time.Sleep(10 * time.Second)
		if shown, _ := server.seen(); len(shown) != 4 || unique(shown) != 4 {
			t.Errorf("%d JWTs were shown, %d different ones, want 4", len(shown), unique(shown))
		}
	})
}

func TestAHandshakeUsesTheJWTAtHandWhenVaultIsSlow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault := newFakeVault(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		o := options(t, c)
		first, err := o.UserJWT()
		must(t, err)
		again, err := o.UserJWT()
		must(t, err)
		if again != first || len(vault.requested("auth/nats/login")) != 1 {
			t.Error("a JWT of this second was replaced")
		}

		vault.set(func() { vault.delay = 10 * time.Second })
		time.Sleep(2 * time.Second)
		before := time.Now()
		held, err := o.UserJWT()
		must(t, err)
		if held != first || time.Since(before) != patience {
			t.Errorf("a slow Vault: the JWT is another: %t, after %s", held != first, time.Since(before))
		}
		time.Sleep(10 * time.Second) // the fetch went on meanwhile
		if next, err := o.UserJWT(); err != nil || next == first {
			t.Errorf("the JWT that came late is not shown: %v", err)
		}
		_, err = o.SignatureCB([]byte("nonce"))
		must(t, err)
	})
}

func TestAHandshakeFailsClearlyWithoutAValidJWT(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault := newFakeVault(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		o := options(t, c)
		if _, err := o.SignatureCB([]byte("nonce")); err == nil {
			t.Error("a nonce is signed before a JWT was asked for")
		}
		time.Sleep(time.Hour)
		fails := func(want string) {
			t.Helper()
			_, err := o.UserJWT()
			if err == nil || !strings.Contains(err.Error(), "JWT has ended") || !strings.Contains(err.Error(), want) {
				t.Fatalf("the error is %v, want one with %q", err, want)
			}
			holdsNoSecret(t, err)
		}
		vault.set(func() { vault.down = true })
		fails("connection refused")
		requests := len(vault.requested("auth/nats/login"))
		fails("connection refused")
		if len(vault.requested("auth/nats/login")) != requests {
			t.Error("a Vault that has just failed was asked again at once")
		}
		time.Sleep(time.Minute)
		vault.set(func() { vault.down = false; vault.delay = 10 * time.Second })
		fails("Vault did not give another in 1s")
	})
}

func TestAConnectionOutlivesAnOutageOfVault(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault, server := newFakeVault(t), newFakeNATS(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		var errs atomic.Int64
		var mu sync.Mutex
		var last error
		conn := server.connect(c, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			mu.Lock()
			defer mu.Unlock()
			errs.Add(1)
			last = err
		}))
		defer conn.Close()

		vault.set(func() { vault.down = true })
		time.Sleep(59 * time.Minute)
		if shown, expired := server.seen(); len(shown) != 1 || expired != 0 {
			t.Errorf("while the JWT was valid there were %d connections, %d ended", len(shown), expired)
		}
		mu.Lock()
		if last == nil || !strings.Contains(last.Error(), "renewing the NATS user JWT: ") || !strings.Contains(last.Error(), "connection refused") {
			t.Errorf("the error handler got %v", last)
		}
		holdsNoSecret(t, last)
		mu.Unlock()
		if n := errs.Load(); n > 300 {
			t.Errorf("%d errors in 18 minutes at most", n)
		}
		time.Sleep(3 * time.Hour)
		if !conn.IsReconnecting() {
			t.Fatalf("the connection is %s", conn.Status())
		}
		vault.set(func() { vault.down = false })
		time.Sleep(30 * time.Second)
		if shown, expired := server.seen(); len(shown) != 2 || expired != 1 {
			t.Errorf("%d JWTs were shown, %d connections ended by the server", len(shown), expired)
		}
		must(t, conn.Flush())
	})
}

func TestConnectionsShareCredentials(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault, server := newFakeVault(t), newFakeNATS(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		var work sync.WaitGroup
		for range 20 {
			work.Go(func() {
				conn := server.connect(c)
				time.Sleep(3*time.Hour + 30*time.Minute)
				conn.Close()
			})
		}
		work.Wait()
		shown, expired := server.seen()
		if expired > 0 || len(shown) < 80 {
			t.Errorf("%d connections, %d ended by the server", len(shown), expired)
		}
		if logins := len(vault.requested("auth/nats/login")); logins > 6 {
			t.Errorf("%d logins for 20 connections", logins)
		}
	})
}

func TestTheOptionKeepsWhatWasChosenBefore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault, server := newFakeVault(t), newFakeNATS(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		connected := make(chan struct{})
		conn := server.connect(c, nats.MaxReconnects(7), nats.ConnectHandler(func(*nats.Conn) { close(connected) }))
		defer conn.Close()
		<-connected
		if conn.Opts.MaxReconnect != 7 {
			t.Errorf("MaxReconnect is %d", conn.Opts.MaxReconnect)
		}
		if o := options(t, c); o.MaxReconnect != -1 || !o.IgnoreAuthErrorAbort {
			t.Errorf("MaxReconnect is %d, IgnoreAuthErrorAbort %t", o.MaxReconnect, o.IgnoreAuthErrorAbort)
		}
	})
}

func TestAClosedConnectionIsNotRenewed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault, server := newFakeVault(t), newFakeNATS(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		conn := server.connect(c)
		time.Sleep(time.Minute)
		conn.Close()
		time.Sleep(24 * time.Hour)
		if logins := len(vault.requested("auth/nats/login")); logins != 1 {
			t.Errorf("%d logins for a connection that is closed", logins)
		}
	})
}

// A reconnect would end the draining, and with it lose messages.
func TestAConnectionThatDrainsIsLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault, server := newFakeVault(t), newFakeNATS(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		conn := server.connect(c, nats.DrainTimeout(2*time.Hour))
		handled := make(chan struct{})
		_, err = conn.Subscribe("orders", func(*nats.Msg) {
			time.Sleep(58 * time.Minute)
			close(handled)
		})
		must(t, err)
		must(t, conn.Flush())
		must(t, conn.Drain())
		<-handled
		time.Sleep(time.Second)
		if shown, _ := server.seen(); len(shown) != 1 || !conn.IsClosed() {
			t.Errorf("the connection is %s after %d handshakes", conn.Status(), len(shown))
		}
	})
}

func TestTheErrorHandlerMayCloseTheClient(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		vault, server := newFakeVault(t), newFakeNATS(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		closed := make(chan struct{})
		conn := server.connect(c, nats.ErrorHandler(func(conn *nats.Conn, _ *nats.Subscription, _ error) {
			conn.Close()
			c.Close()
			close(closed)
		}))
		vault.set(func() { vault.down = true })
		<-closed
		if !conn.IsClosed() {
			t.Error("the connection is open")
		}
	})
}
