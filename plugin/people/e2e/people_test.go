package e2e

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// A person runs `vault login`, the browser opens at the provider, and the answer to the
// one command is a Vault token and creds.
func TestAPersonLogsInWithTheBrowser(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-browser")
	e.role("dev", fields{"verbose_oidc_logging": true})
	login := e.vaultLogin("role=dev", "-format=json")
	request, err := url.Parse(login.URL)
	require.NoError(t, err)
	require.Equal(t, "S256", request.Query().Get("code_challenge_method"), "PKCE (RFC 7636)")
	require.NotEmpty(t, request.Query().Get("nonce"))
	e.tab().consents(login.URL, "ada")
	answer := login.answer()
	e.isTokenOf(answer.Auth.ClientToken, "ada")
	e.maySpeakFor("ada", answer.Data["creds"].(string))
	// State and code are in the audit log, used up: Vault 1.21 writes the address of a request.
	e.isInNoLog(answer.Data["user_public_key"].(string), map[string]string{
		"the nonce": request.Query().Get("nonce"), "the client's secret": clientSecret, "the Vault token": answer.Auth.ClientToken,
		"the user JWT": answer.Data["jwt"].(string), "the seed": regexp.MustCompile(`SU[A-Z2-7]{56}`).FindString(answer.Data["creds"].(string)),
	})

	// -field prints the creds and nothing else, and the token is stored as ever.
	login = e.vaultLogin("role=dev", "-field=creds")
	e.tab().consents(login.URL, "bob")
	e.maySpeakFor("bob", login.prints())
	stored, err := os.ReadFile(filepath.Join(login.Home, ".vault-token"))
	require.NoError(t, err)
	e.isTokenOf(string(stored), "bob")
}

// A person who does not consent, and one whom the role does not take, get neither token
// nor creds, and are told why.
func TestAPersonWhoIsRefusedIsToldWhy(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-refused")
	e.role("dev", fields{"bound_claims": fields{"groups": "engineers"}})
	for name, refusal := range map[string]struct {
		do  func(b *tab, url string)
		why string
	}{
		"no consent":   {func(b *tab, url string) { b.logIn(url, "ada"); b.presses("Deny") }, "code"},
		"not in group": {func(b *tab, url string) { b.consents(url, "bob") }, "groups"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := e.in(t)
			login := e.vaultLogin("role=dev", "-field=creds")
			refusal.do(e.tab(), login.URL)
			require.Contains(t, login.fails(), refusal.why)
			require.Empty(t, login.stdout.String())
		})
	}
}

// The provider posts its answer, which then stands in no browser's history (OAuth 2.0
// Form Post Response Mode).
func TestTheAnswerOfTheProviderMayBePosted(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-posted")
	e.role("dev", fields{"issuer": "posting"})
	login := e.vaultLogin("role=dev", "-field=creds")
	require.Contains(t, login.URL, "response_mode=form_post")
	e.tab().consents(login.URL, "ada")
	e.maySpeakFor("ada", login.prints())
}

// The same name at two providers is two people for Vault, as it is for workloads.
func TestTwoProvidersOnOneMountAreNotConfused(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-two")
	e.role("dev", nil)
	e.role("partners", fields{"issuer": "partner", "user_template": `{"pub": {"allow": ["partners.{{claim(sub)}}.>"]}}`})
	home, partner := e.vaultLogin("role=dev", "-format=json"), e.vaultLogin("role=partners", "-format=json")
	e.tab().consents(partner.URL, "ada")
	e.tab().consents(home.URL, "ada")
	ours, theirs := home.answer(), partner.answer()
	e.maySpeakFor("ada", ours.Data["creds"].(string))
	require.NoError(t, e.publish(e.connect(theirs.Data["creds"].(string)), "partners.ada.new"))
	require.NotEqual(t, ours.Auth.EntityID, theirs.Auth.EntityID)
}

// Groups of the provider become external groups of Vault's, whose policies the token has.
func TestGroupsOfTheProviderAreGroupsInVault(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-groups")
	e.role("dev", fields{"groups_claim": "groups"})
	e.group("engineers", "nats-engineers")
	for name, policies := range map[string][]string{"ada": {"nats-engineers"}, "bob": nil} {
		login := e.vaultLogin("role=dev", "-format=json")
		e.tab().consents(login.URL, name)
		require.ElementsMatch(t, policies, login.answer().Auth.IdentityPolicies)
	}
}

