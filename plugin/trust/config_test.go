package trust

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"
)

// wholeAccount has every key of an account in NATS's claims but the keys of
// other accounts, which the test fills in for the letters in brackets.
const wholeAccount = `{
	"imports": [
		{"name": "prices", "subject": "prices.>", "account": "[A]", "local_subject": "in.prices.>", "type": "stream", "allow_trace": true},
		{"name": "quote", "subject": "quote", "account": "[A]", "type": "service", "share": true}
	],
	"exports": [
		{"name": "orders", "subject": "orders.>", "type": "stream", "token_req": true, "advertise": true, "description": "all", "info_url": "https://example.com", "revocations": {"*": 1700000000}},
		{"name": "place", "subject": "place.*", "type": "service", "response_type": "Singleton", "response_threshold": 1000000000, "account_token_position": 2, "allow_trace": true, "service_latency": {"sampling": "headers", "results": "latency"}},
		{"name": "ways", "subject": "ways", "type": "service", "response_type": "Stream"}
	],
	"limits": {"subs": 10, "data": 20, "payload": 30, "imports": 4, "exports": 5, "wildcards": true, "disallow_bearer": true, "conn": 6, "leaf": 0,
		"tiered_limits": {"R1": {"mem_storage": 1, "disk_storage": 2, "streams": 3, "consumer": 4, "max_ack_pending": 5, "mem_max_stream_bytes": 6, "disk_max_stream_bytes": 7, "max_bytes_required": true}, "R3": {"disk_storage": -1}}},
	"signing_keys": ["[S]", {"kind": "user_scope", "key": "[T]", "role": "reader", "template": {"sub": {"allow": ["x"]}, "subs": 1, "data": 2, "payload": 3, "pub": {}}, "description": "d"}],
	"revocations": {"[U]": 1700000000, "*": 1600000000},
	"default_permissions": {"pub": {"allow": ["a"], "deny": ["b"]}, "sub": {"deny": ["c queue"]}, "resp": {"max": 1, "ttl": 1000000000}},
	"mappings": {"m": [{"subject": "n", "weight": 40}, {"subject": "o", "weight": 50, "cluster": "east"}]},
	"authorization": {"auth_users": ["[U]"], "allowed_accounts": ["[A]"]},
	"trace": {"dest": "trace.here", "sampling": 50},
	"cluster_traffic": "owner",
	"description": "orders", "info_url": "https://example.com/orders",
	"tags": ["prod", "eu"]
}`

func fillKeys(t *testing.T, text string) string {
	t.Helper()
	// Signing keys are written in the order of their public keys.
	signing := []string{mustGenerate(t, Account).Public(), mustGenerate(t, Account).Public()}
	slices.Sort(signing)
	return strings.NewReplacer("[A]", mustGenerate(t, Account).Public(), "[S]", signing[0],
		"[T]", signing[1], "[U]", mustGenerate(t, User).Public()).Replace(text)
}

func TestEveryKeyOfAnAccountSurvivesItsJWTAndItsConfig(t *testing.T) {
	operator, account := mustGenerate(t, Operator), mustGenerate(t, Account)
	written := fillKeys(t, wholeAccount)
	parsed, err := ParseAccountConfig([]byte(written))
	require.NoError(t, err)
	require.NoError(t, ValidateAccount(account.Public(), parsed))

	shown, err := AccountConfig(parsed)
	require.NoError(t, err)
	require.JSONEq(t, written, string(shown))

	token, err := EncodeAccount(operator, account.Public(), "orders", *parsed, 1795304077)
	require.NoError(t, err)
	claims, err := jwt.DecodeAccountClaims(token)
	require.NoError(t, err)
	require.EqualValues(t, 1795304077, claims.IssuedAt)
	require.Equal(t, operator.Public(), claims.Issuer)
	claims.GenericFields = jwt.GenericFields{Tags: claims.Tags}
	shown, err = AccountConfig(&claims.Account)
	require.NoError(t, err)
	require.JSONEq(t, written, string(shown))

	imported, err := DecodeAccount(token)
	require.NoError(t, err)
	again, err := EncodeAccount(operator, account.Public(), "orders", imported.Account, 1795304077)
	require.NoError(t, err)
	require.Equal(t, token, again, "an account that is imported and signed again changed")
}

