package people

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page and its style
	"encoding/base64"
	"html/template"
	"strings"
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string

	page = template.Must(template.New("page").Parse(pageText))
)

// Policy is the content security policy of the page: it runs nothing and loads
// nothing, has no style but its own, and sends its one form where it came from.
var Policy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'"
}()

// A Page is what a person sees in their browser: a question, or what came of their
// login.
type Page struct {
	Ask   *Question
	Role  string // with which they are logged in
	Fault string // why they are not
}

// A Question is whether it was the person who began the login.
type Question struct {
	Role    string
	Address string // of the program that did
	Fields  []Field
}

// A Field is one that the question's form brings back.
type Field struct{ Name, Value string }

// Title says what the page is about, in a line.
func (p Page) Title() string {
	switch {
	case p.Ask != nil:
		return "Did you start this login?"
	case p.Fault != "":
		return "You are not logged in"
	}
	return "You are logged in"
}

// Reason is why the person is not logged in, as a sentence.
func (p Page) Reason() string {
	text := strings.ToUpper(p.Fault[:1]) + p.Fault[1:]
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}

// Style is the page's own.
func (Page) Style() template.CSS { return template.CSS(pageStyle) } //nolint:gosec // a constant

// Policy is the page's content security policy.
func (Page) Policy() string { return Policy }

// Render returns the page as HTML.
func (p Page) Render() ([]byte, error) {
	var text bytes.Buffer
	err := page.Execute(&text, p)
	return text.Bytes(), err
}
