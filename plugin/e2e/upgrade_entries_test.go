package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// A kept write is one whose outcome an upgrade and the way back must keep. It is made by
// the former version, again with other fields by the later one, and once more by the
// former after the way back; a nil leaves one out.
type kept struct {
	method string // of OpenAPI: post, patch or delete
	path   string

	made, changed, rewritten fields
}

// elsewhere are the writes that are not among those of the upgrade tests, and why.
var elsewhere = map[string]string{
	"post login":                    "stores nothing; the crowd does it all the time",
	"post oidc/auth_url":            "stores nothing",
	"post oidc/callback":            "stores nothing; is begun again with another process",
	"post oidc/poll":                "stores nothing; is begun again with another process",
	"post role/{name}/preview":      "stores nothing",
	"post callout/{name}/authorize": "stores nothing; the responder does it before and after",
	"post jwt/{name}/sign":          "stores nothing; the responder does it before and after",
	"post jwt/{name}/activation":    "stores nothing",
	"post creds/{role}":             "stores a lease, which is Vault's; the tenant has one",
	"post sync":                     "stores what delivery stores, which every write of an account does",
}

// momentary are fields of writes that are not stored as they are.
var momentary = []string{"dry_run", "assume", "force", "skip_jwks_validation", "nonce", "creds", "overlap", "undo", "before", "key", "name"}

// operations are the operations of the mount as the version that runs has them in its
// OpenAPI document, such as "post role/{name}", with the fields of their requests.
func (e *env) operations() map[string][]string {
	e.t.Helper()
	secret := e.openAPI()
	schemas := secret.Data["components"].(fields)["schemas"].(fields)
	operations := map[string][]string{}
	for path, item := range secret.Data["paths"].(fields) {
		below, ours := strings.CutPrefix(path, "/"+e.path(""))
		if !ours {
			continue
		}
		for method, operation := range item.(fields) {
			operation, ok := operation.(fields)
			if !ok || operation["operationId"] == nil {
				continue
			}
			names := []string{}
			if request, ok := schemas[requestSchema(operation["operationId"].(string))].(fields); ok {
				for name, property := range request["properties"].(fields) {
					if property.(fields)["deprecated"] != true {
						names = append(names, name)
					}
				}
			}
			operations[method+" "+below] = names
		}
	}
	require.Contains(e.t, operations, "post role/{name}")
	return operations
}

// requestSchema is how Vault calls the fields of an operation's request.
func requestSchema(operation string) string {
	var name strings.Builder
	for word := range strings.SplitSeq(operation, "-") {
		name.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return name.String() + "Request"
}

// operationOf is the operation that a write is of.
func operationOf(operations map[string][]string, method, path string) string {
	found := ""
	for operation := range operations {
		pattern := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(operation, "[^/]+")
		if regexp.MustCompile("^"+pattern+"$").MatchString(method+" "+path) && (found == "" || strings.Count(operation, "{") < strings.Count(found, "{")) {
			found = operation
		}
	}
	return found
}

// isCompleteFor checks that everything that the mount can be told to store is written in
// each phase. A new path or field has to be here before it can be released.
func isCompleteFor(t *testing.T, operations map[string][]string, writes []kept) {
	t.Helper()
	phases := map[string]map[string]bool{"made": {}, "changed": {}}
	written := map[string]map[string]bool{}
	for _, write := range writes {
		operation := operationOf(operations, write.method, write.path)
		require.NotEmpty(t, operation, "%s %s is no operation", write.method, write.path)
		for phase, data := range map[string]fields{"made": write.made, "changed": write.changed} {
			if data == nil {
				continue
			}
			phases[phase][operation] = true
			if written[operation] == nil {
				written[operation] = map[string]bool{}
			}
			for field := range data {
				written[operation][field] = true
			}
		}
	}
	for operation, names := range operations {
		if strings.HasPrefix(operation, "get ") || elsewhere[operation] != "" {
			continue
		}
		for phase, done := range phases {
			require.True(t, done[operation], "%s is missing from the writes that are %s", operation, phase)
		}
		// config has the fields of an issuer too, and a patch those of what it patches.
		also := written[map[string]string{"post config": "post issuer/{name}", "patch jwt/{name}": "post jwt/{name}"}[operation]]
		for _, name := range names {
			done := written[operation][name] || also[name] || slices.Contains(momentary, name)
			require.True(t, done, "the field %s of %s is missing from the writes", name, operation)
		}
	}
}

// do makes writes, as far as the version that runs has their paths.
func (e *env) do(writes []kept, phase func(kept) fields) {
	e.t.Helper()
	operations := e.operations()
	var refused []error
	for _, write := range writes {
		data := phase(write)
		if data == nil || operationOf(operations, write.method, write.path) == "" {
			continue
		}
		var err error
		switch write.method {
		case "patch":
			_, err = e.client.Logical().JSONMergePatch(e.ctx(), e.path(write.path), data)
		case "delete":
			_, err = e.client.Logical().DeleteWithContext(e.ctx(), e.path(write.path))
		default:
			_, err = e.try(write.path, data)
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("%s %s: %w", write.method, write.path, err))
		}
	}
	require.NoError(e.t, errors.Join(refused...))
}

