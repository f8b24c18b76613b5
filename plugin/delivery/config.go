package delivery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config says where the servers are and how to speak to them. Its functions are
// all needed, but Pushed, and may be called concurrently. It is not changed after New; a
// mount whose configuration changes makes a new Reconciler.
type Config struct {
	// ServerURLs is where account JWTs are taken: nats and tls URLs of one
	// cluster, or http and https URLs of account servers, but not both.
	ServerURLs []string

	// ServiceURLs are the nats and tls URLs of the servers that fetch from the
	// account servers and have to be told of a change. They are used only with
	// http and https ServerURLs, and may be empty: then the account server has
	// to tell them.
	ServiceURLs []string

	// TLS applies to every connection, NATS and HTTP.
	TLS TLS

	// Operator is the public key of the operator's identity. Servers that trust
	// other operators are left alone.
	Operator string

	// Ours reports whether a key of the operator's signed an account JWT: one that it
	// has or has had. Other accounts that servers hold are left alone.
	Ours func(accountJWT string) bool

	// User returns a fresh JWT of a system account user and a function that
	// signs a server's nonce with that user's key. It is called at every
	// connect, so that the JWT can be short-lived.
	User func() (userJWT string, sign func(nonce []byte) ([]byte, error), err error)

	// DeleteToken returns the generic JWT which $SYS.REQ.CLAIMS.DELETE wants:
	// issuer and subject are the same operator key, and its data has the key
	// "accounts" with a list of id.
	DeleteToken func(id string) (string, error)

	// Farewell returns an account JWT for id that lets nobody in: no connections,
	// every user issued before now revoked, expiring at expires. It takes an
	// account off servers that refuse deletion or know none.
	Farewell func(id string, expires time.Time) (string, error)

	// Lead proves that this node leads, which is that no other may push to the servers,
	// and returns when that proof was asked for; see LeadTime. It is called for every
	// account, so it keeps a proof that holds for a while.
	Lead func(ctx context.Context) (asked time.Time, err error)

	// ClockSkew is how far the clock of a server may be from the one here. A server
	// that is further off is told of, and the last JWT of a removed account lives so
	// much longer.
	ClockSkew time.Duration

	// Pushed, if set, is told of each attempt to deliver an account: how long it took,
	// and what it failed with.
	Pushed func(took time.Duration, err error)

	// Logger gets connection changes and refusals; never a token or a seed.
	Logger hclog.Logger
}

// TLS holds PEM texts. The zero value means the system's roots and no client
// certificate.
type TLS struct {
	CA   string // certificates to trust instead of the system's
	Cert string // client certificate chain, with Key
	Key  string // private key of Cert
}

// Source is the truth: the accounts that the servers are to hold, by public key.
type Source interface {
	// Wanted returns the account JWT that the servers are to hold for id;
	// ok is false if they are to hold none.
	Wanted(ctx context.Context, id string) (accountJWT string, ok bool, err error)

	// All yields every id for which Wanted has a JWT.
	All(ctx context.Context) iter.Seq2[string, error]

	// Pending lists the ids, of deleted accounts too, whose last change was
	// stored and not yet reported through Delivered.
	Pending(ctx context.Context) ([]string, error)

	// Removed lists the ids whose removal was reported through Delivered within
	// the last RememberRemoved. A server that was away then may hold them still,
	// and gives them to the others once it is back.
	Removed(ctx context.Context) ([]string, error)

	// Delivered is told that the servers hold accountJWT for id, or nothing if
	// it is empty: the change is no longer pending, unless the wanted JWT is
	// another one by now.
	Delivered(ctx context.Context, id, accountJWT string) error
}

// endpoints are Config's URLs, sorted by what is spoken there.
type endpoints struct {
	nats []string
	http []*url.URL
	tls  *tls.Config // nil: the default
}

func (c Config) endpoints() (endpoints, error) {
	var e endpoints
	tlsConfig, err := c.TLS.config()
	if err != nil {
		return e, err
	}
	e.tls = tlsConfig
	if len(c.ServerURLs) == 0 {
		return e, errors.New("account_jwt_server_url: is empty")
	}
	for _, raw := range c.ServerURLs {
		u, err := parseURL(raw, "nats", "tls", "http", "https")
		if err != nil {
			return e, fmt.Errorf("account_jwt_server_url: %w", err)
		}
		if u.Scheme == "http" || u.Scheme == "https" {
			e.http = append(e.http, u)
		} else {
			e.nats = append(e.nats, raw)
		}
	}
	if len(e.http) > 0 && len(e.nats) > 0 {
		return e, errors.New("account_jwt_server_url: has both NATS and HTTP URLs")
	}
	if len(e.http) == 0 {
		return e, nil
	}
	for _, raw := range c.ServiceURLs {
		if _, err := parseURL(raw, "nats", "tls"); err != nil {
			return e, fmt.Errorf("service_url: %w", err)
		}
		e.nats = append(e.nats, raw)
	}
	return e, nil
}

// parseURL does not quote raw in its errors: it may hold a password.
func parseURL(raw string, schemes ...string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("is not a URL")
	}
	if !slices.Contains(schemes, u.Scheme) {
		return nil, fmt.Errorf("has the scheme %q, want one of %q", u.Scheme, schemes)
	}
	if u.Hostname() == "" {
		return nil, errors.New("names no host")
	}
	return u, nil
}

// Check reports what is wrong with the URLs and the TLS texts, without touching
// the network.
func (c Config) Check() error {
	_, err := c.endpoints()
	return err
}

func (t TLS) config() (*tls.Config, error) {
	if t == (TLS{}) {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, errors.New("tls ca: holds no PEM certificate")
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("tls client certificate and key: one is given without the other")
	}
	if t.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(t.Cert), []byte(t.Key))
		if err != nil {
			return nil, fmt.Errorf("tls client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