func TestAZeroLimitIsShownSoThatWritingItBackDoesNotLiftIt(t *testing.T) {
	parsed, err := ParseAccountConfig([]byte(`{"limits":{"conn":0,"wildcards":false}}`))
	require.NoError(t, err)
	shown, err := AccountConfig(parsed)
	require.NoError(t, err)
	again, err := ParseAccountConfig(shown)
	require.NoError(t, err)
	require.Zero(t, again.Limits.Conn)
	require.False(t, again.Limits.WildcardExports)
	require.EqualValues(t, jwt.NoLimit, again.Limits.Subs)

	user, err := ParseUserConfig([]byte(`{"payload":0}`))
	require.NoError(t, err)
	shown, err = UserConfig(user)
	require.NoError(t, err)
	require.JSONEq(t, `{"pub":{},"sub":{},"subs":-1,"data":-1,"payload":0}`, string(shown))

	shown, err = ScopeConfig(&jwt.UserScope{Kind: jwt.UserScopeType})
	require.NoError(t, err)
	require.JSONEq(t, `{"kind":"user_scope","key":"","role":"","description":"","template":{"pub":{},"sub":{},"subs":0,"data":0,"payload":0}}`, string(shown))
}

// What is written as a limit of nothing would reach the servers as no limit at all.
func TestAScopeWithAZeroLimitIsRefusedSinceNoJWTCanSayIt(t *testing.T) {
	operator, account, key := mustGenerate(t, Operator), mustGenerate(t, Account).Public(), mustGenerate(t, Account).Public()
	for _, limit := range []string{"subs", "data", "payload"} {
		written := unchecked(t, `{"signing_keys":[{"kind":"user_scope","key":"`+key+`","role":"r","template":{"`+limit+`":0}}]}`)
		token, err := EncodeAccount(operator, account, "orders", *written, issued)
		require.NoError(t, err)
		claims, err := jwt.DecodeAccountClaims(token)
		require.NoError(t, err)
		require.True(t, claims.SigningKeys[key].(*jwt.UserScope).Template.NatsLimits.IsUnlimited())

		require.ErrorContains(t, ValidateAccount(account, written), `of role "r", whose template has `+limit+` 0, which cannot stand in a scope`)
		_, err = ParseScope([]byte(`{"template":{"` + limit + `":0}}`))
		require.ErrorContains(t, err, "the template has "+limit+" 0")
	}
}

func TestAScopeMayHaveThePlaceholdersOfNATSServer(t *testing.T) {
	scope, err := ParseScope([]byte(`{"template":{"pub":{"allow":["a.{{name()}}.>","{{subject()}}.{{account-name()}}.{{account-subject()}}"]},"sub":{"allow":["{{tag(team)}}.x q","t.{{account-tag(eu)}}"],"deny":["a.{{Name()}}b"]}}}`))
	require.NoError(t, err)
	account := unchecked(t, `{}`)
	scope.Key = mustGenerate(t, Account).Public()
	account.SigningKeys.AddScopedSigner(scope)
	require.NoError(t, ValidateAccount(mustGenerate(t, Account).Public(), account))
}

func TestNobodyIsABearerWhereTheAccountForbidsIt(t *testing.T) {
	forbids, allows := unchecked(t, `{"limits":{"disallow_bearer":true}}`), unchecked(t, `{}`)
	bearer, other := &jwt.UserPermissionLimits{BearerToken: true}, &jwt.UserPermissionLimits{}
	require.ErrorContains(t, CheckUserOf(forbids, bearer), "has bearer_token, and the account has limits.disallow_bearer")
	require.NoError(t, CheckUserOf(forbids, other))
	require.NoError(t, CheckUserOf(allows, bearer))
}

func TestASystemAccountHasNoJetStream(t *testing.T) {
	require.NoError(t, CheckSystemAccount(unchecked(t, `{}`)))
	for _, limits := range []string{`{"disk_storage":1}`, `{"mem_storage":-1}`, `{"tiered_limits":{"R1":{"disk_storage":1}}}`} {
		require.ErrorContains(t, CheckSystemAccount(unchecked(t, `{"limits":`+limits+`}`)), "has JetStream limits")
	}
}

