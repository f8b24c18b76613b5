package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// templated is a role with a user template, given as JSON.
func (e *env) templated(name, template string, more fields) {
	e.t.Helper()
	data := fields{"user_template": template}
	for field, value := range more {
		data[field] = value
	}
	e.role(name, data)
}

func TestAListGivesASubjectForEachOfItsValues(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.templated("dev", `{"pub":{"allow":["{{claim(teams)}}.{{claim(/job/stages)}}.>"]},"sub":{"allow":["_INBOX.>"]}}`, nil)
	workload := e.connect(e.login("dev", e.token(fields{"teams": []string{"a", "b"}, "job": fields{"stages": []any{"test", 7}}})).Creds)
	for _, subject := range []string{"a.test.x", "a.7.x", "b.test.x", "b.7.x"} {
		workload.publishes(subject)
	}
	workload.mayNotPublish("a.b.x")
	workload.mayNotPublish("c.test.x")

	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("t%d", i)
	}
	e.loginRefused("dev", e.token(fields{"teams": many, "job": fields{"stages": many}}), "pub.allow[0]", "1600 subjects", "more than 1000")
	e.loginRefused("dev", e.token(fields{"teams": []string{}, "job": fields{"stages": "x"}}), "claim(teams)", "empty list")
}

func TestAnEscapedClaimIsOneToken(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.templated("dev", `{"pub":{"allow":["ref.{{claim(ref)|escape}}"]},"sub":{"allow":["_INBOX.>"]}}`, nil)
	workload := e.connect(e.login("dev", e.token(fields{"ref": "release 1.0/*"})).Creds)
	workload.publishes("ref.release%201%2E0/%2A")
	workload.mayNotPublish("ref.release")
	workload.mayNotPublish("ref.other")
}

func TestATemplateMayDenyAndAnswer(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("client", nil)
	e.templated("service", `{
		"pub": {"deny": [">"]},
		"sub": {"allow": ["jobs.>"], "deny": ["jobs.{{claim(project)}}.secret"]},
		"resp": {"max": 1, "ttl": 60000000000}
	}`, nil)
	service := e.connect(e.login("service", e.token(fields{"project": "shop"})).Creds)
	client := e.connect(e.login("client", e.token(nil)).Creds)
	requests := service.subscribes("jobs.shop.run")
	service.mayNotSubscribe("jobs.shop.secret")
	service.mayNotPublish("anything")

	answers := client.subscribes("answers")
	require.NoError(t, client.PublishRequest("jobs.shop.run", "answers", nil))
	request := service.receives(requests)
	service.publishes(request.Reply)
	client.receives(answers)
	service.mayNotPublish(request.Reply) // it had one answer
}

func TestATemplateBoundsWhenAndFromWhereAndHowMuch(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	open := `"pub":{"allow":[">"]},"sub":{"allow":[">"]}`
	now := time.Now().UTC()
	hours := func(start, end string) string {
		return fmt.Sprintf(`"times":[{"start":%q,"end":%q}],"times_location":"UTC"`, start, end)
	}
	later := func(d time.Duration) string { return now.Add(d).Format(time.TimeOnly) }
	for name, test := range map[string]struct {
		template string
		letIn    bool
	}{
		"from a network that it is in":     {`"src":["127.0.0.0/8","10.0.0.0/8"]`, true},
		"from a network that it is not in": {`"src":["10.0.0.0/8"]`, false},
		"within its hours":                 {hours("00:00:00", "23:59:59"), true},
		"outside of its hours":             {hours(later(2*time.Hour), later(3*time.Hour)), false},
		"over plain NATS":                  {`"allowed_connection_types":["STANDARD"]`, true},
		"over MQTT only":                   {`"allowed_connection_types":["MQTT"],"bearer_token":true`, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			role := strings.ReplaceAll(strings.ToLower(name), " ", "-")
			e.templated(role, "{"+open+","+test.template+"}", nil)
			login := e.login(role, e.token(nil))
			if test.letIn {
				e.connect(login.Creds).publishes("anything")
			} else {
				_, err := e.tryConnect(login.Creds)
				require.Error(t, err)
			}
		})
	}

	e.templated("small", `{`+open+`,"payload":16,"subs":1}`, nil)
	small := e.connect(e.login("small", e.token(nil)).Creds)
	small.subscribes("one")
	_, err := small.trySubscribe("two")
	require.ErrorIs(t, err, nats.ErrMaxSubscriptionsExceeded)
	require.EqualValues(t, 16, small.MaxPayload(), "what the server told the client")
	require.ErrorIs(t, small.Publish("one", make([]byte, 17)), nats.ErrMaxPayload)
}

