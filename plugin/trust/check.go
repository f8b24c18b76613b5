package trust

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// ValidateAccount says what nats-server would find wrong with an account of
// that public key, or drop of it without a word: its own checks, which name the
// place, and those of jwt/v2.
func ValidateAccount(publicKey string, a *jwt.Account) error {
	checks := []func(*jwt.Account) error{checkLimits, checkExports, checkMappings, checkSigningScopes, checkAuthorization, checkTrace}
	for _, check := range checks {
		if err := check(a); err != nil {
			return fmt.Errorf("is not valid: %w", err)
		}
	}
	if err := checkImports(publicKey, a.Imports); err != nil {
		return fmt.Errorf("is not valid: %w", err)
	}
	if scope, own := a.SigningKeys[publicKey]; own && scope != nil {
		return errors.New("is not valid: signing_keys has the account's identity key with a scope, which would not hold")
	}
	if err := checkPermissions(&a.DefaultPermissions, "default_permissions.", nil); err != nil {
		return fmt.Errorf("is not valid: %w", err)
	}
	claims := &jwt.AccountClaims{Account: *a}
	claims.Subject = publicKey
	if err := validate(claims); err != nil {
		return err
	}
	// validate sets the sampling that jwt/v2 would set when it encodes.
	a.Trace = claims.Trace
	return nil
}

// tierName is how nats-server calls the JetStream limits of streams with so many
// replicas.
var tierName = regexp.MustCompile(`^R[1-9][0-9]*$`)

// checkLimits: to nats-server -1 is no limit, and a lesser number one that nothing
// is below.
func checkLimits(a *jwt.Account) error {
	l := &a.Limits
	limits := map[string]int64{
		"subs": l.Subs, "data": l.Data, "payload": l.Payload, "imports": l.Imports, "exports": l.Exports, "conn": l.Conn, "leaf": l.LeafNodeConn,
	}
	addJetStream(limits, "", &l.JetStreamLimits)
	for tier, tiered := range l.JetStreamTieredLimits {
		if tier != "" && !tierName.MatchString(tier) { // jwt/v2 says so of the former
			return fmt.Errorf("limits.tiered_limits has the tier %q: they are called R1, R3 and so on, by the number of replicas", tier)
		}
		addJetStream(limits, "tiered_limits."+tier+".", &tiered)
	}
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		if limits[name] < jwt.NoLimit {
			return fmt.Errorf("limits.%s is %d: %d stands for no limit", name, limits[name], jwt.NoLimit)
		}
	}
	return nil
}

func addJetStream(limits map[string]int64, prefix string, l *jwt.JetStreamLimits) {
	maps.Copy(limits, map[string]int64{
		prefix + "mem_storage": l.MemoryStorage, prefix + "disk_storage": l.DiskStorage,
		prefix + "streams": l.Streams, prefix + "consumer": l.Consumer, prefix + "max_ack_pending": l.MaxAckPending,
		prefix + "mem_max_stream_bytes": l.MemoryMaxStreamBytes, prefix + "disk_max_stream_bytes": l.DiskMaxStreamBytes,
	})
}

// checkExports: nats-server exports what can never be imported, and leaves
// latencies out that it could not measure (accounts.go, TrackServiceExport).
func checkExports(a *jwt.Account) error {
	for i, export := range a.Exports {
		if export == nil {
			continue // which jwt/v2 says
		}
		if err := checkSubject(string(export.Subject)); err != nil {
			return fmt.Errorf("exports[%d].subject %w", i, err)
		}
		if export.Latency == nil {
			continue
		}
		results := string(export.Latency.Results)
		if err := checkLiteral(results); err != nil {
			return fmt.Errorf("exports[%d].service_latency.results %w", i, err)
		}
		if export.ResponseType != "" && export.ResponseType != jwt.ResponseTypeSingleton {
			return fmt.Errorf("exports[%d].service_latency is measured only where response_type is %s", i, jwt.ResponseTypeSingleton)
		}
		for _, other := range a.Exports {
			if other != nil && other.IsService() && isSubset(results, string(other.Subject)) {
				return fmt.Errorf("exports[%d].service_latency.results is %q, which is a request to the exported service %q", i, results, other.Subject)
			}
		}
	}
	return nil
}

// checkMappings refuses what jwt/v2 passes and nats-server does not take
// (accounts.go, validateAccountClaimMappings).
func checkMappings(a *jwt.Account) error {
	for _, from := range slices.Sorted(maps.Keys(a.Mappings)) {
		if err := checkSubject(string(from)); err != nil {
			return fmt.Errorf("mappings has a subject that %w", err)
		}
		seen := map[jwt.Subject]bool{}
		for _, to := range a.Mappings[from] {
			if seen[to.Subject] {
				return fmt.Errorf("the mapping of %q has the destination %q twice", from, to.Subject)
			}
			seen[to.Subject] = true
			if to.Subject == "" {
				return fmt.Errorf("the mapping of %q has a destination without a subject", from)
			}
			if err := checkMapping(string(from), string(to.Subject)); err != nil {
				return fmt.Errorf("the mapping of %q %w", from, err)
			}
		}
	}
	return nil
}

