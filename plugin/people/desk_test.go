package people

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// begun is a login that begins now.
func begun(t *testing.T, d *Desk, now time.Time) *Login {
	t.Helper()
	login := &Login{Mode: ModeDirect, Role: "dev", Began: now.Unix()}
	_, err := d.seal.close(login)
	require.NoError(t, err)
	return login
}

func personOf(sub string) *Person {
	identity := &claims.Identity{}
	return &Person{Identity: identity.With(map[string]any{"sub": sub})}
}

func TestAStateOpensAsItWasClosed(t *testing.T) {
	d, now := NewDesk(), time.Now()
	login := &Login{Mode: ModeDevice, Issuer: "a", Client: "b", Role: "c", RedirectURI: "d", Device: "e", Interval: 7, Address: "f", Began: now.Unix()}
	login.SetClientNonce("nonce")
	state, err := d.seal.close(login)
	require.NoError(t, err)
	opened, err := d.Open(state, now)
	require.NoError(t, err)
	require.Equal(t, login, opened)
	require.True(t, opened.IsOf("nonce"))
	require.False(t, opened.IsOf(""))
	require.NotContains(t, state, "nonce")

	expired, err := d.Open(state, now.Add(Lifetime+time.Second))
	require.ErrorContains(t, err, "five minutes")
	require.Equal(t, ModeDevice, expired.Mode, "so that it is known how to answer")
	_, err = NewDesk().Open(state, now)
	require.ErrorContains(t, err, "not known here")

	another, err := d.seal.close(&Login{Mode: ModeDevice})
	require.NoError(t, err)
	require.NotEqual(t, state, another)
	require.NotEqual(t, d.seal.derive("nonce", login.ID), d.seal.derive("pkce", login.ID))
	require.Less(t, len(state), 400)
}

// What the unproven leave pushes out what the unproven left, and nothing else.
func TestTheUnprovenPushOutOnlyTheUnproven(t *testing.T) {
	d, now := NewDesk(), time.Now()
	completed, tried, waiting := begun(t, d, now), begun(t, d, now), begun(t, d, now)
	require.NoError(t, d.Use(completed, now))
	d.Done(completed, now)
	require.NoError(t, d.Use(tried, now))
	require.NoError(t, d.Keep(waiting, personOf("ann"), now))
	for range 2 * mostTried {
		require.NoError(t, d.Use(begun(t, d, now), now))
	}
	require.LessOrEqual(t, len(d.tried.current)+len(d.tried.previous), mostTried)
	require.ErrorIs(t, d.Use(completed, now), ErrUsed, "a login that was completed is remembered")
	require.NoError(t, d.Use(tried, now), "one that was tried may be forgotten")
	person, err := d.Take(waiting, now)
	require.NoError(t, err)
	require.NotNil(t, person)

	// Until they would have expired anyway.
	later := now.Add(Lifetime)
	require.ErrorIs(t, d.Use(completed, later), ErrUsed)
	for i := range 3 {
		d.done.turn(later.Add(time.Duration(i+1) * (Lifetime + time.Second)))
	}
	require.Empty(t, d.done.current)
	require.Empty(t, d.done.previous)
}

func TestWhatWaitsToBeFetchedIsBounded(t *testing.T) {
	d, now := NewDesk(), time.Now()
	anns := begun(t, d, now)
	require.NoError(t, d.Keep(anns, personOf("ann"), now))
	var bobs []*Login
	for i := range mostKeptOfOne + 1 {
		login := begun(t, d, now.Add(time.Duration(i)*time.Second))
		bobs = append(bobs, login)
		require.NoError(t, d.Keep(login, personOf("bob"), now))
	}
	require.Len(t, d.kept, 1+mostKeptOfOne)
	person, err := d.Take(bobs[0], now)
	require.Nil(t, person)
	require.ErrorContains(t, err, "used before", "the oldest of the same person went")

	for i := len(d.kept); i < mostKept; i++ {
		require.NoError(t, d.Keep(begun(t, d, now), personOf(strconv.Itoa(i)), now))
	}
	require.ErrorContains(t, d.Keep(begun(t, d, now), personOf("one more"), now), "too many logins")
	person, err = d.Take(anns, now)
	require.NoError(t, err)
	require.NotNil(t, person)

	large := personOf("large")
	large.length = mostKeptSize
	require.Error(t, d.Keep(begun(t, d, now), large, now))
	later := now.Add(2 * Lifetime)
	require.NoError(t, d.Keep(begun(t, d, later), personOf("later"), later))
	require.Len(t, d.kept, 1, "those that nobody fetched have expired")
	for _, k := range d.kept {
		require.Equal(t, k.size, d.size)
	}
}

func TestAPageShowsWhatItIsGivenAsText(t *testing.T) {
	const evil = `"><script>alert(1)</script>`
	for _, page := range []Page{{Fault: evil}, {Role: evil}, {Ask: &Question{Role: evil, Address: evil, Fields: []Field{{Name: "state", Value: evil}}}}} {
		text, err := page.Render()
		require.NoError(t, err)
		require.NotContains(t, string(text), "<script")
		require.Contains(t, string(text), "&lt;script&gt;")
		require.NotContains(t, strings.ToLower(string(text)), "http://")
		require.Contains(t, string(text), `<html lang="en">`)
	}
}

func TestWhatIsLoggedOfClaimsHasNoTokens(t *testing.T) {
	text := Loggable(map[string]any{
		"email": "ann", "access_token": "secret-1", "_claim_sources": map[string]any{"a": map[string]any{"JWT": "secret-2", "access_token": "secret-3", "endpoint": "https://b"}},
		"list": []any{map[string]any{"client_secret": "secret-4"}, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzZWNyZXQtNSJ9."},
	})
	require.Contains(t, text, "ann")
	require.Contains(t, text, "https://b")
	require.NotContains(t, text, "secret-")
	require.NotContains(t, text, "eyJ")
	require.Less(t, len(Loggable(map[string]any{"a": strings.Repeat("x", 2*mostLogged)})), mostLogged+10)
}

func TestNoMoreIsAskedOfAnIssuerThanIsBounded(t *testing.T) {
	p := &Provider{}
	var ends []func()
	for range mostBeginning {
		_, done, err := p.ask(t.Context(), mostBeginning)
		require.NoError(t, err)
		ends = append(ends, done)
	}
	_, _, err := p.ask(t.Context(), mostBeginning)
	require.ErrorIs(t, err, ErrBusy)
	ctx, done, err := p.ask(t.Context(), mostAsking)
	require.NoError(t, err, "those who come back have room")
	_, bounded := ctx.Deadline()
	require.True(t, bounded)
	done()
	for _, done := range ends {
		done()
	}
	require.Zero(t, p.asking.Load())
}
