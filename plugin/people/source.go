package people

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// askTimeout bounds all that a Source asks for one login.
const askTimeout = 30 * time.Second

// A Source knows of people what their tokens do not say: the directory that an
// issuer's provider_config names.
type Source interface {
	// Find returns what the directory says of the person. It is called at each login
	// with a token of the issuer, after the token was verified.
	Find(ctx context.Context, of *Subject) (*Found, error)
}

// A checker is a Source that can be tried before anybody logs in.
type checker interface {
	check(ctx context.Context) error
}

// A Subject is whom a Source is asked about, and for which role.
type Subject struct {
	// Claims are what the verified token says, with userinfo if there is some: to be
	// read, not to be changed.
	Claims map[string]any
	// User is the value of the role's user_claim. Empty: it is not in the claims.
	User string
	// GroupsClaim is the role's groups_claim: a claim, or a JSON pointer. Empty: no
	// groups are wanted.
	GroupsClaim string
	// AccessToken is the person's, or the distributed_claim_access_token that came
	// with a token. Empty: there is none.
	AccessToken string
	// Presented says that AccessToken did not come from the issuer together with the
	// claims, but from whoever logs in: it may be somebody else's.
	Presented bool
}

// groups is what the claims say of groups; nil if they do not.
func (s *Subject) groups() any { return s.path().Find(s.Claims) }

// path is where the role looks for groups. It was parsed when the role was written.
func (s *Subject) path() claims.Path {
	path, _ := claims.ParsePath(s.GroupsClaim)
	return path
}

// Found is what a Source says.
type Found struct {
	Claims map[string]any // to be added; nil: none
	// Groups takes the place of the role's groups_claim unless it is nil.
	Groups []string
}

// A SourceConfig is what a Source is made of.
type SourceConfig struct {
	Settings     map[string]any // provider_config
	Issuer       string         // the mount's name of the issuer
	DiscoveryURL string         // its oidc_discovery_url; empty: it has none
	// Transport reaches the issuer's servers, and so those of the Source. Nil: they
	// are trusted as the system trusts servers.
	Transport http.RoundTripper
}

// sourceKinds make the sources that there are, by the value of provider: those of
// the JWT method.
var sourceKinds = map[string]func(s *settings, c *SourceConfig) (Source, error){
	"azure":      newAzure,
	"gsuite":     newGSuite,
	"ibmisam":    splitAt(" "),
	"okta":       newOkta,
	"secureauth": splitAt(","),
}

// secretKeys are the keys of provider_config that are never read back.
var secretKeys = []string{keyServiceAccount, keyAPIToken}

// NewSource makes what a provider_config names: nil of an empty one. Its errors are
// faults of that field and name the key. It asks nobody for anything.
func NewSource(c SourceConfig) (Source, error) {
	if len(c.Settings) == 0 {
		return nil, nil
	}
	s := &settings{config: c.Settings}
	name := s.text("provider")
	make, known := sourceKinds[name]
	switch kinds := strings.Join(slices.Sorted(maps.Keys(sourceKinds)), ", "); {
	case s.err != nil:
		return nil, s.err
	case name == "":
		return nil, fault.In(providerConfig, "has no provider: it is one of %s", kinds)
	case name == "kubernetes":
		return nil, fault.In(providerConfig, "has the provider kubernetes: tokens of service accounts are verified here by an issuer with kubernetes_host")
	case !known:
		return nil, fault.In(providerConfig, "has the provider %.100q: it is one of %s", name, kinds)
	}
	source, err := make(s, &c)
	if err == nil {
		err = s.unknown(name)
	}
	if err != nil {
		return nil, err
	}
	return source, nil
}

// ShownSource is a provider_config as it can be read back: without its secrets.
func ShownSource(settings map[string]any) map[string]any {
	shown := make(map[string]any, len(settings))
	maps.Copy(shown, settings)
	for _, key := range secretKeys {
		delete(shown, key)
	}
	return shown
}

// HasSecret reports whether a provider_config holds what ShownSource leaves out.
// Whoever points its issuer to another server must not take that along unseen.
func HasSecret(settings map[string]any) bool {
	return slices.ContainsFunc(secretKeys, func(key string) bool { return settings[key] != nil && settings[key] != "" })
}

// CheckSource tries what can be tried before anybody logs in, so that a mistake
// shows when it is configured. The source may be nil.
func CheckSource(ctx context.Context, source Source) error {
	c, ok := source.(checker)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := c.check(ctx)
	var outage *claims.UnavailableError
	if errors.As(err, &outage) {
		err = outage.Unwrap() // who configures it may know what is behind it
	}
	if err != nil {
		return fault.In(providerConfig, "cannot be used: %s", err)
	}
	return nil
}

// Ask returns the claims that a source, which may be nil, adds to those of a
// subject: the groups, where the role looks for them, and for some sources claims of
// their own. Nil: none.
//
// Its errors can be shown to whoever logs in: they name the request that failed and
// its status, and hold no token and no secret. Where the source could not be asked,
// or not now, they match [claims.ErrUnavailable].
func Ask(ctx context.Context, source Source, of *Subject) (more map[string]any, err error) {
	if source == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found, err := source.Find(ctx, of)
	if errors.Is(err, claims.ErrUnavailable) {
		return nil, err
	}
	if err == nil {
		more, err = found.beside(of)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", providerConfig, err)
	}
	return more, nil
}

// beside is what was found as claims beside the subject's.
func (f *Found) beside(of *Subject) (map[string]any, error) {
	for name := range f.Claims {
		if of.Claims[name] != nil {
			return nil, fmt.Errorf("the claim %.100q is in the token as well", name)
		}
	}
	path := of.path()
	if f.Groups == nil || path.String() == "" {
		return f.Claims, nil
	}
	groups := make([]any, len(f.Groups))
	for i, group := range f.Groups {
		groups[i] = group
	}
	more := maps.Clone(f.Claims)
	if more == nil {
		more = make(map[string]any, 1)
	}
	all := maps.Clone(of.Claims)
	maps.Copy(all, more)
	all, err := path.With(all, groups)
	if err != nil {
		return nil, fmt.Errorf("the groups claim %q %w", path, err)
	}
	more[path.Top()] = all[path.Top()]
	return more, nil
}

// textList returns a claim that is a list of strings, or one string, and whether
// it is that.
func textList(value any) ([]string, bool) {
	switch v := value.(type) {
	case string:
		return []string{v}, true
	case []any:
		list := make([]string, len(v))
		for i, element := range v {
			text, ok := element.(string)
			if !ok {
				return nil, false
			}
			list[i] = text
		}
		return list, true
	}
	return nil, false
}
