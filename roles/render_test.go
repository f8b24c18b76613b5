package roles

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"
)

func TestARenderedUserIsWhatJWTv2Encodes(t *testing.T) {
	const full = `{
		"pub": {"allow": ["orders.{{claim(project)}}.>", "a.b"], "deny": ["orders.{{claim(project)}}.secret"]},
		"sub": {"allow": ["in.{{claim(groups)}}.{{claim(project)}} workers", "_INBOX.>"], "deny": ["x.<&"]},
		"resp": {"max": 3, "ttl": 60000000000},
		"subs": 10, "data": 1000, "payload": 4096,
		"src": ["10.0.0.0/8", "192.168.1.0/24"],
		"times": [{"start": "08:00:00", "end": "18:00:00"}], "times_location": "Europe/Berlin",
		"bearer_token": true, "proxy_required": true,
		"allowed_connection_types": ["STANDARD", "websocket"],
		"tags": ["Team:{{claim(team)}}", "group:{{claim(groups)}}", "fixed"]
	}`
	const tokenJSON = `{"project": "web", "groups": ["dev", "ops"], "team": "Blue\"\\ü"}`
	const withoutClaims = `{"pub": {"allow": ["a.>"]}, "tags": ["Fixed", "k:V"]}`

	limits := jwt.NatsLimits{Subs: jwt.NoLimit, Data: jwt.NoLimit, Payload: jwt.NoLimit}
	whole := jwt.UserPermissionLimits{
		Permissions: jwt.Permissions{
			Pub:  jwt.Permission{Allow: jwt.StringList{"orders.web.>", "a.b"}, Deny: jwt.StringList{"orders.web.secret"}},
			Sub:  jwt.Permission{Allow: jwt.StringList{"in.dev.web workers", "in.ops.web workers", "_INBOX.>"}, Deny: jwt.StringList{"x.<&"}},
			Resp: &jwt.ResponsePermission{MaxMsgs: 3, Expires: 60000000000},
		},
		Limits: jwt.Limits{
			UserLimits: jwt.UserLimits{
				Src:    jwt.CIDRList{"10.0.0.0/8", "192.168.1.0/24"},
				Times:  []jwt.TimeRange{{Start: "08:00:00", End: "18:00:00"}},
				Locale: "Europe/Berlin",
			},
			NatsLimits: jwt.NatsLimits{Subs: 10, Data: 1000, Payload: 4096},
		},
		BearerToken: true, ProxyRequired: true,
		AllowedConnectionTypes: jwt.StringList{"STANDARD", "WEBSOCKET"},
	}

	for name, test := range map[string]struct {
		template string
		scoped   bool
		account  Account
		want     jwt.User
	}{
		"an empty template has no limit": {
			template: "", account: account,
			want: jwt.User{
				UserPermissionLimits: jwt.UserPermissionLimits{Limits: jwt.Limits{NatsLimits: limits}},
				IssuerAccount:        accountKey,
			},
		},
		"without a signing key there is no issuer account": {
			template: "{}", account: Account{Name: "orders", PublicKey: accountKey},
			want: jwt.User{UserPermissionLimits: jwt.UserPermissionLimits{Limits: jwt.Limits{NatsLimits: limits}}},
		},
		"tags without placeholders are lower-cased as jwt/v2 does": {
			template: withoutClaims, account: account,
			want: jwt.User{
				UserPermissionLimits: jwt.UserPermissionLimits{
					Permissions: jwt.Permissions{Pub: jwt.Permission{Allow: jwt.StringList{"a.>"}}},
					Limits:      jwt.Limits{NatsLimits: limits},
				},
				IssuerAccount: accountKey,
				GenericFields: jwt.GenericFields{Tags: jwt.TagList{"fixed", "k:v"}},
			},
		},
		"a template with every field": {
			template: full, account: account,
			want: jwt.User{
				UserPermissionLimits: whole, IssuerAccount: accountKey,
				GenericFields: jwt.GenericFields{Tags: jwt.TagList{`team:Blue"\ü`, "group:dev", "group:ops", "fixed"}},
			},
		},
		"a scoped user has no permissions and no limits of its own": {
			template: `{"pub": {"allow": ["orders.{{tag(team)}}.>"]}, "payload": 10, "tags": ["team:{{claim(team)}}"]}`,
			scoped:   true, account: account,
			want: jwt.User{IssuerAccount: accountKey, GenericFields: jwt.GenericFields{Tags: jwt.TagList{`team:Blue"\ü`}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, jwtRole(func(r *Role) { r.UserTemplate, r.Scoped = test.template, test.scoped }))
			b, err := c.Bind(token(t, tokenJSON), now)
			require.NoError(t, err)
			u, err := c.Render(b, test.account, userKey)
			require.NoError(t, err)

			test.want.Type, test.want.Version = jwt.UserClaim, 2
			want, err := json.Marshal(test.want)
			require.NoError(t, err)
			require.Equal(t, string(want), string(u.NATS))
			require.Equal(t, "runner", u.Name)

			claims := jwt.UserClaims{}
			require.NoError(t, json.Unmarshal([]byte(`{"nats":`+string(u.NATS)+`}`), &claims))
			require.Equal(t, test.scoped, claims.HasEmptyPermissions())
		})
	}
}

