package chain

import (
	"bytes"
	"encoding/json"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// takeConfig sets the account's or user's claims, and keeps the text where it says
// more than they do.
func (e *namedEntry) takeConfig(config string, patch bool) error {
	raw := []byte(config)
	if patch {
		var err error
		if raw, err = e.mergeConfig(raw); err != nil {
			return err
		}
	}
	meant, err := e.parseConfig(raw)
	if err != nil {
		return fault.In("config", "%s", err)
	}
	e.Claims, e.User = meant.Claims, meant.User
	short, err := e.shortConfig()
	if err != nil {
		return err
	}
	more, err := trust.SaysMore(raw, short)
	if more == nil || err != nil {
		e.Written = nil
		return err
	}
	// In one order of keys, so that the same in another order changes nothing.
	var written map[string]any
	decoder := json.NewDecoder(bytes.NewReader(more))
	decoder.UseNumber()
	if err := decoder.Decode(&written); err != nil {
		return err
	}
	e.Written, err = json.Marshal(written)
	return err
}

// parseConfig returns an entry with the claims of a config, and nothing else.
func (e *namedEntry) parseConfig(raw []byte) (*namedEntry, error) {
	if e.Type == TypeUser {
		user, err := trust.ParseUserConfig(raw)
		return &namedEntry{User: user}, err
	}
	claims, err := trust.ParseAccountConfig(raw)
	if err != nil {
		return nil, err
	}
	// The mount lists its own keys, whether they are given or not.
	for _, key := range e.Keys {
		delete(claims.SigningKeys, key.PublicKey)
	}
	return &namedEntry{Claims: claims}, nil
}

// config is what is shown: as it was written, so that a tool that compares what it
// wrote with what it reads sees no difference; or where the claims are others by
// now, or nobody wrote them, the least that takeConfig would make them of.
func (e *namedEntry) config() ([]byte, error) {
	if e.Written == nil {
		return e.shortConfig()
	}
	meant, err := e.parseConfig(e.Written)
	if err != nil {
		return e.shortConfig() // a later version of NATS knows it no more
	}
	if e.Type == TypeUser {
		meant.User.IssuerAccount = e.User.IssuerAccount // which is what it has to be, or not there
	}
	if !same(meant.Claims, e.Claims) || !same(meant.User, e.User) {
		return e.shortConfig()
	}
	return e.Written, nil
}

func (e *namedEntry) shortConfig() ([]byte, error) {
	if e.Type == TypeUser {
		return trust.ShortUserConfig(e.User)
	}
	return trust.ShortAccountConfig(e.Claims)
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
