package client

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
)

var dev = Workload{Role: "dev", Token: StaticToken(" " + workloadToken + "\n")}

// options applies the client's option, as nats.Connect does.
func options(t *testing.T, c *Client) *nats.Options {
	t.Helper()
	o := nats.GetDefaultOptions()
	must(t, c.Option()(&o))
	return &o
}

func TestALoginSendsAKeyAndProvesItsPossession(t *testing.T) {
	vault := newFakeVault(t)
	caller := vault.client()
	caller.SetNamespace("team")
	c, err := New(t.Context(), caller, dev)
	must(t, err)
	defer c.Close()

	logins := vault.requested("auth/nats/login")
	if len(logins) != 1 {
		t.Fatalf("%d logins, want 1", len(logins))
	}
	sent := logins[0]
	proven(t, sent.body, claim{purpose: "login", mount: "auth/nats/", role: "dev", token: workloadToken})
	if sent.body["jwt"] != workloadToken || sent.body["role"] != "dev" {
		t.Errorf("sent role %v and token %q", sent.body["role"], sent.body["jwt"])
	}
	if sent.token != "" || sent.namespace != "team" {
		t.Errorf("logged in with the Vault token %q in the namespace %q", sent.token, sent.namespace)
	}
	if c.URL() != serverURL {
		t.Errorf("URL is %q", c.URL())
	}
	if caller.Token() != "the-callers-token" {
		t.Errorf("the caller's client now holds %q", caller.Token())
	}
	o := options(t, c)
	text, err := o.UserJWT()
	must(t, err)
	claims, err := jwt.DecodeUserClaims(text)
	must(t, err)
	if claims.Subject != sent.body["user_public_key"] {
		t.Errorf("the JWT is for %s, the key is %s", claims.Subject, sent.body["user_public_key"])
	}
}

func TestTheVaultTokenOfALoginIsRevoked(t *testing.T) {
	vault := newFakeVault(t)
	c, err := New(t.Context(), vault.client(), dev)
	must(t, err)
	c.Close()
	if revoked := vault.requested("auth/token/revoke-self"); len(revoked) != 1 || revoked[0].token != "token-1" {
		t.Errorf("revoked %v, want token-1", revoked)
	}
}

func TestALoginWhoseTokenCannotBeRevokedIsGood(t *testing.T) {
	vault := newFakeVault(t)
	vault.changeClaims = func(*jwt.UserClaims) { vault.answers = []any{http.StatusBadRequest} }
	c, err := New(t.Context(), vault.client(), dev)
	must(t, err)
	c.Close()
}

