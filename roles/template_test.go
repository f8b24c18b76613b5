package roles

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

func TestUserTemplateRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		template string
		fault    string // part of the error
	}{
		"what is not JSON":                     {`pub`, "is not JSON: invalid character 'p'"},
		"JSON that ends too early":             {`{"pub": {`, "ends too early"},
		"a second JSON value":                  {`{} {}`, "more than one JSON value"},
		"a trailing brace":                     {`{}}`, "more than one JSON value"},
		"a list instead of an object":          {`[]`, "it is a list: it must be an object"},
		"a document that is nested very deep":  {strings.Repeat("[", 100), "nested too deep"},
		"an unknown key":                       {`{"pubs": {}}`, "unknown key pubs"},
		"an unknown key inside of pub":         {`{"pub": {"alow": []}}`, "unknown key pub.alow"},
		"a placeholder as a key":               {`{"{{claim(x)}}": {}}`, "unknown key"},
		"a key that is there twice":            {`{"pub": {"allow": ["a"]}, "pub": {}}`, "has pub twice"},
		"a nested key that is there twice":     {`{"pub": {"allow": ["a"], "allow": []}}`, "has pub.allow twice"},
		"a null":                               {`{"pub": null}`, "pub is null: it must be an object"},
		"a string instead of a list":           {`{"pub": {"allow": "a"}}`, "pub.allow is a string: it must be a list"},
		"a number instead of a subject":        {`{"pub": {"allow": ["a", 1]}}`, "pub.allow[1] is a number: it must be a string"},
		"a string instead of a number":         {`{"subs": "{{claim(x)}}"}`, "subs is a string: it must be a whole number"},
		"a fraction":                           {`{"data": 1.5}`, "data is 1.5"},
		"a limit below -1":                     {`{"payload": -2}`, "payload is -2"},
		"a limit that no number holds":         {`{"payload": 99999999999999999999}`, "payload is"},
		"a response bound that is a string":    {`{"resp": {"max": 1, "ttl": "1m"}}`, "resp.ttl is a string: it must be a whole number of nanoseconds"},
		"a string instead of a boolean":        {`{"bearer_token": "true"}`, "bearer_token is a string: it must be true or false"},
		"a network that is none":               {`{"src": ["10.0.0.0"]}`, `invalid cidr "10.0.0.0"`},
		"a null in networks":                   {`{"src": [null]}`, "src[0] is null"},
		"a boolean as a location":              {`{"times_location": true}`, "times_location is a boolean"},
		"a number as a connection type":        {`{"allowed_connection_types": [1]}`, "allowed_connection_types[0] is a number"},
		"a list cut short":                     {`{"pub": {"allow": ["a"`, "ends too early"},
		"a number as a key":                    {`{1: 2}`, "is not JSON"},
		"a placeholder in a network":           {`{"src": ["{{claim(ip)}}/32"]}`, "src[0] has a placeholder"},
		"a placeholder in networks":            {`{"src": "{{claim(ip)}}/32"}`, "src has a placeholder"},
		"a time that is none":                  {`{"times": [{"start": "25:00:00", "end": "18:00:00"}]}`, "start in time range"},
		"a time without an end":                {`{"times": [{"start": "08:00:00"}]}`, "must contain an end"},
		"an unknown location":                  {`{"times_location": "Nowhere/City"}`, "time zone"},
		"an unknown connection type":           {`{"allowed_connection_types": ["STANDARD", "TCP"]}`, `allowed_connection_types[1] is "TCP"`},
		"a time of no length":                  {`{"times": [{"start": "08:00:00", "end": "09:00:00"}, {"start": "8:00:00", "end": "08:00:00"}]}`, "times[1] from 8:00:00 to 08:00:00, in which no time lies"},
		"a time of no second":                  {`{"times": [{"start": "08:00:00.2", "end": "08:00:00.7"}]}`, "in which no time lies"},
		"no subscriptions":                     {`{"subs": 0}`, "has subs of 0, with which nats-server closes every connection"},
		"only MQTT without a bearer token":     {`{"allowed_connection_types": ["mqtt", "MQTT_WS"]}`, `has allowed_connection_types of ["MQTT" "MQTT_WS"], which need bearer_token`},
		"a key of the user JWT that we set":    {`{"issuer_account": "A"}`, "unknown key issuer_account"},
		"an empty subject":                     {`{"pub": {"allow": [""]}}`, "pub.allow[0] is \"\": a token is empty"},
		"a subject with an empty token":        {`{"pub": {"allow": ["a..b"]}}`, "a token is empty"},
		"a subject that ends in a dot":         {`{"sub": {"deny": ["a."]}}`, "sub.deny[0]"},
		"a wildcard inside of a token":         {`{"pub": {"allow": ["a*"]}}`, "must be a token of its own"},
		"a wildcard beside a placeholder":      {`{"pub": {"allow": ["a.{{claim(x)}}*"]}}`, "must be a token of its own"},
		"a full wildcard that is not last":     {`{"pub": {"allow": ["a.>.b"]}}`, `">" must be the last token`},
		"a control character in a subject":     {`{"pub": {"allow": ["a\u0007"]}}`, "a control character (U+0007)"},
		"a tab in a subject":                   {`{"pub": {"allow": ["a\tb"]}}`, "white space (U+0009)"},
		"a queue name to publish to":           {`{"pub": {"allow": ["a b"]}}`, "only a subscription"},
		"two queue names":                      {`{"sub": {"allow": ["a b c"]}}`, "in the queue name"},
		"a queue name that is empty":           {`{"sub": {"allow": ["a "]}}`, "in the queue name"},
		"an unknown function":                  {`{"pub": {"allow": ["a.{{env(x)}}"]}}`, `pub.allow[0]: unknown function "env", at character 3 of "a.{{env(x)}}"`},
		"a placeholder that is not closed":     {`{"pub": {"allow": ["ä.{{claim(x)"]}}`, `"{{" is not closed, at character 3`},
		"a placeholder that is not opened":     {`{"pub": {"allow": ["a.claim(x)}}"]}}`, `"}}" closes no placeholder, at character 11`},
		"a placeholder in a placeholder":       {`{"pub": {"allow": ["{{claim({{name()}})}}"]}}`, "a brace inside"},
		"a placeholder without a function":     {`{"pub": {"allow": ["{{project}}"]}}`, `"project" is not a function`},
		"a claim without its name":             {`{"pub": {"allow": ["{{claim()}}"]}}`, "claim(x) needs a claim's name"},
		"a claim that is no JSON pointer":      {`{"pub": {"allow": ["{{claim(/a~)}}"]}}`, "not a JSON pointer"},
		"a name with an argument":              {`{"pub": {"allow": ["{{name(x)}}"]}}`, "name() takes no argument"},
		"a filter that is not escape":          {`{"pub": {"allow": ["{{claim(x)|upper}}"]}}`, "only |escape may follow"},
		"text after the filter":                {`{"pub": {"allow": ["{{claim(x)|escape y}}"]}}`, "only |escape may follow"},
		"text after a function":                {`{"pub": {"allow": ["{{claim(x)escape}}"]}}`, "only |escape may follow"},
		"a function of roles of type vault":    {`{"pub": {"allow": ["{{entity-name()}}"]}}`, "only for roles of type vault"},
		"a tag that the template does not set": {`{"pub": {"allow": ["{{tag(team)}}"]}}`, `no tag of the template has the key "team"`},
		"a tag's key with a colon":             {`{"pub": {"allow": ["{{tag(a:b)}}"]}, "tags": ["a:{{claim(x)}}"]}`, "no colon"},
		"a tag that reads a tag":               {`{"tags": ["a:b", "c:{{tag(a)}}"]}`, "may not stand in tags"},
		"a tag whose key has a placeholder":    {`{"tags": ["{{claim(x)}}:y"]}`, "the key of a tag"},
		"a tag whose key ends in one":          {`{"tags": ["x{{claim(x)}}-z:y"]}`, "the key of a tag"},
		"a tag with an empty value":            {`{"tags": ["team:"]}`, "a value after it"},
		"a tag with an empty key":              {`{"tags": [":x"]}`, "a key before"},
		"a tag with white space":               {`{"tags": ["a b"]}`, "white space"},
		"a tag with a dot":                     {`{"tags": ["v:1.2"]}`, `has a "."`},
		"a tag with a wildcard":                {`{"tags": ["v:>"]}`, `has a ">"`},
		"a tag with a brace":                   {`{"tags": ["v:{x"]}`, "no braces"},
		"an empty tag":                         {`{"tags": [""]}`, "is empty"},
		"more subjects than there may be":      {publish(slices.Repeat([]string{"a"}, maxSubjects+1)...), "pub.allow[1000] is one too many"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jwtRole(func(r *Role) { r.UserTemplate = test.template }).Compile()
			var fault *FieldError
			require.ErrorAs(t, err, &fault)
			require.Equal(t, "user_template", fault.Field)
			require.Contains(t, fault.Fault, test.fault)
		})
	}
}

