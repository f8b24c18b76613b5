package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// ParseAccountConfig reads an account as NATS writes it in the "nats" claim of
// an account JWT. What is not given is unlimited, but JetStream, which is off
// until a limit turns it on. Errors name the key at fault and continue a
// sentence that begins with "config".
func ParseAccountConfig(raw []byte) (*jwt.Account, error) {
	account := jwt.NewAccountClaims("-").Account
	if err := decodeStrict(raw, &account); err != nil {
		return nil, err
	}
	if err := checkType(account.GenericFields, jwt.AccountClaim); err != nil {
		return nil, err
	}
	account.Tags = Tags(account.Tags)
	return &account, nil
}

// AccountConfig is the inverse of ParseAccountConfig: what it returns can be
// written again and gives the same account.
func AccountConfig(a *jwt.Account) ([]byte, error) {
	shown := *a
	shown.GenericFields = jwt.GenericFields{Tags: a.Tags}
	return encodeWithZeros(&shown, "limits", map[string]any{
		"subs": 0, "data": 0, "payload": 0, "imports": 0, "exports": 0, "conn": 0, "leaf": 0, "wildcards": false,
	})
}

// encodeWithZeros encodes v with zero values for those of the keys that are
// missing in the object at the given key, in v itself if that is empty. jwt/v2
// leaves zeros out, but one left out of a config means unlimited, not none.
func encodeWithZeros(v any, at string, zeros map[string]any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var whole map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&whole); err != nil {
		return nil, err
	}
	object := whole
	if at != "" {
		inner, ok := whole[at].(map[string]any)
		if !ok {
			inner = map[string]any{}
			whole[at] = inner
		}
		object = inner
	}
	for key, zero := range zeros {
		if _, given := object[key]; !given {
			object[key] = zero
		}
	}
	return json.Marshal(whole)
}

// userZeros are the limits of a user that are unlimited unless given.
var userZeros = map[string]any{"subs": 0, "data": 0, "payload": 0}

// ValidateAccount says what nats-server would find wrong with an account of
// that public key.
func ValidateAccount(publicKey string, a *jwt.Account) error {
	claims := &jwt.AccountClaims{Account: *a}
	claims.Subject = publicKey
	if err := validate(claims); err != nil {
		return err
	}
	// validate sets the sampling that jwt/v2 would set when it encodes.
	a.Trace = claims.Trace
	for i, imported := range a.Imports {
		if err := CheckPublicKey(Account, imported.Account); err != nil {
			return fmt.Errorf("is not valid: imports[%d].account %w", i, err)
		}
		if imported.Account == publicKey {
			return fmt.Errorf("is not valid: imports[%d] imports from the account itself", i)
		}
	}
	return checkMappings(a.Mappings)
}

// checkMappings refuses what jwt/v2 passes and nats-server drops: a
// destination given twice.
func checkMappings(mappings jwt.Mapping) error {
	for from, destinations := range mappings {
		seen := map[string]bool{}
		for _, to := range destinations {
			key := to.Cluster + " " + string(to.Subject)
			if seen[key] {
				return fmt.Errorf("is not valid: the mapping of %q has the destination %q twice", from, to.Subject)
			}
			seen[key] = true
		}
	}
	return nil
}

// ParseUserConfig reads a user as NATS writes it in the "nats" claim of a user
// JWT. What is not given is unlimited. Errors name the key at fault and
// continue a sentence that begins with "config".
func ParseUserConfig(raw []byte) (*jwt.User, error) {
	user := jwt.NewUserClaims("-").User
	if err := decodeStrict(raw, &user); err != nil {
		return nil, err
	}
	if err := checkType(user.GenericFields, jwt.UserClaim); err != nil {
		return nil, err
	}
	user.Tags = Tags(user.Tags)
	if user.IssuerAccount != "" {
		if err := CheckPublicKey(Account, user.IssuerAccount); err != nil {
			return nil, fmt.Errorf("is not valid: issuer_account %w", err)
		}
	}
	return &user, checkUser(&user.UserPermissionLimits, &user)
}

// UserConfig is the inverse of ParseUserConfig.
func UserConfig(u *jwt.User) ([]byte, error) {
	shown := *u
	shown.IssuerAccount = ""
	shown.GenericFields = jwt.GenericFields{Tags: u.Tags}
	return encodeWithZeros(&shown, "", userZeros)
}

// ParseScope reads the scope of a signing key as NATS writes it in an account
// JWT: role, description and template. The kind may be left out, the key is
// the caller's to set.
func ParseScope(raw []byte) (*jwt.UserScope, error) {
	scope := jwt.NewUserScope()
	if err := decodeStrict(raw, scope); err != nil {
		return nil, err
	}
	return scope, checkUser(&scope.Template, &jwt.User{UserPermissionLimits: scope.Template})
}

// ScopeConfig is the inverse of ParseScope.
func ScopeConfig(s *jwt.UserScope) ([]byte, error) {
	return encodeWithZeros(s, "template", userZeros)
}

// connectionTypes are those of nats-server. It ignores others, and a user with
// none that it knows cannot connect at all.
var connectionTypes = []string{
	jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket, jwt.ConnectionTypeLeafnode, jwt.ConnectionTypeLeafnodeWS,
	jwt.ConnectionTypeMqtt, jwt.ConnectionTypeMqttWS, jwt.ConnectionTypeInProcess,
}

func checkUser(limits *jwt.UserPermissionLimits, user *jwt.User) error {
	results := jwt.CreateValidationResults()
	user.Validate(results)
	if faults := results.Errors(); len(faults) > 0 {
		return fmt.Errorf("is not valid: %w", errors.Join(faults...))
	}
	for i, connection := range limits.AllowedConnectionTypes {
		upper := strings.ToUpper(connection)
		if !slices.Contains(connectionTypes, upper) {
			return fmt.Errorf("is not valid: allowed_connection_types has %q: known are %s", connection, strings.Join(connectionTypes, ", "))
		}
		limits.AllowedConnectionTypes[i] = upper
	}
	return nil
}

// Tags brings tags into the form in which nats-server compares them: lower
// case, without spaces around them, each once.
func Tags(given []string) jwt.TagList {
	var tags jwt.TagList
	tags.Add(given...)
	return tags
}

// checkType lets a whole "nats" claim be given, of the right kind.
func checkType(fields jwt.GenericFields, want jwt.ClaimType) error {
	if fields.Type != "" && fields.Type != want {
		return fmt.Errorf("is the claim of an %s where that of an %s is wanted", fields.Type, want)
	}
	if fields.Version != 0 && fields.Version != jwtVersion {
		return fmt.Errorf("has version %d where %d is wanted", fields.Version, jwtVersion)
	}
	return nil
}
