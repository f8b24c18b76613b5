package client

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// A source gets credentials from Vault. Its methods are called one at a time.
type source interface {
	fetch(ctx context.Context) (*credentials, error)
	// close ends what the source still has in Vault. It may be called after a failure too.
	close()
}

// fromVaultToken gets credentials as a lease of the Vault token that the caller's client
// holds at the time.
type fromVaultToken struct {
	vault    *api.Client
	workload Workload
}

func (s *fromVaultToken) fetch(ctx context.Context) (*credentials, error) {
	return s.workload.fetch(ctx, func(r *request) (*credentials, error) {
		asked := time.Now()
		secret, err := s.workload.creds(ctx, s.vault, s.workload.Role, r)
		if err != nil {
			return nil, err
		}
		return newCredentials(secret, r, asked)
	})
}

// close leaves the leases to the caller's Vault token.
func (s *fromVaultToken) close() {}

// fetch makes a request and has it answered; without an answer its key is wiped.
func (w Workload) fetch(ctx context.Context, answer func(*request) (*credentials, error)) (*credentials, error) {
	r, err := w.newRequest(ctx)
	if err != nil {
		return nil, err
	}
	got, err := answer(r)
	if err != nil {
		r.key.Wipe()
		return nil, err
	}
	return got, nil
}

// fromLogin gets credentials by logging in. The Vault token that comes with them is not
// needed, and is revoked. When the role has credentials_on_login=false, the token is
// kept as the session under which credentials are got.
type fromLogin struct {
	vault    *api.Client // the source's own; holds the session's token
	workload Workload
	session  *session
	revoking sync.WaitGroup
}

// A session is a Vault token of a role that does not give credentials on login.
type session struct {
	role string
	ends time.Time
	life time.Duration // of the credentials that it gave last
}

// revokeTimeout bounds the revocation of a Vault token, which nothing depends on: the
// token ends by itself.
const revokeTimeout = 5 * time.Second

func (s *fromLogin) fetch(ctx context.Context) (*credentials, error) {
	return s.workload.fetch(ctx, func(r *request) (*credentials, error) {
		if s.session != nil && time.Until(s.session.ends) >= s.session.life {
			got, err := s.fromSession(ctx, r)
			if !isForbidden(err) {
				return got, err
			}
			// The token was revoked, or does not have the policies that a new one would.
		}
		asked := time.Now()
		s.vault.ClearToken()
		secret, err := s.workload.login(ctx, s.vault, r)
		if err != nil {
			return nil, err
		}
		s.begin(secret.Auth, asked)
		if _, ok := secret.Data["jwt"]; ok {
			s.end()
			return newCredentials(secret, r, asked)
		}
		got, err := s.fromSession(ctx, r)
		if err != nil {
			s.end()
		}
		return got, err
	})
}

// begin leaves the session before to end by itself: revoking it would revoke the
// credentials that connections are using.
func (s *fromLogin) begin(auth *api.SecretAuth, asked time.Time) {
	s.vault.SetToken(auth.ClientToken)
	s.session = &session{role: s.workload.Role, ends: asked.Add(time.Duration(auth.LeaseDuration) * time.Second)}
	if s.session.role == "" {
		s.session.role = auth.Metadata["role"] // the mount's default_role
	}
}

func (s *fromLogin) fromSession(ctx context.Context, r *request) (*credentials, error) {
	asked := time.Now()
	secret, err := s.workload.creds(ctx, s.vault, s.session.role, r)
	if err != nil {
		return nil, err
	}
	got, err := newCredentials(secret, r, asked)
	if err != nil {
		return nil, err
	}
	s.session.life = got.ends.Sub(asked)
	got.endBy(s.session.ends) // with its Vault token a lease ends, and Vault revokes the NATS user
	return got, nil
}

// end revokes the session's token, and does not have the credentials wait for that.
func (s *fromLogin) end() {
	if s.session == nil {
		return
	}
	token := s.vault.Token()
	s.session = nil
	s.vault.ClearToken()
	s.revoking.Go(func() {
		vault, err := s.vault.CloneWithHeaders()
		if err != nil {
			return
		}
		vault.SetToken(token)
		ctx, cancel := context.WithTimeout(context.Background(), revokeTimeout)
		defer cancel()
		// An error changes nothing: the token ends by itself, as a batch token always does.
		_ = vault.Auth().Token().RevokeSelfWithContext(ctx, "")
	})
}

func (s *fromLogin) close() {
	s.end()
	s.revoking.Wait()
}

func isForbidden(err error) bool {
	var response *api.ResponseError
	return errors.As(err, &response) && response.StatusCode == http.StatusForbidden
}
