package callout

import (
	"errors"
	"strings"
)

// Credentials returns what the client has sent to say who it is: the role that it
// asks for, empty if it leaves that to the callout, and its token.
//
// A client that sends a password sends its token in that, and the role as the user;
// one that sends a token alone (auth_token) may put the role and a colon in front. An
// MQTT client's password comes as both. The errors are for whoever reads the
// nats-server's log.
func (r *Request) Credentials() (role, token string, err error) {
	o := r.options
	switch {
	case o.Password != "" && o.Token != "" && o.Token != o.Password:
		return "", "", errors.New("both a password and another token are given")
	case o.Password != "":
		role, token = o.Username, o.Password
	case o.Token != "":
		token = o.Token
	default:
		return "", "", errors.New("neither a password nor a token is given")
	}
	if role == "" {
		// No JWT has a colon in it, and no role's name.
		if before, after, found := strings.Cut(token, ":"); found {
			role, token = before, after
		}
	}
	if token == "" {
		return "", "", errors.New("the token is empty")
	}
	return role, token, nil
}
