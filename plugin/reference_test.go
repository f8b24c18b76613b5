package plugin

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/reference.md anew")

const referenceFile = "../docs/reference.md"

// The reference is made from what Vault shows as help and OpenAPI. When this
// test fails, `go test ./plugin -run TestTheReference -update` writes it anew.
func TestTheReferenceSaysWhatThePathsSay(t *testing.T) {
	text := reference(newBackend(&logical.BackendConfig{}))
	if *update {
		require.NoError(t, os.WriteFile(referenceFile, []byte(text), 0o644))
	}
	written, err := os.ReadFile(referenceFile)
	require.NoError(t, err)
	old, now := strings.Split(string(written), "\n"), strings.Split(text, "\n")
	for i := range min(len(old), len(now)) {
		require.Equal(t, old[i], now[i], "line %d of docs/reference.md is not what the paths say: run this test with -update", i+1)
	}
	require.Len(t, now, len(old), "docs/reference.md is not as long as what the paths say: run this test with -update")
}

// Nothing that a user meets is without words.
func TestEveryPathIsDescribed(t *testing.T) {
	for _, path := range newBackend(&logical.BackendConfig{}).Paths {
		require.NotEmpty(t, strings.TrimSpace(path.HelpSynopsis), "synopsis of %s", path.Pattern)
		require.NotEmpty(t, strings.TrimSpace(path.HelpDescription), "description of %s", path.Pattern)
		require.NotNil(t, path.DisplayAttrs, "display attributes of %s", path.Pattern)
		for name, field := range path.Fields {
			require.NotEmpty(t, field.Description, "field %s of %s", name, path.Pattern)
		}
		for operation, handler := range path.Operations {
			if operation == logical.AliasLookaheadOperation || operation == logical.ResolveRoleOperation {
				continue
			}
			properties := handler.Properties()
			require.NotEmpty(t, properties.Summary, "summary of %s %s", operation, path.Pattern)
			require.NotEmpty(t, properties.Responses, "responses of %s %s", operation, path.Pattern)
			for _, responses := range properties.Responses {
				for name, field := range responses[0].Fields {
					require.NotEmpty(t, field.Description, "response field %s of %s", name, path.Pattern)
				}
			}
		}
	}
}

func reference(b *backend) string {
	var out strings.Builder
	fmt.Fprintln(&out, "# Reference")
	fmt.Fprintln(&out)
	fmt.Fprintln(&out, "The paths of a mount, here at `auth/nats`. `vault path-help auth/nats/<path>` shows the same.")
	paths := slices.Clone(b.Paths)
	slices.SortStableFunc(paths, func(x, y *framework.Path) int { return cmp.Compare(shown(x.Pattern), shown(y.Pattern)) })
	for _, path := range paths {
		describePath(&out, path)
	}
	return out.String()
}

func describePath(out *strings.Builder, path *framework.Path) {
	fmt.Fprintf(out, "\n## %s\n\n%s\n\n", shown(path.Pattern), strings.TrimSpace(path.HelpDescription))
	fmt.Fprintln(out, "| operation | what it does |")
	fmt.Fprintln(out, "| --- | --- |")
	for _, operation := range slices.Sorted(maps.Keys(path.Operations)) {
		if summary := path.Operations[operation].Properties().Summary; summary != "" {
			fmt.Fprintf(out, "| %s | %s |\n", operation, cell(summary))
		}
	}
	describeFields(out, "field", path.Fields)
	for _, operation := range slices.Sorted(maps.Keys(path.Operations)) {
		for _, responses := range path.Operations[operation].Properties().Responses {
			describeFields(out, "answer of "+string(operation), responses[0].Fields)
		}
	}
}

func describeFields(out *strings.Builder, title string, fields map[string]*framework.FieldSchema) {
	if len(fields) == 0 {
		return
	}
	fmt.Fprintf(out, "\n| %s | type | description |\n| --- | --- | --- |\n", title)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field := fields[name]
		description := cell(field.Description)
		if field.Default != nil && !strings.Contains(description, "Default:") {
			description += fmt.Sprintf(" Default: %v.", field.Default)
		}
		if field.Deprecated {
			description += " Deprecated."
		}
		fmt.Fprintf(out, "| `%s` | %s | %s |\n", name, field.Type, description)
	}
}

// cell is a text as a cell of a table takes it.
func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

var (
	captureForm  = regexp.MustCompile(`\(\?P<(\w+)>.*?[+)]\)(?:[/$]|$|\?)`)
	optionalForm = regexp.MustCompile(`/\?\$?$|\$$`)
)

// shown is a pattern as people write paths.
func shown(pattern string) string {
	pattern = captureForm.ReplaceAllStringFunc(pattern, func(capture string) string {
		name := captureForm.FindStringSubmatch(capture)[1]
		if strings.HasSuffix(capture, "/") {
			return ":" + name + "/"
		}
		return ":" + name
	})
	return optionalForm.ReplaceAllString(pattern, "")
}
