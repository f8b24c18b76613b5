package roles

import (
	"fmt"
	"slices"
	"strings"
)

// Warnings says in sentences what of the role is allowed but seldom meant.
func (c *Compiled) Warnings() []string {
	var warnings []string
	warn := func(when bool, sentence string) {
		if when {
			warnings = append(warnings, sentence)
		}
	}
	t := c.user.template
	pub, sub := t.everything(pubAllow, pubDeny), t.everything(subAllow, subDeny)
	warn(pub && sub, "the role grants every subject of its account: user_template restricts neither pub nor sub")
	warn(pub && !sub, "the role's users may publish to every subject of its account: user_template does not restrict pub")
	warn(sub && !pub, "the role's users may subscribe to every subject of its account: user_template does not restrict sub")
	warn(t.limits.BearerToken, "bearer_token is set in user_template: whoever gets hold of a user JWT can connect with it, without its key")
	warn(c.role.RoleType == TypeKubernetes && c.role.Audience == "",
		"the role has no audience: a service account token that was made for another service can log in with it")
	for _, e := range t.openEnded() {
		warn(true, fmt.Sprintf("%s of user_template is %q: nats-server lets those who may subscribe to it subscribe to all below it too; "+
			"deny %q in sub to keep it to one token", e.place, e.source, e.subject()+".>"))
	}
	return warnings
}

// openEnded returns the allowed subscriptions that end in a * wildcard, which
// nats-server takes to cover a > in its place: it looks a subscription up among
// the allowed ones as if its wildcards were literal tokens (canSubscribe in its
// client.go). A denied subject is also held against each message.
func (u *userTemplate) openEnded() []entry {
	var open []entry
	for _, e := range u.lists[subAllow] {
		subject := e.subject()
		ends := subject == "*" || strings.HasSuffix(subject, ".*")
		closed := slices.ContainsFunc(u.lists[subDeny], func(deny entry) bool { return deny.canonical() == subject+".>" })
		if ends && !closed {
			open = append(open, e)
		}
	}
	return open
}

// everything says whether a permission leaves out no subject. To NATS an empty
// list of allowed subjects allows them all.
func (u *userTemplate) everything(allow, deny int) bool {
	return len(u.lists[deny]) == 0 && (len(u.lists[allow]) == 0 ||
		slices.ContainsFunc(u.lists[allow], func(e entry) bool { return e.source == ">" }))
}
