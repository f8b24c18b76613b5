package claims

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// unsigned returns a token that nobody signed, with the header and payload.
func unsigned(header, payload any) string {
	return encode(header) + "." + encode(payload) + "." + strings.Repeat("A", 86)
}

// A caller who can sign is told what is wrong with the token, also by an issuer
// whose keys, or whose new key, are yet to be fetched. One who cannot learns
// nothing, neither from the answer nor from the time that it takes.
func TestWhatIsWrongWithATokenIsToldToWhoCanSign(t *testing.T) {
	faults := map[string]struct {
		claims map[string]any
		fault  string
	}{
		"another audience": {map[string]any{"aud": "other"}, "aud claim has none of the role's bound audiences"},
		"another issuer":   {map[string]any{"iss": "other"}, "iss claim is not a bound issuer"},
		"an expired token": {map[string]any{"exp": 1}, "token is expired: exp claim is 1970-01-01T00:00:01Z"},
		"an ambiguous one": {map[string]any{"SUB": "x"}, `claim "SUB" can be taken for the registered claim sub`},
		"a good token":     {nil, ""},
	}
	for name, c := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second, mallory := newSigner("1"), newSigner("2"), newSigner("3")
				source := newPipeIssuer(first)
				source.delay = time.Second
				cfg := JWTConfig{Name: "gitlab", JWKSURL: "https://issuer.example.com/jwks", BoundIssuers: []string{"https://issuer.example.com"}}
				j := source.over(newJWT(t, cfg))
				verify := func(s signer) (string, time.Duration) {
					start := time.Now()
					claims := map[string]any{"iss": cfg.BoundIssuers[0], "aud": "vault", "exp": start.Unix()}
					maps.Copy(claims, c.claims)
					_, err := j.Verify(context.Background(), s.mint(claims), start, forVault)
					if err == nil {
						return "", time.Since(start)
					}
					return err.Error(), time.Since(start)
				}
				fault, _ := verify(first)
				require.Equal(t, c.fault, fault, "with no key at hand")
				source.rotate(second)
				fault, _ = verify(second)
				require.Equal(t, c.fault, fault, "by a new key")

				fault, took := verify(mallory)
				require.Equal(t, errSignature.Error(), fault)
				require.Equal(t, minInterval, took, "from the end of one fetch to that of the next")
				mallory.kid = second.kid
				fault, took = verify(mallory)
				require.Equal(t, errSignature.Error(), fault)
				require.Zero(t, took, "a fetch was made just before")
				time.Sleep(minInterval)
				fault, took = verify(mallory)
				require.Equal(t, errSignature.Error(), fault)
				require.Equal(t, source.delay, took)
			})
		})
	}
}

// What an unsigned token says is not read.
func TestThePayloadOfAnUnsignedTokenIsNotParsed(t *testing.T) {
	server := newIssuer(t, newSigner("1"))
	for source, cfg := range map[string]JWTConfig{"static keys": {ValidationPubKeys: []string{newSigner("1").pem()}}, "a JWKS": server.jwks()} {
		j := newJWT(t, cfg)
		for _, payload := range []string{"", "{", "[]", `{"a":1,"a":1}`, "\xff"} {
			_, err := j.Verify(context.Background(), unsigned(`{"alg":"EdDSA","kid":"1"}`, payload), now, forVault)
			require.Equal(t, errSignature, err, "%q with %s", payload, source)
		}
	}
}

func TestALongHeaderIsRefusedUnread(t *testing.T) {
	j := newJWT(t, JWTConfig{ValidationPubKeys: []string{newSigner("1").pem()}})
	_, err := j.Verify(context.Background(), unsigned(`{"alg":"EdDSA","x":`+strings.Repeat("[", maxHeaderSize)+`}`, "{}"), now, forVault)
	require.EqualError(t, err, "token header is longer than 16384 bytes")
}

// largeToken is a token of nearly maxTokenSize for every kid, whose header and
// payload would take far more memory than itself once they are decoded.
func largeToken(kid string) string {
	header := `{"alg":"EdDSA","kid":"` + kid + `","x":[` + strings.Repeat("{},", 3000) + `{}]}`
	return unsigned(header, `{"x":[`+strings.Repeat("[{}],", 16_000)+`{}]}`)
}

