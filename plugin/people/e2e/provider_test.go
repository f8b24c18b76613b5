package e2e

import (
	"context"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// What a mount is registered as at a provider.
const (
	clientID     = "vault"
	clientSecret = "the provider's secret for vault"
)

// password is everybody's.
const password = "correct horse battery staple"

// A person is a user of a provider. The name is the user's ID too: the subject of the
// tokens, in each flow.
type person struct {
	name   string
	groups []string // with the scope "groups"
}

// provider is an OpenID provider: the library that ZITADEL is built on, with the pages
// and the storage of its example server. What is added here is what that server has not:
// groups, a page that asks for consent, and clients of which redirect URIs are registered.
type provider struct {
	URL string // the issuer

	server *http.Server
	pages  http.Handler // the example server's
	people map[string]person

	mutex     sync.Mutex
	redirects []string        // the redirect URIs of the client
	refused   map[string]bool // by the ID of the authorization request
}

// startProvider starts a provider that these people use.
func startProvider(people ...person) (*provider, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &provider{URL: "http://" + listener.Addr().String(), people: map[string]person{}, refused: map[string]bool{}}
	for _, one := range people {
		p.people[one.name] = one
	}
	stored := storage.NewStorageWithClients(directory{p}, map[string]*storage.Client{
		clientID: storage.WebClient(clientID, clientSecret, "http://127.0.0.1/is-replaced"),
	})
	p.pages = exampleop.SetupServer(p.URL, providerStorage{stored, p}, slog.New(slog.DiscardHandler), false)
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = p.server.Serve(listener) }() // always ErrServerClosed after Close
	return p, nil
}

func (p *provider) Close() error { return p.server.Close() }

// register adds a redirect URI of the client, as an administrator of the provider does.
func (p *provider) register(redirectURI string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.redirects = append(p.redirects, redirectURI)
}

var consentPage = template.Must(template.New("consent").Parse(`<!DOCTYPE html>
<html lang="en"><title>Consent</title>
<form>
<input type="hidden" name="id" value="{{.}}">
<p>May vault know who you are?</p>
<button name="consent" value="allow">Allow</button>
<button name="consent" value="deny">Deny</button>
</form>
`))

// ServeHTTP asks for consent between login and answer; the rest is the example server's.
func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/auth/callback" {
		id := r.FormValue("id")
		switch r.FormValue("consent") {
		case "allow":
		case "deny":
			p.mutex.Lock()
			p.refused[id] = true
			p.mutex.Unlock()
		default:
			_ = consentPage.Execute(w, id) // a browser that went away needs no answer
			return
		}
	}
	p.pages.ServeHTTP(w, r)
}

// directory is where the example server looks people up.
type directory struct{ *provider }

func (d directory) GetUserByID(id string) *storage.User {
	if _, known := d.people[id]; !known {
		return nil
	}
	return &storage.User{ID: id, Username: id, Password: password, FirstName: id, Email: id + "@example.com", EmailVerified: true}
}

func (d directory) GetUserByUsername(name string) *storage.User { return d.GetUserByID(name) }

func (directory) ExampleClientID() string { return storage.ServiceUserID }

// providerStorage is the example server's storage with groups, consent and the client's
// own redirect URIs.
type providerStorage struct {
	*storage.Storage
	provider *provider
}

func (s providerStorage) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string) error {
	for _, scope := range scopes {
		if scope == "groups" {
			info.AppendClaims("groups", s.provider.people[request.GetSubject()].groups)
		}
	}
	return s.Storage.SetUserinfoFromRequest(ctx, info, request, scopes)
}

// SaveAuthCode is called right before a code is given out.
func (s providerStorage) SaveAuthCode(ctx context.Context, id, code string) error {
	s.provider.mutex.Lock()
	refused := s.provider.refused[id]
	s.provider.mutex.Unlock()
	if refused {
		return oidc.ErrAccessDenied().WithDescription("the person did not consent")
	}
	return s.Storage.SaveAuthCode(ctx, id, code)
}

func (s providerStorage) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	client, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return registeredClient{client, s.provider}, nil
}

// registeredClient is a confidential client that may use each flow.
type registeredClient struct {
	op.Client
	provider *provider
}

func (c registeredClient) RedirectURIs() []string {
	c.provider.mutex.Lock()
	defer c.provider.mutex.Unlock()
	return append([]string{}, c.provider.redirects...)
}

func (registeredClient) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}

func (registeredClient) IsScopeAllowed(scope string) bool { return scope == "groups" }
