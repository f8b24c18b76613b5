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
	if err := checkListedOnce(raw, &account); err != nil {
		return nil, err
	}
	if err := canonical(&account); err != nil {
		return nil, fmt.Errorf("is not valid: %w", err)
	}
	dropUnlimited(&account.Limits)
	account.Tags = Tags(account.Tags)
	return &account, nil
}

// checkListedOnce refuses a signing key that is listed twice, of which one would
// be taken without a word, with its scope or without.
func checkListedOnce(raw []byte, a *jwt.Account) error {
	var listed struct {
		Keys []json.RawMessage `json:"signing_keys"`
	}
	if err := json.Unmarshal(raw, &listed); err != nil {
		return fmt.Errorf("is not valid: %w", err)
	}
	if len(listed.Keys) != len(a.SigningKeys) {
		return errors.New("is not valid: signing_keys has a key twice")
	}
	return nil
}

// dropUnlimited drops the JetStream limits beside tiered ones that limit nothing.
// Tools leave them behind, and servers pass over them.
func dropUnlimited(l *jwt.OperatorLimits) {
	if len(l.JetStreamTieredLimits) == 0 {
		return
	}
	for _, limit := range []*int64{&l.MemoryStorage, &l.DiskStorage, &l.Streams, &l.Consumer, &l.MaxAckPending, &l.MemoryMaxStreamBytes, &l.DiskMaxStreamBytes} {
		if *limit == jwt.NoLimit {
			*limit = 0
		}
	}
}

// AccountConfig is the inverse of ParseAccountConfig: what it returns can be
// written again and gives the same account.
func AccountConfig(a *jwt.Account) ([]byte, error) {
	shown := *a
	shown.GenericFields = jwt.GenericFields{Tags: a.Tags}
	return encodeWithZeros(&shown, func(config map[string]any) {
		addZeros(objectAt(config, "limits"), accountZeros)
		keys, _ := config["signing_keys"].([]any)
		for _, key := range keys {
			if scope, ok := key.(map[string]any); ok {
				addZeros(objectAt(scope, "template"), userZeros)
			}
		}
	})
}

// encodeWithZeros encodes v, and has add put the zeros in that jwt/v2 leaves out:
// one left out of a config means unlimited, not none.
func encodeWithZeros(v any, add func(map[string]any)) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	config, err := decodeNumbers(raw)
	if err != nil {
		return nil, err
	}
	add(config)
	return json.Marshal(config)
}

// objectAt is the object at the key, which is made if it is not there.
func objectAt(config map[string]any, key string) map[string]any {
	object, ok := config[key].(map[string]any)
	if !ok {
		object = map[string]any{}
		config[key] = object
	}
	return object
}

// decodeNumbers decodes a JSON object, and leaves numbers as they are written.
func decodeNumbers(raw []byte) (map[string]any, error) {
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		return nil, fmt.Errorf("is not valid JSON: %w", err)
	}
	return object, nil
}

func addZeros(object, zeros map[string]any) {
	for key, zero := range zeros {
		if _, given := object[key]; !given {
			object[key] = zero
		}
	}
}

// accountZeros are the limits of an account that are unlimited unless given.
var accountZeros = map[string]any{
	"subs": 0, "data": 0, "payload": 0, "imports": 0, "exports": 0, "conn": 0, "leaf": 0, "wildcards": false,
}

// userZeros are the limits of a user that are unlimited unless given.
var userZeros = map[string]any{"subs": 0, "data": 0, "payload": 0}

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
		if err := canonicalKey(Account, &user.IssuerAccount); err != nil {
			return nil, fmt.Errorf("is not valid: issuer_account %w", err)
		}
	}
	if err := checkPermissions(&user.Permissions, "", nil); err != nil {
		return nil, fmt.Errorf("is not valid: %w", err)
	}
	return &user, checkUser(&user.UserPermissionLimits, &user)
}

// UserConfig is the inverse of ParseUserConfig.
func UserConfig(u *jwt.User) ([]byte, error) {
	shown := *u
	shown.IssuerAccount = ""
	shown.GenericFields = jwt.GenericFields{Tags: u.Tags}
	return encodeWithZeros(&shown, func(config map[string]any) { addZeros(config, userZeros) })
}

// ParseScope reads the scope of a signing key as NATS writes it in an account
// JWT: role, description and template. The kind may be left out, the key is
// the caller's to set.
func ParseScope(raw []byte) (*jwt.UserScope, error) {
	scope := jwt.NewUserScope()
	if err := decodeStrict(raw, scope); err != nil {
		return nil, err
	}
	if scope.Key != "" {
		if err := canonicalKey(Account, &scope.Key); err != nil {
			return nil, fmt.Errorf("is not valid: key %w", err)
		}
	}
	if err := checkTemplate(&scope.Template); err != nil {
		return nil, fmt.Errorf("is not valid: the template %w", err)
	}
	return scope, checkUser(&scope.Template, &jwt.User{UserPermissionLimits: scope.Template})
}

// ScopeConfig is the inverse of ParseScope.
func ScopeConfig(s *jwt.UserScope) ([]byte, error) {
	return encodeWithZeros(s, func(config map[string]any) { addZeros(objectAt(config, "template"), userZeros) })
}

// connectionTypes are those of nats-server. It ignores others, and a user with
// none that it knows cannot connect at all.
var connectionTypes = []string{
	jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket, jwt.ConnectionTypeLeafnode, jwt.ConnectionTypeLeafnodeWS,
	jwt.ConnectionTypeMqtt, jwt.ConnectionTypeMqttWS, jwt.ConnectionTypeInProcess,
}

func checkUser(limits *jwt.UserPermissionLimits, user *jwt.User) error {
	if err := checkUserLimits(limits); err != nil {
		return fmt.Errorf("is not valid: the user %w", err)
	}
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
