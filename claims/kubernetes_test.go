package claims

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/klog/v2"
)

func newKubernetes(t testing.TB, cfg KubernetesConfig) *Kubernetes {
	t.Helper()
	k, err := NewKubernetes(cfg)
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}

func TestKubernetesVouchesForWhatTheReviewConfirmed(t *testing.T) {
	c := newCluster(t)
	k := newKubernetes(t, c.config())

	identity, err := k.Verify(context.Background(), rs256().mint(projected(nil)), now, forVault)
	require.NoError(t, err)
	profile := identity.Profile()
	require.Equal(t, "prod", profile.Issuer)
	require.Equal(t, KindKubernetes, profile.Kind)
	require.Equal(t, &ServiceAccount{
		Namespace: "shop", Name: "api", UID: "uid-1",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:shop"},
	}, profile.ServiceAccount)
	require.Equal(t, "api-5c9f", profile.Claims["kubernetes.io"].(map[string]any)["pod"].(map[string]any)["name"])
	require.Equal(t, json.Number("1704067500"), profile.Claims["exp"])

	c.change(func(c *cluster) { c.answer.Audiences = nil })
	identity, err = k.Verify(context.Background(), rs256().mint(legacy()), now, Expected{})
	require.NoError(t, err, "a token in a Secret has neither time claims nor an audience")
	require.Equal(t, "api-token-x7q", identity.Profile().ServiceAccount.SecretName)
}

func TestKubernetesAsksForTheAudiencesThatCount(t *testing.T) {
	c := newCluster(t)
	k := newKubernetes(t, c.config())
	token := rs256().mint(projected(map[string]any{"aud": []string{"vault", "other"}}))

	_, err := k.Verify(context.Background(), token, now, forVault)
	require.NoError(t, err)
	_, err = k.Verify(context.Background(), token+"\n", now, Expected{})
	require.NoError(t, err)
	require.Equal(t, []authenticationv1.TokenReviewSpec{
		{Token: token, Audiences: []string{"vault"}},
		{Token: token, Audiences: []string{"vault", "other"}},
	}, c.reviews)
}

func TestKubernetesRefuses(t *testing.T) {
	cases := map[string]struct {
		config  func(*KubernetesConfig)
		cluster func(*cluster)
		token   string // "": a good one
		want    Expected
		fault   string
		asked   bool // the API server was asked
	}{
		"a token that the API server does not authenticate": {
			cluster: func(c *cluster) { c.answer.Authenticated = false }, want: forVault, asked: true,
			fault: "token is not valid for the Kubernetes API server: its service account, pod or secret may be deleted",
		},
		"a token whose review has an error": {
			cluster: func(c *cluster) { c.answer.Error = "invalid bearer token" }, want: forVault, asked: true,
			fault: "token is not valid for the Kubernetes API server: its service account, pod or secret may be deleted",
		},
		"an audience that the API server did not confirm": {
			cluster: func(c *cluster) { c.answer.Audiences = []string{"other"} }, want: forVault, asked: true,
			fault: "aud claim has no audience that the Kubernetes API server confirmed",
		},
		"an API server that ignores audiences": {
			cluster: func(c *cluster) { c.answer.Audiences = nil }, want: forVault, asked: true,
			fault: "aud claim has no audience that the Kubernetes API server confirmed",
		},
		"a user that is no service account": {
			cluster: func(c *cluster) { c.answer.User.Username = "system:node:node-1" }, want: forVault, asked: true,
			fault: "token is not of a Kubernetes service account, as its API server says",
		},
		"a user name with too many parts": {
			cluster: func(c *cluster) { c.answer.User.Username = "system:serviceaccount:shop:api:x" }, want: forVault, asked: true,
			fault: "token is not of a Kubernetes service account, as its API server says",
		},
		"a service account that was deleted and made anew": {
			cluster: func(c *cluster) { c.answer.User.UID = "uid-2" }, want: forVault, asked: true,
			fault: "token claims another service account than its Kubernetes API server says",
		},
		"a review of another service account": {
			cluster: func(c *cluster) { c.answer.User.Username = "system:serviceaccount:shop:web" }, want: forVault, asked: true,
			fault: "token claims another service account than its Kubernetes API server says",
		},
		"a review of another namespace": {
			cluster: func(c *cluster) { c.answer.User.Username = "system:serviceaccount:bank:api" }, want: forVault, asked: true,
			fault: "token claims another service account than its Kubernetes API server says",
		},
		"an audience that the role does not want": {
			want:  Expected{Audiences: []string{"other"}},
			fault: "aud claim has none of the role's bound audiences",
		},
		"an expired token": {
			token: rs256().mint(projected(map[string]any{"exp": now.Unix() - 61})), want: forVault,
			fault: "token is expired: exp claim is 2023-12-31T23:58:59Z",
		},
		"a token that is no service account's": {
			token: rs256().mint(payload(nil)), want: forVault,
			fault: "token is not of a Kubernetes service account: a claim with its namespace, name or uid is missing",
		},
		"an EdDSA token, which no API server issues": {
			token: eddsa().mint(projected(nil)), want: forVault,
			fault: "token header alg is EdDSA, which is not used for service accounts",
		},
		"another iss than the default one": {
			config: func(cfg *KubernetesConfig) { cfg.DisableISSValidation = false }, want: forVault,
			fault: "iss claim is not a bound issuer",
		},
		"another iss than the configured one": {
			config: func(cfg *KubernetesConfig) {
				cfg.DisableISSValidation = false
				cfg.Issuer = "https://other.example.com"
			}, want: forVault,
			fault: "iss claim is not a bound issuer",
		},
		"a token without a signature": {
			token: strings.TrimRightFunc(rs256().mint(projected(nil)), func(r rune) bool { return r != '.' }), want: forVault,
			fault: "token has no signature",
		},
		"a signature by none of pem_keys": {
			config: func(cfg *KubernetesConfig) { cfg.PEMKeys = []string{es256().pem()} }, want: forVault,
			fault: "token signature is not by a key of the issuer",
		},
		"the token's own service account as reviewer when it may not review": {
			config: func(cfg *KubernetesConfig) { cfg.TokenReviewerJWT = "" }, want: forVault, asked: true,
			fault: "service account may not request a token review, and the issuer has no token_reviewer_jwt",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := newCluster(t)
			if c.cluster != nil {
				c.cluster(server)
			}
			cfg := server.config()
			if c.config != nil {
				c.config(&cfg)
			}
			if c.token == "" {
				c.token = rs256().mint(projected(nil))
			}
			_, err := newKubernetes(t, cfg).Verify(context.Background(), c.token, now, c.want)
			require.EqualError(t, err, c.fault)
			require.NotErrorIs(t, err, ErrUnavailable)
			require.Equal(t, c.asked, len(server.bearers) > 0)
		})
	}
}

