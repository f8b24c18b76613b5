package delivery

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	json "github.com/go-json-experiment/json/v1"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"k8s.io/client-go/util/workqueue"
)

// A nats-server with a full resolver can go by another account JWT than the one that
// it was given and has stored. Where a client of an account is the first since the
// server's start, in the same milliseconds in which the account is pushed, the server
// reads the former file, then takes the push, which finds nobody to be told of it, and
// then puts the former account into use (server.go, fetchAccount, of 2.15.2). The same
// JWT pushed again is no change to it. So some time after a push that may have been a
// change the servers are asked what they go by, and are made to load the account anew
// where that is something else.
//
// Where both put theirs into use at once, a server can even go by the former account and
// name the present one (updateAccountWithClaimJWT): the name is set last. So what it says
// of the revocations that it goes by counts too.
//
// And of the clients that are the first of an account since the server's start, all but
// the one that has it loaded find it half made (buildInternalAccount): a revoked user
// among them is let in, and stays if nothing of the account changes. So the servers are
// made to load accounts that revoke somebody before a client does, and then to take the
// account once more, which throws out who has slipped in.
const (
	lookAfter = 2 * time.Second

	// mostLooks bounds how often a server is asked, and made to load an account, after
	// one change: it may have reasons of its own.
	mostLooks = 3

	// manyLooks is from when on the servers are asked which accounts they have loaded,
	// instead of asking for each. After an operator's key is rotated all have changed.
	manyLooks = 20
)

const accountzSubject = "$SYS.REQ.SERVER.PING.ACCOUNTZ"

// connzSubject is where servers are asked who is connected to an account, for which they
// load it.
func connzSubject(id string) string { return "$SYS.REQ.ACCOUNT." + id + ".CONNZ" }

// accountz is the part of a server's answer that is used (monitor.go, Accountz): of one
// account what it goes by, or else which accounts it has loaded.
type accountz struct {
	Server serverInfo `json:"server"`
	Data   struct {
		Accounts []string `json:"accounts"`
		Account  struct {
			JWT     string               `json:"jwt"`
			Revoked map[string]time.Time `json:"revoked_user"`
		} `json:"account_detail"`
	} `json:"data"`
}

// looks are the accounts of which it is to be seen what servers go by.
type looks struct {
	queue workqueue.TypedDelayingInterface[string]
	again map[string]int // of the worker: how often more, of those that were made to be loaded anew
}

func newLooks() *looks {
	return &looks{queue: workqueue.NewTypedDelayingQueue[string](), again: make(map[string]int)}
}

// lookLater has one looked at after a while.
func (r *Reconciler) lookLater(id string) { r.looks.queue.AddAfter(id, lookAfter) }

// keepLooking looks at what is due.
func (r *Reconciler) keepLooking() {
	for {
		id, shutdown := r.looks.queue.Get()
		if shutdown {
			return
		}
		ids := []string{id}
		for r.looks.queue.Len() > 0 {
			if id, shutdown = r.looks.queue.Get(); shutdown {
				return
			}
			ids = append(ids, id)
		}
		r.lookAtAll(ids)
		for _, id := range ids {
			r.looks.queue.Done(id)
		}
	}
}

func (r *Reconciler) lookAtAll(ids []string) {
	var loaded map[string]bool
	if len(ids) >= manyLooks {
		loaded = r.loaded()
	}
	for _, id := range ids {
		if loaded == nil || loaded[id] || r.revokesIn(id) {
			r.look(id)
		} else {
			delete(r.looks.again, id)
		}
	}
}

// look asks what servers go by. Where that is not what is wanted, the account is pushed
// so that they load it anew, and looked at once more. One that is being delivered is
// looked at after that.
func (r *Reconciler) look(id string) {
	wanted, ok, err := r.source.Wanted(r.ctx, id)
	name := ""
	there := err == nil && ok && !r.leaving(id)
	if there {
		if revokes(wanted) {
			r.haveLoaded(id)
		}
		name = r.goesByAnother(id, wanted)
	}
	more, again := r.looks.again[id]
	if !again {
		more = mostLooks
	}
	if name == "" || more == 0 {
		delete(r.looks.again, id)
		if there && !again && revokes(wanted) {
			r.want(id, func(u *undone) { u.rewrite = true })
		}
		return
	}
	if now, _, err := r.source.Wanted(r.ctx, id); err != nil || now != wanted {
		delete(r.looks.again, id)
		return // it has changed meanwhile, and is looked at when that is delivered
	}
	r.looks.again[id] = more - 1
	r.logger.Warn("a NATS server goes by another account than it was given, and is made to load it anew", "account", id, "server", name)
	r.want(id, func(u *undone) { u.rewrite, u.look = true, true })
}