func TestAnAccountWithoutConfigIsUnlimitedAndHasNoJetStream(t *testing.T) {
	parsed, err := ParseAccountConfig([]byte(`{}`))
	require.NoError(t, err)
	require.True(t, parsed.Limits.NatsLimits.IsUnlimited())
	require.True(t, parsed.Limits.AccountLimits.IsUnlimited())
	require.False(t, parsed.Limits.IsJSEnabled())
}

func TestAnAccountConfigWithAFaultIsRefusedWithItsPlace(t *testing.T) {
	for name, test := range map[string]struct{ config, fault string }{
		"an unknown key":                           {`{"limit":{}}`, `has an unknown key "limit": known are authorization, cluster_traffic,`},
		"an unknown key deep down":                 {`{"exports":[{"subject":"a","typ":"stream"}]}`, `has an unknown key "typ" at exports[0]: known are account_token_position,`},
		"an unknown key in a tier":                 {`{"limits":{"tiered_limits":{"R.1":{"disk":1}}}}`, `has an unknown key "disk" at limits.tiered_limits."R.1": known are`},
		"an unknown key in a scope":                {`{"signing_keys":[{"kind":"user_scope","permissions":{}}]}`, `has an unknown key "permissions" at signing_keys[0]`},
		"a key in the wrong case":                  {`{"Limits":{}}`, `has an unknown key "Limits"`},
		"a key given twice":                        {`{"limits":{"conn":1,"conn":2}}`, `has the key "conn" at limits twice`},
		"a string for a number":                    {`{"limits":{"conn":"5"}}`, `has a string at limits.conn where a number is wanted`},
		"a fraction":                               {`{"limits":{"conn":1.5}}`, `has 1.5 at limits.conn, which is not a whole number in range`},
		"a number beyond 64 bits":                  {`{"limits":{"conn":99999999999999999999}}`, `which is not a whole number in range`},
		"a number for a string":                    {`{"description":5}`, `has a number at description where a string is wanted`},
		"a string for a boolean":                   {`{"limits":{"wildcards":"yes"}}`, `has a string at limits.wildcards where true or false is wanted`},
		"an object for a list":                     {`{"imports":{}}`, `has an object at imports where a list is wanted`},
		"a list for an object":                     {`{"limits":[]}`, `has a list at limits where an object is wanted`},
		"a null":                                   {`{"limits":null}`, `has null at limits where an object is wanted`},
		"a null export":                            {`{"exports":[null]}`, `has null at exports[0] where an object is wanted`},
		"a list":                                   {`[]`, `is a list where an object is wanted`},
		"a string":                                 {`"{}"`, `is a string where an object is wanted`},
		"nothing":                                  {``, `is not valid JSON: EOF`},
		"half an object":                           {`{"limits":{"conn":1}`, `is not valid JSON: `},
		"something after the object":               {`{} {}`, `has something after its JSON object`},
		"an unknown export type":                   {`{"exports":[{"subject":"a","type":"queue"}]}`, `unknown export type "queue"`},
		"an unknown sampling":                      {`{"exports":[{"subject":"a","type":"service","service_latency":{"sampling":"some","results":"r"}}]}`, `is not valid: `},
		"the claims of a user":                     {`{"type":"user"}`, `is the claim of an user where that of an account is wanted`},
		"the claims of an earlier version":         {`{"type":"account","version":1}`, `has version 1 where 2 is wanted`},
		"a negative weight":                        {`{"mappings":{"a":[{"subject":"b","weight":-1}]}}`, `is not valid: `},
		"two kinds of JetStream limits":            {`{"limits":{"disk_storage":1,"tiered_limits":{"R1":{"disk_storage":1}}}}`, `mutually exclusive`},
		"overlapping exports":                      {`{"exports":[{"subject":"a.>","type":"stream"},{"subject":"a.b","type":"stream"}]}`, `already exports`},
		"more exports than allowed":                {`{"limits":{"exports":0},"exports":[{"subject":"a","type":"stream"}]}`, `more exports than allowed`},
		"a subject with a space":                   {`{"exports":[{"subject":"a b","type":"stream"}]}`, `exports[0].subject is "a b", which is not a subject: it has white space in it`},
		"an import without an account":             {`{"imports":[{"subject":"a","type":"stream"}]}`, `imports[0].account is missing`},
		"an import from a user":                    {`{"imports":[{"subject":"a","type":"stream","account":"[U]"}]}`, `imports[0].account is a user public key where an account public key is wanted`},
		"an import with a bad token":               {`{"imports":[{"subject":"a","type":"stream","account":"[A]","token":"eyJ"}]}`, `imports[0].token is not an activation token`},
		"a user as a signing key":                  {`{"signing_keys":["[U]"]}`, `signing_keys has a key that is a user public key where an account public key is wanted`},
		"a mapping of more than 100 percent":       {`{"mappings":{"a":[{"subject":"b","weight":60},{"subject":"c","weight":60}]}}`, `exceeds 100%`},
		"a mapping to one subject twice":           {`{"mappings":{"a":[{"subject":"b","weight":10},{"subject":"b","weight":20}]}}`, `has the destination "b" twice`},
		"an unknown cluster traffic":               {`{"cluster_traffic":"all"}`, `unknown cluster traffic option: "all"`},
		"a trace to a wildcard":                    {`{"trace":{"dest":"a.*"}}`, `trace.dest is "a.*", which has a wildcard`},
		"an auth user that is an account":          {`{"authorization":{"auth_users":["[A]"]}}`, `authorization.auth_users[0] is an account public key where a user public key is wanted`},
		"a mapping to one subject in two clusters": {`{"mappings":{"a":[{"subject":"b","weight":10,"cluster":"x"},{"subject":"b","weight":20}]}}`, `the mapping of "a" has the destination "b" twice`},
		"a mapping with a wildcard too many":       {`{"mappings":{"a.*":[{"subject":"b.{{wildcard(7)}}","weight":100}]}}`, `the mapping of "a.*" goes to "b.{{wildcard(7)}}", where {{wildcard(7)}} stands for wildcard 7 of 1`},
		"a mapping to a wildcard":                  {`{"mappings":{"a.*":[{"subject":"b.*"}]}}`, `the mapping of "a.*" goes to "b.*", where $1 or {{wildcard(1)}} has to stand for`},
		"a mapping to an unknown function":         {`{"mappings":{"a.*":[{"subject":"b.{{hash(1)}}"}]}}`, `{{hash(1)}} is not a function`},
		"a mapping of a subject that is none":      {`{"mappings":{"a.>.b":[{"subject":"c"}]}}`, `mappings has a subject that is "a.>.b", which is not a subject: ">" stands before its end`},
		"a mapping to a subject with a line break": {`{"mappings":{"a":[{"subject":"b\n"}]}}`, `the mapping of "a" goes to "b\n", which is not a subject`},
		"a mapping to no subject":                  {`{"mappings":{"a":[{"weight":10}]}}`, `the mapping of "a" has a destination without a subject`},
		"a limit below none":                       {`{"limits":{"conn":-5}}`, `limits.conn is -5: -1 stands for no limit`},
		"a JetStream limit below none":             {`{"limits":{"disk_storage":-2}}`, `limits.disk_storage is -2`},
		"a tier's limit below none":                {`{"limits":{"tiered_limits":{"R3":{"streams":-2}}}}`, `limits.tiered_limits.R3.streams is -2`},
		"a tier that no stream is of":              {`{"limits":{"tiered_limits":{"gold":{"disk_storage":1}}}}`, `limits.tiered_limits has the tier "gold": they are called R1, R3 and so on`},
		"a tier without a name":                    {`{"limits":{"tiered_limits":{"":{"disk_storage":1}}}}`, `blank "" tier name`},
		"a denied subject that denies nothing":     {`{"default_permissions":{"pub":{"deny":["a","b.>.c"]}}}`, `default_permissions.pub.deny[1] is "b.>.c", which is not a subject`},
		"a denied subject with a tab":              {`{"default_permissions":{"sub":{"deny":["a\tb"]}}}`, `default_permissions.sub.deny[0] is "a\tb", which is not a subject`},
		"a queue for publishers":                   {`{"default_permissions":{"pub":{"allow":["a q"]}}}`, `default_permissions.pub.allow[0] is "a q", which is not a subject: it has white space in it`},
		"a subject, a queue and more":              {`{"default_permissions":{"sub":{"allow":["a q r"]}}}`, `default_permissions.sub.allow[0] is "a q r", which has too many spaces`},
		"an auth callout without its users":        {`{"authorization":{"xkey":"[X]"}}`, `authorization.xkey is given without auth_users`},
		"accounts of a callout without users":      {`{"authorization":{"allowed_accounts":["[A]"]}}`, `cannot have accounts without users`},
		"every account and one":                    {`{"authorization":{"auth_users":["[U]"],"allowed_accounts":["*","[A]"]}}`, `can only be a list of accounts or "*"`},
		"a trace to nowhere":                       {`{"trace":{"sampling":5}}`, `trace.dest is empty`},
		"a signing key that is listed twice":       {`{"signing_keys":["[A]","[A]"]}`, `signing_keys has a key twice`},
		"a signing key with a scope and without":   {`{"signing_keys":["[A]",{"kind":"user_scope","key":"[A]"}]}`, `signing_keys has a key twice`},
		"the identity key with a scope":            {`{"signing_keys":[{"kind":"user_scope","key":"[I]"}]}`, `signing_keys has the account's identity key with a scope`},
		"a scope with an unknown placeholder":      {`{"signing_keys":[{"kind":"user_scope","key":"[A]","role":"r","template":{"pub":{"allow":["a.{{team()}}"]}}}]}`, `of role "r", whose template has a fault: pub.allow[0] is "a.{{team()}}", where {{team()}} is not a placeholder of nats-server's`},
		"a scope with a tag that is none":          {`{"signing_keys":[{"kind":"user_scope","key":"[A]","template":{"sub":{"deny":["a.{{tag}}"]}}}]}`, `{{tag}} is not a placeholder`},
		"a scope whose subject can never be one":   {`{"signing_keys":[{"kind":"user_scope","key":"[A]","template":{"sub":{"allow":["{{name()}}..a"]}}}]}`, `sub.allow[0] is "x..a", which is not a subject`},
		"bearers where they are not allowed":       {`{"limits":{"disallow_bearer":true},"signing_keys":[{"kind":"user_scope","key":"[A]","role":"web","template":{"bearer_token":true}}]}`, `of role "web", whose template has bearer_token, and the account has limits.disallow_bearer`},
		"a latency of many responses":              {`{"exports":[{"subject":"s","type":"service","response_type":"Stream","service_latency":{"sampling":5,"results":"r"}}]}`, `exports[0].service_latency is measured only where response_type is Singleton`},
		"a latency that is a request":              {`{"exports":[{"subject":"s.*","type":"service","service_latency":{"sampling":5,"results":"s.results"}}]}`, `exports[0].service_latency.results is "s.results", which is a request to the exported service "s.*"`},
		"a latency to a wildcard":                  {`{"exports":[{"subject":"s","type":"service","service_latency":{"sampling":5,"results":"r.*"}}]}`, `exports[0].service_latency.results is "r.*", which has a wildcard`},
		"a latency of a stream":                    {`{"exports":[{"subject":"s","type":"stream","service_latency":{"sampling":5,"results":"r"}}]}`, `latency tracking only permitted for services`},
		"a sampling beyond all":                    {`{"exports":[{"subject":"s","type":"service","service_latency":{"sampling":101,"results":"r"}}]}`, ``},
		"a response type of a stream":              {`{"exports":[{"subject":"s","type":"stream","response_type":"Stream"}]}`, `invalid response type for stream`},
		"an unknown response type":                 {`{"exports":[{"subject":"s","type":"service","response_type":"Many"}]}`, `invalid response type for service`},
		"an account token that is not a wildcard":  {`{"exports":[{"subject":"s.*","type":"service","account_token_position":1}]}`, `must match a *`},
		"an import that is shared and a stream":    {`{"imports":[{"subject":"a","type":"stream","account":"[A]","share":true}]}`, `only valid for services`},
		"a trace through an imported service":      {`{"imports":[{"subject":"a","type":"service","account":"[A]","allow_trace":true}]}`, `AllowTrace only valid for stream import`},
		"a stream that is imported twice":          {`{"imports":[{"subject":"a","type":"stream","account":"[E]"},{"subject":"a","type":"stream","account":"[E]","to":"in"}]}`, `imports[1] imports what imports[0] does`},
		"a service under one name twice":           {`{"imports":[{"subject":"a","type":"service","account":"[E]","local_subject":"x"},{"subject":"b","type":"service","account":"[E]","local_subject":"x"}]}`, `imports[1] imports what imports[0] does`},
		"services whose names overlap":             {`{"imports":[{"subject":"a.*","type":"service","account":"[E]"},{"subject":"a.b","type":"service","account":"[E]"}]}`, `overlapping subject namespace`},
		"an import with two local names":           {`{"imports":[{"subject":"a","type":"stream","account":"[E]","to":"b","local_subject":"c"}]}`, `imports[0].to is given with local_subject`},
	} {
		t.Run(name, func(t *testing.T) {
			identity, other := mustGenerate(t, Account).Public(), mustGenerate(t, Account).Public()
			config := strings.NewReplacer("[I]", identity, "[E]", other, "[X]", publicKey(t, Curve)).Replace(test.config)
			parsed, err := ParseAccountConfig([]byte(fillKeys(t, config)))
			if err == nil {
				err = ValidateAccount(identity, parsed)
			}
			require.Error(t, err)
			require.ErrorContains(t, err, test.fault)
		})
	}
}

