package roles

import "github.com/nats-io/jwt/v2"

// CheckCallout says why no client of an auth callout can be given a user of the
// role, or nothing. nats-server does not hold such a client to all that it holds a
// user with a JWT of its own to: it forgets the JWT before it looks at the limits,
// and does not look at the addresses (auth_callout.go). A role with these is refused,
// and the addresses are the caller's to check: see [Compiled.Sources].
func (c *Compiled) CheckCallout() error {
	limits := &c.user.template.limits
	switch {
	case limits.Subs != jwt.NoLimit:
		return badField("user_template", "has subs, a limit to which nats-server does not hold clients of an auth callout")
	case limits.Payload != jwt.NoLimit:
		return badField("user_template", "has payload, a limit to which nats-server does not hold clients of an auth callout")
	case c.role.UserKeyProof:
		return badField("user_key_proof", "is set, and the key of a client of an auth callout is the nats-server's, which proves nothing")
	case !c.role.CredentialsOnLogin:
		return badField("credentials_on_login", "is false, and a client of an auth callout is given no more than a login gives")
	}
	return nil
}

// Sources are the CIDR blocks from which users of the role may connect; all if
// there are none.
func (c *Compiled) Sources() []string { return c.user.template.limits.Src }
