package difftest

import (
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/optest"
)

const redirect = "http://localhost:8250/oidc/callback"

// configFields and roleFields are what the JWT method shows of a config and of a role.
var (
	configFields = strings.Fields("oidc_discovery_url oidc_discovery_ca_pem oidc_client_id oidc_response_mode oidc_response_types default_role " +
		"jwt_supported_algs bound_issuer provider_config namespace_in_state unsupported_critical_cert_extensions")
	roleFields = strings.Fields("role_type expiration_leeway not_before_leeway clock_skew_leeway bound_audiences bound_subject bound_claims_type bound_claims " +
		"claim_mappings user_claim user_claim_json_pointer groups_claim allowed_redirect_uris oidc_scopes verbose_oidc_logging max_age " +
		"token_bound_cidrs token_explicit_max_ttl token_max_ttl token_no_default_policy token_num_uses token_period token_policies token_ttl policies ttl")
)

// The differences that are meant, as docs/oidc-differences.md has them.
const (
	differsDefaults   = "A role without `role_type` is one for people where `allowed_redirect_uris` are given, and else one for workloads"
	differsRedirect   = "A redirect URI is compared as it is"
	differsChecked    = "Faults are found when a role or an issuer is written"
	differsAlgorithms = "Without `jwt_supported_algs` every asymmetric algorithm is taken"
	differsIss        = "An `iss` that the browser brings back"
	differsReserved   = "More metadata keys are reserved"
	differsUI         = "With `form_post` the address of Vault's UI is not changed"
	differsRegistered = "What says how a token was made stays the ID token's"
	differsStrict     = "What stands in an ID token is read strictly"
	differsConsume    = "A form completes the login at once"
	differsMode       = "`oidc_response_types` with `code` alone sends `response_mode=form_post`"
)

// same holds the outcomes against each other. differs is the difference that is meant,
// and empty where there is none.
func same(t *testing.T, differs string, outcomes []outcome) {
	t.Helper()
	if differs == "" {
		require.Equal(t, outcomes[1], outcomes[0], "this is not as the JWT method")
		return
	}
	require.NotEqual(t, outcomes[1], outcomes[0], "this is as the JWT method, and no difference")
	text, err := os.ReadFile("../../../docs/oidc-differences.md")
	require.NoError(t, err)
	require.Contains(t, strings.Join(strings.Fields(string(text)), " "), strings.Join(strings.Fields(differs), " "))
}

func with(base, changes fields) fields {
	all := maps.Clone(base)
	maps.Copy(all, changes)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	return all
}

func TestAConfigIsTakenAsInTheJWTMethod(t *testing.T) {
	for name, c := range map[string]struct {
		changes fields
		differs string
	}{
		"with a client":               {},
		"without a client":            {changes: fields{"oidc_client_id": nil, "oidc_client_secret": nil}},
		"without a secret":            {changes: fields{"oidc_client_secret": nil}},
		"without an ID":               {changes: fields{"oidc_client_id": nil}},
		"without a discovery URL":     {changes: fields{"oidc_discovery_url": nil, "oidc_discovery_ca_pem": nil}},
		"with a URL of nobody":        {changes: fields{"oidc_discovery_url": "https://127.0.0.1:1"}},
		"with another CA":             {changes: fields{"oidc_discovery_ca_pem": nil}},
		"with query":                  {changes: fields{"oidc_response_mode": "query"}},
		"with form_post":              {changes: fields{"oidc_response_mode": "form_post"}},
		"with another mode":           {changes: fields{"oidc_response_mode": "fragment"}},
		"with code":                   {changes: fields{"oidc_response_types": "code"}},
		"with id_token":               {changes: fields{"oidc_response_types": "id_token", "oidc_response_mode": "form_post"}},
		"with id_token in a query":    {changes: fields{"oidc_response_types": "id_token"}},
		"with both types":             {changes: fields{"oidc_response_types": "code,id_token", "oidc_response_mode": "form_post"}},
		"with another type":           {changes: fields{"oidc_response_types": "token"}},
		"with algorithms":             {changes: fields{"jwt_supported_algs": "ES256,RS256"}},
		"with another algorithm":      {changes: fields{"jwt_supported_algs": "HS256"}},
		"with a default role":         {changes: fields{"default_role": "Dev"}},
		"with a bound issuer":         {changes: fields{"bound_issuer": "https://example.com"}},
		"without namespaces in state": {changes: fields{"namespace_in_state": false}},
		"with namespaces in state":    {changes: fields{"namespace_in_state": true}},
		"with azure":                  {changes: fields{"provider_config": fields{"provider": "azure"}}},
		"with secureauth":             {changes: fields{"provider_config": fields{"provider": "secureauth"}}},
		"with another provider":       {changes: fields{"provider_config": fields{"provider": "nobody"}}},
		"with no provider":            {changes: fields{"provider_config": fields{"fetch_groups": true}}},
		"with extensions that are no OIDs": {changes: fields{"oidc_client_id": nil, "oidc_client_secret": nil, "unsupported_critical_cert_extensions": "nonsense"},
			differs: differsChecked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			op := optest.Start(t)
			var outcomes []outcome
			for _, s := range both(t) {
				outcomes = append(outcomes, s.written("config", configFields, with(op.Config(nil), c.changes)))
			}
			same(t, c.differs, outcomes)
		})
	}
}

