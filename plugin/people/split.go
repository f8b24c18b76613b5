package people

import (
	"context"
	"strings"
)

// splitAt is the provider of an issuer that writes all groups into one string.
func splitAt(separator string) func(*settings, *SourceConfig) (Source, error) {
	return func(*settings, *SourceConfig) (Source, error) { return split(separator), nil }
}

type split string

// Find returns the groups of the string. An empty one has none.
func (s split) Find(_ context.Context, of *Subject) (*Found, error) {
	text, ok := of.groups().(string)
	if !ok {
		return &Found{}, nil
	}
	return &Found{Groups: strings.Split(text, string(s))}, nil
}