// checkSigningScopes holds the scopes of signing keys against what users signed
// with them would meet when they connect.
func checkSigningScopes(a *jwt.Account) error {
	for _, key := range slices.Sorted(maps.Keys(a.SigningKeys)) {
		scope, ok := a.SigningKeys[key].(*jwt.UserScope)
		if !ok || scope == nil {
			continue
		}
		err := checkTemplate(&scope.Template)
		if err == nil {
			err = CheckUserOf(a, &scope.Template)
		}
		if err != nil {
			return fmt.Errorf("signing_keys has the key %s, of role %q, whose template %w", key, scope.Role, err)
		}
	}
	return nil
}

// CheckUserOf says why nobody could connect as a user with those limits, whatever
// else is good about them, because of the user's account.
func CheckUserOf(a *jwt.Account, user *jwt.UserPermissionLimits) error {
	if user.BearerToken && a.Limits.DisallowBearer {
		return errors.New("has bearer_token, and the account has limits.disallow_bearer")
	}
	return nil
}

// CheckSystemAccount says what nats-server would not do for an account since it is
// the operator's system account.
func CheckSystemAccount(a *jwt.Account) error {
	if a.Limits.IsJSEnabled() {
		return errors.New("has JetStream limits, and nats-server does not turn JetStream on in the system account")
	}
	return nil
}

// checkAuthorization: nats-server turns the auth callout on where there are
// auth_users, and else forgets the rest.
func checkAuthorization(a *jwt.Account) error {
	if a.Authorization.XKey != "" && len(a.Authorization.AuthUsers) == 0 {
		return errors.New("authorization.xkey is given without auth_users")
	}
	return nil
}

func checkTrace(a *jwt.Account) error {
	if a.Trace == nil {
		return nil
	}
	if err := checkLiteral(string(a.Trace.Destination)); err != nil {
		return fmt.Errorf("trace.dest %w", err)
	}
	return nil
}

// checkPermissions refuses what nats-server leaves out of permissions: of an
// allowed subject that is an annoyance, of a denied one a hole. literal, if set, is
// what a subject is checked as.
func checkPermissions(p *jwt.Permissions, at string, literal func(string) (string, error)) error {
	for _, list := range []struct {
		name     string
		subjects []string
		queues   bool
	}{
		{"pub.allow", p.Pub.Allow, false}, {"pub.deny", p.Pub.Deny, false}, {"sub.allow", p.Sub.Allow, true}, {"sub.deny", p.Sub.Deny, true},
	} {
		for i, subject := range list.subjects {
			if err := checkPermission(subject, list.queues, literal); err != nil {
				return fmt.Errorf("%s%s[%d] %w", at, list.name, i, err)
			}
		}
	}
	return nil
}

// checkPermission takes a subject, or where queues are allowed a subject and a
// queue with a space between them.
func checkPermission(subject string, queues bool, literal func(string) (string, error)) error {
	if literal != nil {
		var err error
		if subject, err = literal(subject); err != nil {
			return err
		}
	}
	parts := []string{subject}
	if queues {
		parts = strings.Split(subject, " ")
	}
	if len(parts) > 2 {
		return fmt.Errorf("is %q, which has too many spaces for a subject and a queue", subject)
	}
	for _, part := range parts {
		if err := checkSubject(part); err != nil {
			return err
		}
	}
	return nil
}

// placeholderPattern is nats-server's for what it fills in when a user of a scoped
// key connects (auth.go, processUserPermissionsTemplate).
var placeholderPattern = regexp.MustCompile(`{{([^}]+)}}`)

// filledIn is a subject of a scope's template with something in place of its
// placeholders.
func filledIn(subject string) (string, error) {
	for _, match := range placeholderPattern.FindAllStringSubmatch(subject, -1) {
		name, argument, called := strings.Cut(strings.ToLower(strings.TrimSpace(match[1])), "(")
		known := []string{"name", "subject", "account-name", "account-subject"}
		if argument != ")" {
			known = []string{"tag", "account-tag"}
		}
		if !called || !strings.HasSuffix(argument, ")") || !slices.Contains(known, name) {
			return "", fmt.Errorf("is %q, where %s is not a placeholder of nats-server's", subject, match[0])
		}
	}
	return placeholderPattern.ReplaceAllString(subject, "x"), nil
}

// checkTemplate checks the permissions and limits of a scope.
func checkTemplate(t *jwt.UserPermissionLimits) error {
	if err := checkPermissions(&t.Permissions, "", filledIn); err != nil {
		return fmt.Errorf("has a fault: %w", err)
	}
	for name, limit := range map[string]int64{"subs": t.Subs, "data": t.Data, "payload": t.Payload} {
		if limit == 0 {
			return fmt.Errorf("has %s 0, which cannot stand in a scope: jwt/v2 writes no zeros, and reads a limit that is not there as none", name)
		}
	}
	return checkUserLimits(t)
}

// checkUserLimits is checkLimits for a user, and looks for hours that never come.
func checkUserLimits(u *jwt.UserPermissionLimits) error {
	for _, limit := range []struct {
		name  string
		value int64
	}{{"subs", u.Subs}, {"data", u.Data}, {"payload", u.Payload}} {
		if limit.value < jwt.NoLimit {
			return fmt.Errorf("has %s %d: %d stands for no limit", limit.name, limit.value, jwt.NoLimit)
		}
	}
	for i, hours := range u.Times {
		if hours.Start != "" && hours.Start == hours.End {
			return fmt.Errorf("has times[%d] that end at %s, when they begin", i, hours.Start)
		}
	}
	return nil
}
