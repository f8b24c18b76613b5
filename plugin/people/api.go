package people

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-cleanhttp"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

const (
	// requestTimeout bounds one request to a provider.
	requestTimeout = 10 * time.Second
	// maxRequests bounds the requests for one login: pages of groups, and groups of
	// groups. Pages of Okta and Google have 200 groups.
	maxRequests = 200
	// maxGroups bounds the groups of one person. Microsoft Graph gives no more.
	maxGroups = 11_000
	// maxAnswer bounds an answer, in bytes. One with maxGroups ids of Microsoft Graph
	// has 430 kB, a page of Okta's groups with their profiles some 300 kB.
	maxAnswer = 2 << 20
	// maxHeader bounds the headers of an answer, in bytes.
	maxHeader = 64 << 10
	// maxParallel is how many requests may be under way for one login.
	maxParallel = 8
	// maxLookups is how many logins may be waiting for one provider: each has proven
	// who it is for, but what is asked counts against the provider's rate limits.
	maxLookups = 64
)

// An api is how a source's servers are asked.
type api struct {
	issuer string // the mount's name
	what   string // what is asked for, for errors: "the groups at Okta"
	client *http.Client
	places chan struct{}
}

func newAPI(c *SourceConfig, what string) *api {
	return &api{
		issuer: c.Issuer,
		what:   what,
		client: &http.Client{
			Transport: pooled(c.Transport),
			Timeout:   requestTimeout,
			// What is sent along is for one host, and none of the documented APIs redirects.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		places: make(chan struct{}, maxLookups),
	}
}

// pooled is a transport that keeps connections for a while: a login makes several
// requests to one host.
func pooled(transport http.RoundTripper) http.RoundTripper {
	if transport == nil {
		own := cleanhttp.DefaultTransport()
		own.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		transport = own
	}
	known, ok := transport.(*http.Transport)
	if !ok {
		return transport
	}
	keeping := known.Clone()
	keeping.MaxResponseHeaderBytes = maxHeader
	keeping.DisableKeepAlives = false
	keeping.MaxIdleConnsPerHost = maxParallel
	keeping.IdleConnTimeout = requestTimeout
	return keeping
}

// A lookup is what is asked for one login.
type lookup struct {
	*api
	requests atomic.Int32 // made
}

// begin begins a lookup; end must follow.
func (a *api) begin() (*lookup, error) {
	select {
	case a.places <- struct{}{}:
		return &lookup{api: a}, nil
	default:
		return nil, a.unavailable(fmt.Errorf("%d logins wait for it", maxLookups))
	}
}

// end ends a lookup. Connections that nobody uses then are not kept: the next
// login may be hours away.
func (l *lookup) end() {
	if <-l.places; len(l.places) == 0 {
		l.client.CloseIdleConnections()
	}
}

func (a *api) unavailable(err error) error {
	return &claims.UnavailableError{Issuer: a.issuer, What: a.what, Err: err}
}

// A request is one to a provider's API.
type request struct {
	method        string
	url           *url.URL
	authorization string // the header
	contentType   string
	body          string
}

// name is the request in errors: the query may hold what is nobody's business.
func (r *request) name() string {
	u := url.URL{Scheme: r.url.Scheme, Host: r.url.Host, Path: r.url.Path, RawPath: r.url.RawPath}
	return r.method + " " + u.String()
}

// A statusError is an answer that is none.
type statusError struct {
	request string
	status  int
	code    string // the provider's word for what is wrong; empty: it has none
}

func (e *statusError) Error() string {
	if e.code == "" {
		return fmt.Sprintf("%s answered with status %d", e.request, e.status)
	}
	return fmt.Sprintf("%s answered with status %d (%s)", e.request, e.status, e.code)
}

// do makes a request and decodes the JSON of the answer into result.
func (l *lookup) do(ctx context.Context, r *request, result any) (http.Header, error) {
	if l.requests.Add(1) > maxRequests {
		return nil, fmt.Errorf("%s takes more than %d requests", l.what, maxRequests)
	}
	if r.url.Scheme != "https" {
		return nil, fmt.Errorf("%s is not on https", r.name())
	}
	made, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), strings.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be made", r.name())
	}
	made.Header.Set("Accept", "application/json")
	if r.authorization != "" {
		made.Header.Set("Authorization", r.authorization)
	}
	if r.contentType != "" {
		made.Header.Set("Content-Type", r.contentType)
	}
	response, err := l.client.Do(made)
	if err != nil {
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err // without the URL's query
		}
		return nil, l.unavailable(fmt.Errorf("%s: %w", r.name(), err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, l.unavailable(fmt.Errorf("%s: %w", r.name(), err))
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s answered with more than %d bytes", r.name(), maxAnswer)
	case response.StatusCode != http.StatusOK:
		err := &statusError{request: r.name(), status: response.StatusCode, code: errorCode(body, r.authorization)}
		if response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusTooManyRequests {
			return nil, l.unavailable(err)
		}
		return nil, err
	}
	if err := json.Unmarshal(body, result); err != nil {
		return nil, fmt.Errorf("%s answered with what is not the JSON that is documented", r.name())
	}
	return response.Header, nil
}

// errorCode is the word that a provider has for what is wrong, in the places where
// Microsoft Graph, Google, Okta and OAuth (RFC 6749 section 5.2) have it. What they
// say in sentences is left out, and so is what could be a part of what was sent.
func errorCode(body []byte, sent string) string {
	var told struct {
		Error     json.RawMessage `json:"error"`
		ErrorCode string          `json:"errorCode"`
	}
	if json.Unmarshal(body, &told) != nil {
		return ""
	}
	var inner struct {
		Code   any    `json:"code"`
		Status string `json:"status"`
	}
	var text string
	if json.Unmarshal(told.Error, &text) != nil {
		_ = json.Unmarshal(told.Error, &inner)
	}
	code, _ := inner.Code.(string)
	for _, word := range []string{told.ErrorCode, text, inner.Status, code} {
		if errorWord.MatchString(word) && !strings.Contains(sent, word) {
			return word
		}
	}
	return ""
}

var errorWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{2,63}$`)

// next is where the page after one of first is: only at the same server, since
// what authorizes the request is for that one.
func next(first *url.URL, link string) (*url.URL, error) {
	page, err := first.Parse(link)
	if err != nil {
		return nil, errors.New("the answer names a next page that is not a URL")
	}
	if page.Scheme != first.Scheme || !strings.EqualFold(page.Host, first.Host) || page.User != nil {
		return nil, fmt.Errorf("the answer names a next page at %.100q and not at %q, where the token is for", page.Host, first.Host)
	}
	return page, nil
}

// groupSet are the groups that were found, each once.
type groupSet struct {
	names []string
	seen  map[string]bool
}

func newGroupSet() *groupSet { return &groupSet{names: []string{}, seen: make(map[string]bool)} }

// add notes groups and returns those that are new.
func (s *groupSet) add(names ...string) (fresh []string, err error) {
	before := len(s.names)
	for _, name := range names {
		if name == "" || s.seen[name] {
			continue
		}
		if len(s.names) == maxGroups {
			return nil, fmt.Errorf("there are more than %d groups", maxGroups)
		}
		s.seen[name] = true
		s.names = append(s.names, name)
	}
	return s.names[before:], nil
}