// aRole is one that both take.
var aRole = fields{"role_type": "oidc", "user_claim": "sub", "allowed_redirect_uris": redirect}

func TestARoleIsTakenAsInTheJWTMethod(t *testing.T) {
	for name, c := range map[string]struct {
		changes fields
		differs string
	}{
		"for people":                       {},
		"without a type":                   {changes: fields{"role_type": nil}},
		"without a type and URIs":          {changes: fields{"role_type": nil, "allowed_redirect_uris": nil, "bound_audiences": "vault"}, differs: differsDefaults},
		"without URIs":                     {changes: fields{"allowed_redirect_uris": nil}},
		"with several URIs":                {changes: fields{"allowed_redirect_uris": []string{redirect, "https://vault.example.com/ui/vault/auth/oidc/oidc/callback"}}},
		"with a URI that is none":          {changes: fields{"allowed_redirect_uris": "oidc/callback"}, differs: differsChecked},
		"with a wildcard":                  {changes: fields{"allowed_redirect_uris": "https://*.example.com"}, differs: differsChecked},
		"of an unknown type":               {changes: fields{"role_type": "saml"}},
		"for workloads":                    {changes: fields{"role_type": "jwt", "bound_audiences": "vault", "allowed_redirect_uris": nil}},
		"for workloads, that binds none":   {changes: fields{"role_type": "jwt", "allowed_redirect_uris": nil}},
		"for workloads, with URIs":         {changes: fields{"role_type": "jwt", "bound_audiences": "vault"}, differs: differsChecked},
		"without a user claim":             {changes: fields{"user_claim": nil}},
		"with a pointer":                   {changes: fields{"user_claim": "/a/b", "user_claim_json_pointer": true}},
		"with bindings":                    {changes: fields{"bound_subject": "ann", "bound_audiences": "a,b", "bound_claims": fields{"team": []string{"shop", "web"}}}},
		"with globs":                       {changes: fields{"bound_claims_type": "glob", "bound_claims": fields{"team": "s*"}}},
		"with globs that are numbers":      {changes: fields{"bound_claims_type": "glob", "bound_claims": fields{"team": 1}}},
		"with another type of claims":      {changes: fields{"bound_claims_type": "regexp"}},
		"with scopes":                      {changes: fields{"oidc_scopes": "profile,email"}},
		"with verbose logging":             {changes: fields{"verbose_oidc_logging": true}},
		"with a maximum age":               {changes: fields{"max_age": "1m"}},
		"with mappings":                    {changes: fields{"claim_mappings": fields{"email": "mail", "/a/b": "c"}}},
		"with a reserved mapping":          {changes: fields{"claim_mappings": fields{"email": "role"}}},
		"with a mapping to a user's key":   {changes: fields{"claim_mappings": fields{"email": "user_public_key"}}, differs: differsReserved},
		"with two mappings to one":         {changes: fields{"claim_mappings": fields{"a": "x", "b": "x"}}},
		"with groups":                      {changes: fields{"groups_claim": "groups"}},
		"with leeways":                     {changes: fields{"expiration_leeway": 5, "not_before_leeway": -1, "clock_skew_leeway": 7}},
		"with a token's parameters":        {changes: fields{"token_ttl": "5m", "token_max_ttl": "10m", "token_policies": "a,b", "token_bound_cidrs": "127.0.0.0/8"}},
		"with older names":                 {changes: fields{"ttl": 300, "policies": "a"}},
		"with a TTL that is too long":      {changes: fields{"token_ttl": "10m", "token_max_ttl": "5m"}},
		"with a period beyond the maximum": {changes: fields{"token_period": "48h"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			op := optest.Start(t)
			var outcomes []outcome
			for _, s := range both(t) {
				s.must(logical.UpdateOperation, "config", op.Config(nil))
				outcomes = append(outcomes, s.written("role/dev", roleFields, with(aRole, c.changes)))
			}
			same(t, c.differs, outcomes)
		})
	}
}