// Anyone can make up such tokens, as many as they like.
func TestTokensOfAnAccountThatTheRoleDoesNotTakeAreNotReviewed(t *testing.T) {
	c := newCluster(t)
	k := newKubernetes(t, c.config())
	want := forVault
	want.ServiceAccount = func(namespace, name string) error {
		if namespace != "shop" || name != "api" {
			return errors.New("the service account is none of the role's")
		}
		return nil
	}
	for _, account := range []string{"admin", "api2"} {
		forged := newSigner("").token(map[string]any{"alg": "RS256"}, projected(map[string]any{
			"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": account, "uid": "uid-1"}},
		}))
		_, err := k.Verify(context.Background(), forged, now, want)
		require.EqualError(t, err, "the service account is none of the role's")
	}
	require.Empty(t, c.bearers, "nothing was asked")
	_, err := k.Verify(context.Background(), rs256().mint(projected(nil)), now, want)
	require.NoError(t, err)
	require.Len(t, c.reviews, 1)
}

func TestKubernetesAcceptsTheConfiguredIssuerAndKeys(t *testing.T) {
	c := newCluster(t)
	cfg := c.config()
	cfg.DisableISSValidation = false
	cfg.Issuer = "https://kubernetes.default.svc.cluster.local"
	cfg.PEMKeys = []string{es256().pem(), rs256().pem()}
	_, err := newKubernetes(t, cfg).Verify(context.Background(), rs256().mint(projected(nil)), now, forVault)
	require.NoError(t, err)
}

func TestKubernetesAuthenticatesWithTheReviewerTokenThatIsThere(t *testing.T) {
	local := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(local, []byte("local-token\n"), 0o600))
	token := rs256().mint(projected(nil))

	cases := map[string]struct {
		reviewer string
		file     string
		want     string
	}{
		"token_reviewer_jwt before the pod's own": {reviewerToken, local, reviewerToken},
		"the pod's own":                          {"", local, "local-token"},
		"the client's, outside of a pod":         {"", filepath.Join(t.TempDir(), "token"), token},
		"the client's with disable_local_ca_jwt": {"", "", token},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := newCluster(t)
			server.allowed = append(server.allowed, "local-token", token)
			cfg := server.config()
			cfg.TokenReviewerJWT = c.reviewer
			cfg.DisableLocalCAJWT = c.file == ""
			k := newKubernetes(t, cfg)
			if c.file != "" {
				k.api.localToken.path = c.file
			}
			_, err := k.Verify(context.Background(), token, now, forVault)
			require.NoError(t, err)
			require.Equal(t, []string{c.want}, server.bearers)
		})
	}
}