// revokes reports whether an account JWT revokes anybody, without reading all of it.
func revokes(accountJWT string) bool {
	_, rest, _ := strings.Cut(accountJWT, ".")
	claims, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(claims)
	return err == nil && bytes.Contains(text, []byte(`"revocations":{`))
}

func (r *Reconciler) revokesIn(id string) bool {
	wanted, ok, err := r.source.Wanted(r.ctx, id)
	return err == nil && ok && revokes(wanted)
}

// lookAtLoaded looks, a while after a comparison, at all that servers have loaded and at
// all that revoke somebody, if a server has come since that was last done: it was given
// what it lacked while clients came to it.
func (s *syncRun) lookAtLoaded() {
	arrivals := s.fleet.arrivals()
	if s.link == nil || arrivals == s.looked {
		return
	}
	for id := range s.loaded() {
		s.lookLater(id)
	}
	for _, id := range s.revoking {
		s.lookLater(id)
	}
	s.looked = arrivals
}

// goesByAnother returns the name of a server of ours that has the account loaded and
// goes by another JWT, empty if there is none.
func (r *Reconciler) goesByAnother(id, wanted string) (name string) {
	revoked := sync.OnceValues(func() (jwt.RevocationList, error) {
		claims, err := jwt.DecodeAccountClaims(wanted)
		if err != nil {
			return nil, err
		}
		return claims.Revocations, nil
	})
	r.askLoaded(id, func(answer accountz) {
		loaded := strings.TrimSpace(answer.Data.Account.JWT)
		if loaded == "" {
			return
		}
		same := loaded == wanted
		if list, err := revoked(); same && err == nil {
			same = maps.EqualFunc(list, answer.Data.Account.Revoked, func(before int64, shown time.Time) bool { return before == shown.Unix() })
		}
		if !same {
			name = answer.Server.Name
		}
	})
	return name
}

// loaded are the accounts that any server of ours has loaded, nil if they do not say.
func (r *Reconciler) loaded() map[string]bool {
	var all map[string]bool
	r.askLoaded("", func(answer accountz) {
		if all == nil {
			all = make(map[string]bool)
		}
		for _, id := range answer.Data.Accounts {
			all[id] = true
		}
	})
	return all
}

// askLoaded asks all servers what they have loaded, of one account or, without an id,
// which they are. One that does not have the account answers with an error.
func (r *Reconciler) askLoaded(id string, take func(accountz)) {
	r.askEach(accountzSubject, map[string]any{"account": id}, take)
}

// haveLoaded has all servers load an account that they have not loaded.
func (r *Reconciler) haveLoaded(id string) {
	r.askEach(connzSubject(id), map[string]any{"limit": 1}, func(accountz) {})
}

// askEach asks all servers something, and waits for each of them.
func (r *Reconciler) askEach(subject string, question map[string]any, take func(accountz)) {
	data, err := json.Marshal(question)
	if err != nil {
		return
	}
	silent := make(map[string]bool)
	for server := range r.fleet.present() {
		silent[server] = true
	}
	ctx, cancel := context.WithTimeout(r.ctx, answerTimeout)
	defer cancel()
	err = r.link.ask(ctx, request{subject: subject, data: data, servers: len(silent)}, func(data []byte) bool {
		var answer accountz
		if json.Unmarshal(data, &answer) == nil && silent[answer.Server.ID] {
			delete(silent, answer.Server.ID)
			take(answer)
		}
		return len(silent) == 0
	})
	if err != nil && !errors.Is(err, errNoAnswer) && !errors.Is(err, nats.ErrNoResponders) && r.ctx.Err() == nil {
		r.logger.Debug("the NATS servers do not say what accounts they go by", "error", err)
	}
}