func TestABearerNeedsNoKey(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	answer := e.write("role/bearer", roleFields(fields{"user_template": `{"pub":{"allow":["a"]},"sub":{"allow":["b"]},"bearer_token":true}`}))
	require.Contains(t, strings.Join(answer.Warnings, " "), "bearer_token")
	login := e.login("bearer", e.token(nil))
	unsigned := func([]byte) ([]byte, error) { return nil, nil }
	workload, err := e.dial(nats.UserJWT(func() (string, error) { return login.JWT, nil }, unsigned))
	require.NoError(t, err)
	workload.publishes("a")
}

func TestTagsAndTheAccountCanStandInSubjects(t *testing.T) {
	t.Parallel()
	e := start(t)
	account := e.account("orders", fields{"tags": []string{"region:eu"}})
	e.templated("dev", `{
		"pub": {"allow": ["{{account-name()}}.{{account-tag(region)}}.{{tag(project)}}.{{name()}}", "by.{{account-subject()}}.{{subject()}}"]},
		"sub": {"allow": ["_INBOX.>"]}, "tags": ["project:{{claim(project)}}", "ci"]
	}`, fields{"user_name": "{{metadata(user)}}", "claim_mappings": fields{"login": "user"}})
	login := e.login("dev", e.token(fields{"project": "shop", "login": "ann"}))
	user := e.user(login.JWT)
	require.ElementsMatch(t, []string{"project:shop", "ci"}, []string(user.Tags))
	workload := e.connect(login.Creds)
	workload.publishes("orders.eu.shop.ann")
	workload.publishes(fmt.Sprintf("by.%s.%s", account.Data["public_key"], user.Subject))
	workload.mayNotPublish("orders.eu.shop.bob")
}

func TestAFaultInATemplateIsNamedWithItsPlace(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	for name, test := range map[string]struct {
		template any
		texts    []string
	}{
		"an unknown key":             {`{"publish":{}}`, []string{"publish"}},
		"an unknown function":        {`{"pub":{"allow":["a","{{clame(x)}}"]}}`, []string{`unknown function "clame"`, "pub.allow[1]"}},
		"an unclosed brace":          {`{"sub":{"deny":["a.{{claim(x)"]}}`, []string{"is not closed", "sub.deny[0]"}},
		"a wildcard inside a token":  {`{"pub":{"allow":["a*"]}}`, []string{"wildcard", "pub.allow[0]"}},
		"a network that is none":     {`{"src":["localhost"]}`, []string{"localhost"}},
		"a time that is none":        {`{"times":[{"start":"25:00:00","end":"26:00:00"}]}`, []string{"25:00:00"}},
		"a connection that is none":  {`{"allowed_connection_types":["UDP"]}`, []string{"UDP"}},
		"a limit that is no number":  {fields{"subs": "many"}, []string{"subs"}},
		"a tag with a variable key":  {`{"tags":["{{claim(x)}}:y"]}`, []string{"tags[0]", "key of a tag"}},
		"a function of entities":     {`{"pub":{"allow":["{{entity-name()}}"]}}`, []string{"entity-name()", "type vault"}},
		"a JSON that is none":        {`{"pub":`, []string{"JSON"}},
		"an escape of something odd": {`{"pub":{"allow":["{{claim(x)|upper}}"]}}`, []string{"only |escape may follow"}},
	} {
		t.Run(name, func(t *testing.T) {
			e.in(t).refused("role/dev", roleFields(fields{"user_template": test.template}), append(test.texts, "user_template")...)
		})
	}
	e.absent("role/dev")
}

// nasty are values that a subject could be widened with, or two be made alike, and
// what nats-server must make of each: the very token, or the login is refused.
var nasty = []string{
	"web", "Web", "a.b", "a.*", "*", ">", ".>", ".", "", " ", "a b", "a\tb", "a\r\nPUB x 0\r\n", "\x00", "$SYS", "_INBOX",
	"{{name()}}", "{{tag(t)}}", "}}", "%2E", "a%2Eb", "ü", "\u2028", "\ufffd", "\"", "\\", ",", ":", "t:web", strings.Repeat("y", 200),
}

