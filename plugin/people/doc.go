// Package people logs people in, and knows of them what their tokens do not say. It
// knows no Vault, and no roles.
//
// It sends a person's browser to an OpenID provider and verifies what that comes back
// with. The protocol is that of github.com/hashicorp/cap/oidc, the library of Vault's
// own JWT method. Its discovery document and its keys come from the issuer as
// [claims] has it (see link), so that one issuer is asked in one place, and what a
// token says is what claims makes of it.
package people
