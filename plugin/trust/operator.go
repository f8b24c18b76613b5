package trust

import (
	"fmt"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// systemDocs is where nsc's exports of a system account point to.
const systemDocs = "https://docs.nats.io/nats-server/configuration/sys_accounts"

// SystemAccount is a new operator's system account, with the exports that nsc
// gives it: other accounts can import them to watch themselves.
func SystemAccount() *jwt.Account {
	account := jwt.NewAccountClaims("-").Account
	account.Exports = jwt.Exports{
		&jwt.Export{
			Name:                 "account-monitoring-streams",
			Subject:              "$SYS.ACCOUNT.*.>",
			Type:                 jwt.Stream,
			AccountTokenPosition: 3,
			Info:                 jwt.Info{Description: "Account specific monitoring stream", InfoURL: systemDocs},
		},
		&jwt.Export{
			Name:                 "account-monitoring-services",
			Subject:              "$SYS.REQ.ACCOUNT.*.*",
			Type:                 jwt.Service,
			ResponseType:         jwt.ResponseTypeStream,
			AccountTokenPosition: 4,
			Info: jwt.Info{
				Description: "Request account specific monitoring services for: SUBSZ, CONNZ, LEAFZ, JSZ and INFO",
				InfoURL:     systemDocs,
			},
		},
	}
	return &account
}

// DeliveryUser is the "nats" claim of the system account's user that brings
// account JWTs to the servers: it may ask for that and hear the answers, and
// nothing else of what a user of the system account may.
func DeliveryUser(issuerAccount string) *jwt.User {
	user := jwt.NewUserClaims("-").User
	user.IssuerAccount = issuerAccount
	user.Type, user.Version = jwt.UserClaim, jwtVersion
	user.Pub.Allow = jwt.StringList{
		"$SYS.REQ.ACCOUNT.*.CLAIMS.UPDATE", // each kind of resolver takes it
		"$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP", // what a server has of an account,
		"$SYS.REQ.CLAIMS.PACK",             // and of all
		"$SYS.REQ.CLAIMS.DELETE",
		"$SYS.REQ.SERVER.PING",          // which servers there are,
		"$SYS.REQ.SERVER.*.VARZ",        // which operators they trust,
		"$SYS.REQ.SERVER.PING.ACCOUNTZ", // and which accounts they go by
		"$SYS.REQ.ACCOUNT.*.CONNZ",      // and to load one
	}
	user.Sub.Allow = jwt.StringList{
		"_INBOX.>",
		"$SYS.SERVER.*.STATSZ",             // servers that come,
		"$SYS.SERVER.*.SHUTDOWN",           // and go
		"$SYS.REQ.ACCOUNT.*.CLAIMS.UPDATE", // what others push,
		"$SYS.ACCOUNT.*.CLAIMS.UPDATE",     // in each of the ways that there are,
		"$SYS.REQ.CLAIMS.UPDATE",
		"$SYS.REQ.CLAIMS.DELETE", // and remove
	}
	user.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket}
	return &user
}

// Resolver is how nats-servers get at account JWTs.
type Resolver string

// The resolvers of nats-server.
const (
	ResolverFull   Resolver = "full"   // each server keeps all accounts
	ResolverCache  Resolver = "cache"  // a server keeps the accounts it uses, and asks those with a full resolver
	ResolverMemory Resolver = "memory" // accounts stand in the configuration
	ResolverURL    Resolver = "url"    // a server fetches the accounts it uses
)

// A ServerConfig is the part of a nats-server's configuration that makes it
// trust an operator.
type ServerConfig struct {
	OperatorJWT      string
	SystemAccount    string // public key
	SystemAccountJWT string
	Resolver         Resolver
	Dir              string             // for full and cache
	URL              string             // for url; the account's public key is appended
	Accounts         []PreloadedAccount // for memory: all of them
	Sentinel         string             // JWT of the user that clients are who bring no JWT; empty for none
}

// PreloadedAccount is an account JWT in the configuration.
type PreloadedAccount struct{ ID, JWT string }

// Text is the configuration in nats-server's syntax.
func (c ServerConfig) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "operator: %s\nsystem_account: %s\n", c.OperatorJWT, c.SystemAccount)
	if c.Sentinel != "" {
		fmt.Fprintf(&b, "default_sentinel: %s\n", c.Sentinel)
	}
	b.WriteByte('\n')
	preload := []PreloadedAccount{{c.SystemAccount, c.SystemAccountJWT}}
	switch c.Resolver {
	case ResolverFull:
		fmt.Fprintf(&b, "resolver: {\n  type: full\n  dir: %q\n  allow_delete: true\n  interval: \"2m\"\n}\n", c.Dir)
	case ResolverCache:
		fmt.Fprintf(&b, "resolver: {\n  type: cache\n  dir: %q\n  ttl: \"1h\"\n}\n", c.Dir)
	case ResolverMemory:
		b.WriteString("resolver: MEMORY\n")
		preload = c.Accounts
	case ResolverURL:
		fmt.Fprintf(&b, "resolver: URL(%s)\n", c.URL)
		return b.String() // it takes no preloaded accounts
	}
	b.WriteString("\nresolver_preload: {\n")
	for _, account := range preload {
		fmt.Fprintf(&b, "  %s: %s\n", account.ID, account.JWT)
	}
	b.WriteString("}\n")
	return b.String()
}
