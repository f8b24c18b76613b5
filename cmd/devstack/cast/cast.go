// Package cast keeps what a terminal showed: as an asciinema recording, and as an SVG drawing that moves by itself,
// without scripts or fonts from elsewhere, so that a README can have it as a picture.
package cast

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A Recording is what was shown, with the times at which a reader gets to see it.
type Recording struct {
	Title string
	Width int // of the terminal, in columns; longer lines are cut
	Lines []Line
}

// A Line appears whole.
type Line struct {
	At   time.Duration
	Text string
}

// How long a reader gets: a command is read before its output comes, and each line of that is glanced at.
const (
	forCommand = 900 * time.Millisecond
	forComment = 700 * time.Millisecond
	forLine    = 60 * time.Millisecond
	atTheEnd   = 4 * time.Second
)

// Write adds what a program prints, line by line. How long the program took is not kept.
func (r *Recording) Write(text []byte) (int, error) {
	for line := range strings.Lines(string(text)) {
		r.add(strings.TrimRight(line, "\n"))
	}
	return len(text), nil
}

func (r *Recording) add(text string) {
	if text == "" && len(r.Lines) == 0 {
		return
	}
	at := r.length()
	r.Lines = append(r.Lines, Line{At: at, Text: cut(concealed(text), r.Width)})
}

// length is when the next line appears.
func (r *Recording) length() time.Duration {
	if len(r.Lines) == 0 {
		return 0
	}
	last := r.Lines[len(r.Lines)-1]
	switch {
	case isCommand(last.Text):
		return last.At + forCommand
	case isComment(last.Text):
		return last.At + forComment
	}
	return last.At + forLine
}

func isCommand(text string) bool { return strings.HasPrefix(text, "$ ") }
func isComment(text string) bool { return strings.HasPrefix(text, "# ") }

// secret is a token, a JWT or a seed. They are of servers that have ended, but look like those of others to whoever
// searches repositories for secrets.
var secret = regexp.MustCompile(`\b(hv[sb]\.|s\.|eyJ|S[UAO][A-Z2-7])[A-Za-z0-9_.-]{20,}`)

func concealed(text string) string {
	return secret.ReplaceAllStringFunc(text, func(s string) string { return s[:5] + "…" })
}

func cut(text string, width int) string {
	letters := []rune(text)
	if len(letters) <= width {
		return text
	}
	return string(letters[:width-1]) + "…"
}

// Asciicast returns the recording in the format of asciinema, version 2.
func (r *Recording) Asciicast() ([]byte, error) {
	var out bytes.Buffer
	encode := json.NewEncoder(&out)
	encode.SetEscapeHTML(false)
	header := map[string]any{"version": 2, "width": r.Width, "height": rows, "title": r.Title}
	if err := encode.Encode(header); err != nil {
		return nil, err
	}
	for _, line := range r.Lines {
		if err := encode.Encode([]any{float64(line.At.Milliseconds()) / 1000, "o", line.Text + "\r\n"}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// rows is the height of the terminal.
const rows = 24

// The drawing's measures in pixels.
const (
	column = 7.83 // of a monospace font of fontSize
	height = 18.0
	margin = 16.0
	bar    = 34.0 // the window's
)

// SVG returns the drawing.
func (r *Recording) SVG() []byte {
	var out bytes.Buffer
	width := 2*margin + column*float64(r.Width)
	total := bar + margin + height*rows
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">
<title>%s</title>
<style>
%s%s</style>
<rect class="window" x="0.5" y="0.5" width="%.0f" height="%.0f" rx="9"/>
<circle cx="20" cy="17" r="5.5" fill="#ff5f57"/><circle cx="38" cy="17" r="5.5" fill="#febc2e"/><circle cx="56" cy="17" r="5.5" fill="#28c840"/>
<text class="title" x="%.0f" y="21" text-anchor="middle">%s</text>
<svg y="%.0f" width="%.0f" height="%.0f"><g class="screen">
`, width, total, escaped(r.Title), escaped(r.Title), look, r.motion(), width-1, total-1, width/2, escaped(r.Title), bar, width, height*rows)
	for i, line := range r.Lines {
		fmt.Fprintf(&out, `<text class="%s" x="%.0f" y="%.0f">%s</text>`+"\n", r.classes(i), margin, height*float64(i)+13, escaped(line.Text))
	}
	out.WriteString("</g></svg>\n</svg>\n")
	return out.Bytes()
}

const look = `.window{fill:#161b22;stroke:#3d444d}
text{font:13px ui-monospace,SFMono-Regular,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;fill:#c9d1d9;white-space:pre}
.title{fill:#8b949e}
.comment{fill:#8b949e}
.command{fill:#7ee787}
.refused{fill:#ff7b72}
`

// classes are a line's look and when it appears.
func (r *Recording) classes(line int) string {
	text := r.Lines[line].Text
	kind := "output"
	switch {
	case isComment(text):
		kind = "comment"
	case isCommand(text), line > 0 && isCommand(r.Lines[line-1].Text) && strings.HasSuffix(r.Lines[line-1].Text, "\\"):
		kind = "command"
	case strings.Contains(text, "Violation"):
		kind = "refused"
	}
	return fmt.Sprintf("%s t%d", kind, r.Lines[line].At.Milliseconds())
}

// motion has each line appear at its time, and the screen scroll once it is full, over and over. Who wants no motion
// sees the end of it.
func (r *Recording) motion() string {
	var css strings.Builder
	whole := r.length() + atTheEnd
	percent := func(at time.Duration) float64 { return 100 * at.Seconds() / whole.Seconds() }
	last := time.Duration(-1)
	for _, line := range r.Lines {
		if line.At == last || line.At == 0 {
			continue
		}
		last = line.At
		name := fmt.Sprintf("t%d", line.At.Milliseconds())
		fmt.Fprintf(&css, "@keyframes %s{0%%,%.3f%%{visibility:hidden}%.3f%%,100%%{visibility:visible}}\n", name, percent(line.At)-0.001, percent(line.At))
		fmt.Fprintf(&css, ".%s{animation:%s %.2fs step-end infinite}\n", name, name, whole.Seconds())
	}
	fmt.Fprint(&css, "@keyframes scroll{0%{transform:translateY(0)}")
	for i := rows - 1; i < len(r.Lines); i++ {
		fmt.Fprintf(&css, "%.3f%%{transform:translateY(%.0fpx)}", percent(r.Lines[i].At), -height*float64(i-rows+2))
	}
	scrolled := max(0, height*float64(len(r.Lines)-rows+1))
	fmt.Fprintf(&css, "100%%{transform:translateY(-%.0fpx)}}\n.screen{animation:scroll %.2fs step-end infinite}\n", scrolled, whole.Seconds())
	fmt.Fprintf(&css, "@media (prefers-reduced-motion:reduce){text,.screen{animation:none!important}.screen{transform:translateY(-%.0fpx)}}\n", scrolled)
	return css.String()
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

func escaped(text string) string { return escape.Replace(text) }
