package trust

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/nats-io/jwt/v2"
)

// How a config is shown. Tools that keep a configuration (Terraform and the like)
// compare what they have written with what they read, key by key, so what is shown
// has to be what was written: neither with defaults filled in nor, as they may have
// been written, with defaults left out. So the text that was written is kept where
// it says more than the claims do, and else made of the claims without what would
// hold anyway. That is also what stands for a config that nobody has written, of an
// account that was imported.

// ShortAccountConfig is the least that can be written to have the account:
// AccountConfig without what ParseAccountConfig fills in.
func ShortAccountConfig(a *jwt.Account) ([]byte, error) {
	full, err := AccountConfig(a)
	if err != nil {
		return nil, err
	}
	return shortened(full, func(config map[string]any) {
		dropDefaults(config, "limits", map[string]any{
			"subs": noLimit, "data": noLimit, "payload": noLimit, "imports": noLimit, "exports": noLimit, "conn": noLimit, "leaf": noLimit, "wildcards": true,
		})
		dropDefaults(config, "authorization", nil)
		dropPermissions(config, "default_permissions")
		keys, _ := config["signing_keys"].([]any)
		for _, key := range keys {
			if scope, ok := key.(map[string]any); ok {
				shortenScope(scope)
			}
		}
	})
}

// ShortUserConfig is ShortAccountConfig for a user.
func ShortUserConfig(u *jwt.User) ([]byte, error) {
	full, err := UserConfig(u)
	if err != nil {
		return nil, err
	}
	return shortened(full, shortenUser)
}

// ShortScopeConfig is ShortAccountConfig for the scope of a signing key.
func ShortScopeConfig(s *jwt.UserScope) ([]byte, error) {
	full, err := ScopeConfig(s)
	if err != nil {
		return nil, err
	}
	return shortened(full, shortenScope)
}

// SaysMore returns what was written, for storage, if it is another JSON value than
// the short config of what was made of it, and nil if that stands for it.
func SaysMore(written, short []byte) ([]byte, error) {
	a, err := decodeNumbers(written)
	if err != nil {
		return nil, err
	}
	b, err := decodeNumbers(short)
	if err != nil || reflect.DeepEqual(a, b) {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, written); err != nil {
		return nil, fmt.Errorf("is not valid JSON: %w", err)
	}
	return compact.Bytes(), nil
}

const noLimit = json.Number("-1")

func shortenUser(user map[string]any) {
	dropPermissions(user, "")
	drop(user, map[string]any{"subs": noLimit, "data": noLimit, "payload": noLimit})
}

func shortenScope(scope map[string]any) {
	drop(scope, map[string]any{"key": "", "role": "", "description": ""})
	if template, ok := scope["template"].(map[string]any); ok {
		shortenUser(template)
		dropDefaults(scope, "template", nil)
	}
}

// dropPermissions drops "pub" and "sub" where they say nothing, in the object at
// that key, and the object with them. Without a key it is the object itself.
func dropPermissions(config map[string]any, at string) {
	object := config
	if at != "" {
		object, _ = config[at].(map[string]any)
	}
	dropDefaults(object, "pub", nil)
	dropDefaults(object, "sub", nil)
	if at != "" {
		dropDefaults(config, at, nil)
	}
}

// dropDefaults drops the values of the object at that key that are as given here,
// and the object if nothing is left of it.
func dropDefaults(config map[string]any, at string, defaults map[string]any) {
	object, ok := config[at].(map[string]any)
	if !ok {
		return
	}
	drop(object, defaults)
	if len(object) == 0 {
		delete(config, at)
	}
}

func drop(object, defaults map[string]any) {
	for key, value := range defaults {
		if object[key] == value {
			delete(object, key)
		}
	}
}

func shortened(full []byte, shorten func(map[string]any)) ([]byte, error) {
	config, err := decodeNumbers(full)
	if err != nil {
		return nil, err
	}
	shorten(config)
	return json.Marshal(config)
}
