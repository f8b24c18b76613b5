package docs

import (
	"flag"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the lists of texts in troubleshooting.md anew")

const troubleshooting = "troubleshooting.md"

// A row of the page is a text of its tables, as a reader would search for it, with ... for what differs.
type row struct {
	line    int
	text    string
	pattern *regexp.Regexp
}

func (r row) covers(text string) bool { return r.pattern.MatchString(text) }

var (
	firstCell = regexp.MustCompile(`^\| (.+?) \| `)
	codeSpan  = regexp.MustCompile("`([^`]+)`")
	listHead  = regexp.MustCompile(`^<!-- texts: (.+) -->$`)
)

const listEnd = "<!-- end of texts -->"

// rowsOf returns what stands in the first column of the tables that are headed "text".
func rowsOf(page []string) (rows []row) {
	inTable := false
	for i, line := range page {
		cell := firstCell.FindStringSubmatch(line)
		if cell == nil {
			inTable = false
			continue
		}
		if cell[1] == "text" {
			inTable = true
		}
		if !inTable {
			continue
		}
		for _, span := range codeSpan.FindAllStringSubmatch(cell[1], -1) {
			var parts []string
			text := strings.ReplaceAll(span[1], `\|`, "|") // as a table has it
			for part := range strings.SplitSeq(text, "...") {
				parts = append(parts, regexp.QuoteMeta(part))
			}
			pattern := strings.Join(parts, ".*")
			if inner, ok := strings.CutPrefix(pattern, ".* "); ok {
				pattern = "(?:.* )?" + inner // the field, which the code may add elsewhere
			}
			rows = append(rows, row{i + 1, text, regexp.MustCompile("^" + pattern + "$")})
		}
	}
	return rows
}

// filled returns the page with its lists made of what the code has and no row has, and what has no place in them.
func filled(page []string, found []answer, rows []row) (text string, homeless []string) {
	lists, listed := map[string][]string{}, map[string]bool{}
	for _, a := range found {
		if coveredBy(rows, a.text) {
			continue
		}
		head := headOf(page, a.file)
		if head == "" {
			homeless = append(homeless, fmt.Sprintf("%s:%d: %q", a.file, a.line, a.text))
		} else if !listed[head+a.text] {
			listed[head+a.text] = true
			lists[head] = append(lists[head], "- `"+a.text+"`")
		}
	}
	var out []string
	inList := false
	for _, line := range page {
		inList = inList && line != listEnd
		if inList {
			continue
		}
		out = append(out, line)
		if listHead.MatchString(line) {
			inList = true
			out = append(out, "")
			out = append(out, lists[line]...)
			out = append(out, "")
		}
	}
	return strings.Join(out, "\n"), homeless
}

func coveredBy(rows []row, text string) bool {
	for _, r := range rows {
		if r.covers(text) {
			return true
		}
	}
	return false
}

// headOf returns the comment above the first list that a file's texts belong to.
func headOf(page []string, file string) string {
	for _, line := range page {
		head := listHead.FindStringSubmatch(line)
		if head == nil {
			continue
		}
		for glob := range strings.FieldsSeq(head[1]) {
			if matches, _ := path.Match(glob, file); matches {
				return line
			}
		}
	}
	return ""
}

// Every error and warning stands on the page: in a row of a table that says what to do, or in a list of a section that
// does. A new one is put into the list of its file by
//
//	go test ./docs -update
//
// and if its text alone does not say what to do, it deserves a row.
func TestThePageOnTroubleshootingHasEveryText(t *testing.T) {
	raw, err := os.ReadFile(troubleshooting)
	require.NoError(t, err)
	page := strings.Split(string(raw), "\n")
	found, rows := answers(t), rowsOf(page)
	require.Greater(t, len(found), 900, "most texts are not found any more: how are they made now?")
	text, homeless := filled(page, found, rows)
	for _, place := range homeless {
		t.Errorf("%s\n\tis the text of a file that no list of docs/%s is for: add the file to the comment above one", place, troubleshooting)
	}
	if *update {
		require.NoError(t, os.WriteFile(troubleshooting, []byte(text), 0o644))
		return
	}
	if text != string(raw) {
		has := map[string]bool{}
		for _, line := range page {
			has[line] = true
		}
		for _, a := range found {
			if !coveredBy(rows, a.text) && !has["- `"+a.text+"`"] {
				t.Errorf("%s:%d: %q\n\tis not in docs/%s: go test ./docs -update adds it to its list; if it does not say itself what to do, write a row for it", a.file, a.line, a.text, troubleshooting)
			}
		}
		t.Errorf("the lists of docs/%s are not what the code has: go test ./docs -update", troubleshooting)
	}
}

func TestEveryRowOnTroubleshootingIsOfATextInTheCode(t *testing.T) {
	raw, err := os.ReadFile(troubleshooting)
	require.NoError(t, err)
	found := answers(t)
	for _, r := range rowsOf(strings.Split(string(raw), "\n")) {
		matched := false
		for _, a := range found {
			matched = matched || r.covers(a.text)
		}
		assert.True(t, matched, "docs/%s:%d: no code has the text %q: delete the row, or write it as the code does, with ... for what differs", troubleshooting, r.line, r.text)
		assert.Greater(t, words(r.text), 1, "docs/%s:%d: %q stands for too much", troubleshooting, r.line, r.text)
	}
}

func TestWhatATextIs(t *testing.T) {
	for format, want := range map[string]string{
		"role %q could not be found":         `role "..." could not be found`,
		"has %d bytes: at most %d":           "has ... bytes: at most ...",
		"text of ASCII characters and %%":    "text of ASCII characters and %",
		"off by %.0f seconds, at %s:%+v, %T": "off by ... seconds, at ...:..., ...",
	} {
		require.Equal(t, want, shown(format))
	}
	rows := rowsOf([]string{"| text | what to do |", "| --- | --- |", "| `role ... could not be found`<br>`... is missing` | see `x y` |", "", "| status | why |", "| `400 it is` | x |"})
	require.Len(t, rows, 2)
	require.True(t, rows[0].covers(`role "..." could not be found`))
	require.False(t, rows[0].covers(`the role "..." could not be found`))
}
