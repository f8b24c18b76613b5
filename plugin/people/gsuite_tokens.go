package people

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"golang.org/x/sync/singleflight"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

const (
	keyServiceAccount = "gsuite_service_account"
	// googleTokenURL is where Google gives access tokens.
	googleTokenURL = "https://oauth2.googleapis.com/token"
	// assertionTTL is how long an assertion holds that asks for one; Google takes an
	// hour at most.
	assertionTTL = 10 * time.Minute
	// tokenReserve is how long before its end an access token is not used any more.
	tokenReserve = time.Minute
	// maxKeyFile bounds the file of a service account's key, in bytes. It has 2,400.
	maxKeyFile = 64 << 10
)

// googleTokens gets access tokens for the Directory API in one of the three ways of
// the JWT method, and keeps the last one while it is good.
type googleTokens struct {
	api    *api
	grant  func(ctx context.Context, l *lookup) (accessToken, error)
	flight singleflight.Group

	mu   sync.Mutex
	last accessToken
}

type accessToken struct {
	value string
	until time.Time // zero: it cannot be kept
}

func newGoogleTokens(s *settings, a *api) (*googleTokens, error) {
	account := s.secret(keyServiceAccount).reveal()
	admin, principal := s.text("gsuite_admin_impersonate"), s.text("impersonate_principal")
	if s.err != nil {
		return nil, s.err
	}
	t := &googleTokens{api: a}
	switch {
	case strings.HasPrefix(strings.TrimSpace(account), "{"):
		key, err := parseServiceAccount([]byte(account))
		if err != nil {
			return nil, fault.In(providerConfig, "%s %s", keyServiceAccount, err)
		}
		t.grant = func(ctx context.Context, l *lookup) (accessToken, error) { return key.grant(ctx, l, admin) }
	case filepath.IsAbs(account):
		t.grant = func(ctx context.Context, l *lookup) (accessToken, error) {
			key, err := readServiceAccount(account)
			if err != nil {
				return accessToken{}, l.unavailable(fmt.Errorf("the file of %s %w", keyServiceAccount, err))
			}
			return key.grant(ctx, l, admin)
		}
	case account != "":
		return nil, fault.In(providerConfig, "%s is neither the key of a service account in JSON nor the absolute path of a file with one", keyServiceAccount)
	case principal != "":
		if !strings.Contains(principal, "@") || strings.ContainsAny(principal, "/?#") {
			return nil, fault.In(providerConfig, "impersonate_principal is not the email address of a service account")
		}
		t.grant = func(ctx context.Context, l *lookup) (accessToken, error) {
			return grantByPrincipal(ctx, l, principal, admin)
		}
	default:
		t.grant = func(ctx context.Context, l *lookup) (accessToken, error) {
			return defaultToken(ctx, l, admin, directoryScopes...)
		}
	}
	return t, nil
}

// get returns an access token that is good for a while. Logins that need a new one
// at the same time get it together.
func (t *googleTokens) get(ctx context.Context) (string, error) {
	t.mu.Lock()
	last := t.last
	t.mu.Unlock()
	if time.Now().Before(last.until) {
		return last.value, nil
	}
	// Whoever asked first may go away; those who joined have not.
	fetch := t.flight.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		token, err := t.grant(ctx, &lookup{api: t.api})
		if err != nil {
			return "", err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.last = token
		return token.value, nil
	})
	select {
	case result := <-fetch:
		token, _ := result.Val.(string)
		return token, result.Err
	case <-ctx.Done():
		return "", t.api.unavailable(ctx.Err())
	}
}

// forget has the next login get another token than this one.
func (t *googleTokens) forget(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.value == token {
		t.last = accessToken{}
	}
}

// serviceAccount is the key of a service account.
type serviceAccount struct {
	email    string
	keyID    string
	key      *rsa.PrivateKey
	tokenURL *url.URL
}

// parseServiceAccount reads a key as Google's console gives it. Its errors hold
// nothing of it.
func parseServiceAccount(text []byte) (*serviceAccount, error) {
	var file struct {
		Type     string `json:"type"`
		Email    string `json:"client_email"`
		KeyID    string `json:"private_key_id"`
		Key      string `json:"private_key"`
		TokenURI string `json:"token_uri"`
	}
	if json.Unmarshal(text, &file) != nil {
		return nil, errors.New("is not JSON with the key of a service account")
	}
	// Other types, of external accounts, name servers and programs that are to be run.
	if file.Type != "service_account" {
		return nil, errors.New("is not of the type service_account")
	}
	if file.Email == "" {
		return nil, errors.New("has no client_email")
	}
	account := &serviceAccount{email: file.Email, keyID: file.KeyID}
	block, _ := pem.Decode([]byte(file.Key))
	if block == nil {
		return nil, errors.New("has no private_key in PEM format")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return nil, errors.New("has a private_key that is neither in PKCS #8 nor in PKCS #1 form")
		}
	}
	var ok bool
	if account.key, ok = parsed.(*rsa.PrivateKey); !ok {
		return nil, errors.New("has a private_key that is not of RSA")
	}
	if file.TokenURI == "" {
		file.TokenURI = googleTokenURL
	}
	account.tokenURL, err = url.Parse(file.TokenURI)
	if err != nil || account.tokenURL.Scheme != "https" || account.tokenURL.Host == "" || account.tokenURL.User != nil {
		return nil, errors.New("has a token_uri that is not an https URL without credentials")
	}
	return account, nil
}

