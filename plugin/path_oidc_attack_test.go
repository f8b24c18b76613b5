package plugin

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/optest"
)

// A state is good for the login that it was made for, and for that as it was.
func TestAStateIsGoodForItsOwnLoginAlone(t *testing.T) {
	m := newPeopleMount(t)
	m.role("guest", map[string]any{"account": "orders"})
	other := optest.Start(t)
	m.write("issuer/other", other.Config(nil))
	m.role("elsewhere", map[string]any{"issuer": "other"})
	mine := m.sentBack(nil)
	for name, changes := range map[string]map[string]any{
		"of another login":        {"state": m.sentBack(nil)["state"]},
		"of another role":         {"state": m.sentBack(map[string]any{"role": "guest"})["state"]},
		"of another redirect URI": {"state": m.sentBack(map[string]any{"redirect_uri": "http://localhost:9999/oidc/callback"})["state"]},
	} {
		back := map[string]any{"state": mine["state"], "code": mine["code"], "client_nonce": mine["client_nonce"]}
		for field, value := range changes {
			back[field] = value
		}
		t.Log(name)
		resp, err := m.callback(back)
		m.refused(resp, err, "the issuer refused the code with invalid_grant")
		mine = m.sentBack(nil)
	}

	resp, err := m.begin(map[string]any{"role": "elsewhere"})
	require.NoError(t, err)
	back := fieldsOf(other.Login(resp.Data["auth_url"].(string)))
	back["code"], back["client_nonce"] = mine["code"], mine["client_nonce"]
	resp, err = m.callback(back)
	m.refused(resp, err, "invalid_grant")
	require.Positive(t, other.Asked, "the code went to the issuer that the login began with, and without the verifier it is good for nothing there")

	resp, err = newPeopleMount(t).callback(m.sentBack(nil))
	m.refused(resp, err, "state cannot be used: the state is not known here")
}

func TestNoStateIsMadeUpOrChanged(t *testing.T) {
	m := newPeopleMount(t)
	back := m.sentBack(nil)
	state := back["state"].(string)
	for i := 0; i < len(state); i += 7 {
		changed := []byte(state)
		changed[i] ^= 1
		back["state"] = string(changed)
		resp, err := m.callback(back)
		if raw := resp.Data[logical.HTTPRawBody]; raw != nil {
			require.Contains(t, string(raw.([]byte)), "not known here")
			continue
		}
		m.refused(resp, err, "not known here")
	}
	for _, made := range []string{"", "st_", "st_AAAA", "sd" + state[2:], state + ",ns=x", strings.Repeat("A", 100_000), "\x00"} {
		back["state"] = made
		resp, err := m.callback(back)
		require.NoError(t, err)
		require.Nil(t, resp.Auth)
	}
	back["state"] = state
	resp, err := m.callback(back)
	require.NoError(t, err)
	require.NotNil(t, resp.Auth, "none of that has used it up")
}

func TestAStateIsGoodOnce(t *testing.T) {
	m := newPeopleMount(t)
	back := m.sentBack(nil)
	resp, err := m.callback(back)
	require.NoError(t, err)
	require.NotNil(t, resp.Auth)
	resp, err = m.callback(back)
	m.refused(resp, err, "used before")

	// Not even with another code, and not when the first try failed.
	failed := m.sentBack(nil)
	good := failed["code"]
	failed["code"] = "made-up"
	resp, err = m.callback(failed)
	m.refused(resp, err, "invalid_grant")
	failed["code"] = good
	resp, err = m.callback(failed)
	require.NoError(t, err)
	require.True(t, resp.IsError())

	// Nor when many come at one time.
	racing := m.sentBack(nil)
	var in atomic.Int64
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			resp, err := m.callback(map[string]any{"state": racing["state"], "code": racing["code"], "client_nonce": racing["client_nonce"]})
			if err == nil && resp.Auth != nil {
				in.Add(1)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 1, in.Load())
}

