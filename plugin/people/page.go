package people

import (
	"bytes"
	_ "embed" // the page
	"html/template"
)

// Policy is the content security policy of the page: it loads and runs nothing, and
// sends its one form where it came from.
const Policy = "default-src 'none'; style-src 'sha256-STYLE'; form-action 'self'; base-uri 'none'"

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

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
	// What the form brings back.
	State, Code, IDToken, Iss, Confirmation string
}

// Render returns the page as HTML.
func (p Page) Render() ([]byte, error) {
	var text bytes.Buffer
	err := page.Execute(&text, p)
	return text.Bytes(), err
}
