package cluster

import (
	"fmt"
	"net/http"
)

// A revoker is the writer that revokes users: of one account after the other, one by one
// and then all of them. The account before is deleted.
type revoker struct {
	writer
	name    string // of the account, and of its role
	ready   bool   // the role is there
	revoked int
	former  string // name of the account before
	logged  *user  // the last who logged in
}

// step makes the next request.
func (r *revoker) step() {
	switch {
	case r.name == "":
		r.number++
		if name := fmt.Sprintf("g%d", r.number); r.putAccount(name) {
			r.name, r.ready, r.revoked, r.logged = name, false, 0, nil
		}
	case !r.ready:
		_, r.ready, _ = r.send(http.MethodPut, "role/"+r.name, roleOf(r.name))
	case r.revoked == mostRevoked:
		r.revokeAll()
	case r.logged == nil:
		r.logged = r.logIn()
	default:
		r.logIn() // who stays
		r.revokeOne(r.logged)
		r.logged = nil
		r.revoked++
	}
}

// current is the name of the account whose users are being revoked, or of one that is
// there while none is. Nobody writes meanwhile.
func (r *revoker) current() string {
	for _, name := range []string{r.name, r.former} {
		if _, certain := r.ledger.accounts[name]; certain {
			return name
		}
	}
	return steady
}

// logIn has one more good user.
func (r *revoker) logIn() *user {
	u, err := r.tryLogin(r.clients[r.at], r.name)
	if err != nil {
		r.at = (r.at + 1) % size
		return nil
	}
	r.ledger.with(func() { r.ledger.good = append(r.ledger.good, u) })
	return u
}

func (r *revoker) revokeOne(u *user) {
	r.revoke(fields{"user_public_key": u.key}, func(other *user) bool { return other == u })
}

func (r *revoker) revokeAll() {
	acknowledged := r.revoke(fields{"everyone": true}, func(u *user) bool { return u.account == r.name })
	if acknowledged {
		r.logIn() // whoever comes later is good
	}
	if r.former != "" {
		r.deleteAccount(r.former)
		r.send(http.MethodDelete, "role/"+r.former, nil)
	}
	r.former, r.name = r.name, ""
}

// revoke revokes users. What is claimed of the servers has to be so.
func (r *revoker) revoke(whom fields, chosen func(*user) bool) (acknowledged bool) {
	revoked := r.ledger.doubt(chosen)
	_, acknowledged, delivered := r.send(http.MethodPut, "jwt/"+r.name+"/revoke", whom)
	if !acknowledged {
		return false
	}
	r.ledger.with(func() { r.ledger.revoked = append(r.ledger.revoked, revoked...) })
	if delivered && !r.behind.Load() {
		r.areOut(revoked)
	}
	return true
}
