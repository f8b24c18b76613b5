package delivery

import (
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"k8s.io/client-go/util/workqueue"
)

// The subjects on which account JWTs are changed, of which pushSubjects are those that
// are listened to. The link hears nothing that it has sent itself.
const (
	updatesSubject = "$SYS.REQ.CLAIMS.UPDATE" // the account is in the JWT
	oldUpdates     = "$SYS.ACCOUNT.*.CLAIMS.UPDATE"
)

var pushSubjects = []string{updateSubject("*"), oldUpdates, updatesSubject, deleteSubject}

const (
	// An account that somebody else has pushed is pushed anew after firstPause, and if
	// that goes on, ever later up to lastPause: two mounts with one account would be at
	// it for ever.
	firstPause = 5 * time.Millisecond
	lastPause  = 30 * time.Second

	// calm is how long nobody else has to push an account for that to be over.
	calm = 2 * lastPause

	// surely is how often the first of them is pushed anew: servers may hear the other
	// push after ours, since it takes another way.
	surely = 3

	// mostPushed bounds the accounts that are kept in mind. Beyond that, all are compared.
	mostPushed = 10_000
)

// confirmAfter is when an account is pushed again after it was, by how often that is
// still to be done.
var confirmAfter = [...]time.Duration{1: 10 * time.Second, 2: time.Second}

// others are the accounts that somebody else has pushed or deleted: a node that led
// before this one, another mount, a person with nsc. What the mount holds is what the
// servers are to have, so it is pushed once more.
type others struct {
	queue workqueue.TypedDelayingInterface[string]
	pause workqueue.TypedRateLimiter[string]

	mu     sync.Mutex
	pushed map[string]*pushed // by account id

	// The rest is pushAgain's alone: when it last told of this, and what the source last
	// said was removed.
	told     time.Time
	removed  map[string]bool
	listedAt time.Time
}

// pushed is an account that somebody else has pushed.
type pushed struct {
	last    time.Time // when
	confirm int       // how often ours is to be pushed still
}

func newOthers() *others {
	return &others{
		queue:  workqueue.NewTypedDelayingQueue[string](),
		pause:  workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstPause, lastPause),
		pushed: make(map[string]*pushed),
	}
}

// otherPushed hears what others push. It may not block.
func (r *Reconciler) otherPushed(msg *nats.Msg) {
	for _, id := range accountsOf(msg) {
		if !r.others.heard(id) {
			r.compareSoon()
		}
	}
}

// accountsOf are the accounts that a message changes. Whether the servers take it is
// not looked at: to push what they have costs little.
func accountsOf(msg *nats.Msg) []string {
	switch msg.Subject {
	case updatesSubject:
		claims, err := jwt.DecodeAccountClaims(strings.TrimSpace(string(msg.Data)))
		if err != nil {
			return nil
		}
		return []string{claims.Subject}
	case deleteSubject:
		claims, err := jwt.DecodeGeneric(string(msg.Data))
		if err != nil {
			return nil
		}
		listed, _ := claims.Data["accounts"].([]any)
		var ids []string
		for _, id := range listed {
			if id, ok := id.(string); ok {
				ids = append(ids, id)
			}
		}
		return ids
	default: // $SYS.REQ.ACCOUNT.id.CLAIMS.UPDATE, or the same without REQ
		tokens := strings.Split(msg.Subject, ".")
		return tokens[len(tokens)-3 : len(tokens)-2]
	}
}

// heard notes a push, and reports whether there was room to.
func (o *others) heard(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	p := o.pushed[id]
	if p == nil {
		o.forget(now)
		if len(o.pushed) >= mostPushed {
			return false
		}
		p = &pushed{}
		o.pushed[id] = p
	} else if now.Sub(p.last) > calm {
		o.pause.Forget(id)
	}
	p.last = now
	if o.pause.NumRequeues(id) < surely {
		p.confirm = len(confirmAfter)
	}
	o.queue.AddAfter(id, o.pause.When(id))
	return true
}

// forget drops those that nobody has pushed for long. The caller holds the lock.
func (o *others) forget(now time.Time) {
	if len(o.pushed) < mostPushed {
		return
	}
	maps.DeleteFunc(o.pushed, func(id string, p *pushed) bool {
		over := now.Sub(p.last) > calm
		if over {
			o.pause.Forget(id)
		}
		return over
	})
}

// pushAgain pushes what others have pushed.
func (r *Reconciler) pushAgain() {
	for {
		id, shutdown := r.others.queue.Get()
		if shutdown {
			return
		}
		r.answerOther(id)
		r.others.queue.Done(id)
	}
}

func (r *Reconciler) answerOther(id string) {
	ours, err := r.isOurs(id)
	if err != nil {
		r.others.queue.AddAfter(id, minBackoff) // it is kept in mind
		return
	}
	if !ours {
		return
	}
	o := r.others
	o.mu.Lock()
	if p := o.pushed[id]; p != nil && p.confirm > 0 {
		if p.confirm--; p.confirm > 0 {
			o.queue.AddAfter(id, confirmAfter[p.confirm])
		}
	}
	o.mu.Unlock()
	if time.Since(o.told) > calm {
		o.told = time.Now()
		r.logger.Warn("somebody else pushes accounts of this mount to the NATS servers, which are given the mount's own again", "account", id)
	}
	r.want(id, func(*undone) {})
}

// isOurs reports whether the mount has the account, is removing it or has of late. Of
// any other it knows nothing, and has nothing to say.
func (r *Reconciler) isOurs(id string) (bool, error) {
	_, wanted, err := r.source.Wanted(r.ctx, id)
	if wanted || err != nil {
		return wanted, err
	}
	r.mu.Lock()
	leaving := r.undone[id] != nil
	r.mu.Unlock()
	if leaving {
		return true, nil
	}
	o := r.others
	if time.Since(o.listedAt) > time.Second { // a linked operator may push many of its own
		ids, err := r.source.Removed(r.ctx)
		if err != nil {
			return false, err
		}
		o.listedAt, o.removed = time.Now(), make(map[string]bool, len(ids))
		for _, id := range ids {
			o.removed[id] = true
		}
	}
	return o.removed[id], nil
}
