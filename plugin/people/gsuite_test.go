package people

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/standin"
)

// newWorkspace serves an organization at Google Workspace: ann is in two groups, and
// these are in others, one of them in itself.
func newWorkspace(t *testing.T) (*standin.Internet, *standin.Google) {
	n := standin.New(t)
	google := &standin.Google{
		Account: "vault@example.iam.gserviceaccount.com",
		Admin:   "root@example.com",
		Groups: map[string][]string{
			"ann@example.com":     {"dev@example.com", "ops@example.com", "news@other.example"},
			"dev@example.com":     {"staff@example.com"},
			"ops@example.com":     {"staff@example.com", "on-call@example.com"},
			"staff@example.com":   {"all@example.com"},
			"all@example.com":     {"all@example.com"},
			"on-call@example.com": {}, "news@other.example": {},
		},
		Schemas: map[string]map[string]json.RawMessage{"ann@example.com": {
			"Employment": json.RawMessage(`{"team": "orders", "level": 9007199254740993}`),
			"Private":    json.RawMessage(`{"salary": 1}`),
		}},
		Page: 2,
	}
	google.Serve(n)
	return n, google
}

// workspaceConfig is a provider_config with a service account's key.
func workspaceConfig(t *testing.T, g *standin.Google, more string) string {
	key, err := json.Marshal(g.Key())
	require.NoError(t, err)
	return `{"provider": "gsuite", "gsuite_service_account": ` + string(key) + `, "gsuite_admin_impersonate": "root@example.com", "fetch_groups": true` + more + `}`
}

var annAtGoogle = Subject{Claims: map[string]any{"email": "ann@example.com"}, User: "ann@example.com", GroupsClaim: "groups"}

func TestGroupsComeFromGoogleWorkspaceAsDeepAsItIsConfigured(t *testing.T) {
	direct := []string{"dev@example.com", "ops@example.com", "news@other.example"}
	for name, test := range map[string]struct {
		config string
		groups []string
		lists  int // requests: pages of groups
	}{
		"direct ones":             {"", direct, 2},
		"theirs":                  {`, "groups_recurse_max_depth": 1`, append(direct[:3:3], "staff@example.com", "on-call@example.com"), 5},
		"all, with one in itself": {`, "groups_recurse_max_depth": 99`, append(direct[:3:3], "staff@example.com", "on-call@example.com", "all@example.com"), 8},
		"those of one domain":     {`, "domain": "other.example"`, direct[2:], 1},
	} {
		t.Run(name, func(t *testing.T) {
			n, google := newWorkspace(t)
			source := newSource(t, n, workspaceConfig(t, google, test.config))
			for range 2 {
				of := annAtGoogle
				groups, err := asked(t, source, &of)
				require.NoError(t, err)
				require.Equal(t, test.groups, groups)
			}
			require.Equal(t, 1, google.Issued(), "access tokens")
			lists := 0
			for _, line := range n.Lines() {
				if strings.HasPrefix(line, "GET "+standin.GoogleDirectory+"/admin/directory/v1/groups?") {
					lists++
					require.Contains(t, line, "fields=nextPageToken%2Cgroups%28email%29")
				}
			}
			require.Equal(t, 2*test.lists, lists)
		})
	}
}

func TestFieldsOfCustomSchemasBecomeClaims(t *testing.T) {
	n, google := newWorkspace(t)
	source := newSource(t, n, workspaceConfig(t, google, `, "fetch_user_info": true, "user_custom_schemas": "Employment, Missing"`))
	of := annAtGoogle
	of.GroupsClaim = "" // they are wanted by roles without groups, too
	more, err := Ask(t.Context(), source, &of)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"Employment": map[string]any{"team": "orders", "level": json.Number("9007199254740993")}}, more)
	require.Contains(t, n.Lines(), "GET "+standin.GoogleDirectory+"/admin/directory/v1/users/ann@example.com?customFieldMask=Employment%2CMissing&fields=customSchemas&projection=custom")

	of.Claims = map[string]any{"Employment": "the token's own"}
	_, err = Ask(t.Context(), source, &of)
	require.EqualError(t, err, `provider_config: the claim "Employment" is in the token as well`)

	for _, user := range []string{".", ".."} {
		of.User = user
		_, err = Ask(t.Context(), source, &of)
		require.EqualError(t, err, fmt.Sprintf(`provider_config: %q names nobody`, user))
	}
}