// readServiceAccount reads the key from a file, whenever an access token is needed,
// so that a new key is used without a new configuration.
func readServiceAccount(path string) (*serviceAccount, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.New("cannot be read")
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("is no file of at most %d bytes", maxKeyFile)
	}
	file, err := os.Open(path) //nolint:gosec // it is the administrator's to name, as in the JWT method
	if err != nil {
		return nil, errors.New("cannot be read")
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return nil, errors.New("cannot be read")
	}
	return parseServiceAccount(text)
}

// claimSet says what an access token is asked for (RFC 7523): by whom, for which
// scopes, and in whose name.
func claimSet(issuer, admin, audience string, scopes []string) ([]byte, error) {
	now := time.Now()
	set := map[string]any{
		"iss":   issuer,
		"scope": strings.Join(scopes, " "),
		"aud":   audience,
		"iat":   now.Unix(),
		"exp":   now.Add(assertionTTL).Unix(),
	}
	if admin != "" {
		set["sub"] = admin
	}
	return json.Marshal(set)
}

// grant asks for an access token with an assertion that the key signs.
func (a *serviceAccount) grant(ctx context.Context, l *lookup, admin string) (accessToken, error) {
	set, err := claimSet(a.email, admin, a.tokenURL.String(), directoryScopes)
	if err != nil {
		return accessToken{}, err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if a.keyID != "" {
		options = options.WithHeader("kid", a.keyID)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: a.key}, options)
	if err != nil {
		return accessToken{}, err
	}
	signed, err := signer.Sign(set)
	if err != nil {
		return accessToken{}, err
	}
	assertion, err := signed.CompactSerialize()
	if err != nil {
		return accessToken{}, err
	}
	return exchange(ctx, l, a.tokenURL, assertion)
}

// grantByPrincipal is grant with a signature that Google makes with a key of a
// service account which it keeps (IAM Credentials API, signJwt), for whoever the
// server runs as.
func grantByPrincipal(ctx context.Context, l *lookup, principal, admin string) (accessToken, error) {
	own, err := defaultToken(ctx, l, "", "https://www.googleapis.com/auth/cloud-platform")
	if err != nil {
		return accessToken{}, err
	}
	set, err := claimSet(principal, admin, googleTokenURL, directoryScopes)
	if err != nil {
		return accessToken{}, err
	}
	body, err := json.Marshal(map[string]string{"payload": string(set)})
	if err != nil {
		return accessToken{}, err
	}
	var signed struct {
		Assertion string `json:"signedJwt"`
	}
	sign := &url.URL{Scheme: "https", Host: "iamcredentials.googleapis.com", Path: "/v1/projects/-/serviceAccounts/" + principal + ":signJwt"}
	if _, err := l.do(ctx, &request{
		method:        http.MethodPost,
		url:           sign,
		authorization: "Bearer " + own.value,
		contentType:   "application/json",
		body:          string(body),
	}, &signed); err != nil {
		return accessToken{}, err
	}
	tokenURL, err := url.Parse(googleTokenURL)
	if err != nil {
		return accessToken{}, err
	}
	return exchange(ctx, l, tokenURL, signed.Assertion)
}

// exchange gets an access token for an assertion (RFC 7523 section 2.1).
func exchange(ctx context.Context, l *lookup, tokenURL *url.URL, assertion string) (accessToken, error) {
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
	r := &request{
		method:      http.MethodPost,
		url:         tokenURL,
		contentType: "application/x-www-form-urlencoded",
		body:        form.Encode(),
	}
	var token struct {
		AccessToken string  `json:"access_token"`
		TokenType   string  `json:"token_type"`
		ExpiresIn   float64 `json:"expires_in"`
	}
	asked := time.Now()
	if _, err := l.do(ctx, r, &token); err != nil {
		return accessToken{}, err
	}
	if token.AccessToken == "" || !strings.EqualFold(token.TokenType, "Bearer") {
		return accessToken{}, fmt.Errorf("%s answered without a bearer token", r.name())
	}
	lifetime := time.Duration(min(token.ExpiresIn, time.Hour.Seconds()) * float64(time.Second))
	return accessToken{value: token.AccessToken, until: asked.Add(lifetime - tokenReserve)}, nil
}

// defaultToken is one of whoever the server runs as: Google's Application Default
// Credentials.
func defaultToken(ctx context.Context, l *lookup, admin string, scopes ...string) (accessToken, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, l.client)
	credentials, err := google.FindDefaultCredentialsWithParams(ctx, google.CredentialsParams{Scopes: scopes, Subject: admin})
	if err != nil {
		return accessToken{}, l.unavailable(err)
	}
	token, err := credentials.TokenSource.Token()
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.Response != nil:
		return accessToken{}, &statusError{
			request: "getting a token by the Application Default Credentials",
			status:  refused.Response.StatusCode,
			code:    errorCode(refused.Body, ""),
		}
	case err != nil:
		return accessToken{}, l.unavailable(err)
	case !strings.EqualFold(token.Type(), "Bearer"):
		return accessToken{}, errors.New("the Application Default Credentials give no bearer token")
	}
	return accessToken{value: token.AccessToken, until: token.Expiry.Add(-tokenReserve)}, nil
}