func TestKubernetesFollowsTheRotationOfThePodsTokenAndCA(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	c := newCluster(t)
	c.allowed = []string{"first", "second"}
	cfg := c.config()
	cfg.TokenReviewerJWT, cfg.CACert, cfg.DisableLocalCAJWT = "", "", false
	k := newKubernetes(t, cfg)
	k.api.localToken.path = write("token", "first")
	k.api.localCA.path = filepath.Join(dir, "ca.crt")
	verify := func() error {
		_, err := k.Verify(context.Background(), rs256().mint(projected(nil)), now, forVault)
		return err
	}
	// A minute passes.
	expire := func() { k.api.localToken.next, k.api.localCA.next = time.Time{}, time.Time{} }

	require.ErrorIs(t, verify(), ErrUnavailable, "no CA at all")
	write("ca.crt", rootlessCA(t))
	require.ErrorIs(t, verify(), ErrUnavailable, "the CA of another server")
	write("ca.crt", certificatePEM(c.Certificate()))
	require.ErrorIs(t, verify(), ErrUnavailable, "the file is not read for every login")
	expire()
	require.NoError(t, verify())
	connected := k.api.current
	write("token", "second")
	require.NoError(t, verify())
	expire()
	require.NoError(t, verify())
	require.Equal(t, []string{"first", "first", "second"}, c.bearers)
	require.Same(t, connected, k.api.current, "connections are reused while the CA stays")
}

// rootlessCA returns a certificate that no server of this test has.
func rootlessCA(t *testing.T) string {
	t.Helper()
	return certificatePEM(selfSigned(t))
}

func TestKubernetesReadsAnnotationsAndLabelsWhenAsked(t *testing.T) {
	c := newCluster(t)
	c.labels = map[string]string{"env": "prod"}
	c.account.Annotations = map[string]string{
		"vault.hashicorp.com/alias-metadata-team": "orders",
		"example.com/other":                       "x",
	}
	cfg := c.config()
	cfg.UseAnnotationsAsAliasMetadata = true
	k := newKubernetes(t, cfg)
	want := forVault
	want.NamespaceLabels = func(namespace string) bool { return namespace == "shop" }

	identity, err := k.Verify(context.Background(), rs256().mint(projected(nil)), now, want)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"team": "orders"}, identity.Profile().ServiceAccount.Annotations)
	require.Equal(t, map[string]string{"env": "prod"}, identity.Profile().ServiceAccount.NamespaceLabels)

	c.change(func(c *cluster) { c.labels = map[string]string{"env": "test"} })
	identity, err = k.Verify(context.Background(), rs256().mint(projected(nil)), now, want)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"env": "test"}, identity.Profile().ServiceAccount.NamespaceLabels, "labels are not cached")

	want.NamespaceLabels = func(namespace string) bool { return namespace != "shop" }
	asked := len(c.bearers)
	identity, err = k.Verify(context.Background(), rs256().mint(projected(nil)), now, want)
	require.NoError(t, err)
	require.Nil(t, identity.Profile().ServiceAccount.NamespaceLabels)
	require.Equal(t, asked+2, len(c.bearers), "a review and the service account")
}

func TestKubernetesNeedsAReviewerForNamespaceLabels(t *testing.T) {
	c := newCluster(t)
	token := rs256().mint(projected(nil))
	c.allowed = []string{token}
	cfg := c.config()
	cfg.TokenReviewerJWT = ""
	want := forVault
	k := newKubernetes(t, cfg)
	for needed, fault := range map[bool]string{true: "token_reviewer_jwt", false: ""} {
		want.NamespaceLabels = func(string) bool { return needed }
		_, err := k.Verify(context.Background(), token, now, want)
		if fault == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, fault)
		require.NotErrorIs(t, err, ErrUnavailable)
	}
}

