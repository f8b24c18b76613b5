//go:build openbao

package e2e

import "testing"

// OpenBao's CLI knows the modes in which the provider does not come back to it.
func TestOpenBaosCLIPollsForTheLogin(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-bao")
	callback := e.vault.Addr + "/v1/auth/nats-bao/oidc/callback"
	e.allow(callback)
	e.role("direct", fields{"callback_mode": "direct", "poll_interval": 1, "allowed_redirect_uris": callback})
	e.role("device", fields{"callback_mode": "device", "poll_interval": 1, "allowed_redirect_uris": nil})

	login := e.vaultLogin("role=direct", "callbackmode=direct", "-field=creds")
	b := e.tab()
	b.consents(login.URL, "ada")
	b.presses("Yes, log me in")
	e.maySpeakFor("ada", login.prints())

	login = e.vaultLogin("role=device", "callbackmode=device", "-field=creds")
	e.tab().allowsDevice(login.URL, "ada", "Allow")
	e.maySpeakFor("ada", login.prints())
}
