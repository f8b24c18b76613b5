package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// startBrowser starts a browser without a window that reaches loopback addresses only.
func startBrowser(ctx context.Context) (browser context.Context, stop func(), err error) {
	program, err := exec.LookPath("chromium")
	if err != nil {
		return nil, nil, fmt.Errorf("these tests log in with Chromium: install it, such as Debian's package chromium: %w", err)
	}
	flags := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		// Its sandbox needs what root and containers have not; it sees these tests' pages only.
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
	)
	allocator, end := chromedp.NewExecAllocator(ctx, flags...)
	browser, _ = chromedp.NewContext(allocator) // which ends with the allocator
	if err := chromedp.Do(browser); err != nil {
		end()
		return nil, nil, fmt.Errorf("start %s: %w", program, err)
	}
	return browser, end, nil
}

// tab is a window of the browser with cookies of its own.
type tab struct {
	t   testing.TB
	ctx context.Context
}

// tab opens a window that is closed with the test.
func (e *env) tab() *tab {
	e.t.Helper()
	ctx, cancel := chromedp.NewContext(shared.browser, chromedp.WithNewBrowserContext())
	e.t.Cleanup(cancel)
	require.NoError(e.t, chromedp.Do(ctx)) // the window is open as long as the context of the first use
	return &tab{e.t, ctx}
}

// do does steps one after another, and fails the test with what the page shows.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		address, text, shown := b.page()
		require.NoError(b.t, err, "at %s, which shows (%v):\n%s", address, shown, text)
	}
}

// page returns where the browser is and the text that it shows there.
func (b *tab) page() (address, text string, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if address, err = chromedp.Run(ctx, chromedp.Location()); err != nil {
		return "", "", err
	}
	text, err = chromedp.Run(ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
	return address, text, err
}

// waitFor returns when the browser shows a page on which the condition holds.
func (b *tab) waitFor(what string, condition func(address, text string) bool) (address, text string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	require.NoError(b.t, stack.WaitFor(ctx, what, func() (err error) {
		if address, text, err = b.page(); err != nil { // between two pages there is none
			return err
		}
		if !condition(address, text) {
			return fmt.Errorf("%s shows:\n%s", address, text)
		}
		return nil
	}))
	return address, text
}

// shows waits for a page with this text, and returns all of its text.
func (b *tab) shows(part string) string {
	b.t.Helper()
	_, text := b.waitFor(part, func(_, text string) bool { return strings.Contains(text, part) })
	return text
}

// arrives waits until the browser is at a page, and returns the query that it was led
// there with.
func (b *tab) arrives(page string) url.Values {
	b.t.Helper()
	address, _ := b.waitFor(page, func(address, _ string) bool { return strings.HasPrefix(address, page) })
	parsed, err := url.Parse(address)
	require.NoError(b.t, err)
	return parsed.Query()
}

// presses clicks on the button with this text, once there is one.
func (b *tab) presses(button string) {
	b.t.Helper()
	b.do(chromedp.Click(fmt.Sprintf("//button[normalize-space()=%q]", button)))
}

// logIn opens a provider's page and logs in there, so that it asks for consent.
func (b *tab) logIn(url, name string) {
	b.t.Helper()
	b.do(
		chromedp.Navigate(url),
		chromedp.SendKeys(chromedp.ID("username"), name),
		chromedp.SendKeys(chromedp.ID("password"), password),
	)
	b.presses("Login")
}

// consents logs in and consents.
func (b *tab) consents(url, name string) {
	b.t.Helper()
	b.logIn(url, name)
	b.presses("Allow")
}

// allowsDevice logs in at the page of the device flow, and answers it.
func (b *tab) allowsDevice(url, name, button string) {
	b.t.Helper()
	b.logIn(url, name)
	b.presses(button)
	b.shows("Device authorization")
}
