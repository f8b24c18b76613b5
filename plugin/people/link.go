package people

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
	failed    error  // what claims said when it was asked for keys
}

// RoundTrip answers a request of cap's.
func (l *link) RoundTrip(request *http.Request) (*http.Response, error) {
	switch address := request.URL.String(); address {
	case strings.TrimSuffix(l.provider.config.DiscoveryURL, "/") + "/.well-known/openid-configuration":
		return answerWith(request, l.document), nil
	case l.endpoints.JWKS:
		keys, err := l.provider.issuer.KeysFor(l.ctx, l.idToken, l.now)
		if err != nil {
			l.failed = err
			return nil, err
		}
		return answerWith(request, keys), nil
	case l.endpoints.Token:
		response, err := l.pass(request)
		if err == nil {
			err = l.noteIDToken(response)
		}
		return response, err
	}
	return l.pass(request)
}

// pass makes the request. A redirect is none that an endpoint answers with, and would
// bring secrets elsewhere.
func (l *link) pass(request *http.Request) (*http.Response, error) {
	response, err := l.provider.issuer.Transport().RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		response.Body.Close()
		return nil, fmt.Errorf("%s answered with a redirect", request.URL.Redacted())
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, mostAnswer), response.Body}
	return response, nil
}

// noteIDToken looks which token's key will be wanted.
func (l *link) noteIDToken(response *http.Response) error {
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(body))
	var tokens struct {
		IDToken string `json:"id_token"`
	}
	if json.Unmarshal(body, &tokens) == nil {
		l.idToken = tokens.IDToken
	}
	return nil
}

func answerWith(request *http.Request, body []byte) *http.Response {
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: request,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}
