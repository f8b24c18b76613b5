package roles_test

import (
	"fmt"
	"time"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

// A role for CI jobs: a job of the main branch may publish what belongs to its project.
func Example() {
	role := roles.New()
	role.Account = "orders"
	role.BoundAudiences = []string{"vault"}
	role.BoundClaims = map[string]any{"ref": "main"}
	role.UserClaim = "sub"
	role.UserTemplate = `{
		"pub": {"allow": ["builds.{{claim(project_path)|escape}}.>"]},
		"sub": {"allow": ["_INBOX.>"]}
	}`
	compiled, err := role.Compile()
	if err != nil {
		fmt.Println(err)
		return
	}

	profile := &claims.Profile{ // of a token that an issuer verified
		Issuer: roles.DefaultIssuer,
		Kind:   claims.KindJWT,
		Claims: map[string]any{"sub": "job-1", "ref": "main", "project_path": "shop/web.io"},
	}
	bound, err := compiled.Bind(profile, time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	user, err := compiled.Render(bound, roles.Account{Name: "orders"}, "U...")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(user.Name)
	fmt.Println(string(user.NATS))
	// Output:
	// job-1
	// {"pub":{"allow":["builds.shop/web%2Eio.\u003e"]},"sub":{"allow":["_INBOX.\u003e"]},"subs":-1,"data":-1,"payload":-1,"type":"user","version":2}
}