// heldFor returns how much more memory is held while callers wait than before
// they came. wait returns when they do.
func heldFor(wait func()) int64 {
	read := func() int64 {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc + stats.StackInuse)
	}
	before := read()
	wait()
	return read() - before
}

// A thousand tokens of an unknown key come while the issuer does not answer.
func TestWhatIsHeldForTokensOfUnknownKeysIsBounded(t *testing.T) {
	j := newJWT(t, JWTConfig{Name: "gitlab", JWKSURL: "https://issuer.example.com/jwks"})
	j.remote.list[0].client.Transport = stuck{}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var group sync.WaitGroup
	refused := make(chan error, 1000)
	held := heldFor(func() {
		for i := range 1000 {
			group.Go(func() {
				_, err := j.Verify(ctx, largeToken(fmt.Sprint(i)), now, forVault)
				refused <- err
			})
		}
		require.Eventually(t, func() bool { return len(refused)+j.remote.waiting.len() == 1000 }, time.Minute, time.Millisecond)
	})
	require.Positive(t, j.remote.waiting.len())
	require.Less(t, held, int64(32<<20))
	require.ErrorIs(t, <-refused, ErrUnavailable)
	cancel()
	group.Wait()
	require.Zero(t, j.remote.waiting.len())
}

// hostileAccount is a token of a service account that anybody can make up, with
// claims that take sixty times its size once they are decoded.
func hostileAccount() string {
	text := string(must(json.Marshal(projected(nil))))
	deep := strings.Repeat(`{"":`, maxDepth-2) + "0" + strings.Repeat("}", maxDepth-2)
	return unsigned(`{"alg":"ES256"}`, text[:len(text)-1]+`,"x":[`+strings.Repeat(deep+",", 500)+deep+`]}`)
}

// A thousand tokens that nobody signed come while the API server does not answer.
func TestWhatIsHeldForTokensThatWaitForAReviewIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		token string
		held  int64
	}{
		"large tokens": {hostileAccount(), 64 << 20},
		"small tokens": {unsigned(`{"alg":"ES256"}`, projected(nil)), 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			release := make(chan struct{})
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				<-release
			}))
			defer server.Close()
			defer close(release)
			k := newKubernetes(t, KubernetesConfig{Name: "prod", Host: server.URL, CACert: certificatePEM(server.Certificate()), TokenReviewerJWT: reviewerToken, DisableISSValidation: true, DisableLocalCAJWT: true})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			var group sync.WaitGroup
			refused := make(chan error, 1000)
			held := heldFor(func() {
				for range 1000 {
					group.Go(func() {
						_, err := k.Verify(ctx, strings.Clone(c.token), now, forVault)
						refused <- err
					})
				}
				require.Eventually(t, func() bool {
					return len(refused)+k.pending.len() == 1000 && int(asked.Load()) == min(maxReviews, k.pending.len())
				}, time.Minute, time.Millisecond)
			})
			t.Log(k.pending.len(), "pending,", held>>20, "MiB held")
			require.Positive(t, k.pending.len())
			require.Less(t, held, c.held)
			err := <-refused
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorContains(t, errors.Unwrap(err), "too many logins")
			cancel()
			group.Wait()
			require.Zero(t, k.pending.len())
			require.Empty(t, k.reviews)
		})
	}
}

// Small tokens have room enough for as many logins as may wait.
func TestHundredsOfLoginsCanWaitForANewKey(t *testing.T) {
	first, second := newSigner("1"), newSigner("2")
	server := newIssuer(t, first)
	j := newJWT(t, server.jwks())
	require.NoError(t, verify(j, first))
	j.remote.list[0].interval = time.Second
	server.rotate(second)
	var group sync.WaitGroup
	for range maxWaiting {
		group.Go(func() { require.NoError(t, verify(j, second)) })
	}
	group.Wait()
	require.EqualValues(t, 2, server.keys.Load())
}

func TestAFloodOfTokensIsRefusedAtTheGate(t *testing.T) {
	g := gate{places: 2, room: 10}
	require.True(t, g.enter(4))
	require.True(t, g.enter(6))
	require.False(t, g.enter(0), "no place")
	g.leave(4)
	require.False(t, g.enter(5), "no room")
	require.True(t, g.enter(4))
	g.leave(4)
	g.leave(6)
	require.Zero(t, g.len())
	require.True(t, g.enter(10))
	require.False(t, g.enter(1))
}
