// Command least is a Vault auth method whose login does what a login that answers with
// NATS credentials cannot do without, and nothing else: it reads the workload's token and
// checks its signature, makes a user key, signs a user JWT and answers with both, for an
// alias of the workload's own. It checks no claim, knows no roles, and delivers and
// revokes nothing. Everything is done as Go's and NATS's libraries do it. So it is what
// the no-op plugin's rate comes to for who has that work to do.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	account, err := nkeys.CreateAccount()
	if err != nil {
		return nil, err
	}
	public, err := account.PublicKey()
	if err != nil {
		return nil, err
	}
	m := &method{account: account, public: public}
	b := &framework.Backend{
		BackendType:  logical.TypeCredential,
		PathsSpecial: &logical.Paths{Unauthenticated: []string{"login"}},
		Paths: []*framework.Path{{
			Pattern: "login$",
			Fields: map[string]*framework.FieldSchema{
				"role": {Type: framework.TypeString},
				"jwt":  {Type: framework.TypeString},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{Callback: m.login},
			},
		}},
	}
	if err := b.Setup(ctx, conf); err != nil {
		return nil, err
	}
	return b, nil
}

type method struct {
	account nkeys.KeyPair
	public  string

	mu   sync.RWMutex
	keys map[string]any // of the issuer whose JWKS_URL the environment has, by kid
}

func (m *method) login(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	claims, err := m.verify(d.Get("jwt").(string))
	if err != nil {
		return nil, err
	}
	name, _ := claims["sub"].(string)
	data, err := m.issue(name, fmt.Sprint(claims["namespace_path"]))
	if err != nil {
		return nil, err
	}
	metadata := map[string]string{"role": "bench"}
	return &logical.Response{
		Auth: &logical.Auth{
			DisplayName: name, Policies: []string{"bench"}, LeaseOptions: logical.LeaseOptions{TTL: time.Hour},
			Alias: &logical.Alias{Name: name, Metadata: metadata}, Metadata: metadata,
		},
		Data: data,
	}, nil
}

// verify reads the claims of a token and checks its signature.
func (m *method) verify(token string) (map[string]any, error) {
	signed, signature, ok := cutLast(token)
	header, payload, both := strings.Cut(signed, ".")
	if !ok || !both {
		return nil, errors.New("not a JWT")
	}
	var head struct {
		Kid string `json:"kid"`
	}
	var claims map[string]any
	if err := errors.Join(decode(header, &head), decode(payload, &claims)); err != nil {
		return nil, err
	}
	sig, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		return nil, err
	}
	key, err := m.key(head.Kid)
	if err != nil {
		return nil, err
	}
	return claims, check(key, []byte(signed), sig)
}

func cutLast(token string) (before, after string, ok bool) {
	i := strings.LastIndexByte(token, '.')
	if i < 0 {
		return token, "", false
	}
	return token[:i], token[i+1:], true
}

func decode(part string, into any) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func check(key any, signed, signature []byte) error {
	sum := sha256.Sum256(signed)
	valid := false
	switch key := key.(type) {
	case *rsa.PublicKey:
		valid = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	case *ecdsa.PublicKey:
		half := len(signature) / 2
		valid = ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
	case ed25519.PublicKey:
		valid = ed25519.Verify(key, signed, signature)
	}
	if !valid {
		return errors.New("the signature is not the issuer's")
	}
	return nil
}

// key finds an issuer's key, and asks the issuer for its keys if it is new.
func (m *method) key(kid string) (any, error) {
	m.mu.RLock()
	key, ok := m.keys[kid]
	m.mu.RUnlock()
	if ok {
		return key, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if key, ok := m.keys[kid]; ok {
		return key, nil
	}
	response, err := http.Get(os.Getenv("JWKS_URL"))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(response.Body).Decode(&set); err != nil {
		return nil, err
	}
	m.keys = map[string]any{}
	for _, key := range set.Keys {
		m.keys[key.KeyID] = key.Key
	}
	if key, ok := m.keys[kid]; ok {
		return key, nil
	}
	return nil, fmt.Errorf("the issuer has no key %q", kid)
}

// userHeader is that of all of NATS's JWTs.
var userHeader = base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`))

type userClaims struct {
	ID      string `json:"jti"`
	Expires int64  `json:"exp"`
	Issued  int64  `json:"iat"`
	Issuer  string `json:"iss"`
	Name    string `json:"name"`
	Subject string `json:"sub"`
	NATS    any    `json:"nats"`
}

// issue makes a user key and a user JWT of which the account's key is the signer, and the
// answer with them.
func (m *method) issue(name, namespace string) (map[string]any, error) {
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	public, err := user.PublicKey()
	if err != nil {
		return nil, err
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	expires := now.Add(time.Hour)
	subject := "orders." + namespace + ".>"
	payload, err := json.Marshal(userClaims{
		ID: public, Expires: expires.Unix(), Issued: now.Unix(), Issuer: m.public, Name: name, Subject: public,
		NATS: map[string]any{
			"pub":  map[string]any{"allow": []string{subject}},
			"sub":  map[string]any{"allow": []string{subject, "_INBOX.>"}},
			"subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2,
		},
	})
	if err != nil {
		return nil, err
	}
	signed := userHeader + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := m.account.Sign([]byte(signed))
	if err != nil {
		return nil, err
	}
	token := signed + "." + base64.RawURLEncoding.EncodeToString(signature)
	creds, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"jwt": token, "creds": string(creds), "user_public_key": public, "account": "orders", "account_public_key": m.public,
		"expiration": expires.UTC().Format(time.RFC3339), "ttl": 3600, "url": "nats://127.0.0.1:4222",
	}, nil
}