func TestAnAuthURLIsMadeAsInTheJWTMethod(t *testing.T) {
	for name, c := range map[string]struct {
		config, role, request fields
		differs               string
	}{
		"as the CLI asks":          {},
		"of the default role":      {config: fields{"default_role": "dev"}, request: fields{"role": nil}},
		"without a role":           {request: fields{"role": nil}},
		"of a role in capitals":    {request: fields{"role": "DEV"}},
		"of an unknown role":       {request: fields{"role": "nobody"}},
		"without a client":         {config: fields{"oidc_client_id": "", "oidc_client_secret": ""}},
		"without a redirect":       {request: fields{"redirect_uri": nil}},
		"without a client nonce":   {request: fields{"client_nonce": nil}},
		"with scopes":              {role: fields{"oidc_scopes": "profile,email"}},
		"with the scope openid":    {role: fields{"oidc_scopes": "openid,email"}},
		"with a maximum age":       {role: fields{"max_age": 60}},
		"with form_post":           {config: fields{"oidc_response_mode": "form_post"}, differs: differsMode},
		"with id_token":            {config: fields{"oidc_response_mode": "form_post", "oidc_response_types": "id_token"}},
		"with both types":          {config: fields{"oidc_response_mode": "form_post", "oidc_response_types": "code,id_token"}},
		"with form_post in the UI": {config: fields{"oidc_response_mode": "form_post", "oidc_response_types": "id_token"}, role: fields{"allowed_redirect_uris": "https://a.example.com/ui/vault/auth/x/oidc/callback"}, request: fields{"redirect_uri": "https://a.example.com/ui/vault/auth/x/oidc/callback"}, differs: differsUI},
		"with another port":        {request: fields{"redirect_uri": "http://localhost:9999/oidc/callback"}},
		"with no port":             {request: fields{"redirect_uri": "http://localhost/oidc/callback"}},
		"with another path":        {request: fields{"redirect_uri": "http://localhost:8250/oidc/callback2"}},
		"with another loopback":    {request: fields{"redirect_uri": "http://127.0.0.1:8250/oidc/callback"}},
		"with https":               {request: fields{"redirect_uri": "https://localhost:8250/oidc/callback"}},
		"with a query":             {request: fields{"redirect_uri": redirect + "?a=b"}},
		"with a user":              {request: fields{"redirect_uri": "http://a@localhost:8250/oidc/callback"}},
		"with a fragment":          {request: fields{"redirect_uri": redirect + "#a"}},
		"of another host":          {request: fields{"redirect_uri": "https://evil.example.com/oidc/callback"}},
		"that is no URI":           {request: fields{"redirect_uri": "%zz"}},
		"in capitals":              {role: fields{"allowed_redirect_uris": "https://a.example.com/cb"}, request: fields{"redirect_uri": "https://A.example.com/cb"}, differs: differsRedirect},
		"with a namespace":         {request: fields{"redirect_uri": redirect + "?namespace=a/b"}},
		"with a namespace in query": {config: fields{"namespace_in_state": false}, request: fields{"redirect_uri": redirect + "?namespace=a"},
			role: fields{"allowed_redirect_uris": redirect + "?namespace=a"}},
		"of a role for workloads": {role: fields{"role_type": "jwt", "bound_audiences": "a", "allowed_redirect_uris": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			op := optest.Start(t)
			var outcomes []outcome
			for _, s := range both(t) {
				s.must(logical.UpdateOperation, "config", with(op.Config(nil), fields{"jwt_supported_algs": "ES256"}))
				if id, given := c.config["oidc_client_id"]; given && id == "" {
					s.must(logical.UpdateOperation, "config", fields{"oidc_discovery_url": op.URL(), "oidc_discovery_ca_pem": op.CA(), "oidc_client_id": "", "oidc_client_secret": ""})
					outcomes = append(outcomes, func() outcome { _, o := s.begin(fields{"role": "dev", "redirect_uri": redirect}); return o }())
					continue
				}
				s.must(logical.UpdateOperation, "config", with(op.Config(fields{"jwt_supported_algs": "ES256"}), c.config))
				s.must(logical.CreateOperation, "role/dev", with(aRole, c.role))
				_, o := s.begin(with(fields{"role": "dev", "redirect_uri": redirect, "client_nonce": "nonce"}, c.request))
				outcomes = append(outcomes, o)
			}
			same(t, c.differs, outcomes)
		})
	}
}