func TestALoginEndsAfterFiveMinutes(t *testing.T) {
	m := newPeopleMount(t)
	role, err := m.backend.role(t.Context(), m.storage, "dev")
	require.NoError(t, err)
	issuer, err := m.issuer(t.Context(), m.storage, "default")
	require.NoError(t, err)
	for age, good := range map[time.Duration]bool{4 * time.Minute: true, 6 * time.Minute: false} {
		login := &people.Login{Mode: people.ModeClient, Role: "dev", RedirectURI: peopleRedirect}
		address, _, err := m.people.AuthURL(t.Context(), issuer.people, login, role.want(), time.Now().Add(-age))
		require.NoError(t, err)
		resp, err := m.callback(fieldsOf(m.op.Login(address)))
		require.NoError(t, err)
		require.Equal(t, good, resp.Auth != nil, "%s: %v", age, resp.Error())
		if !good {
			require.ErrorContains(t, resp.Error(), "five minutes")
		}
	}
}

func TestOnlyTheProgramThatBeganALoginFetchesIt(t *testing.T) {
	m := newPeopleMount(t)
	for _, nonce := range []string{"", "another", "nonce-of-the-cli "} {
		back := m.sentBack(nil)
		back["client_nonce"] = nonce
		resp, err := m.callback(back)
		m.refused(resp, err, "client_nonce is not that of the program which began the login")
		back["client_nonce"] = "nonce-of-the-cli"
		resp, err = m.callback(back)
		m.refused(resp, err, "used before")
	}
	require.Zero(t, m.op.Asked)

	m.role("direct", map[string]any{"callback_mode": "direct", "allowed_redirect_uris": directRedirect})
	resp, err := m.begin(map[string]any{"role": "direct", "redirect_uri": directRedirect, "client_nonce": ""})
	m.refused(resp, err, "client_nonce is missing")
	resp, err = m.begin(map[string]any{"client_nonce": strings.Repeat("x", mostNonce+1)})
	m.refused(resp, err, "client_nonce has")

	m.write("role/dev", map[string]any{"token_bound_cidrs": "10.0.0.0/8"})
	_, err = m.callback(m.sentBack(nil))
	require.ErrorIs(t, err, logical.ErrPermissionDenied)
}

// What a login was begun with may have changed when it comes back.
func TestALoginIsHeldAgainstWhatHolds(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *peopleMount)
		fault  string
	}{
		"another redirect URI": {func(m *peopleMount) { m.role("dev", map[string]any{"allowed_redirect_uris": "https://a.example.com/"}) }, "redirect_uri"},
		"another issuer": {func(m *peopleMount) {
			m.write("issuer/other", m.op.Config(nil))
			m.role("dev", map[string]any{"issuer": "other"})
		}, "another issuer"},
		"another client": {func(m *peopleMount) {
			m.write("config", map[string]any{"oidc_client_id": "x", "oidc_client_secret": "y"})
		}, "another issuer"},
		"another mode": {func(m *peopleMount) { m.role("dev", map[string]any{"callback_mode": "direct"}) }, "callback_mode"},
		"a role for workloads": {func(m *peopleMount) {
			m.role("dev", map[string]any{"role_type": "jwt", "allowed_redirect_uris": "", "bound_audiences": "a"})
		}, "is of type jwt"},
		"another binding":       {func(m *peopleMount) { m.role("dev", map[string]any{"bound_subject": "bob"}) }, "bound_subject"},
		"another audience":      {func(m *peopleMount) { m.role("dev", map[string]any{"bound_audiences": "elsewhere"}) }, "aud"},
		"a role that is gone":   {func(m *peopleMount) { _, _ = m.request(logical.DeleteOperation, "role/dev", nil) }, "could not be found"},
		"a key that is rotated": {func(m *peopleMount) { m.op.Rotate() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newPeopleMount(t)
			back := m.sentBack(nil)
			c.change(m)
			resp, err := m.callback(back)
			if c.fault == "" {
				require.NoError(t, err)
				require.NotNil(t, resp.Auth)
				return
			}
			m.refused(resp, err, c.fault)
		})
	}
}

