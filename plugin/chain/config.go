package chain

import (
	"bytes"
	"encoding/json"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// takeConfig sets the account's or user's claims.
func (e *namedEntry) takeConfig(config string, patch bool) error {
	raw := []byte(config)
	if patch {
		var err error
		if raw, err = e.mergeConfig(raw); err != nil {
			return err
		}
	}
	if e.Type == TypeUser {
		user, err := trust.ParseUserConfig(raw)
		if err != nil {
			return fault.In("config", "%s", err)
		}
		e.User = user
		return nil
	}
	claims, err := trust.ParseAccountConfig(raw)
	if err != nil {
		return fault.In("config", "%s", err)
	}
	// The mount lists its own keys, whether they are given or not.
	for _, key := range e.Keys {
		delete(claims.SigningKeys, key.PublicKey)
	}
	e.Claims = claims
	return nil
}

// config is what takeConfig would take.
func (e *namedEntry) config() ([]byte, error) {
	if e.Type == TypeUser {
		return trust.UserConfig(e.User)
	}
	return trust.AccountConfig(e.Claims)
}

// mergeConfig applies a JSON merge patch (RFC 7396) to the present config.
func (e *namedEntry) mergeConfig(patch []byte) ([]byte, error) {
	present, err := e.config()
	if err != nil {
		return nil, err
	}
	var target, change any
	for _, decode := range []struct {
		raw  []byte
		into *any
	}{{present, &target}, {patch, &change}} {
		decoder := json.NewDecoder(bytes.NewReader(decode.raw))
		decoder.UseNumber()
		if err := decoder.Decode(decode.into); err != nil {
			return nil, fault.In("config", "is not valid JSON: %s", err)
		}
	}
	if _, isObject := change.(map[string]any); !isObject {
		return nil, fault.In("config", "is not a JSON object")
	}
	return json.Marshal(mergePatch(target, change))
}

func mergePatch(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for key, value := range changes {
		if value == nil {
			delete(object, key)
		} else {
			object[key] = mergePatch(object[key], value)
		}
	}
	return object
}
