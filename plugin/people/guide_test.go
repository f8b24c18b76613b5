package people

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// guideExample matches a provider_config in a command of the guide.
var guideExample = regexp.MustCompile(`provider_config='(\{(?s:.*?)\})'`)

func TestTheGuideHasEachKeyOfEachProvider(t *testing.T) {
	text, err := os.ReadFile("../../docs/groups.md")
	require.NoError(t, err)
	guide := strings.ReplaceAll(string(text), "'$OKTA_API_TOKEN'", "the-api-token")

	var configured []string
	for _, match := range guideExample.FindAllStringSubmatch(guide, -1) {
		config := object(t, match[1])
		_, err := NewSource(SourceConfig{Settings: config, DiscoveryURL: "https://issuer.example"})
		require.NoError(t, err, match[1])
		configured = append(configured, config["provider"].(string))
	}
	slices.Sort(configured)
	require.Equal(t, []string{"azure", "gsuite", "okta"}, configured)

	for name, make := range sourceKinds {
		require.Contains(t, guide, "`"+name+"`")
		s := &settings{config: map[string]any{}}
		_, err := make(s, &SourceConfig{})
		require.NoError(t, err)
		for _, key := range s.known {
			require.Contains(t, guide, "| `"+key+"` |", name)
		}
	}
}
