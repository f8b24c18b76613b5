package register

// The one provider of secrets that the tests use. With all of them the operator takes several times as long to build.
import _ "github.com/external-secrets/external-secrets/pkg/provider/vault"
