package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// at is the same env with another server to connect to.
func (e *env) at(server *stack.NATS) *env {
	other := *e
	other.nats = server
	return &other
}

// serverConfigFor is the nats-server configuration for a resolver.
func (e *env) serverConfigFor(resolver string) string {
	e.t.Helper()
	secret, err := e.client.Logical().ReadWithDataWithContext(e.ctx(), e.path("config/server"), url.Values{
		"resolver": {resolver}, "vault_addr": {e.vault.Addr},
	})
	require.NoError(e.t, err)
	return secret.Data["config"].(string)
}

// writeNow changes something that the servers have when the answer is here.
func (e *env) writeNow(path string, data fields) fields {
	e.t.Helper()
	secret := e.write(path, data)
	require.Empty(e.t, secret.Warnings)
	return secret.Data
}

// removeByForce deletes an account that roles depend on.
func (e *env) removeByForce(path string) {
	e.t.Helper()
	secret, err := e.client.Logical().DeleteWithDataWithContext(e.ctx(), e.path(path), url.Values{"force": {"true"}})
	require.NoError(e.t, err)
	if secret != nil {
		require.Empty(e.t, secret.Warnings)
	}
}

// files are the account JWTs that a server with a full resolver has on disk, by the
// accounts' public keys. A server that was busy when an account was deleted makes for a
// last JWT of it, which lets nobody in and expires: that counts as none.
func (e *env) files(server *stack.NATS) map[string]string {
	e.t.Helper()
	paths, err := filepath.Glob(filepath.Join(server.Dir, "jwt", "*.jwt"))
	require.NoError(e.t, err)
	files := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted meanwhile
		}
		require.NoError(e.t, err)
		if claims, err := natsjwt.DecodeAccountClaims(string(text)); err == nil && claims.Expires != 0 {
			require.Zero(e.t, claims.Limits.Conn)
			require.LessOrEqual(e.t, time.Until(time.Unix(claims.Expires, 0)), 11*time.Minute, "a minute, and the clock_skew of config")
			continue
		}
		files[strings.TrimSuffix(filepath.Base(path), ".jwt")] = string(text)
	}
	return files
}

