package cluster

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// How often somebody tries a server who may not come in, and the servers' files are looked
// at.
const (
	triesPace = 50 * time.Millisecond
	filesPace = 200 * time.Millisecond
)

// watchRevoked has somebody who was revoked, and was refused, try a server again. One that
// was restarted is left alone: a nats-server that reads an account for the first time in
// the moment in which a change of it arrives goes by the former one until the next change.
func (r *trial) watchRevoked() {
	if r.behind.Load() {
		return
	}
	var u *user
	r.ledger.with(func() {
		if n := len(r.ledger.out); n > 0 {
			u = r.ledger.out[rand.IntN(n)]
		}
	})
	if u == nil {
		return
	}
	i := rand.IntN(size)
	if in, err := letsIn(r.servers[i], u); in && err == nil {
		r.finds(letIn, "server %d lets a user of account %s in who was refused before", i, u.account)
	}
}

// areOut checks that users who are revoked, and of whom the mount says that the servers
// know it, are let in nowhere.
func (r *trial) areOut(users []*user) {
	for _, u := range users {
		for i, server := range r.servers {
			if in, err := letsIn(server, u); in && err == nil && !r.behind.Load() {
				r.finds(lied, "a revocation in account %s was delivered, and server %d lets the user in", u.account, i)
			}
		}
	}
	r.ledger.isOut(users...)
}

// claimed checks that the servers hold a JWT of an account of which the mount says so, or a
// later one.
func (r *trial) claimed(name, id, accountJWT string) {
	claims, err := natsjwt.DecodeAccountClaims(accountJWT)
	if err != nil {
		r.finds(lost, "the JWT of account %s: %s", name, err)
		return
	}
	for i, server := range r.servers {
		has, _, err := held(server, id)
		if err != nil || r.behind.Load() {
			continue
		}
		if has == nil || has.IssuedAt < claims.IssuedAt {
			r.finds(lied, "account %s was delivered, and server %d does not hold it", name, i)
		}
	}
}

// A version is what a server was last seen to have of an account.
type version struct {
	written time.Time // the file
	issued  int64     // the JWT, as Unix time
}

func (r *trial) forgetVersions() {
	r.versions = make([]map[string]version, size)
	for i := range r.versions {
		r.versions[i] = map[string]version{}
	}
}

// watchVersions looks at the files of all servers that have changed.
func (r *trial) watchVersions() {
	for i, server := range r.servers {
		paths, err := filepath.Glob(accountFile(server, "*"))
		if err != nil {
			continue
		}
		for _, path := range paths {
			r.watchVersion(i, server, path)
		}
	}
}

func (r *trial) watchVersion(i int, server *stack.NATS, path string) {
	info, err := os.Stat(path)
	if err != nil {
		return // it was deleted
	}
	id := strings.TrimSuffix(filepath.Base(path), ".jwt")
	before := r.versions[i][id]
	if info.ModTime().Equal(before.written) {
		return
	}
	claims, _, err := held(server, id)
	if claims == nil || err != nil {
		return // it is being written, or deleted
	}
	if claims.IssuedAt < before.issued && !r.restored.Load() {
		r.finds(wentBack, "server %d holds account %s of %d, and held that of %d", i, claims.Name, claims.IssuedAt, before.issued)
	}
	r.versions[i][id] = version{written: info.ModTime(), issued: claims.IssuedAt}
}

// connected has a good user be connected all the time, to whichever server is there. Its
// messages have to come back to it.
func (r *trial) connected(ctx context.Context, u *user) {
	urls := make([]string, size)
	for i, server := range r.servers {
		urls[i] = server.URL
	}
	rejected := func(_ *nats.Conn, err error) {
		if err != nil && refusal.MatchString(err.Error()) {
			r.finds(refused, "who is connected: %s", err)
		}
	}
	conn, err := nats.Connect(strings.Join(urls, ","), nats.UserJWTAndSeed(u.jwt, u.seed),
		nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.IgnoreAuthErrorAbort(),
		nats.DisconnectErrHandler(rejected), nats.ReconnectErrHandler(rejected),
		nats.ErrorHandler(func(conn *nats.Conn, _ *nats.Subscription, err error) { rejected(conn, err) }))
	if err != nil {
		r.t.Fatal(err)
	}
	r.group.Go(func() {
		<-ctx.Done()
		conn.Close()
	})
	r.conn = conn
}

// talks returns nil if the user who is connected is, and gets its own message.
func (r *trial) talks() error {
	subject := steady + ".self"
	subscription, err := r.conn.SubscribeSync(subject)
	if err != nil {
		return err
	}
	if err := r.conn.Publish(subject, []byte("hello")); err != nil {
		return err
	}
	if _, err := subscription.NextMsg(time.Second); err != nil {
		return err
	}
	return subscription.Unsubscribe()
}