func TestKubernetesTellsAnOutageFromARefusal(t *testing.T) {
	serve := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	cases := map[string]struct {
		config func(*KubernetesConfig)
		fault  http.HandlerFunc
	}{
		"a server error":                     {fault: serve(http.StatusInternalServerError)},
		"an overload":                        {fault: serve(http.StatusTooManyRequests)},
		"a redirect, which is not followed":  {fault: http.RedirectHandler("https://evil.example.com", http.StatusTemporaryRedirect).ServeHTTP},
		"garbage":                            {fault: func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }},
		"gigabytes":                          {fault: endless},
		"a reviewer that the server refuses": {config: func(cfg *KubernetesConfig) { cfg.TokenReviewerJWT = "expired-token" }},
		"a reviewer without the right":       {config: func(cfg *KubernetesConfig) { cfg.TokenReviewerJWT = powerlessToken }},
		"a server with another certificate":  {config: func(cfg *KubernetesConfig) { cfg.CACert = rootlessCA(t) }},
		"a server that is not there":         {config: func(cfg *KubernetesConfig) { cfg.Host = "https://127.0.0.1:1" }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := newCluster(t)
			server.fault = c.fault
			cfg := server.config()
			if c.config != nil {
				c.config(&cfg)
			}
			_, err := newKubernetes(t, cfg).Verify(context.Background(), rs256().mint(projected(nil)), now, forVault)
			require.ErrorIs(t, err, ErrUnavailable)
			require.EqualError(t, err, `issuer "prod" is unavailable: a token review cannot be had now`)
		})
	}
}

