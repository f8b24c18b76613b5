package claims

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// verify logs a good token of s in, now.
func verify(j *JWT, s signer) error { return verifyAt(j, s, time.Now()) }

func verifyAt(j *JWT, s signer, at time.Time) error {
	_, err := j.Verify(context.Background(), s.mint(map[string]any{"aud": "vault", "exp": at.Unix()}), at, forVault)
	return err
}

// impatient lets j fetch keys as often as it wants to.
func impatient(j *JWT) *JWT {
	for _, r := range j.remote.list {
		r.interval = 0
	}
	return j
}

func TestKeysAreFetchedOnceAndOnFirstUse(t *testing.T) {
	server := newIssuer(t, rs256())
	j := newJWT(t, server.discovery())
	require.Zero(t, server.documents.Load(), "a new issuer does not use the network")
	for range 10 {
		require.NoError(t, verify(j, rs256()))
	}
	require.EqualValues(t, 1, server.documents.Load())
	require.EqualValues(t, 1, server.keys.Load())
}

func TestConcurrentFirstLoginsShareOneFetch(t *testing.T) {
	server := newIssuer(t, eddsa())
	j := newJWT(t, server.discovery())
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() { require.NoError(t, verify(j, eddsa())) })
	}
	group.Wait()
	require.EqualValues(t, 1, server.documents.Load())
	require.EqualValues(t, 1, server.keys.Load())
}

func TestANewKeyIsFetchedWhenATokenNamesIt(t *testing.T) {
	first, second := newSigner("1"), newSigner("2")
	server := newIssuer(t, first)
	j := impatient(newJWT(t, server.discovery()))
	require.NoError(t, verify(j, first))
	server.rotate(second)
	require.NoError(t, verify(j, first), "a known key is good until it is known not to be")
	require.NoError(t, verify(j, second))
	require.Equal(t, errSignature, verify(j, first), "the old key is gone")
	require.EqualValues(t, 1, server.documents.Load(), "the document is not fetched again")
}

func TestANewKeyUnderAnOldKidIsFetched(t *testing.T) {
	first, second := newSigner("key"), newSigner("key")
	server := newIssuer(t, first)
	j := impatient(newJWT(t, server.jwks()))
	require.NoError(t, verify(j, first))
	server.rotate(second)
	require.NoError(t, verify(j, second))
}

func TestKeysWithOneKidAreAllTried(t *testing.T) {
	first, second, third := newSigner("key"), rs256(), newSigner("key")
	second.kid = "key"
	server := newIssuer(t, first, second, third)
	j := newJWT(t, server.jwks())
	for _, s := range []signer{first, second, third} {
		require.NoError(t, verify(j, s))
	}
	require.EqualValues(t, 1, server.keys.Load())
}

func TestATokenWithoutKidIsTriedWithEveryKey(t *testing.T) {
	first, second := newSigner("1"), rs256()
	j := newJWT(t, newIssuer(t, first, second).jwks())
	for _, s := range []signer{first, second} {
		_, err := j.Verify(context.Background(), s.token(map[string]any{"alg": s.alg}, payload(nil)), now, forVault)
		require.NoError(t, err)
	}
}

// 10,000 tokens with made-up kids within a few seconds cost the issuer a
// request or two, and no login with a known key waits or fails meanwhile.
func TestAFloodOfUnknownKidsDoesNotReachTheIssuer(t *testing.T) {
	good := newSigner("good")
	server := newIssuer(t, good)
	j := newJWT(t, server.jwks())
	require.NoError(t, verify(j, good))

	start := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var flood sync.WaitGroup
	var sent atomic.Int64
	mallory := newSigner("")
	for range 8 {
		flood.Go(func() {
			for sent.Add(1) <= 10_000 {
				token := mallory.token(map[string]any{"alg": "EdDSA", "kid": fmt.Sprint("kid-", sent.Load())}, payload(nil))
				flood.Go(func() {
					_, err := j.Verify(ctx, token, now, forVault)
					require.Error(t, err)
				})
			}
		})
	}
	for sent.Load() < 10_000 {
		require.NoError(t, verify(j, good))
	}
	cancel() // nobody waits any longer
	flood.Wait()
	allowed := 2 + int64(time.Since(start)/minInterval)
	require.LessOrEqual(t, server.keys.Load(), allowed)
}

