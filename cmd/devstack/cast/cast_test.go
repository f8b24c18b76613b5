package cast

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func recorded(text string) *Recording {
	r := &Recording{Title: "A <demo>", Width: 40}
	fmt.Fprint(r, text)
	return r
}

func TestACommandIsReadBeforeItsOutputComes(t *testing.T) {
	r := recorded("# why\n$ run\none\ntwo\n")
	var at []time.Duration
	for _, line := range r.Lines {
		at = append(at, line.At)
	}
	require.Equal(t, []time.Duration{0, forComment, forComment + forCommand, forComment + forCommand + forLine}, at)
}

func TestNothingThatLooksLikeASecretIsKept(t *testing.T) {
	seed := "SU" + strings.Repeat("A", 56)
	token := "hvs.CAESIAbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
	r := recorded(seed + "\ntoken   " + token + "\n")
	require.Equal(t, "SUAAA…", r.Lines[0].Text)
	require.Equal(t, "token   hvs.C…", r.Lines[1].Text)
	require.NotContains(t, string(r.SVG()), seed[:20])
}

func TestALineIsAsWideAsTheTerminal(t *testing.T) {
	r := recorded(strings.Repeat("ü ", 40) + "\n")
	require.Equal(t, strings.Repeat("ü ", 19)+"ü…", r.Lines[0].Text)
}

func TestTheCastIsAsciinemas(t *testing.T) {
	raw, err := recorded("$ run\n<out>\n").Asciicast()
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	require.Len(t, lines, 3)
	var header map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &header))
	require.Equal(t, 2., header["version"])
	require.Equal(t, `[0.9,"o","<out>\r\n"]`, lines[2])
}

func TestTheDrawingHasEachLineAndNoScript(t *testing.T) {
	svg := string(recorded("# a & b\n$ run\n" + strings.Repeat("line\n", 2*rows) + "Permissions Violation\n").SVG())
	require.Contains(t, svg, ">A &lt;demo&gt;</title>")
	require.Contains(t, svg, `class="command t700"`)
	require.Contains(t, svg, `class="refused `)
	require.Equal(t, 2*rows, strings.Count(svg, ">line</text>"))
	require.NotContains(t, svg, "<script")
	require.NotContains(t, svg, "%!", "a format that does not fit")
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
}