// endless answers until the client has enough.
func endless(w http.ResponseWriter, _ *http.Request) {
	chunk := []byte(strings.Repeat(" ", 64<<10))
	for range 1 << 14 { // 1 GiB
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// An API server that is overloaded says when to come again, up to minutes later.
// A login does not wait for that.
func TestKubernetesAnswersAtOnceWhenTheServerSaysToTryLater(t *testing.T) {
	token := rs256().mint(projected(nil))
	for _, path := range []string{"/apis/authentication.k8s.io/v1/tokenreviews", "/api/v1/namespaces/shop/serviceaccounts/api", "/api/v1/namespaces/shop"} {
		for name, fault := range map[string]http.HandlerFunc{
			"429": func(w http.ResponseWriter, _ *http.Request) { later(w, http.StatusTooManyRequests, "600") },
			"500": func(w http.ResponseWriter, _ *http.Request) { later(w, http.StatusInternalServerError, "1") },
			"503": func(w http.ResponseWriter, _ *http.Request) { later(w, http.StatusServiceUnavailable, "1") },
			"a connection that ends": func(http.ResponseWriter, *http.Request) {
				panic(http.ErrAbortHandler) // client-go takes it for a reason to read again
			},
		} {
			t.Run(path+" "+name, func(t *testing.T) {
				c := newCluster(t)
				c.faultyPath, c.fault = path, fault
				cfg := c.config()
				cfg.UseAnnotationsAsAliasMetadata = true
				want := forVault
				want.NamespaceLabels = func(string) bool { return true }
				k := newKubernetes(t, cfg)
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				_, err := k.Verify(ctx, token, now, want)
				require.ErrorIs(t, err, ErrUnavailable)
				require.NoError(t, ctx.Err())
				require.LessOrEqual(t, c.faults, 2, "net/http repeats a read on a connection that ended, at once")
				if name != "a connection that ends" {
					require.Equal(t, 1, c.faults)
				}
			})
		}
	}
}

func later(w http.ResponseWriter, code int, seconds string) {
	w.Header().Set("Retry-After", seconds)
	status(w, code, "")
}

// What client-go logs goes to the standard error output of the plugin's process.
func TestClientGoLogsNothing(t *testing.T) {
	var logged []string
	klog.SetLogger(funcr.New(func(prefix, args string) { logged = append(logged, prefix+args) }, funcr.Options{}))
	t.Cleanup(klog.ClearLogger)
	for name, fault := range map[string]http.HandlerFunc{
		"a warning": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Warning", `299 - "tokenreviews are deprecated"`)
			status(w, http.StatusBadGateway, "")
		},
		"an answer too large": endless,
		"an answer cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("{"))
		},
		"garbage":   func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"try later": func(w http.ResponseWriter, _ *http.Request) { later(w, http.StatusTooManyRequests, "1") },
	} {
		c := newCluster(t)
		c.fault = fault
		_, err := newKubernetes(t, c.config()).Verify(context.Background(), rs256().mint(projected(nil)), now, forVault)
		require.ErrorIs(t, err, ErrUnavailable, name)
		require.Empty(t, logged, name)
	}
}

func TestKubernetesGivesUpOnASlowServer(t *testing.T) {
	release := make(chan struct{})
	c := newCluster(t)
	c.fault = func(http.ResponseWriter, *http.Request) { <-release }
	defer close(release)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := newKubernetes(t, c.config()).Verify(ctx, rs256().mint(projected(nil)), now, forVault)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestKubernetesReusesConnections(t *testing.T) {
	c := newCluster(t)
	k := newKubernetes(t, c.config())
	connections := map[string]bool{}
	c.fault = func(w http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr] = true
		status(w, http.StatusInternalServerError, "")
	}
	for range 20 {
		_, err := k.Verify(context.Background(), rs256().mint(projected(nil)), now, forVault)
		require.ErrorIs(t, err, ErrUnavailable)
	}
	require.Len(t, connections, 1)
}

func TestTokensLeaveUnencryptedOnlyForAnExplicitHTTPURL(t *testing.T) {
	for host, scheme := range map[string]string{
		"k8s.example.com":          "https",
		"k8s.example.com:6443":     "https",
		"localhost:6443":           "https",
		"10.0.0.1:443":             "https",
		"https://k8s.example.com":  "https",
		"http://127.0.0.1:8001/k8": "http",
	} {
		t.Run(host, func(t *testing.T) {
			k := newKubernetes(t, KubernetesConfig{Host: host, DisableLocalCAJWT: true})
			var asked *url.URL
			c, err := k.api.connect()
			require.NoError(t, err)
			c.http.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				asked = r.URL
				return nil, errors.New("connection refused")
			})
			require.Error(t, k.Check(context.Background()))
			require.Equal(t, scheme, asked.Scheme)
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (f roundTrip) CloseIdleConnections() {}

func TestKubernetesCheckTellsWhatIsWrong(t *testing.T) {
	cases := map[string]struct {
		config func(*KubernetesConfig)
		fault  string
	}{
		"a good reviewer":            {func(*KubernetesConfig) {}, ""},
		"no reviewer":                {func(cfg *KubernetesConfig) { cfg.TokenReviewerJWT = "" }, ""},
		"a refused reviewer":         {func(cfg *KubernetesConfig) { cfg.TokenReviewerJWT = "expired-token" }, "token_reviewer_jwt is refused"},
		"a reviewer without a right": {func(cfg *KubernetesConfig) { cfg.TokenReviewerJWT = powerlessToken }, "token_reviewer_jwt may not create token reviews"},
		"a server that is not there": {func(cfg *KubernetesConfig) { cfg.Host = "https://127.0.0.1:1" }, "kubernetes_host: "},
		"a CA that is another's":     {func(cfg *KubernetesConfig) { cfg.CACert = rootlessCA(t) }, "kubernetes_host: "},
		"no CA, and not in a pod":    {func(cfg *KubernetesConfig) { cfg.CACert, cfg.DisableLocalCAJWT = "", false }, "kubernetes_ca_cert is not set"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := newCluster(t).config()
			c.config(&cfg)
			err := newKubernetes(t, cfg).Check(context.Background())
			if c.fault == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.fault)
		})
	}
}

func TestNewKubernetesNamesTheFaultyField(t *testing.T) {
	cases := map[string]struct {
		config KubernetesConfig
		fault  string
	}{
		"no host":           {KubernetesConfig{}, "kubernetes_host is missing"},
		"no host in a URL":  {KubernetesConfig{Host: "https://"}, "kubernetes_host is not"},
		"a password":        {KubernetesConfig{Host: "https://user:hunter2@k8s"}, "kubernetes_host is a URL with credentials in it"},
		"a path for a host": {KubernetesConfig{Host: "https://a b"}, "kubernetes_host is not"},
		"no certificate":    {KubernetesConfig{Host: "https://k8s", CACert: "x"}, "kubernetes_ca_cert has no PEM-encoded certificate"},
		"an Ed25519 key":    {KubernetesConfig{Host: "https://k8s", PEMKeys: []string{rs256().pem(), eddsa().pem()}}, "pem_keys: key 2 is of a kind that no token of a service account is signed with"},
		"a certificate":     {KubernetesConfig{Host: "https://k8s", PEMKeys: []string{certificatePEM(selfSigned(t))}}, "pem_keys: key 1 is of a kind that no token of a service account is signed with"},
		"no key":            {KubernetesConfig{Host: "https://k8s", PEMKeys: []string{rs256().pem(), "x"}}, "pem_keys: key 2 is not in PEM format"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := NewKubernetes(c.config)
			require.ErrorContains(t, err, c.fault)
		})
	}
}