// With a clock of its own, so that seconds pass at once.
func TestUnknownKeysWaitForTheNextFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newSigner("1"), newSigner("2")
		source := newPipeIssuer(first)
		j := source.jwt(t)
		require.NoError(t, verify(j, first))
		require.Equal(t, 1, source.requests())

		start := time.Now()
		require.Equal(t, errSignature, verify(j, newSigner("x")))
		require.Equal(t, minInterval, time.Since(start), "a fetch was made just before")
		require.Equal(t, 2, source.requests())

		// The issuer rotates right after a fetch that a made-up kid caused.
		source.rotate(second)
		require.NoError(t, verify(j, second))
		require.Equal(t, 2*minInterval, time.Since(start))
		require.Equal(t, 3, source.requests())

		// A wrong signature under a known kid is not worth waiting for.
		forged := newSigner("2")
		require.Equal(t, errSignature, verify(j, forged))
		require.Equal(t, 2*minInterval, time.Since(start))
		require.Equal(t, 3, source.requests())
	})
}

func TestAKeyThatComesWhileAFetchIsUnderWayIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newSigner("1"), newSigner("2")
		source := newPipeIssuer(first)
		source.delay = time.Second
		j := source.jwt(t)
		require.NoError(t, verify(j, first))
		time.Sleep(minInterval)

		unknown := make(chan error, 1)
		go func() { unknown <- verify(j, newSigner("x")) }() // its fetch reads the old keys
		synctest.Wait()
		source.rotate(first, second)
		require.NoError(t, verify(j, second))
		require.Equal(t, errSignature, <-unknown)
	})
}

func TestStaleKeysAreFetchedAgainBeforeATokenIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, withdrawn := newSigner("1"), newSigner("2")
		source := newPipeIssuer(kept, withdrawn)
		source.delay = time.Second
		j := source.jwt(t)
		require.NoError(t, verify(j, kept))
		source.rotate(kept)
		time.Sleep(staleAfter - source.delay)
		require.NoError(t, verify(j, withdrawn))
		synctest.Wait()
		require.Equal(t, 1, source.requests(), "not yet stale")

		time.Sleep(time.Second)
		start := time.Now()
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() { require.Equal(t, errSignature, verify(j, withdrawn)) })
			group.Go(func() { require.NoError(t, verify(j, kept)) })
		}
		group.Wait()
		require.Equal(t, 2, source.requests(), "one fetch for all")
		require.Equal(t, source.delay, time.Since(start))

		require.NoError(t, verify(j, kept))
		require.Equal(t, source.delay, time.Since(start), "fresh keys need no fetch")
	})
}

func TestStaleKeysAreGoodWhileTheIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := newSigner("1")
		source := newPipeIssuer(known)
		j := source.jwt(t)
		require.NoError(t, verify(j, known))
		source.setDown(true)
		time.Sleep(staleAfter + time.Second)
		start := time.Now()
		for range 120 {
			require.NoError(t, verify(j, known))
			time.Sleep(time.Second)
		}
		require.Equal(t, 120*time.Second, time.Since(start), "nobody waits")
		require.Equal(t, 1+2, source.requests(), "it is asked once a minute")
	})
}

func TestALoginWaitsForStaleKeysOnlyBriefly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, withdrawn := newSigner("1"), newSigner("2")
		source := newPipeIssuer(kept, withdrawn)
		j := source.jwt(t)
		require.NoError(t, verify(j, withdrawn))
		source.rotate(kept)
		source.setDelay(5 * time.Second)
		time.Sleep(staleAfter + time.Second)

		ctx, cancel := context.WithCancel(context.Background())
		gone := make(chan error)
		go func() {
			_, err := j.Verify(ctx, withdrawn.mint(map[string]any{"aud": "vault", "exp": time.Now().Unix()}), time.Now(), forVault)
			gone <- err
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-gone, ErrUnavailable, "who does not wait is not accepted unasked")

		start := time.Now()
		require.NoError(t, verify(j, withdrawn))
		require.Equal(t, maxStaleWait, time.Since(start))
		require.NoError(t, verify(j, withdrawn))
		require.Equal(t, maxStaleWait, time.Since(start), "it is known to be slow")
		time.Sleep(5*time.Second - maxStaleWait)
		synctest.Wait()
		require.Equal(t, 2, source.requests(), "all that time for one fetch")
		require.Equal(t, errSignature, verify(j, withdrawn))
	})
}

