package cluster

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	// pace is how long a writer waits with its next request: the load is there at every
	// moment, and not high.
	pace = 100 * time.Millisecond

	// most is how many accounts, and how many roles, come and go at once.
	most = 12

	// mostRevoked is how many users of an account are revoked one by one, before all of
	// them are and another account takes its place.
	mostRevoked = 50
)

// A load is what writes to the mount, and looks at what comes of it.
type load struct {
	group sync.WaitGroup

	// Who does something holds it for reading; who needs quiet, for writing.
	quiet sync.RWMutex
}

// every does something again and again, but while somebody needs quiet.
func (l *load) every(ctx context.Context, pause time.Duration, do func()) {
	l.group.Go(func() {
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			l.quiet.RLock()
			do()
			l.quiet.RUnlock()
		}
	})
}

// A writer sends its requests to one Vault, as a client behind a load balancer does, and
// to the next one when that does not answer. What it writes nobody else does.
type writer struct {
	*trial
	at     int // number of the Vault
	number int // of what was made last
}

// send says whether a request was acknowledged, and whether the servers are said to have
// what it changed.
func (w *writer) send(method, path string, data fields) (secret *api.Secret, acknowledged, delivered bool) {
	secret, err := w.cluster.send(w.clients[w.at], method, w.path(path), data)
	if err != nil {
		w.at = (w.at + 1) % size
		return nil, false, false
	}
	w.ledger.with(func() { w.ledger.writes++ })
	return secret, true, len(secret.Warnings) == 0
}

// choose returns one of the names that begin with a letter, or a new one if they are few.
func (w *writer) choose(letter byte, names []string) (name string, known bool) {
	names = slices.DeleteFunc(names, func(name string) bool { return name[0] != letter })
	if len(names) >= most {
		return names[rand.IntN(len(names))], true
	}
	w.number++
	return fmt.Sprintf("%c%d", letter, w.number), false
}

// changeAccount makes an account or changes one, which now and then is to delete it.
func (w *writer) changeAccount() {
	var names []string
	w.ledger.with(func() { names = slices.Collect(maps.Keys(w.ledger.accounts)) })
	name, known := w.choose('a', names)
	if known && rand.IntN(30) == 0 {
		w.deleteAccount(name)
		return
	}
	w.putAccount(name)
}

func (w *writer) deleteAccount(name string) {
	users := w.ledger.doubt(func(u *user) bool { return u.account == name })
	var id string
	w.ledger.with(func() {
		id = w.ledger.accounts[name].id
		delete(w.ledger.accounts, name)
	})
	if _, acknowledged, _ := w.send(http.MethodDelete, "jwt/"+name, nil); acknowledged {
		w.ledger.with(func() {
			w.ledger.deleted[id] = name
			w.ledger.revoked = append(w.ledger.revoked, users...)
		})
	}
}

func (w *writer) putAccount(name string) (acknowledged bool) {
	w.ledger.with(func() { delete(w.ledger.accounts, name) })
	w.number++
	description := fmt.Sprintf("change %d", w.number)
	secret, acknowledged, delivered := w.send(http.MethodPut, "jwt/"+name, fields{"type": "account", "config": fields{"description": description}})
	if !acknowledged {
		return false
	}
	id, _ := secret.Data["public_key"].(string)
	w.ledger.with(func() { w.ledger.accounts[name] = account{id, description} })
	if jwt, _ := secret.Data["jwt"].(string); delivered {
		w.claimed(name, id, jwt)
	}
	return true
}

// changeRole makes a role or changes one, which now and then is to delete it.
func (w *writer) changeRole() {
	var names []string
	w.ledger.with(func() { names = slices.Collect(maps.Keys(w.ledger.roles)) })
	name, known := w.choose('r', names)
	w.ledger.with(func() { delete(w.ledger.roles, name) })
	if known && rand.IntN(30) == 0 {
		w.send(http.MethodDelete, "role/"+name, nil)
		return
	}
	w.number++
	subject := fmt.Sprintf("subject-%d.>", w.number)
	role := roleOf(steady)
	role["user_template"] = `{"pub":{"allow":["` + subject + `"]}}`
	if _, acknowledged, _ := w.send(http.MethodPut, "role/"+name, role); acknowledged {
		w.ledger.with(func() { w.ledger.roles[name] = subject })
	}
}
