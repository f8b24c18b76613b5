package roles

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// Warnings says in sentences what of the role is allowed but seldom meant. The
// account is that of [Compiled.CheckAccount].
func (c *Compiled) Warnings(a *jwt.Account) []string {
	var warnings []string
	warn := func(when bool, sentence string) {
		if when {
			warnings = append(warnings, sentence)
		}
	}
	if a == nil {
		a = &jwt.NewAccountClaims("-").Account // without limits
	}
	c.warnOfAccess(a, warn)
	c.warnOfClosedAccount(a, warn)
	t := c.user.template
	warn(t.limits.BearerToken, "bearer_token is set in user_template: whoever gets hold of a user JWT can connect with it, without its key")
	warn(t.limits.Data != jwt.NoLimit, "data is set in user_template, but nats-server does not hold users to it")
	warn(c.role.RoleType == TypeKubernetes && c.role.Audience == "",
		"the role has no audience: a service account token that was made for another service can log in with it")
	c.warnOfPeople(warn)
	c.warnOfAliases(warn)
	c.warnOfPolicies(warn)
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

// warnOfAliases warns where aliases of two issuers are taken for one, and of a
// binding that holds nobody.
func (c *Compiled) warnOfAliases(warn func(bool, string)) {
	r := &c.role
	several := len(r.BoundIssuers) > 1 || slices.ContainsFunc(r.BoundIssuers, func(glob string) bool { return strings.Contains(glob, "*") })
	name := slices.IndexFunc(c.user.calls, func(call *call) bool { return call.function.name == "alias-name" && call.argument == "" })
	issuer := slices.IndexFunc(c.user.calls, func(call *call) bool { return call.function.name == "alias-issuer" })
	warn(several && name >= 0 && issuer < 0, "bound_issuers has several issuers, whose aliases of one name get the same of {{alias-name()}}: put {{alias-issuer()}} beside it")
	warn(slices.ContainsFunc(r.BoundAliases, func(glob string) bool { return strings.HasPrefix(glob, issuerPrefix) }),
		"bound_aliases has a value that begins with \"issuer:\": names are bound without that, and their issuers by bound_issuers")
}