// With two issuers, the one could have the other's codes brought to it.
func TestTwoIssuersAreNotMixedUp(t *testing.T) {
	m := newPeopleMount(t)
	back := m.sentBack(nil)
	back["iss"] = "https://honest.example.com"
	resp, err := m.callback(back)
	m.refused(resp, err, "iss is not the issuer that the login began with")
	require.Zero(t, m.op.Asked, "it did not get the code")
	back["iss"] = m.op.URL()
	resp, err = m.callback(back)
	require.NoError(t, err)
	require.NotNil(t, resp.Auth)

	m.op.Metadata = map[string]any{"authorization_response_iss_parameter_supported": true}
	m.write("config", m.op.Config(nil))
	m.role("direct", map[string]any{"callback_mode": "direct", "allowed_redirect_uris": directRedirect})
	for iss, status := range map[string]int{"": http.StatusBadRequest, "https://honest.example.com": http.StatusBadRequest, m.op.URL(): http.StatusOK} {
		_, back := m.beginDirect()
		back["iss"] = iss
		resp, err = m.callback(back)
		resp, err = m.request(logical.UpdateOperation, "oidc/callback", m.confirm(m.page(resp, err, http.StatusOK)))
		m.page(resp, err, status)
	}
}

func TestABrowserIsSentBackWhereTheRoleAllowsAlone(t *testing.T) {
	m := newPeopleMount(t)
	m.role("dev", map[string]any{"allowed_redirect_uris": []string{
		"http://localhost:8250/oidc/callback", "http://127.0.0.1/cb", "http://[::1]:1/cb?x=1", "https://vault.example.com/ui/cb", "com.example.app:/cb",
	}})
	for uri, allowed := range map[string]bool{
		"http://localhost:8250/oidc/callback":          true,
		"http://localhost:1/oidc/callback":             true, // RFC 8252 section 7.3
		"http://localhost/oidc/callback":               true,
		"http://127.0.0.1:65535/cb":                    true,
		"http://[::1]:9/cb?x=1":                        true,
		"https://vault.example.com/ui/cb":              true,
		"com.example.app:/cb":                          true,
		"":                                             false,
		"https://localhost:8250/oidc/callback":         false,
		"http://127.0.0.1:8250/oidc/callback":          false,
		"http://127.0.0.2/cb":                          false,
		"http://[::1]:9/cb":                            false,
		"http://[::1]:9/cb?x=2":                        false,
		"http://localhost:8250/oidc/callback/":         false,
		"http://localhost:8250/oidc/callback?x":        false,
		"http://localhost:8250/oidc/callback#x":        false,
		"http://localhost:8250/oidc/../oidc/callback":  false,
		"http://LOCALHOST:8250/oidc/callback":          false,
		"http://a@localhost:8250/oidc/callback":        false,
		"http://localhost:8250@evil.com/oidc/callback": false,
		"http://localhost.evil.com/oidc/callback":      false,
		"http://localhost:80\\@evil.com/oidc/callback": false,
		"http://localhost:evil/oidc/callback":          false,
		"https://vault.example.com:443/ui/cb":          false,
		"https://vault.example.com:8200/ui/cb":         false,
		"https://VAULT.example.com/ui/cb":              false,
		"https://vault.example.com/ui/cb?x=1":          false,
		"https://vault.example.com.evil.com/ui/cb":     false,
		"//vault.example.com/ui/cb":                    false,
		"javascript:alert(1)":                          false,
		"http://localhost:8250/oidc/callback\r\nX: y":  false,
	} {
		resp, err := m.begin(map[string]any{"redirect_uri": uri})
		require.NoError(t, err)
		require.Equal(t, !allowed, resp.IsError(), "%q: %v", uri, resp)
		if allowed {
			// Wherever that is, the browser goes to the issuer first.
			require.True(t, strings.HasPrefix(resp.Data["auth_url"].(string), m.op.URL()+"/authorize?"))
			require.NotContains(t, resp.Data, "redirect")
		}
	}
}

