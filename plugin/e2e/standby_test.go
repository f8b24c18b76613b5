package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// A pair is a mount on a cluster of two: a leader and a standby. OpenBao's standbys
// answer what they can; Vault's have the leader answer all.
type pair struct{ leader, standby *env }

func startPair(t *testing.T) pair {
	t.Helper()
	e := start(t, onVault(ownVault(t, stack.VaultConfig{Storage: "raft"})))
	e.account("orders", nil)
	return e.withStandby()
}

// withStandby adds a standby to the mount's Vault.
func (e *env) withStandby() pair {
	t := e.t
	t.Helper()
	node, err := e.vault.AddStandby(e.ctx())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Close()) })
	standby := *e
	standby.vault = node
	standby.client, err = node.Client()
	require.NoError(t, err)
	standby.waitFor("the standby to have the mount", func() error {
		_, err := standby.client.Logical().ReadWithContext(e.ctx(), e.path("config"))
		return err
	})
	return pair{leader: e, standby: &standby}
}

// takeOver has the standby take over from the leader.
func (p pair) takeOver() {
	p.leader.t.Helper()
	require.NoError(p.leader.t, p.leader.vault.StepDown(p.leader.ctx()))
	p.standby.waitFor("the standby to take over", func() error {
		health, err := p.standby.client.Sys().HealthWithContext(p.standby.ctx())
		if err == nil && health.Standby {
			return errors.New("still a standby")
		}
		return err
	})
}

// Whoever asks a standby gets what the leader would give, also of what was written a
// moment ago.
func TestAStandbyGivesWhatTheLeaderGives(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	job := fields{"project": "shop"}
	for i := range 10 {
		for _, tokenType := range []string{"service", "batch"} {
			name := fmt.Sprintf("%s-%d", tokenType, i)
			p.leader.role(name, fields{"token_type": tokenType, "user_template": devTemplate})
			login := p.standby.login(name, p.leader.token(job))
			require.Equal(t, "orders", login.Auth.Metadata["account"])
			p.standby.connect(login.Creds).publishes("orders.shop.new")
		}
		name := fmt.Sprintf("new-%d", i)
		p.leader.role(name, fields{"user_template": devTemplate})
		require.Equal(t, "orders", p.standby.read("role/" + name)["account"])
		p.leader.role(name+"-seen", fields{"user_template": devTemplate})
		preview := p.standby.write("role/"+name+"-seen/preview", fields{"claims": fields{"sub": "me", "project": "shop", "aud": "vault"}})
		require.Equal(t, true, preview.Data["allowed"], preview.Data["errors"])
		p.leader.write("jwt/user-"+name, fields{"type": "user", "account": "orders"})
		require.NotEmpty(t, p.standby.write("jwt/user-"+name+"/sign", fields{"nonce": "PXoWU7zWAMt75FY"}).Data["signed_nonce"])
	}
}

// Whatever node a token is sent to, one of them has its issuer verify it.
func TestALoginAtAStandbyIsReviewedOnce(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	n := p.leader.namespace(sharedKubernetes(t), nil)
	n.account("api", nil)
	var reviews atomic.Int64
	proxy := httptest.NewTLSServer(n.watched(&reviews))
	t.Cleanup(proxy.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw})
	n.issuer(fields{"kubernetes_host": proxy.URL, "kubernetes_ca_cert": string(ca), "token_reviewer_jwt": n.reviewer()})
	token := n.token("api", "vault", nil)
	for _, tokenType := range []string{"default", "service", "batch"} {
		p.leader.role(tokenType, fields{
			"issuer": "cluster", "bound_audiences": nil, "user_claim": nil, "audience": "vault", "token_type": tokenType,
			"bound_service_account_names": "api", "bound_service_account_namespaces": n.name, "user_template": `{"pub":{"allow":["a.x"]}}`,
		})
		p.standby.login(tokenType, token)
		before := reviews.Load()
		for range 5 {
			p.standby.login(tokenType, token)
		}
		require.EqualValues(t, 5, reviews.Load()-before, tokenType)
	}
}

// watched is the API server, whose TokenReviews are counted.
func (n *namespace) watched(reviews *atomic.Int64) http.Handler {
	n.e.t.Helper()
	host, err := url.Parse(n.cluster.Host)
	require.NoError(n.e.t, err)
	roots := x509.NewCertPool()
	require.True(n.e.t, roots.AppendCertsFromPEM([]byte(n.cluster.CACert)))
	proxy := httputil.NewSingleHostReverseProxy(host)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tokenreviews") {
			reviews.Add(1)
		}
		proxy.ServeHTTP(w, r)
	})
}

// A lease is the leader's to make and to keep.
func TestALeaseIsHadAtAStandby(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	runner := p.standby.runner(nil) // the role is written there too
	job := fields{"jwt": p.leader.token(fields{"project": "shop"})}
	lease := p.standby.creds(runner.client, "runner", job)
	workload := p.standby.connect(lease.Creds)
	workload.publishes("orders.shop.new")
	renewed, err := runner.client.Sys().RenewWithContext(p.standby.ctx(), lease.LeaseID, 0)
	require.NoError(t, err)
	require.Positive(t, renewed.LeaseDuration)
	p.standby.cli("lease", "revoke", lease.LeaseID)
	p.standby.isCutOff(workload)

	p.standby.write("role/services", fields{"role_type": "vault", "account": "orders", "user_template": `{"pub":{"allow":["orders.>"]}}`})
	secret, err := runner.client.Logical().ReadWithContext(p.standby.ctx(), p.standby.path("creds/services"))
	require.NoError(t, err)
	require.NotEmpty(t, secret.LeaseID)
	p.standby.connect(secret.Data["creds"].(string)).publishes("orders.new")
}

