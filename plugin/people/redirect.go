package people

import (
	"net"
	"net/url"
	"slices"
	"strings"
)

// mostRedirect is how long a redirect URI may be, in bytes: it is part of the state.
const mostRedirect = 1 << 10

// RedirectAllowed reports whether a browser may be sent back to uri: it is one of
// allowed, or a loopback one that differs from one of them in its port alone (RFC
// 8252 section 7.3), since a program cannot know which one will be free.
func RedirectAllowed(uri string, allowed []string) bool {
	if len(uri) > mostRedirect {
		return false
	}
	if slices.Contains(allowed, uri) {
		return true
	}
	portless, ok := withoutLoopbackPort(uri)
	return ok && slices.ContainsFunc(allowed, func(a string) bool {
		other, ok := withoutLoopbackPort(a)
		return ok && other == portless
	})
}

// withoutLoopbackPort returns a loopback URI without its port. A URI of which Go
// and a browser might take another part for its host is none.
func withoutLoopbackPort(uri string) (string, bool) {
	u, err := url.Parse(uri)
	if err != nil || u.String() != uri || u.User != nil || u.Opaque != "" || strings.ContainsAny(uri, "\\#") {
		return "", false
	}
	if host := u.Hostname(); host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return "", false
	}
	u.Host = strings.TrimSuffix(u.Host, ":"+u.Port())
	return u.String(), true
}