func TestAnImportFromTheAccountItselfIsRefused(t *testing.T) {
	account := mustGenerate(t, Account).Public()
	parsed, err := ParseAccountConfig([]byte(`{"imports":[{"subject":"a","type":"stream","account":"` + account + `"}]}`))
	require.NoError(t, err)
	require.ErrorContains(t, ValidateAccount(account, parsed), "imports from the account itself")
}

func TestAShortConfigIsWhatWasWrittenWhereThatSaysNoMoreThanItHasTo(t *testing.T) {
	for _, written := range []string{
		`{}`,
		`{"limits":{"conn":1000,"disk_storage":10737418240,"streams":10},"description":"orders of the shop"}`,
		`{"limits":{"conn":0,"wildcards":false,"imports":0}}`,
		`{"limits":{"tiered_limits":{"R1":{"disk_storage":5}}},"tags":["prod"]}`,
		`{"exports":[{"name":"prices","subject":"prices.*","type":"service","token_req":true}]}`,
		`{"default_permissions":{"sub":{"deny":["secret.>"]}}}`,
		`{"default_permissions":{"pub":{"allow":["a"]},"resp":{"max":1,"ttl":5}}}`,
		`{"authorization":{"auth_users":["[U]"]}}`,
		`{"signing_keys":["[S]",{"kind":"user_scope","key":"[T]","role":"reader","template":{"sub":{"allow":["x"]}}}]}`,
		`{"signing_keys":[{"kind":"user_scope","key":"[S]","template":{"payload":5}}]}`,
		`{"mappings":{"m":[{"subject":"n","weight":40},{"subject":"o","weight":50,"cluster":"east"}]}}`,
		`{"revocations":{"[U]":1700000000}}`,
	} {
		written := fillKeys(t, written)
		parsed, err := ParseAccountConfig([]byte(written))
		require.NoError(t, err)
		short, err := ShortAccountConfig(parsed)
		require.NoError(t, err)
		require.JSONEq(t, written, string(short))
		more, err := SaysMore([]byte(written), short)
		require.NoError(t, err)
		require.Nil(t, more)
		requireSame(t, parsed, short)
	}
	for _, written := range []string{`{}`, `{"payload":0,"bearer_token":true}`, `{"sub":{"allow":["a"]},"src":["192.0.2.0/24"]}`} {
		parsed, err := ParseUserConfig([]byte(written))
		require.NoError(t, err)
		short, err := ShortUserConfig(parsed)
		require.NoError(t, err)
		require.JSONEq(t, written, string(short))
	}
	scope, err := ParseScope([]byte(`{"template":{"sub":{"allow":["x"]},"subs":7},"description":"d"}`))
	require.NoError(t, err)
	short, err := ShortScopeConfig(scope)
	require.NoError(t, err)
	require.JSONEq(t, `{"kind":"user_scope","template":{"sub":{"allow":["x"]},"subs":7},"description":"d"}`, string(short))
}