func TestFailuresSayWhatIsWrongAndHoldNoSecret(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, []byte("\n"), 0o600))
	with := func(source TokenSource) Workload { return Workload{Role: "dev", Token: source} }
	for name, test := range map[string]struct {
		workload Workload
		arrange  func(*fakeVault)
		want     string
	}{
		"no token source":             {Workload{Role: "dev"}, nil, "the Workload has no Token"},
		"an unset variable":           {with(TokenEnv("NO_SUCH_VARIABLE")), nil, "variable NO_SUCH_VARIABLE is not set"},
		"no token file":               {with(TokenFile(empty + "-not")), nil, empty + "-not"},
		"an empty token file":         {with(TokenFile(empty)), nil, "workload's token: it is empty"},
		"a source that fails":         {with(func(context.Context) (string, error) { return "", errors.New("out of order") }), nil, "out of order"},
		"another mount":               {Workload{Mount: "/other/", Role: "dev", Token: StaticToken(workloadToken)}, nil, "logging in at auth/other/login"},
		"a refused login":             {dev, func(v *fakeVault) { v.answers = []any{http.StatusBadRequest} }, "refused with 400"},
		"a Vault that is down":        {dev, func(v *fakeVault) { v.down = true }, "connection refused"},
		"a login without auth":        {dev, func(v *fakeVault) { v.answers = []any{map[string]any{"data": map[string]any{}}} }, "no auth"},
		"a login that demands MFA":    {dev, func(v *fakeVault) { v.answers = []any{mfa} }, "second factor"},
		"a JWT that is none":          {dev, func(v *fakeVault) { v.answers = []any{loginWith("nonsense")} }, "reading the NATS user JWT"},
		"a JWT that is empty":         {dev, func(v *fakeVault) { v.answers = []any{loginWith("")} }, "no NATS user JWT"},
		"a JWT for another key":       {dev, func(v *fakeVault) { v.changeClaims = otherSubject }, "is for the user key " + otherKey},
		"a JWT without end":           {dev, func(v *fakeVault) { v.changeClaims = func(c *jwt.UserClaims) { c.Expires = 0 } }, "it lives for -"},
		"an answer without a life":    {dev, func(v *fakeVault) { v.noTTL = true }, "does not say in its field ttl"},
		"creds that are refused":      {dev, func(v *fakeVault) { v.noCreds = true; v.answers = []any{nil, http.StatusForbidden} }, "getting credentials at auth/nats/creds/dev"},
		"creds at an unknown role":    {Workload{Role: "other", Token: dev.Token}, func(v *fakeVault) { v.noCreds = true }, "auth/nats/creds/other: Error making API request"},
		"creds without a JWT":         {dev, func(v *fakeVault) { v.noCreds = true; v.answers = []any{nil, map[string]any{"data": map[string]any{}}} }, "no NATS user JWT"},
		"a login that takes too long": {dev, func(v *fakeVault) { v.delay = time.Hour }, "context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vault := newFakeVault(t)
				if test.arrange != nil {
					test.arrange(vault)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := New(ctx, vault.client(), test.workload)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("the error is %v, want one with %q", err, test.want)
				}
				holdsNoSecret(t, err)
				vault.mu.Lock()
				defer vault.mu.Unlock()
				delete(vault.tokens, "the-callers-token")
				if len(vault.tokens) > 0 {
					t.Errorf("Vault tokens are left: %v", vault.tokens)
				}
			})
		})
	}
}

const otherKey = "UAH42UG6PV552P5SWLWTBP3H3S5BHAVCO2IEKEXUANJXR75J63RQ5WM6"

func otherSubject(c *jwt.UserClaims) { c.Subject = otherKey }

func loginWith(userJWT string) any {
	return map[string]any{"auth": map[string]any{"client_token": "token"}, "data": map[string]any{"jwt": userJWT}}
}

var mfa = map[string]any{
	"auth": map[string]any{"mfa_requirement": map[string]any{"mfa_request_id": "1"}},
	"data": map[string]any{"jwt": "before the second factor"},
}

func holdsNoSecret(t *testing.T, err error) {
	t.Helper()
	if regexp.MustCompile(`\bS[A-Z]{2}[A-Z2-7]{50,}`).MatchString(err.Error()) {
		t.Errorf("the error %q holds a seed", err)
	}
	for _, secret := range []string{workloadToken, "the-callers-token", "token-1", "eyJ"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error %q holds %q", err, secret)
		}
	}
}

func TestTheTokenFileIsReadForEachLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(file, []byte("first"), 0o600))
		vault := newFakeVault(t)
		c, err := New(t.Context(), vault.client(), Workload{Role: "dev", Token: TokenFile(file)})
		must(t, err)
		defer c.Close()
		must(t, os.WriteFile(file, []byte("second\n"), 0o600))
		must(t, c.fetch().wait(t.Context()))
		logins := vault.requested("auth/nats/login")
		if len(logins) != 2 || logins[0].body["jwt"] != "first" || logins[1].body["jwt"] != "second" {
			t.Errorf("logins: %v", logins)
		}
	})
}

func TestTheTokenIsTakenFromTheEnvironment(t *testing.T) {
	t.Setenv("WORKLOAD_JWT", workloadToken)
	token, err := TokenEnv("WORKLOAD_JWT")(t.Context())
	if err != nil || token != workloadToken {
		t.Errorf("got %q, %v", token, err)
	}
}

