package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/callout"
)

// A floor is a nats-server whose auth callout is answered at once, by this process, which
// holds all keys and asks nobody whether a client may come in: what nats-server and client
// cost alone, that no callout can be below.
type floor struct {
	nats     *stack.NATS
	conn     *nats.Conn
	curve    nkeys.KeyPair
	callout  nkeys.KeyPair // the callout's account
	workload nkeys.KeyPair // the clients' account
}

func newFloor(ctx context.Context) (f *floor, err error) {
	f = &floor{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.nats, err = stack.NewNATS(); err != nil {
		return f, err
	}
	config, user, err := f.config()
	if err != nil {
		return f, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := f.nats.Start(ctx, config); err != nil {
		return f, err
	}
	if f.conn, err = nats.Connect(f.nats.URL, nats.UserCredentialBytes(user)); err != nil {
		return f, err
	}
	_, err = f.conn.Subscribe(callout.Subject, func(asked *nats.Msg) {
		if answer, err := f.answer(asked); err == nil {
			_ = asked.Respond(answer) // a client that is not let in fails the run
		}
	})
	return f, errors.Join(err, f.conn.Flush())
}

func (f *floor) close() error {
	if f.conn != nil {
		f.conn.Close()
	}
	if f.nats == nil {
		return nil
	}
	return f.nats.Close()
}

// config makes the keys, the server's configuration and the creds of the callout's user.
func (f *floor) config() (config string, creds []byte, err error) {
	made := &maker{}
	operator := made.pair(nkeys.CreateOperator)
	f.callout, f.workload, f.curve = made.pair(nkeys.CreateAccount), made.pair(nkeys.CreateAccount), made.pair(nkeys.CreateCurveKeys)
	system := made.pair(nkeys.CreateAccount) // nats-server 2.15.2 does not survive a callout without one
	user, sentinel := made.pair(nkeys.CreateUser), made.pair(nkeys.CreateUser)
	if made.err != nil {
		return "", nil, made.err
	}
	account := jwt.NewAccountClaims(made.public(f.callout))
	account.Authorization.AuthUsers.Add(made.public(user))
	account.Authorization.AllowedAccounts.Add(made.public(f.workload))
	account.Authorization.XKey = made.public(f.curve)
	nobody := jwt.NewUserClaims(made.public(sentinel))
	nobody.BearerToken = true
	nobody.Pub.Deny.Add(">")
	nobody.Sub.Deny.Add(">")
	userJWT := made.sign(jwt.NewUserClaims(made.public(user)), f.callout)
	config = fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n%s: %s\n%s: %s\n%s: %s\n}\ndefault_sentinel: %s\n",
		made.sign(jwt.NewOperatorClaims(made.public(operator)), operator), made.public(system),
		made.public(system), made.sign(jwt.NewAccountClaims(made.public(system)), operator),
		account.Subject, made.sign(account, operator),
		made.public(f.workload), made.sign(jwt.NewAccountClaims(made.public(f.workload)), operator),
		made.sign(nobody, f.callout))
	seed, err := user.Seed()
	if err = errors.Join(made.err, err); err != nil {
		return "", nil, err
	}
	creds, err = jwt.FormatUserConfig(userJWT, seed)
	return config, creds, err
}

// answer lets a client in.
func (f *floor) answer(asked *nats.Msg) ([]byte, error) {
	server := asked.Header.Get(callout.XKeyHeader)
	opened, err := f.curve.Open(asked.Data, server)
	if err != nil {
		return nil, err
	}
	request, err := jwt.DecodeAuthorizationRequestClaims(string(opened))
	if err != nil {
		return nil, err
	}
	made := &maker{}
	user := jwt.NewUserClaims(request.UserNkey)
	user.Name, user.Audience, user.Expires = request.ConnectOptions.Username, made.public(f.workload), time.Now().Add(time.Hour).Unix()
	response := jwt.NewAuthorizationResponseClaims(request.UserNkey)
	response.Audience = request.Server.ID
	response.Jwt = made.sign(user, f.workload)
	token := made.sign(response, f.callout)
	if made.err != nil {
		return nil, made.err
	}
	return f.curve.Seal([]byte(token), server)
}

// A maker makes keys and signs, until something fails.
type maker struct{ err error }

func (m *maker) pair(create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	pair, err := create()
	m.err = errors.Join(m.err, err)
	return pair
}

func (m *maker) public(pair nkeys.KeyPair) string {
	public, err := pair.PublicKey()
	m.err = errors.Join(m.err, err)
	return public
}

func (m *maker) sign(claims jwt.Claims, by nkeys.KeyPair) string {
	token, err := claims.Encode(by)
	m.err = errors.Join(m.err, err)
	return token
}
