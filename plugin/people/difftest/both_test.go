package difftest

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	jwtauth "github.com/hashicorp/vault-plugin-auth-jwt"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/optest"
)

type fields = map[string]any

// A side is one of the two methods.
type side struct {
	t       *testing.T
	name    string
	backend logical.Backend
	storage *logical.InmemStorage
}

func newSide(t *testing.T, name string, factory logical.Factory) *side {
	t.Helper()
	s := &side{t: t, name: name, storage: &logical.InmemStorage{}}
	backend, err := factory(t.Context(), &logical.BackendConfig{
		System: &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour}, StorageView: s.storage,
	})
	require.NoError(t, err)
	t.Cleanup(func() { backend.Cleanup(t.Context()) })
	s.backend = backend
	return s
}

// both are the two methods, this one first.
func both(t *testing.T) []*side {
	t.Helper()
	ours := newSide(t, "nats", plugin.Factory)
	// What Vault's method does not know of: with it the same roles do for both.
	ours.must(logical.UpdateOperation, "config", fields{"default_account": "orders"})
	ours.must(logical.CreateOperation, "jwt/orders", fields{"type": "account"})
	return []*side{ours, newSide(t, "jwt", jwtauth.Factory)}
}

func (s *side) do(operation logical.Operation, path string, data fields) (*logical.Response, error) {
	return s.backend.HandleRequest(s.t.Context(), &logical.Request{
		Operation: operation, Path: path, Storage: s.storage, Data: maps.Clone(data), MountPoint: "auth/x/", Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	})
}

func (s *side) must(operation logical.Operation, path string, data fields) *logical.Response {
	s.t.Helper()
	resp, err := s.do(operation, path, data)
	require.NoError(s.t, err, s.name)
	require.NoError(s.t, resp.Error(), s.name)
	return resp
}

// read is what reading a path shows, with empty values as absent.
func (s *side) read(path string) fields {
	s.t.Helper()
	text, err := json.Marshal(s.must(logical.ReadOperation, path, nil).Data)
	require.NoError(s.t, err)
	var data fields
	require.NoError(s.t, json.Unmarshal(text, &data))
	maps.DeleteFunc(data, func(_ string, value any) bool {
		list, isList := value.([]any)
		object, isObject := value.(map[string]any)
		return value == nil || value == "" || value == false || value == 0.0 || isList && len(list) == 0 || isObject && len(object) == 0
	})
	return data
}

// An outcome is what can be compared of an answer.
type outcome struct {
	Refused  bool
	Shown    fields              // of a read
	Query    map[string][]string // of an auth_url
	Alias    string
	Groups   []string
	Metadata map[string]string
	Policies []string
	TTL      time.Duration
}

// refused is the outcome of an error.
var refused = outcome{Refused: true}

func outcomeOf(resp *logical.Response, err error) outcome {
	if err != nil || resp.IsError() {
		return refused
	}
	o := outcome{}
	if resp == nil || resp.Auth == nil {
		return o
	}
	o.Alias, o.Policies, o.TTL = resp.Auth.Alias.Name, resp.Auth.Policies, resp.Auth.TTL
	o.Metadata = maps.Clone(resp.Auth.Metadata)
	for _, own := range []string{"account", "user_public_key"} { // of the NATS user
		delete(o.Metadata, own)
	}
	for _, alias := range resp.Auth.GroupAliases {
		o.Groups = append(o.Groups, alias.Name)
	}
	return o
}

// written writes, and is what can be read then of what the JWT method knows.
func (s *side) written(path string, known []string, data fields) outcome {
	operation := logical.CreateOperation
	if path == "config" {
		operation = logical.UpdateOperation
	}
	if o := outcomeOf(s.do(operation, path, data)); o.Refused {
		return o
	}
	shown := s.read(path)
	maps.DeleteFunc(shown, func(name string, _ any) bool { return !slices.Contains(known, name) })
	return outcome{Shown: shown}
}

// begin asks for an auth_url. An empty one is a refusal.
func (s *side) begin(data fields) (address string, o outcome) {
	resp, err := s.do(logical.UpdateOperation, "oidc/auth_url", data)
	if o = outcomeOf(resp, err); o.Refused {
		return "", o
	}
	if address = resp.Data["auth_url"].(string); address == "" {
		return "", refused
	}
	u, err := url.Parse(address)
	require.NoError(s.t, err)
	o.Query = map[string][]string(u.Query())
	require.Len(s.t, o.Query["state"], 1)
	// What is random, and only has to be there.
	_, namespace, _ := strings.Cut(o.Query["state"][0], ",")
	o.Query["state"] = []string{namespace}
	for _, random := range []string{"nonce", "code_challenge"} {
		if o.Query[random] != nil {
			o.Query[random] = []string{"random"}
		}
	}
	o.Query["at"] = []string{strings.TrimSuffix(address, "?"+u.RawQuery)}
	return address, o
}

// A login is one as it is made on either side.
type login struct {
	op   *optest.Provider
	s    *side
	back fields
}

func (l *login) callback() outcome {
	return outcomeOf(l.s.do(logical.ReadOperation, "oidc/callback", l.back))
}