// A token has 64 KiB at most; what it renders to must not be much more.
func TestAUserThatIsTooLargeIsRefused(t *testing.T) {
	list := func(n int) string {
		elements := make([]string, n)
		for i := range elements {
			elements[i] = fmt.Sprintf(`"e%d"`, i)
		}
		return "[" + strings.Join(elements, ",") + "]"
	}
	big := strings.Repeat("x", 30_000)
	const tooBig = "the user is too large"
	for name, test := range map[string]struct {
		role  func(*Role)
		token string
		fault string // empty: it is rendered
	}{
		"a product of a list and a long claim": {
			template(publish("{{claim(l)}}.{{claim(b)}}")), `{"l": ` + list(1000) + `, "b": "` + big + `"}`, "pub.allow[0]: " + tooBig},
		"a long claim in many subjects": {
			template(publish("a.{{claim(b)}}", "b.{{claim(b)}}", "c.{{claim(b)}}")), `{"b": "` + big + `"}`, "pub.allow[2]: " + tooBig},
		"a long claim many times in a name": {
			func(r *Role) { r.UserName = "{{claim(b)}}-{{claim(b)}}-{{claim(b)}}" }, `{"b": "` + big + `"}`, "user_name: " + tooBig},
		"a long claim as the default name": {
			nil, `{"sub": "` + strings.Repeat(".", 30_000) + `"}`, "user_name: " + tooBig},
		"a product in a tag": {
			template(`{"tags": ["t:{{claim(l)}}-{{claim(b)}}"]}`), `{"l": ` + list(10) + `, "b": "` + big + `"}`, "tags[0]: " + tooBig},
		"a long claim that JSON escapes": {
			template(publish("{{claim(b)}}")), `{"b": "` + strings.Repeat("&", 30_000) + `"}`, tooBig},
		"many tags in many entries": {
			template(`{"tags": ["a:{{claim(l)}}", "b:{{claim(l)}}"]}`), `{"l": ` + list(501) + `}`, "tags[1] gives 501 tags, with the entries before it more than 1000"},
		"a scope that nats-server would expand": {
			func(r *Role) {
				r.Scoped, r.UserTemplate = true, `{"pub": {"allow": ["{{tag(t)}}.{{tag(b)}}"]}, "tags": ["t:{{claim(l)}}", "b:{{claim(b)}}"]}`
			}, `{"l": ` + list(10) + `, "b": "` + big + `"}`, "pub.allow[0]: " + tooBig},
		"many tags, but not too many": {
			template(`{"tags": ["a:{{claim(l)}}", "b:{{claim(l)}}"]}`), `{"l": ` + list(500) + `}`, ""},
		"a long claim once": {
			template(publish("{{claim(b)}}")), `{"b": "` + big + `"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, jwtRole(test.role))
			p := token(t, test.token)
			_, _, err := render(t, c, p)
			preview := c.Preview(p, account, userKey, now)
			if test.fault == "" {
				require.NoError(t, err)
				require.Empty(t, preview.Errors)
				return
			}
			require.ErrorContains(t, err, test.fault)
			require.Equal(t, err, preview.Errors[0])
			require.Nil(t, preview.NATS)
			size := 0
			for _, o := range preview.Origins {
				size += len(o.Rendered)
			}
			require.LessOrEqual(t, size, maxSize)
		})
	}
}

// What is put together by hand is what encoding/json makes.
func FuzzStringIsEncodedAsEncodingJSONDoes(f *testing.F) {
	for _, s := range []string{"", "orders.>", "a.>.<b>&", `"\`, "é>", "\x00>", "\xff>", "> ", ">>>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		require.NoError(t, err)
		require.Equal(t, string(want), string(appendString(nil, s)))
	})
}
