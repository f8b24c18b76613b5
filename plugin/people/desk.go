package people

import (
	"sync"
	"time"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// Bounds of what a mount holds for people who log in.
const (
	// mostTried is how many states are remembered at which a login failed or is under
	// way. Who proves nothing can only push out what was left by others who proved
	// nothing: their state could be tried once more, with a code that it is not for.
	mostTried = 1 << 14
	// mostKept is how many outcomes wait to be fetched, mostKeptSize their size in
	// bytes, and mostKeptOfOne how many of them may be one person's.
	mostKept      = 1 << 12
	mostKeptSize  = 64 << 20
	mostKeptOfOne = 4
)

// A Desk is where people's logins of one mount come in.
type Desk struct {
	seal  *seal
	polls polls

	mu    sync.Mutex
	tried generations // not completed: unproven
	done  generations // completed: each has made a person prove something
	kept  map[ID]*kept
	size  int
}

// kept is an outcome that waits to be fetched.
type kept struct {
	login  *Login
	person *Person
	size   int
}

// NewDesk returns an empty one.
func NewDesk() *Desk {
	return &Desk{
		seal:  newSeal(),
		tried: generations{most: mostTried},
		kept:  map[ID]*kept{},
	}
}

// Open returns the login that a state is of. A login that has expired comes with the
// error that says so.
func (d *Desk) Open(state string, now time.Time) (*Login, error) {
	login, err := d.seal.open(state, now)
	if err != nil {
		return login, fault.In("state", "cannot be used: %s", err)
	}
	return login, nil
}

// Confirmation is what a person's browser sends back when they confirm that it was
// they who began the login.
func (d *Desk) Confirmation(login *Login) string { return d.seal.derive("confirmation", login.ID) }

// ErrUsed is that a state was used before. A person who sends a form twice sees it,
// too.
var ErrUsed = fault.In("state", "was used before: begin the login again if the program that you began it with does not go on")

// Use notes that the login is being completed. A state is good for that once.
func (d *Desk) Use(login *Login, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done.has(login.ID, now) || d.tried.has(login.ID, now) {
		return ErrUsed
	}
	d.tried.add(login.ID, "", now)
	return nil
}

// Failed notes why the login was not completed, for whoever asks for its outcome.
func (d *Desk) Failed(login *Login, why string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(why) > 500 {
		why = why[:500]
	}
	d.tried.add(login.ID, why, now)
}

// Denied uses up a login that the issuer sent the person back from without having
// logged them in, and says why.
func (d *Desk) Denied(login *Login, problem string, now time.Time) error {
	if err := d.Use(login, now); err != nil {
		return err
	}
	text := "the issuer did not log the person in: " + named(problem)
	d.Failed(login, text, now)
	return &Refusal{Text: text}
}

// Done notes that the login was completed.
func (d *Desk) Done(login *Login, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done.add(login.ID, "", now)
}

// Keep holds the outcome of a login until it is fetched.
func (d *Desk) Keep(login *Login, person *Person, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done.add(login.ID, "", now)
	d.expire(now)
	size := person.size()
	if len(d.kept) >= mostKept || size > mostKeptSize-d.size {
		return fault.New("too many logins wait for being fetched: try again in some minutes")
	}
	d.dropOldestOf(person)
	d.kept[login.ID] = &kept{login: login, person: person, size: size}
	d.size += size
	return nil
}

// dropOldestOf makes room for one more of the person's.
func (d *Desk) dropOldestOf(person *Person) {
	var oldest *kept
	count := 0
	for _, k := range d.kept {
		if !k.person.isSame(person) {
			continue
		}
		count++
		if oldest == nil || k.login.Began < oldest.login.Began {
			oldest = k
		}
	}
	if count >= mostKeptOfOne {
		d.drop(oldest)
	}
}

func (d *Desk) drop(k *kept) {
	delete(d.kept, k.login.ID)
	d.size -= k.size
}

func (d *Desk) expire(now time.Time) {
	for _, k := range d.kept {
		if now.After(k.login.Expires()) {
			d.drop(k)
		}
	}
}

// Take returns the outcome of a login, once: nil while there is none yet. A login
// that has failed comes back as an error.
func (d *Desk) Take(login *Login, now time.Time) (*Person, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.kept[login.ID]; k != nil {
		d.drop(k)
		return k.person, nil
	}
	if why := d.tried.get(login.ID, now); why != "" {
		return nil, fault.New("%s", why)
	}
	if d.done.has(login.ID, now) {
		return nil, fault.In("state", "was used before: its outcome was fetched already")
	}
	return nil, nil
}

// generations remember logins for at least their lifetime, and no more than about
// most of them, unless that is 0.
type generations struct {
	most              int
	current, previous map[ID]string
	since             time.Time
}

func (g *generations) turn(now time.Time) {
	full := g.most > 0 && len(g.current) >= g.most/2
	if g.current == nil || full || now.Sub(g.since) > Lifetime {
		if now.Sub(g.since) > 2*Lifetime {
			g.current = nil
		}
		g.current, g.previous, g.since = map[ID]string{}, g.current, now
	}
}

func (g *generations) add(id ID, note string, now time.Time) {
	g.turn(now)
	g.current[id] = note
}

func (g *generations) has(id ID, now time.Time) bool {
	g.turn(now)
	_, current := g.current[id]
	_, previous := g.previous[id]
	return current || previous
}

func (g *generations) get(id ID, now time.Time) string {
	g.turn(now)
	if note, ok := g.current[id]; ok {
		return note
	}
	return g.previous[id]
}