// Every list and read of a standby is answered, whether it stores something or not.
func TestAStandbyAnswersEveryRead(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.leader.role("dev", fields{"user_template": devTemplate})
	p.leader.write("jwt/alice", fields{"type": "user", "account": "orders"})
	account := p.leader.read("jwt/orders")["public_key"].(string)
	for _, path := range []string{
		"config", "config/server", "issuer/default", "role/dev", "jwt/orders", "jwt/alice", "jwt/SYS", "jwt/orders/revoke", "jwt/orders/keys/default", "sync",
	} {
		leader, standby := p.leader.read(path), p.standby.read(path)
		require.Equal(t, slices.Sorted(maps.Keys(leader)), slices.Sorted(maps.Keys(standby)), path)
	}
	for _, path := range []string{"issuer", "role", "roles", "jwt"} {
		p.standby.waitFor("the standby to list "+path, func() error {
			if want, got := p.leader.list(path), p.standby.list(path); !slices.Equal(want, got) {
				return fmt.Errorf("%v, not %v", got, want)
			}
			return nil
		})
	}
	require.Equal(t, p.leader.fetch(account), p.standby.fetch(account))
	p.leader.write("jwt/billing", fields{"type": "account"}) // a moment ago
	require.Equal(t, p.leader.accountJWT("billing").Subject, p.standby.fetch(id(p.leader, "billing")).Subject)
}

// fetch gets an account as nats-servers with a URL resolver do.
func (e *env) fetch(id string) *natsjwt.AccountClaims {
	e.t.Helper()
	request, err := http.NewRequestWithContext(e.ctx(), http.MethodGet, e.vault.Addr+"/v1/"+e.path("jwt/v1/accounts/"+id), nil)
	require.NoError(e.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(e.t, err)
	defer response.Body.Close()
	require.Equal(e.t, http.StatusOK, response.StatusCode)
	text, err := io.ReadAll(response.Body)
	require.NoError(e.t, err)
	claims, err := natsjwt.DecodeAccountClaims(string(text))
	require.NoError(e.t, err)
	return claims
}

// What was changed at the leader holds at a standby too, whatever that has cached.
func TestAStandbyForgetsWhatTheLeaderHasReplaced(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.leader.role("dev", fields{"user_template": devTemplate})
	p.leader.write("jwt/alice", fields{"type": "user", "account": "orders"})
	account, job := id(p.leader, "orders"), p.leader.token(fields{"project": "shop"})
	preview := func() fields { return p.standby.write("role/dev/preview", fields{"jwt": job}).Data }
	becomes := func(what string, is func() bool) {
		p.standby.waitFor(what, func() error {
			if !is() {
				return errors.New("not yet")
			}
			return nil
		})
	}
	becomes("the role", func() bool { return preview()["allowed"] == true })
	before := p.standby.fetch(account)
	require.Empty(t, before.Revocations)

	p.leader.role("dev", fields{"user_template": `{"pub":{"allow":["other.>"]}}`})
	becomes("the new template", func() bool { return strings.Contains(fmt.Sprint(preview()["user"]), "other.>") })
	p.leader.write("jwt/orders/rotate", fields{})
	becomes("the new signing key", func() bool { return len(p.standby.fetch(account).SigningKeys) == len(before.SigningKeys)+1 })
	p.leader.write("jwt/orders/revoke", fields{"user_public_key": p.leader.read("jwt/alice")["public_key"]})
	becomes("the revocation", func() bool { return len(p.standby.fetch(account).Revocations) == 1 })
	p.leader.write("config", fields{"bound_issuer": "https://other.example.com"})
	becomes("another issuer", func() bool {
		_, err := p.standby.try("role/dev/preview", fields{"jwt": job})
		return err != nil && strings.Contains(err.Error(), "iss claim")
	})
	p.leader.remove("role/dev")
	becomes("no role", func() bool {
		_, err := p.standby.try("role/dev/preview", fields{"jwt": job})
		return err != nil && strings.Contains(err.Error(), "is not a role")
	})
}

// The standby that takes over delivers, and the former leader does not any more.
func TestAStandbyThatTakesOverDelivers(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.leader.role("dev", fields{"user_template": devTemplate})
	p.takeOver()
	p.standby.account("billing", nil)
	p.standby.role("billing", fields{"account": "billing", "user_template": devTemplate})
	former := p.leader
	former.waitFor("the former leader to be a standby", func() error {
		_, err := former.tryLogin("billing", former.token(fields{"project": "shop"}), nil)
		return err
	})
	former.connect(former.login("billing", former.token(fields{"project": "shop"})).Creds).publishes("orders.shop.new")
	former.waitFor("one node to be connected to the NATS servers", func() error {
		var connections struct {
			Connections int `json:"num_connections"`
		}
		if err := former.nats.Status(former.ctx(), "connz?acc="+former.read("config")["system_account_public_key"].(string), &connections); err != nil {
			return err
		}
		if connections.Connections != 1 {
			return fmt.Errorf("%d connections", connections.Connections)
		}
		return nil
	})
}