func TestAMethodForAPlainLoginSetsTheClientsToken(t *testing.T) {
	vault := newFakeVault(t)
	caller := vault.client()
	secret, err := caller.Auth().Login(t.Context(), dev)
	must(t, err)
	if secret.Auth.ClientToken != "token-1" || caller.Token() != "token-1" {
		t.Errorf("got %q, the client holds %q", secret.Auth.ClientToken, caller.Token())
	}
	logins := vault.requested("auth/nats/login")
	proven(t, logins[0].body, claim{purpose: "login", mount: "auth/nats/", role: "dev", token: workloadToken})
	if _, err := (Workload{}).Login(t.Context(), caller); err == nil {
		t.Error("a Workload without Token logs in")
	}
}

func TestADefaultRoleIsLeftToTheMount(t *testing.T) {
	vault := newFakeVault(t)
	vault.noCreds = true
	c, err := New(t.Context(), vault.client(), Workload{Token: dev.Token})
	must(t, err)
	defer c.Close()
	if role, ok := vault.requested("auth/nats/login")[0].body["role"]; ok {
		t.Errorf("sent the role %v", role)
	}
	proven(t, vault.requested("auth/nats/login")[0].body, claim{purpose: "login", mount: "auth/nats/", token: workloadToken})
	creds := vault.requested("auth/nats/creds/dev")
	if len(creds) != 1 {
		t.Fatal("credentials were not got from the role that the login named")
	}
	proven(t, creds[0].body, claim{purpose: "creds", mount: "auth/nats/", role: "dev", token: workloadToken})
}

// With credentials_on_login=false credentials are leases of the login's Vault token, so
// it is used as long as it outlives them.
func TestCredentialsThatAreNotGivenOnLoginAreGotWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := newFakeVault(t)
		vault.noCreds = true
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		fetch := func(after time.Duration, logins, creds int) {
			t.Helper()
			time.Sleep(after)
			must(t, c.fetch().wait(t.Context()))
			if got := len(vault.requested("auth/nats/login")); got != logins {
				t.Errorf("%d logins, want %d", got, logins)
			}
			got := vault.requested("auth/nats/creds/dev")
			if len(got) != creds {
				t.Errorf("credentials were got %d times, want %d", len(got), creds)
			}
			proven(t, got[len(got)-1].body, claim{purpose: "creds", mount: "auth/nats/", role: "dev", token: workloadToken})
		}
		fetch(0, 1, 2)
		fetch(59*time.Minute, 1, 3)
		fetch(5*time.Minute, 2, 4) // the token of the first login lives for less than an hour more
		vault.set(func() { clear(vault.tokens) })
		fetch(time.Minute, 3, 6) // refused with the old token, got with a new one
		for _, login := range vault.requested("auth/nats/login") {
			if login.token != "" {
				t.Errorf("logged in with the Vault token %q", login.token)
			}
		}
		if n := len(vault.requested("auth/token/revoke-self")); n != 0 {
			t.Errorf("%d tokens were revoked while their leases were in use", n)
		}
		c.Close()
		if n := len(vault.requested("auth/token/revoke-self")); n != 1 {
			t.Errorf("%d tokens were revoked by Close, want 1", n)
		}
	})
}

// A policy that is missing may come later; until then logins must not pile up tokens.
func TestLoginsThatGetNoCredentialsLeaveNoTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := newFakeVault(t)
		vault.noCreds = true
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		vault.set(func() { clear(vault.tokens); vault.forbidden = "auth/nats/creds/dev" })
		for range 5 {
			if c.fetch().wait(t.Context()) == nil {
				t.Fatal("credentials were got")
			}
			time.Sleep(time.Minute)
		}
		vault.set(func() {
			if len(vault.tokens) > 0 {
				t.Errorf("tokens are left: %v", vault.tokens)
			}
		})
		if logins := len(vault.requested("auth/nats/login")); logins != 6 {
			t.Errorf("%d logins, want 6", logins)
		}
	})
}