func TestKeysOfASnapshotAreFetchedAgainBeforeATokenIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, withdrawn := newSigner("1"), newSigner("2")
		source := newPipeIssuer(kept, withdrawn)
		j := source.jwt(t)
		require.NoError(t, verify(j, withdrawn))
		source.rotate(kept)

		restarted := source.jwt(t)
		restarted.remote.restore(j.remote.snapshot())
		require.Equal(t, errSignature, verify(restarted, withdrawn))
		require.NoError(t, verify(restarted, kept))
		require.Equal(t, 2, source.requests())
	})
}

// A pipeIssuer answers a JWT's client without a network, so that synctest's
// clock can run.
type pipeIssuer struct {
	mu      sync.Mutex
	signers []signer
	count   int
	delay   time.Duration
	down    bool
}

func newPipeIssuer(signers ...signer) *pipeIssuer { return &pipeIssuer{signers: signers} }

func (p *pipeIssuer) jwt(t *testing.T) *JWT {
	return p.over(newJWT(t, JWTConfig{Name: "gitlab", JWKSURL: "https://issuer.example.com/jwks"}))
}

// over has j ask p.
func (p *pipeIssuer) over(j *JWT) *JWT {
	j.remote.list[0].client.Transport = p
	return j
}

func (p *pipeIssuer) RoundTrip(*http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.count++
	body := io.NopCloser(bytes.NewReader(jwks(p.signers...)))
	delay, down := p.delay, p.down
	p.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	time.Sleep(delay)
	return &http.Response{StatusCode: http.StatusOK, Body: body}, nil
}

// setDown takes the issuer down, or brings it back.
func (p *pipeIssuer) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *pipeIssuer) setDelay(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

func (p *pipeIssuer) rotate(signers ...signer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signers = signers
}

func (p *pipeIssuer) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

func TestLastKeysSurviveARestart(t *testing.T) {
	known := newSigner("known")
	for source, config := range map[string]func(*issuer) JWTConfig{"discovery": (*issuer).discovery, "JWKS": (*issuer).jwks} {
		t.Run(source, func(t *testing.T) {
			server := newIssuer(t, known)
			snapshots := make(chan []byte, 1)
			cfg := config(server)
			cfg.OnKeys = func(snapshot []byte) { snapshots <- snapshot }
			require.NoError(t, verify(newJWT(t, cfg), known))
			cfg.LastKeys = <-snapshots

			server.fail(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
			j := impatient(newJWT(t, cfg))
			require.NoError(t, verify(j, known))
			require.ErrorIs(t, verify(j, newSigner("x")), ErrUnavailable)

			server.fail(nil)
			require.Equal(t, errSignature, verify(j, newSigner("x")))
			require.NoError(t, verify(j, known))
			require.Empty(t, snapshots, "the keys are the same")
			next := newSigner("next")
			server.rotate(next)
			require.NoError(t, verify(j, next))
			require.Contains(t, string(<-snapshots), `"next"`)

			other := newIssuer(t)
			moved := config(other)
			moved.LastKeys = cfg.LastKeys
			require.ErrorIs(t, verify(newJWT(t, moved), known), ErrUnavailable, "keys of another URL")
		})
	}
	for _, garbage := range []string{"x", "{}", `[{"url":"https://issuer.example.com","jwks":{"keys":[]}}]`, `[null]`} {
		newJWT(t, JWTConfig{OIDCDiscoveryURL: "https://issuer.example.com", LastKeys: []byte(garbage)})
	}
}

func TestCloseEndsFetches(t *testing.T) {
	j := newJWT(t, JWTConfig{Name: "gitlab", JWKSURL: "https://issuer.example.com/jwks"})
	j.remote.list[0].client.Transport = stuck{}
	waiting := make(chan error, 1)
	go func() { waiting <- verify(j, newSigner("x")) }()
	require.Eventually(t, func() bool { return j.remote.waiting.len() == 1 }, 10*time.Second, time.Millisecond)
	j.Close()
	require.ErrorIs(t, <-waiting, context.Canceled)
	require.ErrorIs(t, verify(j, newSigner("x")), ErrUnavailable)
}