func TestGoogleIsNotAskedUnlessItIsConfigured(t *testing.T) {
	n, google := newWorkspace(t)
	config := strings.Replace(workspaceConfig(t, google, `, "user_custom_schemas": "Employment"`), `"fetch_groups": true`, `"fetch_groups": false`, 1)
	source := newSource(t, n, config)
	of := annAtGoogle
	groups, err := asked(t, source, &of)
	require.NoError(t, err)
	require.Nil(t, groups)
	require.NoError(t, CheckSource(t.Context(), source))
	require.Empty(t, n.Lines())
}

func TestAServiceAccountsKeyMayLieInAFile(t *testing.T) {
	n, google := newWorkspace(t)
	file := filepath.Join(t.TempDir(), "key.json")
	source := newSource(t, n, `{"provider": "gsuite", "gsuite_service_account": "`+file+`", "gsuite_admin_impersonate": "root@example.com", "fetch_groups": true}`)
	require.EqualError(t, CheckSource(t.Context(), source), "provider_config cannot be used: the file of gsuite_service_account cannot be read")
	of := annAtGoogle
	_, err := asked(t, source, &of)
	require.EqualError(t, err, `issuer "default" is unavailable: what Google Workspace knows of the person cannot be had now`)

	require.NoError(t, os.WriteFile(file, []byte(google.Key()), 0o600))
	require.NoError(t, CheckSource(t.Context(), source))
	groups, err := asked(t, source, &of)
	require.NoError(t, err)
	require.Len(t, groups, 3)

	for name, content := range map[string]string{"not JSON": "-----BEGIN", "too big": strings.Repeat(" ", maxKeyFile+1)} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		source = newSource(t, n, `{"provider": "gsuite", "gsuite_service_account": "`+file+`", "fetch_groups": true}`)
		require.ErrorContains(t, CheckSource(t.Context(), source), "the file of gsuite_service_account is", name)
	}
	source = newSource(t, n, `{"provider": "gsuite", "gsuite_service_account": "/dev/zero", "fetch_groups": true}`)
	require.ErrorContains(t, CheckSource(t.Context(), source), "is no file of at most")
}

func TestGoogleMaySignForWhoeverTheServerRunsAs(t *testing.T) {
	n, google := newWorkspace(t)
	file := filepath.Join(t.TempDir(), "key.json")
	require.NoError(t, os.WriteFile(file, []byte(google.Key()), 0o600))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)

	t.Run("as itself", func(t *testing.T) {
		source := newSource(t, n, `{"provider": "gsuite", "gsuite_admin_impersonate": "root@example.com", "fetch_groups": true}`)
		require.NoError(t, CheckSource(t.Context(), source))
		of := annAtGoogle
		groups, err := asked(t, source, &of)
		require.NoError(t, err)
		require.Len(t, groups, 3)
	})
	t.Run("as another service account", func(t *testing.T) {
		source := newSource(t, n, `{"provider": "gsuite", "impersonate_principal": "vault@example.iam.gserviceaccount.com", "gsuite_admin_impersonate": "root@example.com", "fetch_groups": true}`)
		before := len(n.Lines())
		of := annAtGoogle
		groups, err := asked(t, source, &of)
		require.NoError(t, err)
		require.Len(t, groups, 3)
		require.Contains(t, n.Lines()[before:], "POST "+standin.GoogleCredentials+"/v1/projects/-/serviceAccounts/vault@example.iam.gserviceaccount.com:signJwt")

		source = newSource(t, n, `{"provider": "gsuite", "impersonate_principal": "eve@example.iam.gserviceaccount.com", "fetch_groups": true}`)
		require.ErrorContains(t, CheckSource(t.Context(), source), "eve@example.iam.gserviceaccount.com:signJwt answered with status 403 (PERMISSION_DENIED)")

		google.Account = "another@example.com"
		require.ErrorContains(t, CheckSource(t.Context(), source), "getting a token by the Application Default Credentials answered with status 401 (unauthorized_client)")
		google.Account = "vault@example.iam.gserviceaccount.com"
	})
	t.Run("as nobody", func(t *testing.T) {
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file+".missing")
		source := newSource(t, n, `{"provider": "gsuite", "fetch_groups": true}`)
		require.ErrorContains(t, CheckSource(t.Context(), source), "provider_config cannot be used: google: error getting credentials using GOOGLE_APPLICATION_CREDENTIALS")
		of := annAtGoogle
		_, err := asked(t, source, &of)
		require.ErrorIs(t, err, claims.ErrUnavailable)
	})
}