func TestALoginEndsAsInTheJWTMethod(t *testing.T) {
	said := func(claims fields) func(*optest.Provider) { return func(op *optest.Provider) { op.Claims = claims } }
	info := func(claims fields) func(*optest.Provider) {
		return func(op *optest.Provider) { op.Userinfo = claims }
	}
	for name, c := range map[string]struct {
		config, role fields
		op           func(op *optest.Provider)
		back         func(l *login)
		differs      string
	}{
		"as usual":                 {},
		"with metadata":            {role: fields{"claim_mappings": fields{"email": "mail"}}},
		"with policies":            {role: fields{"token_policies": "b,a", "token_ttl": "5m"}},
		"by email":                 {role: fields{"user_claim": "email"}},
		"by a missing claim":       {role: fields{"user_claim": "upn"}},
		"by a pointer":             {role: fields{"user_claim": "/a/b", "user_claim_json_pointer": true}, op: said(fields{"a": fields{"b": "c"}})},
		"by a number":              {role: fields{"user_claim": "uid"}, op: said(fields{"uid": 7})},
		"with groups":              {role: fields{"groups_claim": "groups"}, op: said(fields{"groups": []string{"a", "b"}})},
		"with one group":           {role: fields{"groups_claim": "groups"}, op: said(fields{"groups": "a"})},
		"without groups":           {role: fields{"groups_claim": "groups"}},
		"with odd groups":          {role: fields{"groups_claim": "groups"}, op: said(fields{"groups": []any{"a", 1}})},
		"with empty groups":        {role: fields{"groups_claim": "groups"}, op: said(fields{"groups": []any{"", "a"}})},
		"with secureauth":          {config: fields{"provider_config": fields{"provider": "secureauth"}}, role: fields{"groups_claim": "groups"}, op: said(fields{"groups": "a,b"})},
		"bound":                    {role: fields{"bound_claims": fields{"email": "ann@example.com"}}},
		"bound elsewhere":          {role: fields{"bound_claims": fields{"email": "bob@example.com"}}},
		"bound by a glob":          {role: fields{"bound_claims_type": "glob", "bound_claims": fields{"email": "*@example.com"}}},
		"bound by a list":          {role: fields{"bound_claims": fields{"email": []string{"x", "ann@example.com"}}}},
		"bound by a bool":          {role: fields{"bound_claims": fields{"email_verified": true}}, op: said(fields{"email_verified": true})},
		"of a bound subject":       {role: fields{"bound_subject": "ann"}},
		"of another subject":       {role: fields{"bound_subject": "bob"}},
		"of a bound audience":      {role: fields{"bound_audiences": optest.ClientID}},
		"of another audience":      {role: fields{"bound_audiences": "elsewhere"}},
		"with another aud and azp": {role: fields{"bound_audiences": "elsewhere"}, op: said(fields{"aud": "elsewhere", "azp": optest.ClientID})},
		"with another aud":         {role: fields{"bound_audiences": "elsewhere"}, op: said(fields{"aud": "elsewhere"})},
		"with two auds and azp":    {op: said(fields{"aud": []string{optest.ClientID, "x"}, "azp": optest.ClientID})},
		"with two auds":            {op: said(fields{"aud": []string{optest.ClientID, "x"}})},
		"with another azp":         {op: said(fields{"azp": "x"})},
		"with another nonce":       {op: said(fields{"nonce": "x"})},
		"without a nonce":          {op: said(fields{"nonce": nil})},
		"with another iss":         {op: said(fields{"iss": "https://x"})},
		"without a sub":            {op: said(fields{"sub": nil})},
		"expired":                  {op: said(fields{"exp": time.Now().Unix() - 3600})},
		"of the future":            {op: said(fields{"iat": time.Now().Unix() + 3600})},
		"with another at_hash":     {op: func(op *optest.Provider) { op.AtHash = "AAAA" }},
		"with another key":         {op: func(op *optest.Provider) { op.ForeignKey = true }},
		"with a lookalike of aud":  {op: said(fields{"Aud": "x"}), differs: differsStrict},
		"with an old login":        {role: fields{"max_age": 60}, op: said(fields{"auth_time": time.Now().Unix() - 3600})},
		"with a young login":       {role: fields{"max_age": 60}},
		"without an auth_time":     {role: fields{"max_age": 60}, op: said(fields{"auth_time": nil})},
		"with userinfo": {role: fields{"claim_mappings": fields{"team": "team"}, "groups_claim": "groups"},
			op: info(fields{"team": "shop", "groups": []string{"a"}})},
		"with userinfo of another":      {role: fields{"claim_mappings": fields{"team": "team"}}, op: info(fields{"team": "shop", "sub": "eve"})},
		"with userinfo over the token":  {role: fields{"claim_mappings": fields{"email": "mail"}}, op: info(fields{"email": "other@example.com"})},
		"with an acr of userinfo":       {role: fields{"claim_mappings": fields{"acr": "acr"}}, op: info(fields{"acr": "strong"}), differs: differsRegistered},
		"with a secret in the form":     {op: func(op *optest.Provider) { op.PostOnly = true }},
		"when the issuer is down":       {op: func(op *optest.Provider) { op.TokenAnswer = hangUp }},
		"with ES256 by default":         {config: fields{"jwt_supported_algs": ""}, differs: differsAlgorithms},
		"with another algorithm":        {config: fields{"jwt_supported_algs": "RS256"}},
		"from elsewhere":                {role: fields{"token_bound_cidrs": "10.0.0.0/8"}},
		"from here":                     {role: fields{"token_bound_cidrs": "127.0.0.0/8"}},
		"with another state":            {back: func(l *login) { l.back["state"] = "st_x" }},
		"without a state":               {back: func(l *login) { delete(l.back, "state") }},
		"with another code":             {back: func(l *login) { l.back["code"] = "x" }},
		"without a code":                {back: func(l *login) { delete(l.back, "code") }},
		"with another client nonce":     {back: func(l *login) { l.back["client_nonce"] = "x" }},
		"without its client nonce":      {back: func(l *login) { delete(l.back, "client_nonce") }},
		"with an iss":                   {back: func(l *login) { l.back["iss"] = l.op.URL() }},
		"with an iss of another":        {back: func(l *login) { l.back["iss"] = "https://x" }, differs: differsIss},
		"a second time":                 {back: func(l *login) { require.False(l.s.t, l.callback().Refused) }},
		"after another client nonce":    {back: func(l *login) { l.back["client_nonce"] = "x"; l.callback(); l.back["client_nonce"] = "nonce" }},
		"after another code":            {back: func(l *login) { code := l.back["code"]; l.back["code"] = "x"; l.callback(); l.back["code"] = code }},
		"with the state of another":     {back: func(l *login) { l.back["state"] = l.another()["state"] }},
		"with a role that was deleted":  {back: func(l *login) { l.s.must(logical.DeleteOperation, "role/dev", nil) }},
		"with a form nobody asked for":  {back: func(l *login) { l.post(); l.back["code"] = "no_code" }},
		"with a form":                   {config: fields{"oidc_response_mode": "form_post"}, back: func(l *login) { l.post() }},
		"with a form, without its code": {config: fields{"oidc_response_mode": "form_post"}, back: func(l *login) { l.post(); l.back["code"] = "no_code" }},
		"with an ID token":              {config: fields{"oidc_response_mode": "form_post", "oidc_response_types": "id_token"}, back: func(l *login) { l.post(); delete(l.back, "id_token") }},
		"with an ID token, another nonce": {config: fields{"oidc_response_mode": "form_post", "oidc_response_types": "id_token"}, op: said(fields{"nonce": "x"}),
			back: func(l *login) { l.post(); delete(l.back, "id_token") }},
		"with a form of another code": {config: fields{"oidc_response_mode": "form_post"}, differs: differsConsume,
			back: func(l *login) { code := l.back["code"]; l.back["code"] = "x"; l.post(); l.back["code"] = code }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var outcomes []outcome
			for _, s := range both(t) {
				op := optest.Start(t)
				if c.op != nil {
					c.op(op)
				}
				s.must(logical.UpdateOperation, "config", with(op.Config(fields{"jwt_supported_algs": "ES256"}), c.config))
				s.must(logical.CreateOperation, "role/dev", with(aRole, c.role))
				l := &login{op: op, s: s}
				l.back = l.another()
				if c.back != nil {
					c.back(l)
				}
				outcomes = append(outcomes, l.callback())
			}
			same(t, c.differs, outcomes)
		})
	}
}

// another is what a browser comes back with from a login.
func (l *login) another() fields {
	l.s.t.Helper()
	address, o := l.s.begin(fields{"role": "dev", "redirect_uri": redirect, "client_nonce": "nonce"})
	require.False(l.s.t, o.Refused, l.s.name)
	back := fields{"client_nonce": "nonce"}
	for name, values := range map[string][]string(l.op.Login(address)) {
		back[name] = values[0]
	}
	return back
}

// post brings the form to the mount that a browser comes back with.
func (l *login) post() {
	l.s.t.Helper()
	form := with(l.back, fields{"client_nonce": nil})
	_, err := l.s.do(logical.UpdateOperation, "oidc/callback", form)
	require.NoError(l.s.t, err)
}

// hangUp is an issuer that answers nothing.
func hangUp(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
