package register

// The one generator that the tests use.
import _ "github.com/external-secrets/external-secrets/pkg/generator/vault"