// Where no browser can reach the person's own computer: the device flow (RFC 8628).
func TestAPersonLogsInOnAnotherDevice(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-device")
	e.role("dev", fields{"callback_mode": "device", "poll_interval": 1, "allowed_redirect_uris": nil})
	begun := e.begin(fields{"role": "dev"})
	_, err := begun.poll()
	e.isStatus400(err, "authorization_pending")
	e.tab().allowsDevice(begun.URL, "ada", "Allow")
	answer, err := begun.outcome()
	require.NoError(t, err)
	e.isTokenOf(answer.Auth.ClientToken, "ada")
	e.maySpeakFor("ada", answer.Data["creds"].(string))
	_, err = begun.poll()
	e.isStatus400(err, "was used before")

	begun = e.begin(fields{"role": "dev"})
	e.tab().allowsDevice(begun.URL, "ada", "Deny")
	_, err = begun.outcome()
	e.isStatus400(err, "access_denied")
}

// The provider answers to Vault itself, and the person who began polls for the outcome.
func TestAPersonLogsInWhereTheProviderAnswersVault(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-direct")
	callback := e.vault.Addr + "/v1/auth/nats-direct/oidc/callback"
	e.allow(callback)
	for _, issuer := range []string{"default", "posting"} {
		e.role(issuer, fields{"issuer": issuer, "callback_mode": "direct", "allowed_redirect_uris": callback})
		begun := e.begin(fields{"role": issuer, "redirect_uri": callback})
		_, err := begun.poll()
		e.isStatus400(err, "authorization_pending")
		b := e.tab()
		b.consents(begun.URL, "ada")
		b.presses("Yes, log me in")
		b.shows("You are logged in")
		answer, err := begun.poll()
		require.NoError(t, err)
		e.maySpeakFor("ada", answer.Data["creds"].(string))
	}
}

// What Vault's UI asks for, with a browser that it leads: its own page takes the
// provider's answer and passes it on. It shows no creds.
func TestTheRequestsOfVaultsUILogIn(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-ui")
	page := e.vault.Addr + "/ui/vault/auth/nats-ui/oidc/callback"
	e.allow(page)
	e.role("dev", fields{"allowed_redirect_uris": page})
	answer, err := e.anyone().Logical().WriteWithContext(e.ctx(), e.path("oidc/auth_url"), fields{"role": "dev", "redirect_uri": page})
	require.NoError(t, err)
	b := e.tab()
	b.consents(answer.Data["auth_url"].(string), "ada")
	query := b.arrives(page)
	login, err := e.anyone().Logical().ReadWithDataWithContext(e.ctx(), e.path("oidc/callback"), url.Values{
		"state": {query.Get("state")}, "code": {query.Get("code")},
	})
	require.NoError(t, err)
	e.isTokenOf(login.Auth.ClientToken, "ada")
}

// begun is a login for which a client polls.
type begun struct {
	e     *env
	URL   string // where the person logs in
	state string
}

// clientNonce is what a client that polls proves itself with.
const clientNonce = "5b1f2c9e0d7a4836"

// begin asks for a login as a client does that will poll for it.
func (e *env) begin(data fields) *begun {
	e.t.Helper()
	data["client_nonce"] = clientNonce
	answer, err := e.anyone().Logical().WriteWithContext(e.ctx(), e.path("oidc/auth_url"), data)
	require.NoError(e.t, err)
	require.NotEmpty(e.t, answer.Data["auth_url"], "%v", answer.Warnings)
	return &begun{e, answer.Data["auth_url"].(string), answer.Data["state"].(string)}
}

func (b *begun) poll() (*api.Secret, error) {
	b.e.t.Helper()
	return b.e.anyone().Logical().WriteWithContext(b.e.ctx(), b.e.path("oidc/poll"), fields{"state": b.state, "client_nonce": clientNonce})
}

// outcome polls until the login is settled; who polls too often is told slow_down.
func (b *begun) outcome() (answer *api.Secret, err error) {
	b.e.t.Helper()
	b.e.waitFor("the outcome", func() error {
		answer, err = b.poll()
		if err != nil && (strings.Contains(err.Error(), "slow_down") || strings.Contains(err.Error(), "authorization_pending")) {
			return err
		}
		return nil
	})
	return answer, err
}

// isTokenOf checks that a Vault token is that of a person.
func (e *env) isTokenOf(token, name string) {
	e.t.Helper()
	client := e.anyone()
	client.SetToken(token)
	self, err := client.Auth().Token().LookupSelfWithContext(e.ctx())
	require.NoError(e.t, err)
	require.Equal(e.t, e.mount+"-"+name, self.Data["display_name"])
}

// group gives an external group of the default issuer's a policy.
func (e *env) group(name, policy string) {
	e.t.Helper()
	mounts, err := e.root.Sys().ListAuthWithContext(e.ctx())
	require.NoError(e.t, err)
	group, err := e.root.Logical().WriteWithContext(e.ctx(), "identity/group", fields{"name": e.mount + "-" + name, "type": "external", "policies": policy})
	require.NoError(e.t, err)
	_, err = e.root.Logical().WriteWithContext(e.ctx(), "identity/group-alias", fields{
		"name": name, "canonical_id": group.Data["id"], "mount_accessor": mounts[e.mount+"/"].Accessor,
	})
	require.NoError(e.t, err)
}
