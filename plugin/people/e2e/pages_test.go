package e2e

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// looks are how people see the pages.
var looks = map[string]struct {
	width, height int64
	scheme        string
}{
	"light":      {1280, 800, "light"},
	"dark":       {1280, 800, "dark"},
	"phone":      {320, 640, "light"}, // the width of WCAG 2.2's success criterion 1.4.10
	"phone-dark": {390, 844, "dark"},
}

// faults is a script that says what is wrong with a page: of its language, its
// headings, its width, the contrast of its text (WCAG 2.2, success criterion 1.4.3), the
// size of what is pressed (2.5.8), and what it loads from elsewhere.
const faults = `(() => {
	const faults = []
	const say = (wrong, what) => { if (wrong) faults.push(what) }
	say(!document.documentElement.lang, "the language is not said")
	say(!document.title, "there is no title")
	say(document.querySelectorAll("h1").length !== 1, "there is not one h1")
	say(document.querySelectorAll("main").length !== 1, "there is not one main")
	say(document.scripts.length, "there is a script")
	say(document.documentElement.scrollWidth > innerWidth, "the page is wider than the window: " + document.documentElement.scrollWidth)
	for (const { name } of performance.getEntriesByType("resource")) say(!name.startsWith(location.origin), "it loads " + name)
	const parse = color => color.match(/[\d.]+/g).map(Number)
	const light = color => {
		const [r, g, b] = parse(color).map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
		return 0.2126 * r + 0.7152 * g + 0.0722 * b
	}
	const behind = element => {
		for (; element; element = element.parentElement) {
			const color = getComputedStyle(element).backgroundColor
			if (parse(color)[3] !== 0) return color
		}
		return getComputedStyle(document.documentElement).colorScheme.includes("dark") && matchMedia("(prefers-color-scheme: dark)").matches ? "rgb(18, 18, 18)" : "rgb(255, 255, 255)"
	}
	for (const element of document.querySelectorAll("main *")) {
		if (![...element.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.textContent.trim())) continue
		const [a, b] = [light(getComputedStyle(element).color), light(behind(element))]
		const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
		say(contrast < 4.5, "a contrast of " + contrast.toFixed(1) + ": " + element.textContent.trim())
	}
	for (const button of document.querySelectorAll("button, a")) {
		const { width, height } = button.getBoundingClientRect()
		say(width < 24 || height < 24, "too small to be pressed: " + button.textContent)
	}
	return faults
})()`

// isFitToBeSeen looks at the page that the browser shows as people may see it. With
// SCREENSHOTS set to a folder, what was seen is there.
func (b *tab) isFitToBeSeen(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for look, as := range looks {
		b.do(
			chromedp.EmulateViewport(as.width, as.height),
			chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
				_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
					Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: as.scheme}},
				})
				return err
			}),
		)
		found, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](faults))
		require.NoError(b.t, err)
		require.Empty(b.t, found, "%s, %s", name, look)
		if dir := os.Getenv("SCREENSHOTS"); dir != "" {
			picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
			require.NoError(b.t, err)
			require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+"-"+look+".png"), picture, 0o600))
		}
	}
}

// Each page that the mount shows to a person says what happened and what to do, and can
// be read by everybody.
func TestThePagesCanBeRead(t *testing.T) {
	t.Parallel()
	e := start(t, "nats-pages")
	callback := e.vault.Addr + "/v1/auth/nats-pages/oidc/callback"
	e.allow(callback)
	e.role("dev", fields{"callback_mode": "direct", "allowed_redirect_uris": callback, "bound_claims": fields{"groups": "engineers"}})
	begin := func() *begun { return e.begin(fields{"role": "dev", "redirect_uri": callback}) }
	b := e.tab()

	b.consents(begin().URL, "ada")
	b.shows("Did you start this login?")
	b.isFitToBeSeen("question")
	question, err := chromedp.Run(b.ctx, chromedp.Location())
	require.NoError(t, err)
	b.presses("Yes, log me in")
	require.Contains(t, b.shows("You are logged in"), "Role dev")
	b.isFitToBeSeen("success")

	for name, refused := range map[string]struct {
		do  func()
		why string
	}{
		"used-again":   {func() { b.do(chromedp.Navigate(question)); b.presses("Yes, log me in") }, "used before"},
		"no-consent":   {func() { b.logIn(begin().URL, "ada"); b.presses("Deny") }, "access_denied"},
		"not-in-group": {func() { b.consents(begin().URL, "bob"); b.presses("Yes, log me in") }, "groups"},
		"not-ours":     {func() { b.do(chromedp.Navigate(callback + "?state=sd_" + strings.Repeat("x", 300))) }, "is not known here"},
		"another-error": {func() {
			b.do(chromedp.Navigate(callback + "?error=" + url.QueryEscape("<b>mine</b>") + "&state=" + url.QueryEscape(begin().state)))
		}, "an error of its own"},
	} {
		refused.do()
		text := b.shows("You are not logged in")
		require.Contains(t, text, refused.why, name)
		require.NotContains(t, text, "mine", name)
		b.isFitToBeSeen(name)
	}
}