// requireSame writes a config again.
func requireSame(t *testing.T, before *jwt.Account, config []byte) {
	t.Helper()
	again, err := ParseAccountConfig(config)
	require.NoError(t, err)
	full, err := AccountConfig(before)
	require.NoError(t, err)
	fullAgain, err := AccountConfig(again)
	require.NoError(t, err)
	require.JSONEq(t, string(full), string(fullAgain), "%s", config)
}

func TestAConfigThatSaysMoreThanItHasToIsKeptAsItWasWritten(t *testing.T) {
	for name, written := range map[string]string{
		"a default":                     `{"limits": {"conn": -1}}`,
		"every default":                 `{"limits": {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1, "wildcards": true}}`,
		"an empty object":               `{"limits": {}, "default_permissions": {"pub": {}}}`,
		"an empty list":                 `{"imports": []}`,
		"a zero that is the default":    `{"limits": {"disk_storage": 0}}`,
		"a tag as it is not compared":   `{"tags": ["Prod"]}`,
		"a tag that is given twice":     `{"tags": ["prod", "prod"]}`,
		"a key with something around":   `{"authorization": {"auth_users": ["[U]\n"]}}`,
		"limits that servers pass over": `{"limits": {"streams": -1, "tiered_limits": {"R1": {"disk_storage": 5}}}}`,
		"what claims it is":             `{"type": "account", "version": 2}`,
		"the order of signing keys":     `{"signing_keys": ["[T]", "[S]"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			written := fillKeys(t, written)
			parsed, err := ParseAccountConfig([]byte(written))
			require.NoError(t, err)
			short, err := ShortAccountConfig(parsed)
			require.NoError(t, err)
			requireSame(t, parsed, short)
			more, err := SaysMore([]byte(written), short)
			require.NoError(t, err)
			require.JSONEq(t, written, string(more))
			require.NotContains(t, string(more), ": ", "it takes room for nothing")
		})
	}
	_, err := SaysMore([]byte(`[]`), []byte(`{}`))
	require.ErrorContains(t, err, "is not valid JSON")
}

const wholeUser = `{"pub":{"allow":["a"],"deny":["b"]},"sub":{"allow":["c queue"]},"resp":{"max":5,"ttl":1000000000},
	"src":["192.0.2.0/24"],"times":[{"start":"08:00:00","end":"17:00:00"}],"times_location":"Europe/Berlin","subs":1,"data":2,"payload":3,
	"bearer_token":true,"proxy_required":true,"allowed_connection_types":["STANDARD","WEBSOCKET"],"tags":["a"]}`

func TestEveryKeyOfAUserSurvivesItsConfig(t *testing.T) {
	parsed, err := ParseUserConfig([]byte(wholeUser))
	require.NoError(t, err)
	shown, err := UserConfig(parsed)
	require.NoError(t, err)
	require.JSONEq(t, wholeUser, string(shown))
}

func TestAUserConfigIsReadAsNATSCompares(t *testing.T) {
	parsed, err := ParseUserConfig([]byte(`{"tags":[" Prod ","prod"],"allowed_connection_types":["websocket"],"src":"192.0.2.0/24,198.51.100.0/24"}`))
	require.NoError(t, err)
	require.Equal(t, jwt.TagList{"prod"}, parsed.Tags)
	require.Equal(t, jwt.StringList{"WEBSOCKET"}, parsed.AllowedConnectionTypes)
	require.Equal(t, jwt.CIDRList{"192.0.2.0/24", "198.51.100.0/24"}, parsed.Src)
}

func TestAUserConfigWithAFaultIsRefusedWithItsPlace(t *testing.T) {
	for name, test := range map[string]struct{ config, fault string }{
		"an unknown key":             {`{"permissions":{}}`, `has an unknown key "permissions": known are`},
		"a wrong type":               {`{"pub":{"allow":"a"}}`, `has a string at pub.allow where a list is wanted`},
		"a wrong type in a list":     {`{"pub":{"allow":["a",5]}}`, `has a number at pub.allow[1] where a string is wanted`},
		"a duration as a string":     {`{"resp":{"max":1,"ttl":"5s"}}`, `has a string at resp.ttl where a number is wanted`},
		"an unknown connection type": {`{"allowed_connection_types":["TCP"]}`, `allowed_connection_types has "TCP": known are STANDARD,`},
		"a source that is no block":  {`{"src":["10.0.0.1"]}`, `invalid cidr "10.0.0.1"`},
		"a time of day out of range": {`{"times":[{"start":"25:00:00","end":"26:00:00"}]}`, `start in time range is invalid`},
		"an unknown time zone":       {`{"times_location":"Europe/Nowhere"}`, `time zone`},
		"a subject with two spaces":  {`{"sub":{"allow":["a b c"]}}`, `too many spaces`},
		"an account's claims":        {`{"type":"account"}`, `is the claim of an account`},
		"a limit below none":         {`{"payload":-2}`, `has payload -2: -1 stands for no limit`},
		"hours that never come":      {`{"times":[{"start":"08:00:00","end":"08:00:00"}]}`, `has times[0] that end at 08:00:00, when they begin`},
		"a denied subject of none":   {`{"pub":{"deny":["a..b"]}}`, `pub.deny[0] is "a..b", which is not a subject: it has an empty token`},
		"a subject with a line end":  {`{"sub":{"allow":["a\n"]}}`, `sub.allow[0] is "a\n", which is not a subject`},
		"a queue to publish to":      {`{"pub":{"allow":["a q"]}}`, `pub.allow[0] is "a q", which is not a subject`},
		"a user as issuer_account":   {`{"issuer_account":"[U]"}`, `issuer_account is a user public key where an account public key is wanted`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseUserConfig([]byte(fillKeys(t, test.config)))
			require.ErrorContains(t, err, test.fault)
		})
	}
}

func FuzzParsedAccountConfigsAreReadBackTheSame(f *testing.F) {
	const account, other, user = "ACWLFX4PBYEADUSKKVUS2QYYWPIEWIRXUVQAM7JSRTBMERFRLPLUJ3SP", "[S]", "[U]"
	f.Add(strings.NewReplacer("[A]", account, "[S]", account, "[T]", other, "[U]", user).Replace(wholeAccount))
	f.Add(`{"limits":{"conn":0}}`)
	f.Add(`{"signing_keys":["` + account + `"]}`)
	f.Fuzz(func(t *testing.T, raw string) {
		parsed, err := ParseAccountConfig([]byte(raw))
		if err != nil {
			return
		}
		shown, err := AccountConfig(parsed)
		if err != nil {
			return // an export's type or sampling that only ValidateAccount refuses
		}
		again, err := ParseAccountConfig(shown)
		require.NoError(t, err, "%s", shown)
		shownAgain, err := AccountConfig(again)
		require.NoError(t, err)
		require.JSONEq(t, string(shown), string(shownAgain))
		short, err := ShortAccountConfig(parsed)
		require.NoError(t, err)
		requireSame(t, parsed, short)
	})
}

func FuzzParsedUserConfigsAreReadBackTheSame(f *testing.F) {
	f.Add(wholeUser)
	f.Add(`{"payload":0,"src":"10.0.0.0/8"}`)
	f.Fuzz(func(t *testing.T, raw string) {
		parsed, err := ParseUserConfig([]byte(raw))
		if err != nil {
			return
		}
		shown, err := UserConfig(parsed)
		require.NoError(t, err)
		again, err := ParseUserConfig(shown)
		require.NoError(t, err, "%s", shown)
		shownAgain, err := UserConfig(again)
		require.NoError(t, err)
		require.JSONEq(t, string(shown), string(shownAgain))
	})
}