// Three servers with the full resolver, and one each with cache, memory and URL, in one
// cluster: whatever changes in the mount is felt by the clients of all of them.
func TestServersWithEveryResolverFollowTheMount(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	servers := e.newNATSCluster(6)
	full, memory := servers[:3], servers[5]
	e.write("config", fields{"account_jwt_server_url": []string{full[0].URL, full[1].URL, full[2].URL}, "service_url": full[0].URL})
	for i, resolver := range []string{"full", "full", "full", "cache", "url"} {
		require.NoError(t, servers[i].Start(e.ctx(), e.serverConfigFor(resolver)))
	}
	e.account("orders", nil)
	require.NoError(t, memory.Start(e.ctx(), e.serverConfigFor("memory")))
	for _, server := range servers {
		require.NoError(t, server.WaitForCluster(e.ctx()))
	}
	e.waitForDelivery("orders")
	e.role("dev", nil)
	connectAll := func(creds string) (workloads []*workload) {
		for _, server := range servers {
			workloads = append(workloads, e.at(server).connect(creds))
		}
		return workloads
	}
	allAreCutOff := func(workloads []*workload) {
		for _, w := range workloads {
			e.isCutOff(w)
		}
	}

	first := connectAll(e.login("dev", e.token(nil)).Creds)
	second := connectAll(e.login("dev", e.token(nil)).Creds)
	messages := make([]*nats.Subscription, len(servers))
	for i, w := range first {
		messages[i] = w.subscribes("orders.new")
	}
	e.waitFor("the interest of all servers to be known", func() error {
		first[5].publishes("orders.new")
		for i, subscription := range messages {
			if n, _, err := subscription.Pending(); n == 0 {
				return fmt.Errorf("nothing reached the client of server %d: %w", i, err)
			}
		}
		return nil
	})

	// A limit that is lowered cuts off those who are beyond it.
	e.writeNow("jwt/orders", fields{"config": fields{"limits": fields{"conn": 1}}})
	for i := range servers {
		e.waitFor(fmt.Sprintf("the limit to be felt at server %d", i), func() error {
			if !first[i].IsClosed() && !second[i].IsClosed() {
				return errors.New("both clients are connected")
			}
			return nil
		})
	}
	e.writeNow("jwt/orders", fields{"config": fields{"limits": fields{"conn": -1}}})

	// A key that is rotated lets its users stay for the overlap; without one they go.
	before := e.login("dev", e.token(nil)).Creds
	var stay []*workload
	e.waitFor("connections to be allowed again", func() (err error) {
		for _, server := range servers[len(stay):] {
			w, err := e.at(server).tryConnect(before)
			if err != nil {
				return err
			}
			stay = append(stay, w)
		}
		return nil
	})
	e.writeNow("jwt/orders/rotate", fields{"overlap": "1h"})
	rotated := e.login("dev", e.token(nil)).Creds
	without := connectAll(rotated)
	for _, w := range stay {
		w.publishes("orders.new")
	}
	e.writeNow("jwt/orders/rotate", fields{"overlap": 0})
	allAreCutOff(without)
	for _, server := range servers {
		e.at(server).connectRefused(rotated)
	}

	// The operator's key that is rotated is one the servers know.
	e.writeNow("jwt/billing", fields{"type": "account"})
	require.Equal(t, true, e.write("config/rotate", nil).Data["rotated"])
	e.waitForDelivery("orders")
	for _, w := range append(stay, connectAll(e.login("dev", e.token(nil)).Creds)...) {
		w.publishes("orders.new")
	}

	// A new account is known to a server with the memory resolver once it has been
	// given its configuration again, and to all others at once.
	e.role("biller", fields{"account": "billing"})
	biller := e.login("biller", e.token(nil)).Creds
	for _, server := range servers[:5] {
		e.at(server).connect(biller).publishes("billing.new")
	}
	require.NoError(t, memory.Reload(e.serverConfigFor("memory")))
	e.waitFor("the memory resolver's server to know the account", func() error {
		_, err := e.at(memory).tryConnect(biller)
		return err
	})

	// The mount's own view, and the servers'.
	for _, server := range full {
		require.Equal(t, map[string]string{
			id(e, "SYS"): e.read("jwt/SYS")["jwt"].(string), id(e, "orders"): e.read("jwt/orders")["jwt"].(string), id(e, "billing"): e.read("jwt/billing")["jwt"].(string),
		}, e.files(server))
	}

	last := e.login("dev", e.token(nil)).Creds
	gone := append(connectAll(last), stay...)
	orders := id(e, "orders")
	e.removeByForce("jwt/orders")
	allAreCutOff(gone)
	for _, server := range servers {
		e.at(server).connectRefused(last)
	}
	for _, server := range full {
		require.NotContains(t, e.files(server), orders)
	}
}

// id is an account's public key.
func id(e *env, account string) string {
	e.t.Helper()
	return e.read("jwt/" + account)["public_key"].(string)
}

// A nats-server that fetches its accounts from the mount needs nothing else.
func TestAServerFetchesItsAccountsFromTheMount(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	text := e.serverConfigFor("url")
	require.Contains(t, text, "resolver: URL("+e.vault.Addr+"/v1/auth/"+e.mount+"/jwt/v1/accounts/)")
	require.NoError(t, e.nats.Start(e.ctx(), text))
	require.NoError(t, e.nats.WaitForClient(e.ctx()))
	e.account("orders", nil)
	e.role("dev", nil)
	creds := e.login("dev", e.token(nil)).Creds
	one, other := e.connect(creds), e.connect(creds)
	e.writeNow("jwt/orders", fields{"config": fields{"limits": fields{"conn": 1}}})
	e.waitFor("the limit to be felt", func() error {
		if !one.IsClosed() && !other.IsClosed() {
			return errors.New("both clients are connected")
		}
		return nil
	})
	e.removeByForce("jwt/orders")
	e.isCutOff(one)
	e.isCutOff(other)
	e.connectRefused(creds)
}

