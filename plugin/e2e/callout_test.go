package e2e

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/nats-callout/responder"
)

// dev is a role for jobs of GitLab's.
var dev = fields{
	"user_template": `{"pub":{"allow":["orders.{{claim(namespace_path)}}.>"]},"sub":{"allow":["orders.{{claim(namespace_path)}}.>","_INBOX.>"]}}`,
	"bound_claims":  fields{"ref_protected": "true"},
}

func TestAClientIsLetInWithItsTokenAndNothingElse(t *testing.T) {
	t.Parallel()
	c := startCallouts(t, map[string]fields{
		"dev":   dev,
		"other": {"bound_subject": "somebody-else"},
		"short": {"user_ttl": "2s"},
	})
	// The responder is a workload too.
	c.role("responder", fields{"bound_subject": "responder", "token_policies": c.policy, "token_type": "batch", "credentials_on_login": false})
	c.turnsAway(nats.UserInfo("dev", c.token(gitLab(nil)))) // nobody answers
	c.answers(responder.Login{JWTFile: c.file(c.token(fields{"sub": "responder"})), Role: "responder"})

	token := c.token(gitLab(nil))
	for name, option := range map[string]nats.Option{
		"user and password":       nats.UserInfo("dev", token),
		"a token":                 nats.Token(token),
		"a token after the role":  nats.Token("dev:" + token),
		"a password for the user": nats.UserInfo("", token),
	} {
		t.Run(name, func(t *testing.T) {
			c := &callouts{env: c.in(t)}
			workload, err := c.dial(option)
			require.NoError(t, err)
			subscription := workload.subscribes("orders.shop.new")
			workload.publishes("orders.shop.new")
			workload.receives(subscription)
			workload.mayNotPublish("orders.bank.new")
			workload.mayNotSubscribe("orders.bank.>")
			workload.mayNotPublish("$SYS.REQ.USER.AUTH")
		})
	}

	sentinel := c.read("callout/edge")["sentinel"].(string)
	bearer := nats.UserJWT(func() (string, error) { return sentinel, nil }, func([]byte) ([]byte, error) { return nil, nil })
	for name, options := range map[string][]nats.Option{
		"no token":                  nil,
		"a token that is none":      {nats.UserInfo("dev", "hello")},
		"a token without the claim": {nats.UserInfo("dev", c.token(nil))},
		"another workload's role":   {nats.UserInfo("other", token)},
		"a role that is not":        {nats.UserInfo("gone", token)},
		"the callout's own user":    {nats.UserInfo("callout-edge", token)},
		"the sentinel alone":        {bearer},
		"a role alone":              {bearer, nats.UserInfo("dev", "")},
	} {
		t.Run("turned away: "+name, func(t *testing.T) {
			(&callouts{env: c.in(t)}).turnsAway(options...)
		})
	}
	// A client may bring the sentinel itself, where the server has none.
	_, err := c.dial(bearer, nats.UserInfo("dev", token))
	require.NoError(t, err)

	// It ends with its user_ttl, and comes back with a fresh token.
	fresh := make(chan struct{}, 10)
	c.letsIn("short", nil, nats.ReconnectHandler(func(*nats.Conn) { fresh <- struct{}{} }), allowReconnect, nats.ReconnectWait(nats.DefaultReconnectJitter))
	short := c.letsIn("short", nil)
	c.isCutOff(short)
	c.closedFor("Authentication Expired")
	<-fresh
}

// allowReconnect undoes dial's NoReconnect.
func allowReconnect(o *nats.Options) error {
	o.AllowReconnect = true
	return nil
}

