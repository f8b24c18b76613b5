package claims

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-cleanhttp"
)

const (
	// fetchTimeout bounds one fetch, discovery and redirects included.
	fetchTimeout = 10 * time.Second
	// maxBody and maxHeader bound an answer, in bytes. Key sets have a few
	// kilobytes.
	maxBody   = 1 << 20
	maxHeader = 64 << 10
	// maxRedirects is how many redirects of one request are followed.
	maxRedirects = 5
)

// An endpoint is where keys are to be fetched, as configured.
type endpoint struct {
	field     string // the field that url comes from, for errors
	url       string
	caPEM     string
	discovery bool // url is an issuer's identifier, not its JWKS
	trust     serverTrust
}

// A fetcher fetches the keys of one endpoint.
type fetcher struct {
	endpoint
	client *http.Client
	cas    []string // fingerprints of caPEM's certificates
}

// newFetcher checks the endpoint's fields.
func newFetcher(e endpoint) (*fetcher, error) {
	if err := e.checkURL(); err != nil {
		return nil, fmt.Errorf("%s %w", e.field, err)
	}
	// Proxy from the environment; no connection is kept, since fetches are
	// hours apart.
	transport := cleanhttp.DefaultTransport()
	transport.MaxResponseHeaderBytes = maxHeader
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if e.caPEM != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(e.caPEM)) {
			return nil, fmt.Errorf("%s has a CA without a PEM-encoded certificate", e.field)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	e.trust.apply(transport.TLSClientConfig)
	client := &http.Client{Transport: transport, CheckRedirect: checkRedirect}
	return &fetcher{endpoint: e, client: client, cas: fingerprints(e.caPEM)}, nil
}

// checkURL refuses a URL of which a part would not be used.
func (e *endpoint) checkURL() error {
	u, err := parseURL(e.url)
	switch {
	case err != nil:
		return err
	case strings.Contains(e.url, "#"):
		return errors.New("has a fragment, which no request would carry")
	case e.discovery && (u.RawQuery != "" || u.ForceQuery):
		// OpenID Connect Discovery section 3; the document's path goes at the end.
		return errors.New("has a query, which an issuer's identifier has not")
	}
	return nil
}

// checkRedirect follows redirects as a browser would, but never to a connection
// on which keys could be replaced.
func checkRedirect(next *http.Request, previous []*http.Request) error {
	if len(previous) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return checkDowngrade(previous[0].URL, next.URL)
}

func checkDowngrade(from, to *url.URL) error {
	if from.Scheme == "https" && to.Scheme != "https" {
		return fmt.Errorf("%s leads away from https, to %s", from.Redacted(), to.Redacted())
	}
	return nil
}

// errCredentials refuses a URL with a user name or a password: what goes wrong
// with a URL is reported together with it.
var errCredentials = errors.New("is a URL with credentials in it, which errors and logs would show")

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("is not a URL")
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		return nil, errors.New("is not an http or https URL")
	}
	if u.User != nil {
		return nil, errCredentials
	}
	return u, nil
}

// discover returns the issuer's discovery document and the URL of the JWKS that it
// names (OpenID Connect Discovery section 4).
func (f *fetcher) discover(ctx context.Context) (jwksURL string, document []byte, err error) {
	body, err := f.get(ctx, strings.TrimSuffix(f.url, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", nil, err
	}
	var members struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &members); err != nil {
		return "", nil, errors.New("discovery document is not a JSON object with issuer and jwks_uri")
	}
	// Section 4.3: without this, one tenant of a host could speak for another.
	if members.Issuer != f.url {
		return "", nil, fmt.Errorf("discovery document is of the issuer %.200q, not of %q", members.Issuer, f.url)
	}
	issuer, err := parseURL(f.url)
	if err != nil {
		return "", nil, err
	}
	jwks, err := parseURL(members.JWKSURI)
	if err != nil {
		return "", nil, fmt.Errorf("discovery document: jwks_uri %w", err)
	}
	return members.JWKSURI, body, checkDowngrade(issuer, jwks)
}

// keys fetches and parses a JWKS.
func (f *fetcher) keys(ctx context.Context, jwksURL string) (*keySet, error) {
	body, err := f.get(ctx, jwksURL)
	if err != nil {
		return nil, err
	}
	set, err := parseJWKS(body)
	if err != nil {
		return nil, fmt.Errorf("answer of %s %w", jwksURL, err)
	}
	return set, nil
}

func (f *fetcher) get(ctx context.Context, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered with status %d", address, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("%s answered with more than %d bytes", address, maxBody)
	}
	return body, nil
}
