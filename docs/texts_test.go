// Package docs holds the pages for users against the code.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Where the texts are that the plugin and nats-callout answer and log, below the repository's root.
var answering = []string{"plugin", "claims", "roles", "cmd/nats-callout"}

// notAnswering are folders below these that answer nobody: what only tests use, and the Go client.
var notAnswering = []string{"testdata", "e2e", "difftest", "standin", "optest", "storetest", "client", "model"}

// makers are the functions whose texts are answered, logged, or part of what is. Of other functions only texts count
// that look like sentences.
var makers = regexp.MustCompile(`^(fmt\.Errorf|errors\.New|(fault\.)?(In|New|Conflict)|logical\.(ErrorResponse|CodedError)|warn|faultAt|.*\.(fault|AddWarning|Warn|Error|wrong|refuse))$`)

// silent are the functions and keys whose texts are documentation, or only a part of something else.
var (
	silentCall = regexp.MustCompile(`^(responds|noContent|listed|query|metric|histogram|newAPI|panic|flags\..*|strings\..*|json\..*|mux\..*|fmt\.(Fp|P)rint.*|.*\.(Info|Debug|Trace|WriteString|Set))$`)
	silentKey  = regexp.MustCompile(`^(Description|Summary|HelpSynopsis|HelpDescription|Help|Text|What|ItemType|Template|argument|Name)$`)
)

// notAnswered are texts in places of answers that are none: of pages and of what is signed.
var notAnswered = regexp.MustCompile(`frame-ancestors|^default-src|^purpose |^Did you |^You are |^true or false$|^an? (object|list|string)$`)

// An answer is a text in the code, with ... for what is put into it.
type answer struct {
	text string
	file string // below the root, with slashes
	line int
}

// answers finds them all, in the order of the files' names and lines.
func answers(t *testing.T) []answer {
	t.Helper()
	var found []answer
	for _, dir := range answering {
		require.NoError(t, fs.WalkDir(os.DirFS(".."), dir, func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && contains(notAnswering, entry.Name()):
				return fs.SkipDir
			case entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
				return nil
			}
			found = append(found, answersOf(t, name)...)
			return nil
		}))
	}
	return found
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func answersOf(t *testing.T, name string) (found []answer) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, filepath.Join("..", filepath.FromSlash(name)), nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	var above []ast.Node
	ast.Inspect(file, func(node ast.Node) bool {
		if node == nil {
			above = above[:len(above)-1]
			return true
		}
		if expression, ok := node.(ast.Expr); ok {
			if format, ok := fieldFault(expression); ok {
				if text := shown(format); words(text) > 1 {
					found = append(found, answer{text, name, files.Position(node.Pos()).Line})
				}
				return false
			}
			if format, ok := constant(expression); ok {
				if text := shown(format); isAnswer(text, format, above) {
					found = append(found, answer{text, name, files.Position(node.Pos()).Line})
				}
				return false
			}
		}
		above = append(above, node)
		return true
	})
	return found
}

var fieldMaker = regexp.MustCompile(`^((fault\.)?(In|Conflict)|badField)$`)

// fieldFault returns the text of a fault whose first argument is the field that the text begins with.
func fieldFault(expression ast.Expr) (string, bool) {
	call, isCall := expression.(*ast.CallExpr)
	if !isCall || len(call.Args) < 2 || !fieldMaker.MatchString(nameOf(call.Fun)) {
		return "", false
	}
	format, isFormat := constant(call.Args[1])
	field, isConstant := constant(call.Args[0])
	if !isConstant {
		field = "%s"
	}
	return field + " " + format, isFormat
}

// constant returns a string that stands in the code, with %s for what is added to it.
func constant(expression ast.Expr) (string, bool) {
	switch e := expression.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.ParenExpr:
		return constant(e.X)
	case *ast.BinaryExpr:
		left, isLeft := constant(e.X)
		right, isRight := constant(e.Y)
		if e.Op != token.ADD || !isLeft && !isRight {
			return "", false
		}
		if !isLeft {
			left = "%s"
		}
		if !isRight {
			right = "%s"
		}
		return left + right, true
	}
	return "", false
}

var verb = regexp.MustCompile(`%[-+# 0]*[0-9]*(?:\.[0-9]+)?[a-zA-Z%]`)

// shown is a format as a reader meets it.
func shown(format string) string {
	text := verb.ReplaceAllStringFunc(format, func(verb string) string {
		switch verb[len(verb)-1] {
		case '%':
			return "%"
		case 'q':
			return `"..."`
		}
		return "..."
	})
	return strings.TrimSpace(text)
}

var word = regexp.MustCompile(`[A-Za-z]{2,}`)

func words(text string) int { return len(word.FindAllString(text, -1)) }

// isAnswer says whether a text is answered or logged, by what it stands in.
func isAnswer(text, format string, above []ast.Node) bool {
	if strings.Contains(text, "\n") || notAnswered.MatchString(text) || words(text) < 2 || !strings.Contains(format, " ") {
		return false
	}
	for i := len(above) - 1; i >= 0; i-- {
		switch node := above[i].(type) {
		case *ast.CallExpr:
			name := nameOf(node.Fun)
			if silentCall.MatchString(name) {
				return false
			}
			if makers.MatchString(name) {
				return true
			}
		case *ast.KeyValueExpr:
			if silentKey.MatchString(nameOf(node.Key)) {
				return false
			}
		case *ast.ImportSpec, *ast.Field:
			return false
		}
	}
	return strings.Count(format, " ") > 1 && (words(text) > 4 || !strings.HasPrefix(text, "a ") && !strings.HasPrefix(text, "an ") && !strings.HasPrefix(text, "the "))
}

func nameOf(expression ast.Expr) string {
	switch e := expression.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return nameOf(e.X) + "." + e.Sel.Name
	case *ast.CallExpr:
		return nameOf(e.Fun) + "()"
	}
	return ""
}
