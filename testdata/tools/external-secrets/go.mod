// Pins the operator by its module alone: it is built from a copy of that, by its own go.mod, with the files of this
// folder in place of two of its own. So go mod tidy is not for this file.
module github.com/nats-vault/vault-plugin-auth-nats/testdata/tools/external-secrets

go 1.26.0

require github.com/external-secrets/external-secrets v0.16.2