// Everything that ends credentials ends those of a callout's clients too.
func TestAClientOfACalloutIsCutOffByEachKindOfRevocation(t *testing.T) {
	t.Parallel()
	c := startCallouts(t, map[string]fields{
		"dev":    nil,
		"own":    {"signing_key": "role"},
		"scoped": {"scoped": true, "user_template": `{"pub":{"allow":["a.>"]},"sub":{"allow":["_INBOX.>"]}}`},
	})
	c.account("billing", nil)
	c.role("bill", fields{"account": "billing"})
	c.answers(responder.Login{})

	workload := c.letsIn("dev", nil)
	key := c.log.value("user_public_key")
	other := c.letsIn("dev", nil)
	c.write("jwt/orders/revoke", fields{"user_public_key": key})
	c.isCutOff(workload)
	other.publishes("anything")

	for _, role := range []string{"own", "scoped"} {
		workload := c.letsIn(role, nil)
		workload.publishes("a.b")
		c.write("jwt/orders/revoke", fields{"role": role})
		c.isCutOff(workload)
		c.waitForDelivery("orders")
		c.letsIn(role, nil).publishes("a.b")
	}
	edited := c.letsIn("scoped", nil)
	c.write("role/scoped", fields{"user_template": `{"pub":{"allow":["b.>"]},"sub":{"allow":["_INBOX.>"]}}`})
	c.isCutOff(edited)
	c.waitForDelivery("orders")
	c.letsIn("scoped", nil).publishes("b.c")

	everyone, elsewhere := c.letsIn("own", nil), c.letsIn("bill", nil)
	c.write("jwt/orders/revoke", fields{"everyone": true})
	c.isCutOff(everyone)
	c.isCutOff(other)
	c.waitForDelivery("orders")
	c.letsIn("dev", nil).publishes("anything")
	elsewhere.publishes("anything")

	gone := c.letsIn("own", nil)
	c.remove("role/own")
	c.isCutOff(gone)
	_, err := c.client.Logical().DeleteWithDataWithContext(c.ctx(), c.path("jwt/billing"), map[string][]string{"force": {"true"}})
	require.NoError(t, err)
	c.isCutOff(elsewhere)

	// The callout goes, and with it the way in; whoever is in stays in.
	last := c.letsIn("dev", nil)
	c.remove("callout/edge")
	c.turnsAway(nats.UserInfo("dev", c.token(nil)))
	last.publishes("anything")
	c.absent("jwt/callout-edge")
}

// closedFor waits until the server has closed a connection for that reason.
func (c *callouts) closedFor(reason string) {
	c.t.Helper()
	c.waitFor("a connection that is closed: "+reason, func() error {
		var closed struct {
			Connections []struct {
				Reason string `json:"reason"`
			} `json:"connections"`
		}
		if err := c.nats.Status(c.ctx(), "connz?state=closed&limit=100", &closed); err != nil {
			return err
		}
		for _, connection := range closed.Connections {
			if connection.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("among %d there is none", len(closed.Connections))
	})
}

// A thief of all that a responder has, without a workload's token.
func TestWhoHasAllThatAResponderHasGetsNothing(t *testing.T) {
	t.Parallel()
	c := startCallouts(t, map[string]fields{"dev": dev})
	thief := c.vaultClient()
	for _, path := range []string{"config", "role/dev", "callout/edge", "jwt/orders", "jwt/auth", "creds/dev", "config/server", "sync"} {
		_, err := thief.Logical().ReadWithContext(c.ctx(), c.path(path))
		c.isStatus(err, 403)
	}
	for _, path := range []string{"callout/edge", "callout/edge/rotate", "role/dev", "jwt/orders/sign", "jwt/callout-edge/revoke"} {
		_, err := thief.Logical().WriteWithContext(c.ctx(), c.path(path), fields{"roles": "*"})
		c.isStatus(err, 403)
	}

	// It hears requests, as the callout's user, and may do nothing else.
	jwt := c.read("jwt/callout-edge")["jwt"].(string)
	listener, err := c.dial(nats.UserJWT(func() (string, error) { return jwt, nil }, func(nonce []byte) ([]byte, error) {
		return c.signature("callout-edge", nonce)
	}))
	require.NoError(t, err)
	for _, subject := range []string{">", "$SYS.REQ.USER.AUTH", "_INBOX.>", "$SYS.>"} {
		listener.mayNotSubscribe(subject)
	}
	for _, subject := range []string{"orders.shop.new", "$SYS.REQ.USER.AUTH", "$SYS._INBOX.x.y"} {
		listener.mayNotPublish(subject)
	}
	requests := make(chan *nats.Msg, 10)
	_, err = listener.ChanQueueSubscribe("$SYS.REQ.USER.AUTH", "nats-callout", requests)
	require.NoError(t, err)
	require.NoError(t, listener.FlushTimeout(patience))

	token := c.token(gitLab(nil))
	connecting := make(chan error, 1)
	go func() {
		conn, err := nats.Connect(c.nats.URL, nats.UserInfo("dev", token), nats.NoReconnect(), nats.Timeout(patience))
		if err == nil {
			conn.Close()
		}
		connecting <- err
	}()
	request := <-requests
	heard := fmt.Sprintf("%s %s %v %s", request.Subject, request.Reply, request.Header, request.Data)
	require.NotContains(t, heard, token)
	for _, part := range []string{token[:30], "dev", "eyJ"} {
		require.NotContains(t, heard, part)
	}
	require.Error(t, <-connecting, "nobody has answered")
}
