package claims

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"time"
)

// The methods below serve those who speak to the issuer as an OpenID provider: it
// is discovered once, its keys are kept in one place, and its servers are trusted
// in one way.

// Discovery returns the issuer's discovery document, no older than an hour unless
// the issuer is down. If there is none to be had, the error matches ErrUnavailable.
func (j *JWT) Discovery(ctx context.Context, now time.Time) ([]byte, error) {
	if j.remote == nil || !j.remote.list[0].discovery {
		return nil, errors.New("the issuer has no oidc_discovery_url")
	}
	r := j.remote.list[0]
	var err error
	if r.document.Load() == nil { // also where the keys are known from before
		err = j.remote.load(ctx, r)
	} else if j.remote.stale(now) {
		err = j.remote.refresh(ctx, now)
	}
	if document := r.document.Load(); document != nil && ctx.Err() == nil {
		return *document, nil
	}
	if err == nil {
		err = errors.New("it could not be fetched")
	}
	return nil, &UnavailableError{Issuer: j.name, What: "its discovery document", Err: err}
}

// KeysFor returns the issuer's keys at hand as a JWKS, once the one is among them
// that made the token's signature. Its errors are those of Verify.
func (j *JWT) KeysFor(ctx context.Context, token string, now time.Time) ([]byte, error) {
	if j.remote == nil {
		return nil, errors.New("the issuer's keys are configured")
	}
	t, err := parseToken(token, nil)
	if err != nil {
		return nil, err
	}
	if verified, tried := j.verifySignature(t); !verified {
		if err := j.awaitKey(ctx, t, tried); err != nil {
			return nil, err
		}
	}
	if j.remote.stale(now) {
		if err := j.checkAgain(ctx, t, now); err != nil {
			return nil, err
		}
	}
	return j.remote.list[0].keys.Load().jwks, nil
}

// Transport makes requests to the issuer's servers, which it trusts as it does
// when keys are fetched.
func (j *JWT) Transport() http.RoundTripper {
	if j.remote == nil {
		return nil
	}
	return j.remote.list[0].client.Transport
}

// With is the identity with more claims: what its issuer says of it elsewhere than
// in the token. The caller answers for that; a claim in more takes the place of
// the token's.
func (i *Identity) With(more map[string]any) *Identity {
	profile := i.profile
	profile.Claims = make(map[string]any, len(i.profile.Claims)+len(more))
	maps.Copy(profile.Claims, i.profile.Claims)
	maps.Copy(profile.Claims, more)
	return &Identity{profile: profile}
}

// Without is the identity without one of its claims.
func (i *Identity) Without(claim string) *Identity {
	if _, has := i.profile.Claims[claim]; !has {
		return i
	}
	less := i.With(nil)
	delete(less.profile.Claims, claim)
	return less
}

// load has one endpoint asked, together with all who want that, and waits for it.
func (rs *remotes) load(ctx context.Context, r *remote) error {
	const size = 1 << 10 // of what a waiting login holds, about
	if !rs.waiting.enter(size) {
		return errors.New("too many logins wait for keys")
	}
	defer rs.waiting.leave(size)
	f, _ := r.want(true, rs.runner(r))
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