// No identity can get a permission that the template does not spell: whatever the
// claims say, the server lets the user publish to the subject that is the template's
// with the claim's value as one token, and to nothing around it.
func TestNoIdentityGetsMoreThanTheTemplateSpells(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	for mode, role := range map[string]fields{
		"in the user JWT":        {"user_template": `{"pub":{"allow":["top.{{claim(x)}}.leaf"]},"sub":{"allow":["_INBOX.>"]}}`},
		"in the account's scope": {"scoped": true, "user_template": `{"pub":{"allow":["top.{{tag(x)}}.leaf"]},"sub":{"allow":["_INBOX.>"]},"tags":["x:{{claim(x)}}"]}`},
		"by the user's name":     {"scoped": true, "user_name": "{{claim(x)}}", "user_template": `{"pub":{"allow":["top.{{name()}}.leaf"]},"sub":{"allow":["_INBOX.>"]}}`},
		"escaped":                {"user_template": `{"pub":{"allow":["top.{{claim(x)|escape}}.leaf"]},"sub":{"allow":["_INBOX.>"]}}`},
	} {
		name := strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(mode), " ", "-"), "'", "")
		t.Run("with permissions "+mode, func(t *testing.T) {
			e := e.in(t)
			e.role(name, role)
			accepted := 0
			for _, value := range nasty {
				login, err := e.tryLogin(name, e.token(fields{"x": value}), nil)
				if err != nil {
					e.isStatus(err, 400)
					continue
				}
				accepted++
				token := value
				if mode == "escaped" {
					token = strings.TrimSuffix(strings.TrimPrefix(e.user(login.JWT).Pub.Allow[0], "top."), ".leaf")
				}
				require.False(t, token == "" || strings.ContainsAny(token, ".*> \t\r\n\x00"), "%q became %q", value, token)
				workload := e.connect(login.Creds)
				workload.publishes("top." + token + ".leaf")
				for _, more := range []string{"top.other.leaf", "top." + token + ".leaf.x", "top." + token, "top." + token + ".leaves", "top.a.b.leaf", "other"} {
					workload.mayNotPublish(more)
				}
				workload.mayNotSubscribe("top.>")
				workload.Close()
			}
			require.GreaterOrEqual(t, accepted, 5)
			require.Less(t, accepted, len(nasty))
		})
	}
}

// The commands of docs/roles.md run as they stand, and give what it says.
func TestTheRolesGuideRunsAsItStands(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	guide := e.guide("roles.md", map[string]string{})
	blocks := guide.blocks("sh")
	require.Len(t, blocks, 5)
	var printed strings.Builder
	for _, block := range blocks {
		printed.WriteString(e.shell(t.TempDir(), block))
	}
	for _, text := range []string{"ci.acme/web%2Eshop.dev.", "ci.acme/web%2Eshop.ops.", `"branch:main"`, `"allowed": true`} {
		require.Contains(t, printed.String(), text)
	}

	ci := e.connect(e.login("ci", e.token(fields{
		"project_path": "acme/web.shop", "user_login": "ann", "groups": []string{"dev"}, "git": fields{"branch": "main"},
	})).Creds)
	ci.publishes("ci.acme/web%2Eshop.dev.x")
	ci.mayNotPublish("ci.acme/web%2Eshop.dev.secret")
	batch := e.connect(e.login("batch", e.token(fields{"project_path": "p", "job": "build", "team": "shop"})).Creds)
	batch.publishes("batch.shop.build")
	batch.mayNotPublish("batch.shop.other")

	// What it says of nats-server.
	e.templated("open", `{"pub":{"allow":["a"]},"sub":{"allow":["in.*"]}}`, nil)
	e.templated("closed", `{"pub":{"allow":["a"]},"sub":{"allow":["in.*"],"deny":["in.*.>"]}}`, nil)
	e.connect(e.login("open", e.token(nil)).Creds).subscribes("in.>")
	closed := e.connect(e.login("closed", e.token(nil)).Creds)
	closed.subscribes("in.a")
	closed.mayNotSubscribe("in.a.>")
}

// A user JWT has to fit into the line with which a client connects; whoever gets
// one that does not is told.
func TestPermissionsOfTwoKilobytesFitIntoAUserJWT(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	subjects := func(bytes int) string {
		subject := `"` + strings.Repeat("x", 17) + `",`
		return `{"pub":{"allow":[` + strings.TrimSuffix(strings.Repeat(subject, bytes/len(subject)), ",") + `]},"sub":{"allow":["a"]}}`
	}
	e.templated("dev", subjects(2000), nil)
	e.connect(e.login("dev", e.token(nil)).Creds)
	warned := false
	for size := 2100; size <= 2700; size += 100 {
		e.templated("dev", subjects(size), nil)
		login := e.login("dev", e.token(nil))
		warned = len(login.Warnings) > 0
		if _, err := e.tryConnect(login.Creds); err != nil {
			require.True(t, warned, "nobody was told that %d bytes are too many: %s", len(login.JWT), err)
		}
	}
	require.True(t, warned)
	require.Contains(t, strings.Join(e.login("dev", e.token(nil)).Warnings, " "), "max_control_line")

	e.write("role/dev", fields{"scoped": true})
	login := e.login("dev", e.token(nil))
	require.Empty(t, login.Warnings)
	e.connect(login.Creds)
}