// The namespace goes into the state, where the redirect URI names one.
func TestANamespaceIsCarriedInTheState(t *testing.T) {
	m := newPeopleMount(t)
	resp, err := m.begin(map[string]any{"redirect_uri": peopleRedirect + "?namespace=team%2Fa"})
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	address, err := url.Parse(resp.Data["auth_url"].(string))
	require.NoError(t, err)
	require.Equal(t, peopleRedirect, address.Query().Get("redirect_uri"))
	require.True(t, strings.HasSuffix(address.Query().Get("state"), ",ns=team/a"))

	m.write("config", map[string]any{"namespace_in_state": false})
	resp, err = m.begin(map[string]any{"redirect_uri": peopleRedirect + "?namespace=team%2Fa"})
	m.refused(resp, err, "redirect_uri is none of")
}

// idTokenFaults are wrong ID tokens, and what is said of them.
var idTokenFaults = map[string]struct {
	change func(op *optest.Provider)
	fault  string
}{
	"another nonce":        {func(op *optest.Provider) { op.Claims = map[string]any{"nonce": "n_another"} }, "nonce"},
	"no nonce":             {func(op *optest.Provider) { op.Claims = map[string]any{"nonce": nil} }, "nonce"},
	"another azp":          {func(op *optest.Provider) { op.Claims = map[string]any{"azp": "somebody"} }, "azp"},
	"an empty azp":         {func(op *optest.Provider) { op.Claims = map[string]any{"azp": ""} }, "azp"},
	"another aud":          {func(op *optest.Provider) { op.Claims = map[string]any{"aud": "somebody"} }, "a"},
	"no aud":               {func(op *optest.Provider) { op.Claims = map[string]any{"aud": nil} }, "aud"},
	"two auds without azp": {func(op *optest.Provider) { op.Claims = map[string]any{"aud": []string{optest.ClientID, "somebody"}} }, "azp"},
	"two auds, not the mount": {func(op *optest.Provider) {
		op.Claims = map[string]any{"aud": []string{"a", "b"}, "azp": optest.ClientID}
	}, "aud"},
	"another at_hash":   {func(op *optest.Provider) { op.AtHash = "AAAAAAAAAAAAAAAAAAAAAA" }, "at_hash"},
	"another c_hash":    {func(op *optest.Provider) { op.Claims = map[string]any{"c_hash": "AAAAAAAAAAAAAAAAAAAAAA"} }, "c_hash"},
	"another iss":       {func(op *optest.Provider) { op.Claims = map[string]any{"iss": "https://evil.example.com"} }, "iss"},
	"no sub":            {func(op *optest.Provider) { op.Claims = map[string]any{"sub": nil} }, "sub"},
	"expired":           {func(op *optest.Provider) { op.Claims = map[string]any{"exp": time.Now().Unix() - 600} }, "expired"},
	"of the future":     {func(op *optest.Provider) { op.Claims = map[string]any{"iat": time.Now().Unix() + 600} }, "claim is"},
	"a lookalike claim": {func(op *optest.Provider) { op.Claims = map[string]any{"AUD": "x"} }, "aud"},
	"a key of its own": {func(op *optest.Provider) {
		op.Claims = map[string]any{"sub": "eve"}
		op.Algorithm = jose.ES256
		op.ForeignKey = true
	}, "signature"},
}

func TestAWrongIDTokenLogsNobodyIn(t *testing.T) {
	for name, c := range idTokenFaults {
		t.Run(name, func(t *testing.T) {
			m := newPeopleMount(t)
			c.change(m.op)
			resp, err := m.callback(m.sentBack(nil))
			m.refused(resp, err, c.fault)
		})
	}
	m := newPeopleMount(t)
	m.role("dev", map[string]any{"max_age": 60})
	m.op.Claims = map[string]any{"auth_time": nil}
	resp, err := m.callback(m.sentBack(nil))
	m.refused(resp, err, "auth_time")
	m.op.Claims = map[string]any{"auth_time": time.Now().Unix() - 600}
	resp, err = m.callback(m.sentBack(nil))
	m.refused(resp, err, "max_age")
}

func TestAWrongIDTokenOfAFormLogsNobodyIn(t *testing.T) {
	for name, c := range idTokenFaults {
		if strings.HasSuffix(name, "_hash") {
			continue // there is nothing that they could be of
		}
		t.Run(name, func(t *testing.T) {
			m := newPeopleMount(t)
			m.write("config", map[string]any{"oidc_response_mode": "form_post", "oidc_response_types": "id_token"})
			c.change(m.op)
			form := m.sentBack(nil)
			resp, err := m.request(logical.UpdateOperation, "oidc/callback", form)
			require.Contains(t, m.page(resp, err, http.StatusBadRequest), c.fault)
			resp, err = m.callback(map[string]any{"state": form["state"], "client_nonce": form["client_nonce"], "code": "no_code"})
			m.refused(resp, err, c.fault)
		})
	}
}