// remembered is all that a mount says of what it has stored, by path.
type remembered map[string]fields

// fleeting are fields of answers that are other ones each time.
var fleeting = []string{"nonce", "expiration", "ttl", "delivered", "until", "creds", "key_info"}

// remembers reads all that was written, and every list.
func (e *env) remembers(writes []kept) remembered {
	e.t.Helper()
	all := remembered{}
	operations := e.operations()
	for operation := range operations {
		if path, list := strings.CutPrefix(operation, "get "); list && strings.HasSuffix(path, "/") {
			keys := []any{}
			for _, key := range e.list(path) {
				keys = append(keys, key)
			}
			all[path] = fields{"keys": keys}
		}
	}
	paths := map[string]bool{"config/server": true}
	for _, write := range writes {
		paths[write.path] = true
		if account, below := strings.CutPrefix(write.path, "jwt/"); below && !strings.Contains(account, "/") {
			paths[write.path+"/revoke"] = true
		}
	}
	for path := range paths {
		if operationOf(operations, "get", path) == "" {
			continue
		}
		secret, err := e.client.Logical().ReadWithContext(e.ctx(), e.path(path))
		if secret == nil && (err == nil || gone(err)) {
			continue
		}
		require.NoError(e.t, err, path)
		for _, name := range fleeting {
			delete(secret.Data, name)
		}
		all[path] = settled(secret.Data)
	}
	return all
}

// gone says that an error is what a path of something that is not there answers with.
func gone(err error) bool {
	response, ok := err.(*api.ResponseError) //nolint:errorlint // Vault's client wraps none
	return ok && (response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusBadRequest)
}

// settled puts in the place of each JWT what it says, but for when it was made.
func settled(data fields) fields {
	for name, value := range data {
		text, ok := value.(string)
		if !ok || strings.Count(text, ".") != 2 || !strings.HasPrefix(text, "ey") {
			continue
		}
		var claims fields
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
		if err == nil && json.Unmarshal(payload, &claims) == nil {
			for _, name := range []string{"iat", "exp", "jti"} {
				delete(claims, name)
			}
			data[name] = claims
		}
	}
	if text, ok := data["config"].(string); ok { // of a server, with JWTs in it
		data["config"] = regexp.MustCompile(`ey[\w-]+\.[\w-]+\.[\w-]+`).ReplaceAllStringFunc(text, func(token string) string {
			return fmt.Sprint(settled(fields{"jwt": token})["jwt"])
		})
	}
	return data
}

// holds checks that a mount says all that it has said before. What it says beside that
// is a later version's.
func (now remembered) holds(t *testing.T, before remembered) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(before)) {
		require.Contains(t, now, path)
		for _, field := range slices.Sorted(maps.Keys(before[path])) {
			require.Equal(t, before[path][field], now[path][field], "%s of %s", field, path)
		}
	}
}

// common is of what one version said that which another one has too.
func (now remembered) common(other remembered) remembered {
	common := remembered{}
	for path, data := range now {
		if _, ok := other[path]; !ok {
			continue
		}
		common[path] = fields{}
		for field, value := range data {
			if _, ok := other[path][field]; ok {
				common[path][field] = value
			}
		}
	}
	return common
}

// beyond is what one version said and another one does not say.
func (now remembered) beyond(other remembered) remembered {
	beyond := remembered{}
	for path, data := range now {
		for field, value := range data {
			if _, ok := other[path][field]; ok {
				continue
			}
			if beyond[path] == nil {
				beyond[path] = fields{}
			}
			beyond[path][field] = value
		}
	}
	return beyond
}