func TestUserTemplateTakes(t *testing.T) {
	for name, source := range map[string]string{
		"a payload of nothing, for who only listens": `{"payload": 0}`,
		"a time that crosses midnight":               `{"times": [{"start": "22:00:00", "end": "06:00:00"}]}`,
		"a second":                                   `{"times": [{"start": "00:00:00", "end": "00:00:01"}]}`,
		"MQTT with a bearer token":                   `{"allowed_connection_types": ["MQTT"], "bearer_token": true}`,
		"MQTT beside others":                         `{"allowed_connection_types": ["MQTT", "STANDARD"]}`,
		"an empty list of connection types":          `{"allowed_connection_types": []}`,
	} {
		t.Run(name, func(t *testing.T) {
			compile(t, jwtRole(template(source)))
			compile(t, jwtRole(func(r *Role) { r.Scoped, r.UserTemplate = true, source }))
		})
	}
}

func TestScopedTemplateRefuses(t *testing.T) {
	for name, test := range map[string]struct{ template, fault string }{
		"claims":                  {`{"pub": {"allow": ["{{claim(x)}}"]}}`, "claim(x) may not stand in the permissions of a scoped role"},
		"metadata":                {`{"pub": {"allow": ["{{metadata(x)}}"]}}`, "metadata(x) may not stand in the permissions"},
		"escaping":                {`{"pub": {"allow": ["{{name()|escape}}"]}}`, "|escape may not stand"},
		"queue names":             {`{"sub": {"allow": ["a b"]}}`, "queue names"},
		"queue names from a name": {`{"sub": {"allow": ["a {{name()}}"]}}`, "queue names"},
		"unknown functions":       {`{"sub": {"allow": ["{{user()}}"]}}`, "unknown function"},
		"a tag that could begin a subject of NATS": {`{"tags": ["a", "T:$JS"]}`, `user_template has a tag at tags[1] that is "T:$JS": in a scoped role the value of a tag cannot begin with "$"`},
		"a tag with a value behind such text":      {`{"tags": ["t:_{{claim(x)}}"]}`, `the value of a tag cannot begin with "_"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jwtRole(func(r *Role) { r.UserTemplate, r.Scoped = test.template, true }).Compile()
			require.ErrorContains(t, err, test.fault)
		})
	}
}

func TestScopedUserNameRefuses(t *testing.T) {
	for _, source := range []string{"_x", "${{claim(x)}}", "_INBOX"} {
		_, err := jwtRole(func(r *Role) { r.UserName, r.Scoped = source, true }).Compile()
		var fault *FieldError
		require.ErrorAs(t, err, &fault)
		require.Equal(t, "user_name", fault.Field)
		require.Contains(t, fault.Fault, "in a scoped role a name cannot begin with")
		compile(t, jwtRole(func(r *Role) { r.UserName = source })) // its template does not change under a JWT
	}
}

func TestVaultTemplateRefuses(t *testing.T) {
	for _, placeholder := range []string{"{{claim(x)}}", "{{metadata(x)}}"} {
		_, err := vaultRole(func(r *Role) { r.UserName = placeholder }).Compile()
		require.ErrorContains(t, err, "use entity-name()")
	}
}

func TestUserNameRefuses(t *testing.T) {
	for name, test := range map[string]struct{ source, fault string }{
		"a dot":                    {"ci.{{claim(x)}}", `has a "."`},
		"white space":              {"ci {{claim(x)}}", "white space"},
		"a wildcard":               {"{{claim(x)}}>", `has a ">"`},
		"a brace":                  {"{{claim(x)}}}", "no braces"},
		"itself":                   {"{{name()}}", "name() may not stand in user_name"},
		"a tag":                    {"{{tag(x)}}", "tag(x) may not stand in user_name"},
		"an unclosed brace":        {"{{claim(x)", "is not closed, at character 1"},
		"a function of no meaning": {"{{upper(x)}}", "unknown function"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jwtRole(func(r *Role) { r.UserName = test.source }).Compile()
			var fault *FieldError
			require.ErrorAs(t, err, &fault)
			require.Equal(t, "user_name", fault.Field)
			require.Contains(t, fault.Fault, test.fault)
		})
	}
}

// publish is a template that allows publishing to the subjects.
func publish(subjects ...string) string {
	return `{"pub": {"allow": ["` + strings.Join(subjects, `", "`) + `"]}}`
}

func TestRender(t *testing.T) {
	type want struct {
		name string
		pub  []string
		tags []string
	}
	for name, test := range map[string]struct {
		role   func(*Role)
		claims string
		want   want
		fault  string // part of the error
	}{
		"a claim": {template(publish("o.{{claim(p)}}.>")), `{"p": "web"}`, want{pub: []string{"o.web.>"}}, ""},
		"a claim with a strange name": {template(publish("{{claim(https://example.com/p)}}")),
			`{"https://example.com/p": "web"}`, want{pub: []string{"web"}}, ""},
		"a claim with brackets in its name": {template(publish("{{claim(p(1)|x)}}")), `{"p(1)|x": "web"}`, want{pub: []string{"web"}}, ""},
		"a claim under a JSON pointer":      {template(publish("{{claim(/a/0/b)}}")), `{"a": [{"b": "web"}]}`, want{pub: []string{"web"}}, ""},
		"a part of a token":                 {template(publish("pre-{{claim(p)}}-post.x")), `{"p": "web"}`, want{pub: []string{"pre-web-post.x"}}, ""},
		"a whole number":                    {template(publish("{{claim(n)}}")), `{"n": -9007199254740993}`, want{pub: []string{"-9007199254740993"}}, ""},
		"a boolean":                         {template(publish("{{claim(b)}}")), `{"b": true}`, want{pub: []string{"true"}}, ""},
		"a list":                            {template(publish("{{claim(l)}}.x", "y")), `{"l": ["a", 1, false]}`, want{pub: []string{"a.x", "1.x", "false.x", "y"}}, ""},
		"a product of lists, the last fastest": {template(publish("{{claim(l)}}.{{claim(m)}}")), `{"l": ["a", "b"], "m": ["c", "d"]}`,
			want{pub: []string{"a.c", "a.d", "b.c", "b.d"}}, ""},
		"one value for one placeholder in two places": {template(publish("{{claim(l)}}.{{ claim(l) }}")), `{"l": ["a", "b"]}`,
			want{pub: []string{"a.a", "b.b"}}, ""},
		"space in a placeholder and its letters' case": {template(publish("{{ Claim( p ) | escape }}.{{NAME()}}")), `{"p": "a b"}`,
			want{pub: []string{"a%20b.runner"}}, ""},
		"more placeholders than usual": {template(publish("{{claim(/l/0)}}.{{claim(/l/1)}}.{{claim(/l/2)}}.{{claim(/l/3)}}.{{claim(/l/4)}}.{{claim(/l/5)}}.{{claim(/l/6)}}.{{claim(/l/7)}}.{{claim(/l/8)}}")),
			`{"l": [1, 2, 3, 4, 5, 6, 7, 8, 9]}`, want{pub: []string{"1.2.3.4.5.6.7.8.9"}}, ""},
		"an escaped claim":      {template(publish("o.{{claim(p)|escape}}")), `{"p": "a.b*>%{} \tü\u00a0"}`, want{pub: []string{"o.a%2Eb%2A%3E%25%7B%7D%20%09ü%C2%A0"}}, ""},
		"an escaped list":       {template(publish("{{claim(l)|escape}}")), `{"l": ["a.b", "c"]}`, want{pub: []string{"a%2Eb", "c"}}, ""},
		"the user's public key": {template(publish("{{subject()}}")), `{}`, want{pub: []string{userKey}}, ""},
		"the account":           {template(publish("{{account-name()}}.{{account-subject()}}.{{account-tag(Region)}}")), `{}`, want{pub: []string{"orders." + accountKey + ".eu"}}, ""},
		"a missing account tag": {template(publish("{{account-tag(x)}}")), `{}`, want{}, "account-tag(x) is not among the tags"},
		"mapped metadata": {func(r *Role) {
			template(publish("{{metadata(m)}}"))(r)
			r.ClaimMappings = map[string]string{"/a/b": "m"}
		}, `{"a": {"b": "web"}}`, want{pub: []string{"web"}}, ""},
		"metadata that was not set": {func(r *Role) { template(publish("{{metadata(m)}}"))(r); r.ClaimMappings = map[string]string{"a": "m"} }, `{}`, want{}, "metadata(m) is not in the metadata"},
		"tags, and permissions from them": {template(`{"pub": {"allow": ["{{tag(T)}}.{{tag(g)}}"]}, "tags": ["T:{{claim(p)}}", "g:{{claim(l)}}", "G:fix"]}`),
			`{"p": "Web", "l": ["a", "b", "a"]}`, want{tags: []string{"t:Web", "g:a", "g:b", "g:fix"}, pub: []string{"Web.a", "Web.b", "Web.fix"}}, ""},
		"a tag's value with a colon":       {template(`{"pub": {"allow": ["{{tag(s)}}"]}, "tags": ["s:{{claim(p)}}"]}`), `{"p": "repo:a:b"}`, want{tags: []string{"s:repo:a:b"}, pub: []string{"repo:a:b"}}, ""},
		"a tag without a key":              {template(`{"tags": ["{{claim(p)}}"]}`), `{"p": "web"}`, want{tags: []string{"web"}}, ""},
		"a tag that would become a key":    {template(`{"tags": ["{{claim(p)}}"]}`), `{"p": "admin:yes"}`, want{}, `tags[0] is "admin:yes"`},
		"a tag that would be a template":   {template(`{"tags": ["k:{{claim(p)}}"]}`), `{"p": "{{name()}}"}`, want{}, "a brace"},
		"a name":                           {func(r *Role) { r.UserName = "ci-{{claim(p)}}" }, `{"p": "Web"}`, want{name: "ci-Web"}, ""},
		"a name from a list":               {func(r *Role) { r.UserName = "{{claim(l)}}" }, `{"l": ["a", "b"]}`, want{}, "user_name has several values"},
		"a name from a list of one":        {func(r *Role) { r.UserName = "{{claim(l)}}" }, `{"l": ["a"]}`, want{name: "a"}, ""},
		"a name that is no token":          {func(r *Role) { r.UserName = "{{claim(p)}}" }, `{"p": "a.b"}`, want{}, `claim(p) "a.b" is not one subject token: it has a "."; {{claim(p)|escape}} would encode it`},
		"a name that would be a template":  {func(r *Role) { r.UserName = "{{claim(p)}}" }, `{"p": "{{tag(x)}}"}`, want{}, "a brace"},
		"a name in braces":                 {func(r *Role) { r.UserName = "{{claim(p)}}" }, `{"p": "{0f-1}"}`, want{}, `claim(p) "{0f-1}" has a brace, which nats-server could take for a placeholder; {{claim(p)|escape}} would encode it`},
		"a tag in braces":                  {template(`{"tags": ["k:{{claim(/p)}}"]}`), `{"p": "{0f-1}"}`, want{}, `claim(/p) "{0f-1}" has a brace, which nats-server could take for a placeholder; {{claim(/p)|escape}} would encode it`},
		"a name in braces, escaped":        {func(r *Role) { r.UserName = "{{claim(p)|escape}}" }, `{"p": "{0f-1}"}`, want{name: "%7B0f-1%7D"}, ""},
		"braces in a subject":              {template(publish("a.{{claim(p)}}")), `{"p": "{0f-1}"}`, want{pub: []string{"a.{0f-1}"}}, ""},
		"no name is the alias, escaped":    {template(publish("{{name()}}")), `{"sub": "repo:o/n.io:ref"}`, want{name: "repo:o/n%2Eio:ref", pub: []string{"repo:o/n%2Eio:ref"}}, ""},
		"a name in a tag":                  {template(`{"tags": ["n:{{name()}}"]}`), `{}`, want{tags: []string{"n:runner"}}, ""},
		"a missing claim":                  {template(publish("{{claim(p)}}")), `{}`, want{}, "claim(p) is not in the token"},
		"a null claim":                     {template(publish("{{claim(p)}}")), `{"p": null}`, want{}, "claim(p) is not in the token"},
		"an object":                        {template(publish("{{claim(p)}}")), `{"p": {}}`, want{}, "claim(p) is an object"},
		"a fraction":                       {template(publish("{{claim(p)}}")), `{"p": 1.0}`, want{}, "claim(p) is 1.0, which is not a whole number"},
		"an exponent":                      {template(publish("{{claim(p)}}")), `{"p": 1e3}`, want{}, "claim(p) is 1e3, which is not a whole number"},
		"a list in a list":                 {template(publish("{{claim(p)}}")), `{"p": ["a", ["b"]]}`, want{}, "claim(p) has the element 1, which is a list in a list"},
		"a null in a list":                 {template(publish("{{claim(p)}}")), `{"p": [null]}`, want{}, "claim(p) has the element 0"},
		"an empty list":                    {template(publish("a", "{{claim(p)}}")), `{"p": []}`, want{}, "claim(p) is an empty list"},
		"an empty string":                  {template(publish("a.{{claim(p)}}")), `{"p": ""}`, want{}, `claim(p) "" is not one subject token: it is empty`},
		"an empty string beside text":      {template(publish("a-{{claim(p)}}")), `{"p": ""}`, want{}, "is empty"},
		"an empty string, escaped":         {template(publish("a.{{claim(p)|escape}}")), `{"p": ""}`, want{}, "is empty"},
		"a dot":                            {template(publish("{{claim(p)}}")), `{"p": "a.b"}`, want{}, `has a "."`},
		"a star":                           {template(publish("{{claim(p)}}")), `{"p": "*"}`, want{}, `has a "*"`},
		"a full wildcard":                  {template(publish("{{claim(p)}}")), `{"p": ">"}`, want{}, `has a ">"`},
		"a space, which begins a queue":    {template(`{"sub": {"allow": ["a.{{claim(p)}}"]}}`), `{"p": "b c"}`, want{}, "white space (U+0020)"},
		"a no-break space":                 {template(publish("{{claim(p)}}")), `{"p": "a\u00a0b"}`, want{}, "white space (U+00A0)"},
		"a line separator":                 {template(publish("{{claim(p)}}")), `{"p": "a\u2028b"}`, want{}, "white space (U+2028)"},
		"a null character":                 {template(publish("{{claim(p)}}")), `{"p": "a\u0000"}`, want{}, "a control character (U+0000)"},
		"a control character beyond ASCII": {template(publish("{{claim(p)}}")), `{"p": "a\u0090"}`, want{}, "a control character (U+0090)"},
		"a delete character":               {template(publish("{{claim(p)}}")), `{"p": "a\u007f"}`, want{}, "a control character (U+007F)"},
		"half of a surrogate pair":         {template(publish("{{claim(p)}}")), `{"p": "a\ud800"}`, want{}, "not valid UTF-8"},
		"one bad element of a list":        {template(publish("{{claim(l)}}")), `{"l": ["a", ">"]}`, want{}, `claim(l) ">"`},
		"a system subject":                 {template(publish("{{claim(p)}}.>")), `{"p": "$JS"}`, want{}, `"$JS" cannot begin a subject`},
		"the inboxes":                      {template(`{"sub": {"allow": ["{{claim(p)}}.>"]}}`), `{"p": "_INBOX"}`, want{}, `"_INBOX" cannot begin a subject`},
		"a dollar further on":              {template(publish("a.{{claim(p)}}", "b-{{claim(p)}}")), `{"p": "$JS"}`, want{pub: []string{"a.$JS", "b-$JS"}}, ""},
		"as many subjects as there may be": {template(publish("{{claim(l)}}")), `{"l": [` + strings.Repeat(`"a",`, maxSubjects-1) + `"a"]}`, want{}, ""},
		"a subject too many":               {template(publish("x", "{{claim(l)}}")), `{"l": [` + strings.Repeat(`"a",`, maxSubjects-1) + `"a"]}`, want{}, "pub.allow[1] gives 1000 subjects, with the entries before it more than 1000"},
		"a product of too many subjects":   {template(publish("{{claim(l)}}.{{claim(/l)}}")), `{"l": [` + strings.Repeat(`"a",`, 31) + `"a"]}`, want{}, "pub.allow[0]"},
		"a product of too many tags":       {template(`{"tags": ["k:{{claim(l)}}-{{claim(/l)}}"]}`), `{"l": [` + strings.Repeat(`"a",`, 31) + `"a"]}`, want{}, "tags[0] gives 1024 tags"},
		"a long value is cut in the error": {template(publish("{{claim(p)}}")), `{"p": "` + strings.Repeat("x", 200) + `."}`, want{}, strings.Repeat("x", 80) + `"...`},
	} {
		t.Run(name, func(t *testing.T) {
			gotName, user, err := render(t, compile(t, jwtRole(test.role)), token(t, test.claims))
			if test.fault != "" {
				require.ErrorContains(t, err, test.fault)
				return
			}
			require.NoError(t, err)
			if test.want.name != "" {
				require.Equal(t, test.want.name, gotName)
			}
			if test.want.pub != nil {
				require.Equal(t, test.want.pub, []string(user.Pub.Allow))
			}
			require.Equal(t, test.want.tags, []string(user.Tags))
		})
	}
}

func TestAnErrorOffersEscapeOnlyWhereItHelps(t *testing.T) {
	scoped := func(change func(*Role)) func(*Role) {
		return func(r *Role) { r.Scoped = true; change(r) }
	}
	const offer = "; {{claim(p)|escape}} would encode it"
	for name, test := range map[string]struct {
		role   func(*Role)
		value  string
		offers bool
	}{
		"a dot in a subject":                      {template(publish("a.{{claim(p)}}")), "a.b", true},
		"bytes that are no UTF-8":                 {template(publish("a.{{claim(p)}}")), "\xff", true},
		"a dot in a subject's first token":        {template(publish("{{claim(p)}}.a")), "a.b", true},
		"a dot in a name":                         {func(r *Role) { r.UserName = "{{claim(p)}}" }, "a.b", true},
		"a brace in a name":                       {func(r *Role) { r.UserName = "{{claim(p)}}" }, "{a}", true},
		"a brace in a tag":                        {template(`{"tags": ["t:{{claim(p)}}"]}`), "{a}", true},
		"a brace in a scoped role's tag":          {scoped(template(`{"tags": ["t:{{claim(p)}}"]}`)), "{a}", true},
		"nothing, of which escaping makes none":   {template(publish("a.{{claim(p)}}")), "", false},
		"a subject of NATS":                       {template(publish("{{claim(p)}}.a")), "$JS", false},
		"a subject of NATS with a dot":            {template(publish("{{claim(p)}}.a")), "$JS.API", false},
		"a scoped role's tag that begins like it": {scoped(template(`{"tags": ["t:{{claim(p)}}"]}`)), "_x.y", false},
		"what is escaped already":                 {template(publish("{{claim(p)|escape}}.a")), "$JS.API", false},
		"a colon in a tag without a key":          {template(`{"tags": ["{{claim(p)}}"]}`), "a:b", false},
	} {
		t.Run(name, func(t *testing.T) {
			c := compile(t, jwtRole(test.role))
			b, err := c.Bind(&claims.Profile{
				Issuer: DefaultIssuer, Kind: claims.KindJWT, Claims: map[string]any{"sub": "runner", "p": test.value},
			}, now)
			require.NoError(t, err)
			_, err = c.Render(b, account, userKey)
			require.Error(t, err)
			require.Equal(t, test.offers, strings.HasSuffix(err.Error(), offer), err.Error())
			if test.offers { // and what it offers is taken
				again := strings.NewReplacer("{{claim(p)}}", "{{claim(p)|escape}}")
				c := compile(t, jwtRole(func(r *Role) {
					test.role(r)
					r.UserName, r.UserTemplate = again.Replace(r.UserName), again.Replace(r.UserTemplate)
				}))
				_, err := c.Render(b, account, userKey)
				require.NoError(t, err)
			}
		})
	}
}

func template(source string) func(*Role) {
	return func(r *Role) { r.UserTemplate = source }
}

func TestRenderAccountThatIsNoToken(t *testing.T) {
	c := compile(t, jwtRole(template(publish("{{account-name()}}"))))
	b, err := c.Bind(token(t, `{}`), now)
	require.NoError(t, err)
	_, err = c.Render(b, Account{Name: "a.b"}, userKey)
	require.ErrorContains(t, err, `account-name() "a.b"`)
}

func TestRenderServiceAccount(t *testing.T) {
	c := compile(t, kubernetesRole(template(publish("{{metadata(service_account_namespace)}}.{{claim(/kubernetes.io/namespace)}}"))))
	b, err := c.Bind(serviceAccount(nil), now)
	require.NoError(t, err)
	u, err := c.Render(b, account, userKey)
	require.NoError(t, err)
	require.Contains(t, string(u.NATS), `"ci.ci"`)
}

func TestRenderAnnotation(t *testing.T) {
	c := compile(t, kubernetesRole(template(publish("{{metadata(team)}}"))))
	b, err := c.Bind(serviceAccount(func(a *claims.ServiceAccount) { a.Annotations = map[string]string{"team": "blue"} }), now)
	require.NoError(t, err)
	u, err := c.Render(b, account, userKey)
	require.NoError(t, err)
	require.Contains(t, string(u.NATS), `["blue"]`)
}

func TestRenderEntity(t *testing.T) {
	c := compile(t, vaultRole(func(r *Role) {
		r.UserTemplate = publish("{{entity-id()}}.{{entity-name()|escape}}.{{entity-metadata(team)}}.{{groups()}}")
	}))
	b, err := c.BindEntity(Entity{ID: "id-1", Name: "a.b", Metadata: map[string]string{"team": "blue"}, Groups: []string{"x", "y"}})
	require.NoError(t, err)
	u, err := c.Render(b, account, userKey)
	require.NoError(t, err)
	require.Equal(t, "a%2Eb", u.Name)
	require.Contains(t, string(u.NATS), `["id-1.a%2Eb.blue.x","id-1.a%2Eb.blue.y"]`)

	b, err = c.BindEntity(Entity{ID: "id-1", Name: "a", Metadata: map[string]string{"team": "blue"}})
	require.NoError(t, err)
	_, err = c.Render(b, account, userKey)
	require.ErrorContains(t, err, "groups() is an empty list")

	b, err = c.BindEntity(Entity{ID: "id-1", Name: "a", Groups: []string{"x"}})
	require.NoError(t, err)
	_, err = c.Render(b, account, userKey)
	require.ErrorContains(t, err, "entity-metadata(team) is not in the metadata")
}

// OpenBao ends a name that nobody gave in a dot and the namespace's ID. The
// templates are those of docs/roles.md, as they are and scoped.
func TestAVaultRoleTakesTheNamesThatOpenBaoGives(t *testing.T) {
	entity := Entity{ID: "id-1", Name: "entity_9f2c41a7.root", Groups: []string{"group_5d.root", "ops"}}
	for name, role := range map[string]*Role{
		"in the user JWT": vaultRole(template(`{
			"pub": {"allow": ["ops.{{entity-name()|escape}}.>"]},
			"sub": {"allow": ["teams.{{groups()|escape}}.>", "_INBOX.>"]}}`)),
		"scoped": vaultRole(func(r *Role) {
			r.Scoped, r.UserName = true, "{{entity-name()|escape}}"
			r.UserTemplate = `{
				"pub": {"allow": ["ops.{{name()}}.>"]}, "sub": {"allow": ["teams.{{tag(group)}}.>", "_INBOX.>"]},
				"tags": ["group:{{groups()|escape}}"]}`
		}),
	} {
		t.Run(name, func(t *testing.T) {
			preview := compile(t, role).PreviewEntity(entity, account, userKey)
			require.Empty(t, preview.Errors)
			require.Equal(t, "entity_9f2c41a7%2Eroot", preview.Name)
			var rendered []string
			for _, o := range preview.Origins {
				rendered = append(rendered, o.Rendered)
			}
			require.Subset(t, rendered, []string{"ops.entity_9f2c41a7%2Eroot.>", "teams.group_5d%2Eroot.>", "teams.ops.>"})
		})
	}

	preview := compile(t, vaultRole(template(publish("ops.{{entity-name()}}.{{groups()}}")))).PreviewEntity(entity, account, userKey)
	require.Len(t, preview.Errors, 2)
	require.EqualError(t, preview.Errors[0],
		`entity-name() "entity_9f2c41a7.root" is not one subject token: it has a "."; {{entity-name()|escape}} would encode it`)
	require.EqualError(t, preview.Errors[1],
		`groups() "group_5d.root" is not one subject token: it has a "."; {{groups()|escape}} would encode it`)
}
