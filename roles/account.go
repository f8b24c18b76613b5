package roles

import (
	"slices"

	"github.com/nats-io/jwt/v2"
)

// CheckAccount says why nats-server would refuse every user of the role, by what
// the JWT of its account says of all users, or nothing. It is nil for an account
// of which that is not known. An account that is closed for now, by a limit, is
// no fault of the role: that is a warning.
func (c *Compiled) CheckAccount(a *jwt.Account) error {
	if a != nil && a.Limits.DisallowBearer && c.user.template.limits.BearerToken {
		return badField("user_template", "has bearer_token, which disallow_bearer of the account forbids: nats-server refuses such users")
	}
	return nil
}

// warnOfAccess warns of permissions that leave nothing out. Those of the account
// hold for users who have none at all: neither pub, nor sub, nor resp
// (buildInternalNkeyUser in nats-server's accounts.go).
func (c *Compiled) warnOfAccess(a *jwt.Account, warn func(bool, string)) {
	allowed := c.user.scope().Permissions
	own, defaults := !isEmpty(allowed), !isEmpty(a.DefaultPermissions)
	if !own {
		allowed = a.DefaultPermissions
	}
	// With resp nothing is sent but answers, unless there is a list of more.
	pub := everything(allowed.Pub) && (allowed.Resp == nil || len(allowed.Pub.Allow) > 0)
	sub := everything(allowed.Sub)

	by, also := "user_template restricts neither pub nor sub", ""
	switch {
	case pub && !sub:
		by = "user_template does not restrict pub"
	case sub && !pub:
		by = "user_template does not restrict sub"
	}
	switch {
	case own && defaults:
		also = ", and default_permissions of the account are for users without any permissions"
	case defaults:
		also = ", nor do default_permissions of the account"
	}
	warn(pub && sub, "the role grants every subject of its account: "+by+also)
	warn(pub && !sub, "the role's users may publish to every subject of its account: "+by+also)
	warn(sub && !pub, "the role's users may subscribe to every subject of its account: "+by+also)
}

func isEmpty(p jwt.Permissions) bool { return p.Pub.Empty() && p.Sub.Empty() && p.Resp == nil }

// everything says whether a permission leaves out no subject. To NATS an empty
// list of allowed subjects allows them all.
func everything(p jwt.Permission) bool {
	return len(p.Deny) == 0 && (len(p.Allow) == 0 || slices.Contains(p.Allow, ">"))
}

// warnOfClosedAccount warns of an account that lets the role's users not in, or
// not as what the role makes them.
func (c *Compiled) warnOfClosedAccount(a *jwt.Account, warn func(bool, string)) {
	const nobody = "nats-server lets none of the role's users connect: "
	clients, leafNodes := c.user.template.connects()
	warn(none(a.Limits.Subs), nobody+"limits of the account have subs of 0")
	warn((!clients || none(a.Limits.Conn)) && (!leafNodes || none(a.Limits.LeafNodeConn)),
		nobody+"limits of the account have conn or leaf of 0 for the connections that the role allows")
	warn(a.HasExternalAuthorization(), "nats-server asks the account's auth callout about the role's users, "+
		"and takes account and permissions from its answer, not from the role: authorization of the account lists auth_users")
}

// none says whether a limit of an account allows nothing. For one below -1
// nats-server has no other meaning.
func none(limit int64) bool { return limit <= 0 && limit != jwt.NoLimit }

// connects says as what the template's users may connect.
func (u *userTemplate) connects() (clients, leafNodes bool) {
	types := u.limits.AllowedConnectionTypes
	isLeafNode := func(t string) bool { return t == jwt.ConnectionTypeLeafnode || t == jwt.ConnectionTypeLeafnodeWS }
	isClient := func(t string) bool { return !isLeafNode(t) }
	return len(types) == 0 || slices.ContainsFunc(types, isClient), len(types) == 0 || slices.ContainsFunc(types, isLeafNode)
}