func TestAnAccessTokenThatGoogleTakesNoMoreIsReplaced(t *testing.T) {
	n, google := newWorkspace(t)
	source := newSource(t, n, workspaceConfig(t, google, ""))
	of := annAtGoogle
	_, err := asked(t, source, &of)
	require.NoError(t, err)
	google.Revoke()
	_, err = asked(t, source, &of)
	require.EqualError(t, err, "provider_config: GET https://admin.googleapis.com/admin/directory/v1/groups answered with status 401 (UNAUTHENTICATED)")
	_, err = asked(t, source, &of)
	require.NoError(t, err)
	require.Equal(t, 2, google.Issued())
}

func TestLoginsAtOneTimeGetOneAccessToken(t *testing.T) {
	n, google := newWorkspace(t)
	source := newSource(t, n, workspaceConfig(t, google, ""))
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			of := annAtGoogle
			_, err := Ask(t.Context(), source, &of)
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	require.Equal(t, 1, google.Issued())
}

func TestWhatGoogleRefusesIsToldWithoutKeyAndToken(t *testing.T) {
	for name, test := range map[string]struct {
		change func(n *standin.Internet, g *standin.Google)
		user   string
		fault  string
	}{
		"somebody unknown": {nil, "eve@example.com", "GET https://admin.googleapis.com/admin/directory/v1/groups answered with status 404"},
		"nobody":           {nil, "", "the role's user_claim is not in the token, or is no string: it says whom to ask for"},
		"no delegation": {func(_ *standin.Internet, g *standin.Google) { g.Admin = "another@example.com" }, "ann@example.com",
			"POST https://oauth2.googleapis.com/token answered with status 401 (unauthorized_client)"},
		"a token of another type": {func(n *standin.Internet, _ *standin.Google) {
			n.Serve(standin.GoogleTokens, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(`{"access_token": "ya29.x", "token_type": "mac", "expires_in": 3600}`))
			}))
		}, "ann@example.com", "POST https://oauth2.googleapis.com/token answered without a bearer token"},
		"pages without end": {func(n *standin.Internet, _ *standin.Google) {
			n.Serve(standin.GoogleDirectory, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(`{"nextPageToken": "again"}`))
			}))
		}, "ann@example.com", "what Google Workspace knows of the person takes more than 200 requests"},
		"a field that is no object": {func(_ *standin.Internet, g *standin.Google) {
			g.Schemas["ann@example.com"]["Employment"] = json.RawMessage(`["x"]`)
		}, "ann@example.com", `the custom schema "Employment" is not a JSON object`},
	} {
		t.Run(name, func(t *testing.T) {
			n, google := newWorkspace(t)
			config := workspaceConfig(t, google, `, "fetch_user_info": true, "user_custom_schemas": "Employment"`)
			if test.change == nil || !strings.Contains(test.fault, "schema") {
				config = workspaceConfig(t, google, "")
			}
			if test.change != nil {
				test.change(n, google)
			}
			_, err := asked(t, newSource(t, n, config), &Subject{Claims: map[string]any{}, User: test.user})
			require.EqualError(t, err, "provider_config: "+test.fault)
		})
	}
}

