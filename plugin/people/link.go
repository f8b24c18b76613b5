package people

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// mostAnswer bounds an issuer's answer, in bytes.
const mostAnswer = 1 << 20

// endpoints are those of a discovery document.
type endpoints struct {
	JWKS   string `json:"jwks_uri"`
	Token  string `json:"token_endpoint"`
	Device string `json:"device_authorization_endpoint"`
	// Methods are how clients may authenticate themselves; none stands for basic.
	Methods []string `json:"token_endpoint_auth_methods_supported"`
}

// takesBasic reports whether a client may send its secret by HTTP basic
// authentication.
func (e *endpoints) takesBasic() bool {
	return len(e.Methods) == 0 || slices.Contains(e.Methods, "client_secret_basic")
}

// A link is how cap reaches an issuer during one login. It answers for the issuer
// what claims knows, and passes on the rest: the exchange of a code, and userinfo.
// So discovery and keys have one cache, which forgets what the issuer withdraws, and
// a flood of tokens with made-up keys cannot make the mount hammer the issuer.
type link struct {
	ctx       context.Context //nolint:containedctx // of the login, which it lives as long as: cap asks for keys with one of its own
	now       time.Time
	provider  *Provider
	document  []byte
	endpoints endpoints
	idToken   string // whose keys are wanted
	refused   []byte // the first error of the token endpoint
	failed    error  // what claims said when it was asked for keys
}

// RoundTrip answers a request of cap's.
func (l *link) RoundTrip(request *http.Request) (*http.Response, error) {
	switch address := request.URL.String(); address {
	case strings.TrimSuffix(l.provider.config.DiscoveryURL, "/") + "/.well-known/openid-configuration":
		return answerWith(request, http.StatusOK, l.document), nil
	case l.endpoints.JWKS:
		keys, err := l.provider.issuer.KeysFor(l.ctx, l.idToken, l.now)
		if err != nil {
			l.failed = err
			return nil, err
		}
		return answerWith(request, http.StatusOK, keys), nil
	case l.endpoints.Token:
		return l.exchange(request)
	}
	return l.pass(request)
}

// exchange sends a code to the token endpoint. cap's own library sends each twice,
// whatever the first answer is: as a client that authenticates itself the one way, and
// then the other. The second time is for an issuer that did not take the first.
func (l *link) exchange(request *http.Request) (*http.Response, error) {
	_, _, basic := request.BasicAuth()
	switch {
	case l.refused != nil && !isInvalidClient(l.refused):
		return answerWith(request, http.StatusBadRequest, l.refused), nil
	case basic && !l.endpoints.takesBasic():
		return answerWith(request, http.StatusUnauthorized, []byte(`{"error":"invalid_client"}`)), nil
	}
	response, err := l.pass(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	var tokens struct {
		IDToken string `json:"id_token"`
	}
	switch {
	case response.StatusCode != http.StatusOK:
		l.refused = body
	case json.Unmarshal(body, &tokens) == nil:
		l.idToken = tokens.IDToken
	}
	return response, nil
}

func isInvalidClient(body []byte) bool {
	var said struct {
		Error string `json:"error"`
	}
	return json.Unmarshal(body, &said) == nil && said.Error == "invalid_client"
}

// pass makes the request. A redirect is none that an endpoint answers with, and would
// bring secrets elsewhere.
func (l *link) pass(request *http.Request) (*http.Response, error) {
	response, err := l.provider.issuer.Transport().RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		_ = response.Body.Close()
		return nil, fmt.Errorf("%s answered with a redirect", request.URL.Redacted())
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, mostAnswer), response.Body}
	return response, nil
}

func answerWith(request *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: request,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}