func TestAWrongIDTokenOfADeviceLogsNobodyIn(t *testing.T) {
	for name, c := range idTokenFaults {
		if name == "no nonce" || name == "another c_hash" {
			continue // as it should be; and there is no code
		}
		t.Run(name, func(t *testing.T) {
			m := newPeopleMount(t)
			m.role("tv", map[string]any{"callback_mode": "device", "allowed_redirect_uris": ""})
			c.change(m.op)
			resp, err := m.begin(map[string]any{"role": "tv"})
			require.NoError(t, err)
			m.op.TypeCode(true)
			resp, err = m.poll(resp.Data["state"])
			m.refused(resp, err, c.fault)
		})
	}
}

// What an issuer or a person is asked for is not to be read in a log, nor is what they
// answer with, at any level and whatever goes wrong.
func TestNoSecretOfALoginIsLoggedOrRepeated(t *testing.T) {
	log := &syncBuffer{}
	m := newPeopleMountLogging(t, hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: log}))
	m.op.Userinfo = map[string]any{"_claim_sources": map[string]any{"a": map[string]any{"access_token": m.op.Secret("distributed")}}, "copied": m.op.IDToken(url.Values{}, "", "")}
	m.role("dev", map[string]any{"verbose_oidc_logging": true})
	m.role("direct", map[string]any{"callback_mode": "direct", "allowed_redirect_uris": directRedirect, "verbose_oidc_logging": true})
	m.role("tv", map[string]any{"callback_mode": "device", "allowed_redirect_uris": "", "verbose_oidc_logging": true})
	secrets := []string{optest.ClientSecret, url.QueryEscape(optest.ClientSecret), "nonce-of-the-cli"}
	answers := &bytes.Buffer{}
	try := func(back map[string]any) {
		resp, err := m.callback(back)
		secrets = append(secrets, back["state"].(string))
		if resp != nil && resp.Auth == nil {
			fmt.Fprintln(answers, resp.Data, resp.Error(), err)
		}
		if resp != nil && resp.Auth != nil {
			creds := resp.Data["creds"].(string)
			secrets = append(secrets, creds, regexp.MustCompile(`SU[A-Z0-9]{40,}`).FindString(creds))
		}
	}
	try(m.sentBack(nil))
	require.Contains(t, log.String(), "ann@example.com", "verbose_oidc_logging is on")

	// An issuer that repeats what it was sent.
	echo := func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":"invalid_grant","error_description":%q}`, fmt.Sprint(r.PostForm, r.Header))
		return true
	}
	for _, answer := range []func(http.ResponseWriter, *http.Request) bool{
		echo,
		func(w http.ResponseWriter, r *http.Request) bool { fmt.Fprint(w, "not JSON ", r.PostForm); return true },
		func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "https://evil.example.com/?"+r.PostForm.Encode(), http.StatusTemporaryRedirect)
			return true
		},
		func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprintf(w, `{"access_token":"x","id_token":"%s"}`, r.PostForm.Get("code"))
			return true
		},
	} {
		m.op.TokenAnswer = answer
		back := m.sentBack(nil)
		try(back)
		resp, err := m.begin(map[string]any{"role": "tv"})
		if err == nil && !resp.IsError() {
			secrets = append(secrets, resp.Data["state"].(string))
			resp, err = m.poll(resp.Data["state"])
			fmt.Fprintln(answers, resp, err)
		}
		m.op.TokenAnswer = nil
	}
	m.op.AtHash = "AAAAAAAAAAAAAAAAAAAAAA"
	try(m.sentBack(nil))
	m.op.Stop()
	back := m.sentBack(nil)
	try(back)

	for _, secret := range append(secrets, m.op.Tokens...) {
		if secret == "" {
			continue
		}
		require.NotContains(t, log.String(), secret)
		require.NotContains(t, answers.String(), secret)
	}
	require.NotRegexp(t, regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.`), log.String())
}

// syncBuffer is a buffer that goroutines may write to at one time.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func TestTheClientsSecretIsNeitherShownNorSentElsewhere(t *testing.T) {
	m := newPeopleMount(t)
	resp, err := m.request(logical.ReadOperation, "config", nil)
	require.NoError(t, err)
	require.Equal(t, true, resp.Data["oidc_client_secret_set"])
	require.NotContains(t, fmt.Sprint(resp.Data), optest.ClientSecret)
	require.Contains(t, m.SpecialPaths().SealWrapStorage, issuerPrefix)

	evil := optest.Start(t)
	foreignCA := foreignCertificate(t)
	for name, fields := range map[string]map[string]any{
		"another issuer": {"oidc_discovery_url": evil.URL(), "oidc_discovery_ca_pem": evil.CA()},
		"another client": {"oidc_discovery_url": evil.URL(), "oidc_discovery_ca_pem": evil.CA(), "oidc_client_id": "mine"},
		"another CA":     {"oidc_discovery_ca_pem": foreignCA, "skip_jwks_validation": true},
		"another name":   {"override_allowed_server_names": "evil.example.com", "skip_jwks_validation": true},
	} {
		resp, err := m.request(logical.UpdateOperation, "config", fields)
		m.refused(resp, err, "oidc_client_secret is missing")
		require.NotContains(t, resp.Error().Error(), optest.ClientSecret, name)
	}
	resp, err = m.callback(m.sentBack(nil))
	require.NoError(t, err)
	require.NotNil(t, resp.Auth, "none of that changed anything")
	m.write("config", evil.Config(nil))
}

// foreignCertificate is one that vouches for no provider.
func foreignCertificate(t *testing.T) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Whoever begins logins by the thousand takes no memory and nobody's place.
func TestAFloodOfLoginsPushesNobodyOut(t *testing.T) {
	m := newPeopleMount(t)
	m.role("direct", map[string]any{"callback_mode": "direct", "allowed_redirect_uris": directRedirect})
	var waiting []map[string]any
	for range 20 {
		waiting = append(waiting, m.sentBack(nil))
	}
	begun, direct := m.beginDirect()
	resp, err := m.callback(direct)
	resp, err = m.request(logical.UpdateOperation, "oidc/callback", m.confirm(m.page(resp, err, http.StatusOK)))
	m.page(resp, err, http.StatusOK)

	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	const flood = 4000
	before, start := heap(), time.Now()
	last := ""
	for i := range flood {
		role, redirect := "dev", peopleRedirect
		if i%2 == 0 {
			role, redirect = "direct", directRedirect
		}
		resp, err := m.begin(map[string]any{"role": role, "redirect_uri": redirect})
		require.NoError(t, err)
		require.NoError(t, resp.Error())
		if state, ok := resp.Data["state"].(string); ok {
			last = state
		}
	}
	took, grown := time.Since(start), int64(heap())-int64(before)
	t.Logf("%d logins begun in %s, %s each; the heap has grown by %d bytes", flood, took, took/flood, grown)
	require.Less(t, grown, int64(1<<20))

	// Those who are under way end as ever.
	for _, back := range waiting {
		resp, err := m.callback(back)
		require.NoError(t, err)
		require.NotNil(t, resp.Auth)
	}
	resp, err = m.poll(begun["state"])
	require.NoError(t, err)
	require.NotNil(t, resp.Auth)
	resp, err = m.poll(last)
	m.refused(resp, err, "authorization_pending")

	// Nor do those who bring made-up codes: their states are forgotten, not others'.
	racing := m.sentBack(nil)
	for range 50 {
		back := m.sentBack(nil)
		back["code"] = "made-up"
		resp, err := m.callback(back)
		m.refused(resp, err, "invalid_grant")
	}
	resp, err = m.callback(racing)
	require.NoError(t, err)
	require.NotNil(t, resp.Auth)
	require.LessOrEqual(t, m.op.Keys, 3, "its keys are known")
}