func TestManyGroupsInGroupsEndAtTheBound(t *testing.T) {
	n, google := newWorkspace(t)
	google.Page = 0
	google.Groups["ann@example.com"] = numbered("group", 250)
	for _, group := range google.Groups["ann@example.com"] {
		google.Groups[group] = []string{}
	}
	of := annAtGoogle
	_, err := asked(t, newSource(t, n, workspaceConfig(t, google, `, "groups_recurse_max_depth": 1`)), &of)
	require.EqualError(t, err, "provider_config: what Google Workspace knows of the person takes more than 200 requests")
	require.LessOrEqual(t, len(n.Lines()), maxRequests+1)
}

func TestTheConfigurationOfGoogleWorkspaceIsChecked(t *testing.T) {
	_, google := newWorkspace(t)
	edited := func(name string, value any) string {
		var key map[string]any
		require.NoError(t, json.Unmarshal([]byte(google.Key()), &key))
		key[name] = value
		text, err := json.Marshal(key)
		require.NoError(t, err)
		quoted, err := json.Marshal(string(text))
		require.NoError(t, err)
		return `"gsuite_service_account": ` + string(quoted)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	require.NoError(t, err)
	for name, test := range map[string]struct{ config, fault string }{
		"a negative depth":            {`"groups_recurse_max_depth": -1`, "groups_recurse_max_depth is negative"},
		"a depth that is a string":    {`"groups_recurse_max_depth": "1"`, "groups_recurse_max_depth is not a whole number"},
		"schemas with an empty one":   {`"fetch_user_info": true, "user_custom_schemas": "a,,b"`, "user_custom_schemas has an empty name"},
		"schemas that are a list":     {`"user_custom_schemas": ["a"]`, "user_custom_schemas is not a string"},
		"a domain that is a number":   {`"domain": 1`, "domain is not a string"},
		"no key and no file":          {`"gsuite_service_account": "s3cr3t"`, "gsuite_service_account is neither the key of a service account in JSON nor the absolute path of a file with one"},
		"JSON with a fault":           {`"gsuite_service_account": "{s3cr3t"`, "gsuite_service_account is not JSON with the key of a service account"},
		"another type":                {edited("type", "external_account"), "gsuite_service_account is not of the type service_account"},
		"no address":                  {edited("client_email", ""), "gsuite_service_account has no client_email"},
		"no private key":              {edited("private_key", "s3cr3t"), "gsuite_service_account has no private_key in PEM format"},
		"a private key that is none":  {edited("private_key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("s3cr3t")}))), "neither in PKCS #8 nor in PKCS #1 form"},
		"a private key that is of EC": {edited("private_key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))), "has a private_key that is not of RSA"},
		"a token_uri without TLS":     {edited("token_uri", "http://oauth2.googleapis.com/token"), "has a token_uri that is not an https URL"},
		"a principal that is a path":  {`"impersonate_principal": "a@b/../c"`, "impersonate_principal is not the email address of a service account"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewSource(SourceConfig{Settings: object(t, `{"provider": "gsuite", `+test.config+`}`)})
			require.ErrorContains(t, err, "provider_config ")
			require.ErrorContains(t, err, test.fault)
			require.NotContains(t, err.Error(), "s3cr3t")
			var refused *fault.Error
			require.ErrorAs(t, err, &refused)
		})
	}
}

func FuzzServiceAccount(f *testing.F) {
	f.Add([]byte((&standin.Google{Account: "vault@example.com"}).Key()))
	f.Add([]byte(`{"type": "service_account", "client_email": "x", "private_key": "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		account, err := parseServiceAccount(text)
		if err != nil {
			return
		}
		require.NotNil(t, account.key)
		require.Equal(t, "https", account.tokenURL.Scheme)
	})
}
