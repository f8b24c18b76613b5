package claims

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// parseAPIServer parses kubernetes_host. A host without a scheme is asked over
// TLS, where rest itself would send tokens unencrypted unless there is a CA
// certificate.
func parseAPIServer(host string) (*url.URL, error) {
	if host == "" {
		return nil, errors.New("kubernetes_host is missing")
	}
	server, _, err := rest.DefaultServerURL(host, "/apis", schema.GroupVersion{}, true)
	switch {
	case err != nil || !isHost(server.Hostname()):
		return nil, errors.New("kubernetes_host is not a host, host:port or URL")
	case server.Scheme != "https" && server.Scheme != "http":
		return nil, fmt.Errorf("kubernetes_host is a URL of the scheme %.20s, not of https or http", server.Scheme)
	case server.User != nil:
		return nil, fmt.Errorf("kubernetes_host %w", errCredentials)
	case server.RawQuery != "" || server.ForceQuery:
		return nil, errors.New("kubernetes_host has a query, which no request would carry")
	case strings.Contains(host, "#"):
		return nil, errors.New("kubernetes_host has a fragment, which no request would carry")
	}
	return server, nil
}

// normalServer returns the one form that all URLs of an API server have which
// differ in nothing that matters: the case of its name, the form of an IPv6
// address, a default port, slashes at the end.
func normalServer(server *url.URL) string {
	host, port := strings.Map(lower, server.Hostname()), server.Port()
	if address, err := netip.ParseAddr(server.Hostname()); err == nil {
		host = address.String()
	}
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[server.Scheme]
	}
	normal := url.URL{Scheme: server.Scheme, Host: net.JoinHostPort(host, port)}
	return normal.String() + strings.TrimRight(server.EscapedPath(), "/")
}

// lower lowers ASCII letters only: two names that Unicode would make equal are
// not known to be of one server.
func lower(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}

// isHost reports whether the name can be one of a server: a bracketed one is to
// be an address.
func isHost(name string) bool {
	if strings.Contains(name, ":") {
		_, err := netip.ParseAddr(name)
		return err == nil && utf8.ValidString(name)
	}
	return name != "" && utf8.ValidString(name)
}

// KeepsReviewer reports whether the TokenReviewerJWT that was given for before
// may be used with cfg without being given again. It is a secret that nobody can
// read back, so a change must not bring it to somebody else who can.
//
// The host must be the same, whatever its form: it alone says whose server is
// meant, and with another one a writer could have the token sent to themselves.
//
// Of the CA certificates at least one must be the same. A cluster's CA is
// replaced by adding the next one, moving the server over, and removing the old
// one; the token goes on all the while. It is true that one more CA is one more
// who can vouch for a server, as much as a replaced one is. But to profit from
// it one must both be allowed to write the issuer and answer at the address of
// its host, and to that one it would be no hindrance to write twice; against it
// stands that each step of an honest rotation would stop the logins. A bundle
// that has nothing in common with the earlier one is no step of a rotation: it
// is another cluster's, whose reviewer has another token. So is a change from
// CACert to the pod's CA or the system's, or back, of which it cannot be known
// what they have in common.
func (cfg *KubernetesConfig) KeepsReviewer(before *KubernetesConfig) bool {
	server, err := parseAPIServer(cfg.Host)
	if err != nil {
		return false
	}
	earlier, err := parseAPIServer(before.Host)
	if err != nil || normalServer(server) != normalServer(earlier) {
		return false
	}
	if cfg.CACert == "" && before.CACert == "" {
		return cfg.DisableLocalCAJWT == before.DisableLocalCAJWT
	}
	return SharesCA(cfg.CACert, before.CACert)
}