func TestTheMountServesAccountsAsNATSAccountServerDoes(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	orders, base := id(e, "orders"), e.vault.Addr+"/v1/"+e.path("jwt/v1/accounts/")
	get := func(path, tag string) (status int, header http.Header, text string) {
		t.Helper()
		request, err := http.NewRequestWithContext(e.ctx(), http.MethodGet, base+path, nil)
		require.NoError(t, err)
		if tag != "" {
			request.Header.Set("If-None-Match", tag)
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, response.Header, string(body)
	}

	status, _, _ := get("", "")
	require.Equal(t, http.StatusOK, status, "nats-server asks for the bare path when it starts")
	status, answer, text := get(orders, "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "application/jwt", answer.Get("Content-Type"))
	require.Equal(t, "no-cache", answer.Get("Cache-Control"))
	require.Equal(t, e.read("jwt/orders")["jwt"], text)
	claims, err := natsjwt.DecodeAccountClaims(text)
	require.NoError(t, err)
	require.Equal(t, `"`+claims.ID+`"`, answer.Get("ETag"))

	status, _, text = get(orders, answer.Get("ETag"))
	require.Equal(t, http.StatusNotModified, status)
	require.Empty(t, text)
	e.write("jwt/orders", fields{"config": fields{"description": "changed"}})
	status, changed, _ := get(orders, answer.Get("ETag"))
	require.Equal(t, http.StatusOK, status)
	require.NotEqual(t, answer.Get("ETag"), changed.Get("ETag"))

	_, readable, text := get(orders+"?decode=true", "")
	require.Equal(t, "text/plain", readable.Get("Content-Type"))
	require.Contains(t, text, `"description": "changed"`)
	e.remove("jwt/orders")
	status, _, _ = get(orders, "")
	require.Equal(t, http.StatusNotFound, status)
}

// An accountServer speaks nats-account-server's API and tells nobody of changes.
type accountServer struct {
	*httptest.Server
	accounts sync.Map // the JWTs by public key
}

func startAccountServer(t *testing.T) *accountServer {
	s := &accountServer{}
	paths := http.NewServeMux()
	paths.HandleFunc("GET /jwt/v1/accounts/{$}", func(http.ResponseWriter, *http.Request) {})
	paths.HandleFunc("GET /jwt/v1/accounts/{id}", func(w http.ResponseWriter, r *http.Request) {
		text, ok := s.accounts.Load(r.PathValue("id"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/jwt")
		_, _ = io.WriteString(w, text.(string))
	})
	paths.HandleFunc("POST /jwt/v1/accounts/{id}", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		claims, err := natsjwt.DecodeAccountClaims(string(text))
		if err != nil || claims.Subject != r.PathValue("id") {
			http.Error(w, "bad JWT in request", http.StatusBadRequest)
			return
		}
		s.accounts.Store(claims.Subject, string(text))
	})
	s.Server = httptest.NewServer(paths)
	t.Cleanup(s.Close)
	return s
}

// The mount posts to the account server, and tells the nats-servers, which fetch from
// it, over service_url.
func TestAnAccountServerIsGivenTheAccountsAndTheServersAreTold(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	accounts := startAccountServer(t)
	e.configure()
	e.write("config", fields{"account_jwt_server_url": accounts.URL + "/jwt/v1"})
	e.waitFor("the system account to be there", func() error {
		if _, ok := accounts.accounts.Load(id(e, "SYS")); !ok {
			return errors.New("it is not")
		}
		return nil
	})
	text := e.serverConfigFor("url")
	require.NoError(t, e.nats.Start(e.ctx(), strings.Replace(text, e.vault.Addr+"/v1/auth/"+e.mount, accounts.URL, 1)))
	require.NoError(t, e.nats.WaitForClient(e.ctx()))

	e.account("orders", nil)
	held, _ := accounts.accounts.Load(id(e, "orders"))
	require.Equal(t, e.read("jwt/orders")["jwt"], held)
	e.role("dev", nil)
	creds := e.login("dev", e.token(nil)).Creds
	one, other := e.connect(creds), e.connect(creds)
	e.writeNow("jwt/orders", fields{"config": fields{"limits": fields{"conn": 1}}})
	e.waitFor("the limit to be felt", func() error {
		if !one.IsClosed() && !other.IsClosed() {
			return errors.New("both clients are connected")
		}
		return nil
	})
	e.removeByForce("jwt/orders")
	e.isCutOff(one)
	e.isCutOff(other)
	e.connectRefused(creds)
}

func TestWithCertificatesTheMountConnectsWithTLSOnly(t *testing.T) {
	t.Parallel()
	e := start(t)
	ca, err := stack.NewCA()
	require.NoError(t, err)
	certificate, key, err := ca.ClientPEM("vault")
	require.NoError(t, err)
	for name, config := range map[string]fields{
		"a CA":                 {"nats_ca_pem": ca.PEM},
		"a client certificate": {"nats_client_cert_pem": string(certificate), "nats_client_key_pem": string(key)},
	} {
		e.write("config", config)
		e.waitFor("the mount with "+name+" not to connect without TLS", func() error {
			if fault := fmt.Sprint(e.read("sync")["error"]); !strings.Contains(fault, "secure connection not available") {
				return fmt.Errorf("%v", e.read("sync"))
			}
			return nil
		})
		e.write("config", fields{"nats_ca_pem": "", "nats_client_cert_pem": "", "nats_client_key_pem": ""})
		e.waitFor("the mount without "+name+" to connect", func() error {
			if state := e.read("sync"); state["connected"] != true {
				return fmt.Errorf("%v", state["error"])
			}
			return nil
		})
	}
}

func TestTheMountReachesServersThatWantItsCertificate(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	ca, err := stack.NewCA()
	require.NoError(t, err)
	stranger, err := stack.NewCA()
	require.NoError(t, err)
	certificate, key, err := ca.ServerPEM()
	require.NoError(t, err)
	clientCertificate, clientKey, err := ca.ClientPEM("vault")
	require.NoError(t, err)
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		return path
	}
	caFile := file("ca.pem", []byte(ca.PEM))
	require.NoError(t, e.nats.Start(e.ctx(), e.serverConfig()+fmt.Sprintf("\ntls: { cert_file: %q, key_file: %q, ca_file: %q, verify: true }\n",
		file("server.pem", certificate), file("server.key", key), caFile)))

	tlsURL := strings.Replace(e.nats.URL, "nats://", "tls://", 1)
	for cause, config := range map[string]fields{
		"certificate signed by unknown authority": {"nats_ca_pem": stranger.PEM, "nats_client_cert_pem": string(clientCertificate), "nats_client_key_pem": string(clientKey)},
		"certificate required":                    {"nats_ca_pem": ca.PEM, "nats_client_cert_pem": "", "nats_client_key_pem": ""},
	} {
		config["account_jwt_server_url"], config["service_url"] = tlsURL, tlsURL
		e.waitFor("the mount to say why it does not deliver", func() error {
			warnings := strings.Join(e.write("config", config).Warnings, "\n")
			if !strings.Contains(warnings, cause) {
				return errors.New(warnings)
			}
			return nil
		})
	}
	e.write("config", fields{"nats_ca_pem": ca.PEM, "nats_client_cert_pem": string(clientCertificate), "nats_client_key_pem": string(clientKey)})
	e.account("orders", nil)

	config := e.read("config")
	require.Equal(t, true, config["nats_client_key_set"])
	require.NotContains(t, config, "nats_client_key_pem")
	e.role("dev", nil)
	login := e.login("dev", e.token(nil))
	require.Equal(t, tlsURL, login.Data["url"])
	e.connect(login.Creds, nats.RootCAs(caFile), nats.ClientCert(file("client.pem", clientCertificate), file("client.key", clientKey))).publishes("orders.new")
}
