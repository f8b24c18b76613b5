package roles

import "slices"

// GrantsEverything says whether the role's users may publish and subscribe to
// every subject of the account: no permissions at all, or ">" in both.
func (c *Compiled) GrantsEverything() bool {
	t := c.user.template
	return t.everything(pubAllow, pubDeny) && t.everything(subAllow, subDeny)
}

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
	return warnings
}

// everything says whether a permission leaves out no subject. To NATS an empty
// list of allowed subjects allows them all.
func (t *userTemplate) everything(allow, deny int) bool {
	return len(t.lists[deny]) == 0 && (len(t.lists[allow]) == 0 ||
		slices.ContainsFunc(t.lists[allow], func(e entry) bool { return e.source == ">" }))
}
