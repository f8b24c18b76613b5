package claims

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// faults are what an issuer's server can do instead of answering.
func faults(t *testing.T) map[string]http.HandlerFunc {
	write := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) }
	}
	private := must(json.Marshal(map[string]any{"keys": []any{map[string]any{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}}}))
	return map[string]http.HandlerFunc{
		"an error":                 func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"a hung-up connection":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"nothing":                  write(""),
		"garbage":                  write("<html>sorry</html>"),
		"another JSON":             write(`{"message":"sorry"}`),
		"a list":                   write(`[]`),
		"no keys":                  write(`{"keys":[]}`),
		"null keys":                write(`{"keys":null}`),
		"only a symmetric key":     write(string(private)),
		"only keys too weak":       write(string(jwks(signer{private: smallRSA(), kid: "x"}))),
		"thousands of keys":        write(`{"keys":[` + strings.Repeat(`{},`, 5000) + `{}]}`),
		"gigabytes":                endless,
		"gigabytes of headers":     endlessHeader,
		"a redirect in a circle":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
		"a redirect away from TLS": http.RedirectHandler(plainServer(t), http.StatusFound).ServeHTTP,
		"a redirect to nowhere":    http.RedirectHandler("https://127.0.0.1:1/", http.StatusFound).ServeHTTP,
		"a redirect to a file":     http.RedirectHandler("file:///etc/passwd", http.StatusFound).ServeHTTP,
	}
}

func endlessHeader(w http.ResponseWriter, _ *http.Request) {
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer connection.Close()
	fmt.Fprint(connection, "HTTP/1.1 200 OK\r\nX: ")
	chunk := []byte(strings.Repeat("x", 64<<10))
	for range 1 << 14 {
		if _, err := connection.Write(chunk); err != nil {
			return
		}
	}
}

// plainServer serves the keys that a redirect away from TLS would bring in.
func plainServer(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(jwks(newSigner("mallory")))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestAFaultyIssuerDoesNotStopLoginsWithItsLastGoodKeys(t *testing.T) {
	known, unknown := newSigner("known"), newSigner("unknown")
	for name, fault := range faults(t) {
		for source, config := range map[string]func(*issuer) JWTConfig{"discovery": (*issuer).discovery, "JWKS": (*issuer).jwks} {
			t.Run(name+" with "+source, func(t *testing.T) {
				server := newIssuer(t, known)
				j := impatient(newJWT(t, config(server)))
				require.NoError(t, verify(j, known))

				server.fail(fault)
				err := verify(j, unknown)
				require.ErrorIs(t, err, ErrUnavailable)
				require.EqualError(t, err, `issuer "gitlab" is unavailable: its keys cannot be had now`)
				require.NoError(t, verify(j, known))
				require.Error(t, j.Check(context.Background()))
				require.NoError(t, verify(j, known))

				server.fail(nil)
				server.rotate(known, unknown)
				require.NoError(t, verify(j, unknown), "the issuer is back")
			})
		}
	}
}

func TestASlowIssuerDelaysOnlyThoseWhoNeedIt(t *testing.T) {
	known, unknown := newSigner("known"), newSigner("unknown")
	server := newIssuer(t, known)
	j := impatient(newJWT(t, server.jwks()))
	require.NoError(t, verify(j, known))

	asked := make(chan struct{})
	release := make(chan struct{})
	server.fail(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		w.Write(jwks(known, unknown))
	})
	waiting := make(chan error, 1)
	go func() { waiting <- verify(j, unknown) }()
	<-asked
	require.NoError(t, verify(j, known))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := j.Verify(ctx, unknown.mint(payload(nil)), now, forVault)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, err, context.Canceled)
	close(release)
	require.NoError(t, <-waiting)
}

func TestAFetchGivesUpAfterItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newPipeIssuer(newSigner("1"))
		j := source.jwt(t)
		j.remote.list[0].client.Transport = stuck{}
		start := time.Now()
		err := verify(j, newSigner("1"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, fetchTimeout, time.Since(start))
	})
}

// stuck is a server that never answers.
type stuck struct{}

func (stuck) RoundTrip(request *http.Request) (*http.Response, error) {
	<-request.Context().Done()
	return nil, request.Context().Err()
}

func TestAFirstFetchThatFailsIsTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := newSigner("1")
		source := newPipeIssuer(first)
		j := source.jwt(t)
		source.setDown(true)
		require.ErrorIs(t, verify(j, first), ErrUnavailable)
		source.setDown(false)
		start := time.Now()
		require.NoError(t, verify(j, first))
		require.Equal(t, minInterval, time.Since(start))
	})
}

func TestLoginsGoOnWhileAnIssuerRotatesItsKeys(t *testing.T) {
	first := newSigner("0")
	published := []signer{first}
	server := newIssuer(t, first)
	j := impatient(newJWT(t, server.discovery()))
	var current atomic.Pointer[signer]
	current.Store(&first)

	stop := make(chan struct{})
	var logins atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := verify(j, *current.Load()); err != nil {
					t.Errorf("login: %v", err)
					return
				}
				logins.Add(1)
			}
		})
	}
	for i := range 20 {
		// As issuers do it: the new key is published before it is used, and the
		// old ones stay until no token of theirs is good.
		next := newSigner(fmt.Sprint(i + 1))
		published = append(published, next)
		server.rotate(slices.Clone(published)...)
		current.Store(&next)
		done := logins.Load() + 20
		require.Eventually(t, func() bool { return logins.Load() >= done || t.Failed() }, 10*time.Second, time.Millisecond)
	}
	close(stop)
	group.Wait()
}

func TestOneOfSeveralEndpointsThatIsDownStopsNoneOfTheOthers(t *testing.T) {
	up, down := newSigner("up"), newSigner("down")
	first, second := newIssuer(t, down), newIssuer(t, up)
	cfg := JWTConfig{Name: "pairs", JWKSPairs: []JWKSPair{
		{JWKSURL: first.URL + "/jwks", JWKSCAPEM: first.ca()},
		{JWKSURL: second.URL + "/jwks", JWKSCAPEM: second.ca()},
	}}
	release := make(chan struct{})
	defer close(release)
	first.fail(func(http.ResponseWriter, *http.Request) { <-release })
	j := impatient(newJWT(t, cfg))
	require.NoError(t, verify(j, up), "it does not wait for the one that is slow")

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := j.Verify(ctx, down.mint(payload(nil)), now, forVault)
	require.ErrorIs(t, err, ErrUnavailable)
}

// Whatever a document says, the keys are fetched from a URL that was checked, of
// the issuer that is configured.
func FuzzDiscovery(f *testing.F) {
	const issuer = "https://issuer.example.com"
	f.Add([]byte(`{"issuer":"https://issuer.example.com","jwks_uri":"https://keys.example.com/jwks?x=1"}`))
	f.Add([]byte(`{"issuer":"https://issuer.example.com","jwks_uri":"http://keys.example.com"}`))
	f.Add([]byte(`{"issuer":"https://issuer.example.com/","jwks_uri":""}`))
	f.Add([]byte(`{"ISSUER":"https://issuer.example.com","jwks_uri":"https://u:p@keys.example.com"}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		fetcher, err := newFetcher(endpoint{field: "oidc_discovery_url", url: issuer, discovery: true})
		require.NoError(t, err)
		fetcher.client.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(document))}, nil
		})
		found, _, err := fetcher.discover(context.Background())
		if err != nil {
			return
		}
		u, err := url.Parse(found)
		require.NoError(t, err)
		require.Equal(t, "https", u.Scheme)
		require.NotEmpty(t, u.Hostname())
		require.Nil(t, u.User)
	})
}
