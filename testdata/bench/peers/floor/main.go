// Command floor is a Vault auth method that does only what no login can do without
// that checks a workload's token and issues NATS credentials: it decodes the token and
// checks its signature with a key that it holds in memory, makes a user key, signs a
// fixed user JWT, and answers as the plugin does. It has no roles, checks no claim and
// reads no storage. The benchmarks show with it what is left to gain.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"github.com/nats-io/nkeys"
)

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// floor holds the keys of the workloads' tokens, by algorithm, and the account's.
type floor struct {
	keys          map[string]crypto.PublicKey
	account       ed25519.PrivateKey
	accountPublic string
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	public, account, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	encoded, err := nkeys.Encode(nkeys.PrefixByteAccount, public)
	if err != nil {
		return nil, err
	}
	f := &floor{account: account, accountPublic: string(encoded)}
	b := &framework.Backend{
		BackendType:  logical.TypeCredential,
		PathsSpecial: &logical.Paths{Unauthenticated: []string{"login"}},
		Paths: []*framework.Path{
			{
				Pattern: "login$",
				Fields: map[string]*framework.FieldSchema{
					"role": {Type: framework.TypeString},
					"jwt":  {Type: framework.TypeString},
				},
				Operations: map[logical.Operation]framework.OperationHandler{
					logical.UpdateOperation: &framework.PathOperation{Callback: f.login},
				},
			},
			{
				Pattern: "config$",
				Fields:  map[string]*framework.FieldSchema{"keys": {Type: framework.TypeKVPairs, Description: "Public keys (PEM) by algorithm."}},
				Operations: map[logical.Operation]framework.OperationHandler{
					logical.UpdateOperation: &framework.PathOperation{Callback: f.configure},
				},
			},
		},
	}
	if err := b.Setup(ctx, conf); err != nil {
		return nil, err
	}
	return b, nil
}

// configure is called once, before the first login.
func (f *floor) configure(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	f.keys = map[string]crypto.PublicKey{}
	for alg, text := range d.Get("keys").(map[string]string) {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return nil, errors.New("not a key in PEM")
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		f.keys[alg] = key
	}
	return nil, nil
}

func (f *floor) login(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	claims, err := f.verify(d.Get("jwt").(string))
	if err != nil {
		return nil, err
	}
	data, err := f.issue(claims)
	if err != nil {
		return nil, err
	}
	alias, _ := claims["sub"].(string)
	return &logical.Response{Data: data, Auth: &logical.Auth{
		DisplayName:  alias,
		Policies:     []string{"bench"},
		Alias:        &logical.Alias{Name: alias, Metadata: map[string]string{"role": "bench"}},
		InternalData: map[string]any{"role": "bench", "issuer": "default"},
		Metadata:     map[string]string{"role": "bench", "account": "orders", "user_public_key": data["user_public_key"].(string)},
	}}, nil
}

// verify decodes a token and checks its signature.
func (f *floor) verify(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("not a token")
	}
	var header struct {
		Alg string `json:"alg"`
	}
	var claims map[string]any
	var raw [3][]byte
	for i, part := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(json.Unmarshal(raw[0], &header), json.Unmarshal(raw[1], &claims)); err != nil {
		return nil, err
	}
	if !signed(f.keys[header.Alg], []byte(parts[0]+"."+parts[1]), raw[2]) {
		return nil, errors.New("the signature is wrong")
	}
	return claims, nil
}

func signed(key crypto.PublicKey, text, signature []byte) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		digest := sha256.Sum256(text)
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(text)
		half := len(signature) / 2
		return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
	case ed25519.PublicKey:
		return ed25519.Verify(key, text, signature)
	}
	return false
}

// issue makes a user key and a JWT for it, and what the plugin answers with.
func (f *floor) issue(workload map[string]any) (map[string]any, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	encoded, err := nkeys.Encode(nkeys.PrefixByteUser, public)
	if err != nil {
		return nil, err
	}
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteUser, private.Seed())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"exp": now.Add(time.Hour).Unix(), "jti": "XJOLTCYQPWPTFEEQ5XJXVBRNEIG2F6TVXVVYRTZWAKWGBIIHZCIA", "iat": now.Unix(),
		"iss": f.accountPublic, "name": workload["sub"], "sub": string(encoded),
		"nats": json.RawMessage(`{"pub":{"allow":["orders.shop.>"]},"sub":{"allow":["orders.shop.>","_INBOX.>"]},"subs":-1,"data":-1,"payload":-1,"issuer_account":"` + f.accountPublic + `","type":"user","version":2}`),
	})
	if err != nil {
		return nil, err
	}
	token := base64.RawURLEncoding.AppendEncode([]byte("eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ."), claims)
	token = base64.RawURLEncoding.AppendEncode(append(token, '.'), ed25519.Sign(f.account, token))
	return map[string]any{
		"jwt": string(token), "user_public_key": string(encoded), "account": "orders", "account_public_key": f.accountPublic,
		"expiration": now.Add(time.Hour).UTC().Format(time.RFC3339), "url": "nats://127.0.0.1:4222",
		"creds": "-----BEGIN NATS USER JWT-----\n" + string(token) + "\n------END NATS USER JWT------\n" + notice + string(seed) + "\n------END USER NKEY SEED------\n",
	}, nil
}

const notice = `
************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.
NKEYs are sensitive and should be treated as secrets.

-----BEGIN USER NKEY SEED-----
`