func TestCredentialsEndWithTheirLeaseAndWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, test := range map[string]struct {
			token, lease, most time.Duration
		}{
			"a token that ends first": {token: 10 * time.Minute, lease: time.Hour, most: 10 * time.Minute},
			"a lease that ends first": {token: time.Hour, lease: 5 * time.Minute, most: 5 * time.Minute},
		} {
			vault := newFakeVault(t)
			vault.noCreds, vault.tokenTTL = true, test.token
			vault.ttl = test.lease
			vault.changeClaims = func(c *jwt.UserClaims) { c.Expires = time.Now().Add(time.Hour).Unix() }
			c, err := New(t.Context(), vault.client(), dev)
			must(t, err)
			if left := time.Until(c.current.ends); left > test.most || left < test.most-time.Second {
				t.Errorf("%s: the credentials end in %s, want %s", name, left, test.most)
			}
			if !c.current.renew.Before(c.current.ends) {
				t.Errorf("%s: they are renewed %s after their end", name, c.current.renew.Sub(c.current.ends))
			}
			c.Close()
		}
	})
}

// After a revocation of everyone the time of issue is ahead of all clocks, and for some
// minutes later than the end of what does not live long.
func TestAJWTIssuedAheadOfTheClockLivesAsLongAsVaultSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := newFakeVault(t)
		vault.ttl, vault.ahead = 5*time.Minute, 10*time.Minute
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		defer c.Close()
		if left := time.Until(c.current.ends); left != 5*time.Minute {
			t.Errorf("the credentials end in %s, want 5m", left)
		}
	})
}

func TestAVaultTokenGetsCredentials(t *testing.T) {
	vault := newFakeVault(t)
	caller := vault.client()
	if _, err := NewFromVaultToken(t.Context(), caller, Workload{}); err == nil || !strings.Contains(err.Error(), "no Role") {
		t.Errorf("without a role the error is %v", err)
	}

	c, err := NewFromVaultToken(t.Context(), caller, Workload{Role: "dev"})
	must(t, err)
	defer c.Close()
	reads := vault.requested("auth/nats/creds/dev")
	if len(reads) != 1 || reads[0].method != http.MethodGet || reads[0].token != "the-callers-token" {
		t.Errorf("requests: %v", reads)
	}
	proven(t, reads[0].body, claim{purpose: "creds", mount: "auth/nats/", role: "dev", entity: "entity-1"})

	vault.set(func() { vault.tokens["another"] = true })
	caller.SetToken("another")
	must(t, c.fetch().wait(t.Context()))
	if reads = vault.requested("auth/nats/creds/dev"); reads[1].token != "another" {
		t.Errorf("renewed with %q, not with the client's new token", reads[1].token)
	}
	c.Close()
	if revoked := vault.requested("auth/token/revoke-self"); len(revoked) != 0 {
		t.Errorf("the caller's token was revoked: %v", revoked)
	}
}

