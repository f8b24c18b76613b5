package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/go-cleanhttp"
)

// errNoAccountServer is the state of every account while an account server is not
// reached.
var errNoAccountServer = errors.New("not reached")

// accountServers speaks nats-account-server's HTTP API.
type accountServers struct {
	bases  []*url.URL // each ends in .../accounts
	client *http.Client
	pulse  *pulse
}

func newAccountServers(e endpoints, p *pulse) *accountServers {
	transport := cleanhttp.DefaultPooledTransport()
	transport.MaxIdleConnsPerHost = workers
	transport.TLSClientConfig = e.tls
	transport.DialContext = p.DialContext
	s := &accountServers{pulse: p, client: &http.Client{
		Transport: transport,
		Timeout:   answerTimeout,
		// A redirect would be followed with the body, to who knows where.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, u := range e.http {
		s.bases = append(s.bases, accountsURL(u))
	}
	return s
}

// accountsURL completes a URL as people write it: the bare server, what nsc has
// as account_server_url (ending in /jwt/v1), or the whole path.
func accountsURL(u *url.URL) *url.URL {
	switch path := strings.TrimSuffix(u.Path, "/"); {
	case path == "":
		return u.JoinPath("jwt", "v1", "accounts")
	case strings.HasSuffix(path, "/accounts"):
		return u
	default:
		return u.JoinPath("accounts")
	}
}

// post stores an account JWT in every account server while what is in hand is good,
// and returns how many took it.
func (s *accountServers) post(ctx context.Context, h *hold, accountJWT string) (int, error) {
	var failures []error
	for _, base := range s.bases {
		body := s.pulse.body(accountJWT)
		if err := h.good(ctx); err != nil {
			return len(s.bases) - len(failures), err
		}
		if err := s.postTo(ctx, base.JoinPath(h.id), body); err != nil {
			failures = append(failures, fmt.Errorf("account server %s: %w", base.Host, err))
		}
	}
	return len(s.bases) - len(failures), errors.Join(failures...)
}

func (s *accountServers) postTo(ctx context.Context, u *url.URL, body *awakeBody) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body.again())
	if err != nil {
		return err
	}
	// On a connection that has ended nothing was sent, and it is sent on another one.
	request.ContentLength = int64(len(body.text))
	request.GetBody = func() (io.ReadCloser, error) { return body.again(), nil }
	request.Header.Set("Content-Type", "application/jwt")
	response, err := s.client.Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the URL, which may hold a password
		}
		return fmt.Errorf("%w: %w", errNoAccountServer, err)
	}
	defer response.Body.Close()
	// The rest is read so that the connection can be used again.
	answer, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("answers %s: %.200q", response.Status, answer)
	}
	return nil
}

func (s *accountServers) close() { s.client.CloseIdleConnections() }
