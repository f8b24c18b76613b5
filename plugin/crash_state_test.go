package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

var (
	keyForm   = regexp.MustCompile(`\b[OAUX][A-Z2-7]{55}\b`)
	tokenForm = regexp.MustCompile(`^eyJ[\w-]+\.[\w-]+\.[\w-]+$`)
	usesForm  = regexp.MustCompile(`^uses/([^/]+)/([^/]+)/(.+)$`)
	timeForm  = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d`)
)

// known are the public keys that the mount has.
func (m *chainMount) known() map[string]bool {
	known := map[string]bool{}
	for _, value := range m.stored() {
		for _, key := range keyForm.FindAllString(value, -1) {
			known[key] = true
		}
	}
	return known
}

// state is all that is seen of a mount, but for times and for which keys were made:
// what its paths read, which of its roles can sign, and what it would refuse to
// delete.
func (m *chainMount) state(known map[string]bool) map[string]string {
	m.t.Helper()
	state := map[string]any{"config": m.look("config")}
	for _, prefix := range []string{"jwt/", "role/", "issuer/", "callout/"} {
		resp, err := m.do(logical.ListOperation, prefix, nil)
		require.NoError(m.t, err)
		names, _ := resp.Data["keys"].([]string)
		slices.Sort(names)
		state[prefix] = names
		for _, name := range names {
			state[prefix+name] = m.look(prefix + name)
			switch prefix {
			case "role/":
				state[prefix+name+" signs"] = m.signs(name)
			case "jwt/":
				if name != "SYS" {
					state["jwt/"+name+"/revoke"] = m.look("jwt/" + name + "/revoke")
				}
				fallthrough
			default:
				state[prefix+name+" is used"] = m.used(prefix, name)
			}
		}
	}
	m.requireFinished()
	texts := map[string]string{}
	for path, value := range state {
		text, err := json.Marshal(value)
		require.NoError(m.t, err)
		texts[path] = maskedText(m.t, text, known)
	}
	return texts
}

// storedState is what is stored, but for the same, and for what says no more than that
// something may be to be done or was done once.
func (m *chainMount) storedState(known map[string]bool) map[string]string {
	m.t.Helper()
	m.requireFinished()
	state, stored := map[string]string{}, m.stored()
	for key, value := range stored {
		below, _, _ := strings.Cut(key, "/")
		switch below {
		case "config", "settings", "jwt", "role", "issuer", "callout", "revoked":
			state[maskedText(m.t, []byte(key), known)] = maskedText(m.t, []byte(value), known)
		case "account-id":
			state[maskedText(m.t, []byte(key), known)] = "there"
		case "uses":
			if user := usesForm.FindStringSubmatch(key); user != nil {
				var entry struct {
					Account string `json:"account"`
					Issuer  string `json:"issuer"`
				}
				by := stored[map[string]string{"account-user": "jwt/"}[user[1]]+map[string]string{"account": "role/", "issuer": "role/"}[user[1]]+user[3]]
				if by != "" {
					require.NoError(m.t, json.Unmarshal([]byte(by), &entry))
				}
				if user[2] == entry.Account || user[2] == entry.Issuer { // else it is one too many
					state[key] = "there"
				}
			}
		}
	}
	return state
}

// requireFinished checks that nothing is to be done.
func (m *chainMount) requireFinished() {
	m.t.Helper()
	keys := storetest.KeysBelow(m.t, m.storage.Storage, "")
	for _, done := range []string{"pending", "unsettled"} {
		require.False(m.t, slices.ContainsFunc(keys, func(key string) bool { return strings.HasPrefix(key, done) }), "%v", keys)
	}
	operator, err := m.storage.Storage.Get(m.t.Context(), "config")
	require.NoError(m.t, err)
	require.False(m.t, operator != nil && strings.Contains(string(operator.Value), `"unfinished"`))
}

// maskedText is a text, which may be JSON, masked.
func maskedText(t *testing.T, text []byte, known map[string]bool) string {
	rename := func(key string) string {
		if known[key] {
			return key
		}
		return "a new " + key[:1]
	}
	var value any
	if json.Unmarshal(text, &value) != nil {
		return keyForm.ReplaceAllStringFunc(string(text), rename)
	}
	text, err := json.Marshal(masked(t, value, rename))
	require.NoError(t, err)
	return string(text)
}

// difference is where a state is other than it was to be.
func difference(want, is map[string]string) string {
	var different strings.Builder
	all := maps.Clone(want)
	maps.Copy(all, is)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if want[path] != is[path] {
			fmt.Fprintf(&different, "%s was to be\n%s\nand is\n%s\n", path, want[path], is[path])
		}
	}
	return different.String()
}

// used are the roles and users that keep an account or issuer from being deleted.
func (m *chainMount) used(prefix, name string) (used []string) {
	m.t.Helper()
	s := store.NewOverlay(m.storage)
	kinds := map[*store.Kind]func(context.Context, string) bool{}
	if prefix == "issuer/" {
		kinds[&store.IssuerOfRoles] = roleDepends(s, func(of place) bool { return of.Issuer == name })
	} else {
		kinds[&store.AccountOfRoles] = roleDepends(s, func(of place) bool { return of.Account == name })
		kinds[&store.AccountOfUsers] = func(ctx context.Context, user string) bool {
			named, err := m.chain.Named(ctx, s, user)
			require.NoError(m.t, err)
			return named != nil && named.Account == name
		}
	}
	for kind, depends := range kinds {
		users, err := kind.Dependent(m.t.Context(), s, name, depends)
		require.NoError(m.t, err)
		used = append(used, users...)
	}
	slices.Sort(used)
	return used
}

// look is the answer to a read, or its error.
func (m *chainMount) look(path string) any {
	m.t.Helper()
	resp, err := m.HandleRequest(m.t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: path, Storage: m.storage})
	require.NoError(m.t, err, path)
	switch {
	case resp == nil:
		return nil
	case resp.IsError():
		return resp.Error().Error()
	}
	delete(resp.Data, "delivered")
	return resp.Data
}

// signs says whether users of the role can be issued that servers let in.
func (m *chainMount) signs(name string) string {
	m.t.Helper()
	role, err := m.role(m.t.Context(), m.storage, name)
	require.NoError(m.t, err)
	account, err := m.chain.Account(m.t.Context(), m.storage, role.entry.Account)
	require.NoError(m.t, err)
	if account == nil {
		return "it has no account"
	}
	signer, err := account.Signer(role.signer())
	if err != nil {
		return err.Error()
	}
	if !account.External && !slices.Contains(accountClaims(m.t, m.servers[account.PublicKey]).SigningKeys.Keys(), signer.Public()) {
		return "servers do not know the key"
	}
	return fmt.Sprint("yes, scoped: ", role.entry.Scoped)
}

// masked is a value without times, signatures and what follows from them, and with
// the public keys renamed.
func masked(t *testing.T, value any, rename func(string) string) any {
	switch v := value.(type) {
	case map[string]any:
		renamed := map[string]any{}
		for key, inner := range v {
			if key != "jti" && key != "iat" && key != "exp" {
				renamed[keyForm.ReplaceAllStringFunc(key, rename)] = masked(t, inner, rename)
			}
		}
		return renamed
	case []any:
		for i := range v {
			v[i] = masked(t, v[i], rename)
		}
		// Their order may follow from that of the keys.
		slices.SortFunc(v, func(x, y any) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
		return v
	case float64:
		if v > 1e9 {
			return "a time"
		}
	case string:
		switch {
		case tokenForm.MatchString(v):
			var claims map[string]any
			require.NoError(t, trust.DecodePart(v, 1, &claims))
			return masked(t, claims, rename)
		case timeForm.MatchString(v):
			return "a time"
		}
		return keyForm.ReplaceAllStringFunc(seedForm.ReplaceAllString(v, "a seed"), rename)
	}
	return value
}