// The proof of a key names the entity of the Vault token that it is sent with.
func TestAVaultTokenWithoutAnEntityGetsNoCredentials(t *testing.T) {
	for want, arrange := range map[string]func(*fakeVault){
		"the Vault token has no entity":        func(v *fakeVault) { v.entity = "" },
		"looking up the Vault token's entity:": func(v *fakeVault) { v.forbidden = "auth/token/lookup-self" },
	} {
		vault := newFakeVault(t)
		arrange(vault)
		if _, err := NewFromVaultToken(t.Context(), vault.client(), Workload{Role: "dev"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
		if got := vault.requested("auth/nats/creds/dev"); len(got) > 0 {
			t.Errorf("asked for credentials: %v", got)
		}
	}
}

// Mounts know themselves by one path, and roles are in lower case, however a caller
// writes them.
func TestAProofNamesMountAndRoleAsTheMountDoes(t *testing.T) {
	vault := newFakeVault(t)
	for _, mount := range []string{"/team/nats/", "team/nats"} {
		_, err := Workload{Mount: mount, Role: "Dev", Token: dev.Token}.Login(t.Context(), vault.client())
		if err == nil {
			t.Error("the fake has no such mount")
		}
	}
	logins := vault.requested("auth/team/nats/login")
	if len(logins) != 2 {
		t.Errorf("%d logins, want 2", len(logins))
	}
	for _, login := range logins {
		proven(t, login.body, claim{purpose: "login", mount: "auth/team/nats/", role: "dev", token: workloadToken})
	}
}

// What docs/credentials.md shows is what the mount takes: its own test holds it against
// the same.
func TestTheTextOfAProofIsAsDocumented(t *testing.T) {
	guide, err := os.ReadFile("../../docs/credentials.md")
	must(t, err)
	const user = "UAH42UG6PV552P5SWLWTBP3H3S5BHAVCO2IEKEXUANJXR75J63RQ5WM6"
	for _, c := range []claim{
		{purpose: "login", mount: "auth/nats/", role: "dev", token: "header.payload.signature", user: user, time: 1767225600},
		{purpose: "creds", mount: "auth/nats/", role: "ops", entity: "6e5b4d2c-9f0a-7c41-b3a8-1d2e3f405162", user: user, time: 1767225600},
	} {
		if block := "```text\n" + c.text() + "\n```\n"; !strings.Contains(string(guide), block) {
			t.Errorf("docs/credentials.md does not show\n%s", block)
		}
	}
}

// A server that is not what it seems must not get a proof of the key signed for itself.
func TestAServersNonceIsNoProofOfTheKey(t *testing.T) {
	vault := newFakeVault(t)
	c, err := New(t.Context(), vault.client(), dev)
	must(t, err)
	defer c.Close()
	o := options(t, c)
	_, err = o.UserJWT()
	must(t, err)
	for _, nonce := range []string{claim{purpose: "creds", role: "dev", entity: "attacker"}.text(), "vault-plugin-auth-nats user key proof v2"} {
		if signature, err := o.SignatureCB([]byte(nonce)); err == nil || signature != nil {
			t.Errorf("signed %q", nonce)
		}
	}
	_, err = o.SignatureCB([]byte("ltpSkJ1Hd2A"))
	must(t, err)
}

func TestAVaultTokenAndTheWorkloadsTokenGoTogether(t *testing.T) {
	vault := newFakeVault(t)
	c, err := NewFromVaultToken(t.Context(), vault.client(), dev)
	must(t, err)
	defer c.Close()
	writes := vault.requested("auth/nats/creds/dev")
	if len(writes) != 1 || writes[0].method != http.MethodPut || writes[0].body["jwt"] != workloadToken {
		t.Fatalf("requests: %v", writes)
	}
	proven(t, writes[0].body, claim{purpose: "creds", mount: "auth/nats/", role: "dev", token: workloadToken})
}

func TestCloseWipesKeysAndEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := newFakeVault(t)
		c, err := New(t.Context(), vault.client(), dev)
		must(t, err)
		first := c.current
		must(t, c.fetch().wait(t.Context()))
		second := c.current
		if _, err := first.sign(nil); err != nil {
			t.Errorf("a key that a connection may be using was wiped: %v", err)
		}
		must(t, c.fetch().wait(t.Context()))
		if _, err := first.sign(nil); err == nil {
			t.Error("a key that was replaced twice signs")
		}
		o := options(t, c)
		_, err = o.UserJWT()
		must(t, err)

		synctest.Wait() // the Vault tokens of the logins are revoked
		vault.set(func() { vault.delay = time.Hour })
		c.fetch() // Close does not wait for Vault
		before := time.Now()
		c.Close()
		c.Close()
		if took := time.Since(before); took > 0 {
			t.Errorf("Close took %s", took)
		}
		for _, credentials := range []*credentials{second, c.current} {
			if _, err := credentials.sign(nil); err == nil {
				t.Error("a key signs after Close")
			}
		}
		if _, err := o.UserJWT(); !errors.Is(err, ErrClosed) {
			t.Errorf("a handshake after Close: %v", err)
		}
		if err := c.fetch().wait(t.Context()); err == nil {
			t.Error("credentials are got after Close")
		}
	})
}

var _ api.AuthMethod = dev
