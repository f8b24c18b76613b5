package people

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/standin"
)

// object is a JSON object as requests and tokens have it.
func object(t testing.TB, text string) map[string]any {
	t.Helper()
	all, err := claims.DecodeObject(text)
	require.NoError(t, err)
	return all
}

// newSource makes the source of a provider_config whose servers are on an Internet.
func newSource(t testing.TB, n *standin.Internet, config string, issuer ...string) Source {
	t.Helper()
	c := SourceConfig{Settings: object(t, config), Issuer: "default", Transport: n.Transport()}
	if len(issuer) > 0 {
		c.DiscoveryURL = issuer[0]
	}
	source, err := NewSource(c)
	require.NoError(t, err)
	return source
}

// asked asks a source and returns the groups that it adds.
func asked(t testing.TB, source Source, of *Subject) ([]string, error) {
	t.Helper()
	if of.GroupsClaim == "" {
		of.GroupsClaim = "groups"
	}
	more, err := Ask(t.Context(), source, of)
	if more == nil {
		return nil, err
	}
	groups, ok := textList(more[of.GroupsClaim])
	require.True(t, ok, more)
	return groups, err
}

func TestAProviderConfigThatMakesNoSenseIsRefused(t *testing.T) {
	kinds := strings.Join(slices.Sorted(maps.Keys(sourceKinds)), ", ")
	for name, test := range map[string]struct{ config, fault string }{
		"no provider":            {`{"fetch_groups": true}`, "has no provider: it is one of " + kinds},
		"an unknown one":         {`{"provider": "entra"}`, `has the provider "entra": it is one of ` + kinds},
		"one that is no string":  {`{"provider": 1}`, "provider is not a string"},
		"the one of Kubernetes":  {`{"provider": "kubernetes"}`, "has the provider kubernetes: tokens of service accounts are verified here by an issuer with kubernetes_host"},
		"a key of another":       {`{"provider": "ibmisam", "domain": "example.com"}`, `has the key "domain", which the provider ibmisam does not know`},
		"a key that is misspelt": {`{"provider": "secureauth", "Provider": "x"}`, `has the key "Provider"`},
	} {
		t.Run(name, func(t *testing.T) {
			source, err := NewSource(SourceConfig{Settings: object(t, test.config)})
			require.Nil(t, source)
			require.ErrorContains(t, err, "provider_config "+test.fault)
			var refused *fault.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, "provider_config", refused.Field)
		})
	}
}

func TestAnIssuerWithoutAProviderConfigAddsNothing(t *testing.T) {
	source, err := NewSource(SourceConfig{Settings: map[string]any{}})
	require.NoError(t, err)
	require.Nil(t, source)
	more, err := Ask(t.Context(), source, &Subject{GroupsClaim: "groups"})
	require.NoError(t, err)
	require.Nil(t, more)
	require.NoError(t, CheckSource(t.Context(), source))
}

func TestGroupsInOneStringAreSplit(t *testing.T) {
	for name, test := range map[string]struct{ provider, claim, claims, more string }{
		"at spaces":                    {"ibmisam", "groups", `{"groups": "a b"}`, `{"groups": ["a", "b"]}`},
		"at commas":                    {"secureauth", "groups", `{"groups": "a,b c"}`, `{"groups": ["a", "b c"]}`},
		"below a JSON pointer":         {"secureauth", "/in/groups", `{"in": {"groups": "a,b", "x": 1}, "y": 2}`, `{"in": {"groups": ["a", "b"], "x": 1}}`},
		"a list stays":                 {"secureauth", "groups", `{"groups": ["a,b"]}`, `{}`},
		"what is not there stays away": {"secureauth", "groups", `{}`, `{}`},
		"nobody wants any":             {"secureauth", "", `{"": "a,b"}`, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			source, err := NewSource(SourceConfig{Settings: map[string]any{"provider": test.provider}})
			require.NoError(t, err)
			all := object(t, test.claims)
			more, err := Ask(t.Context(), source, &Subject{Claims: all, GroupsClaim: test.claim})
			require.NoError(t, err)
			require.Equal(t, object(t, test.claims), all, "the claims are left alone")
			if test.more == "{}" {
				require.Empty(t, more)
				return
			}
			require.Equal(t, object(t, test.more), more)
		})
	}
}

// found is a source that found something.
type found struct {
	*Found
	err error
}

func (f found) Find(context.Context, *Subject) (*Found, error) { return f.Found, f.err }

func TestASourceReplacesNoClaimButTheGroups(t *testing.T) {
	of := &Subject{Claims: object(t, `{"sub": "ann", "groups": ["old"]}`), GroupsClaim: "groups"}
	more, err := Ask(t.Context(), found{Found: &Found{Claims: map[string]any{"field": "x"}, Groups: []string{}}}, of)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"field": "x", "groups": []any{}}, more)

	_, err = Ask(t.Context(), found{Found: &Found{Claims: map[string]any{"sub": "eve"}}}, of)
	require.EqualError(t, err, `provider_config: the claim "sub" is in the token as well`)

	of.GroupsClaim = "/sub/groups"
	_, err = Ask(t.Context(), found{Found: &Found{Groups: []string{"new"}}}, of)
	require.EqualError(t, err, `provider_config: the groups claim "/sub/groups" leads through "sub", which is not an object`)
}

func TestAnOutageOfASourceIsTheIssuersOutage(t *testing.T) {
	outage := &claims.UnavailableError{Issuer: "default", What: "the groups", Err: errors.New("10.0.0.1 does not answer")}
	_, err := Ask(t.Context(), found{err: outage}, &Subject{})
	require.ErrorIs(t, err, claims.ErrUnavailable)
	require.NotContains(t, err.Error(), "10.0.0.1", "which is for the log")
}

func TestASecretShowsItselfNowhere(t *testing.T) {
	token := newSecret("s3cr3t")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		require.Equal(t, "[secret]", fmt.Sprintf(verb, token))
		require.NotContains(t, fmt.Sprintf(verb, struct{ token secret }{token}), "s3cr3t")
	}
	text, err := json.Marshal(token)
	require.NoError(t, err)
	require.Equal(t, `"[secret]"`, string(text))
}
