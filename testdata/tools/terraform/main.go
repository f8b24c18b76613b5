// Command vault-terraform applies Terraform configurations to the Vault of VAULT_ADDR, one file after the
// other, with Vault's real provider. Each has to leave an empty plan behind, before and after a refresh. At
// the end everything is destroyed.
//
// The provider is the last release that is a Go module, and Terraform what that release was tested with.
package main

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/hashicorp/terraform/helper/resource"
	"github.com/hashicorp/terraform/terraform"
	"github.com/terraform-providers/terraform-provider-vault/vault"
)

func main() {
	testing.Init() // Terraform asks for a flag of it
	flag.Parse()
	var steps []resource.TestStep
	for _, file := range flag.Args() {
		text, err := os.ReadFile(file)
		if err != nil {
			fail(err)
		}
		steps = append(steps, resource.TestStep{Config: string(text)})
	}
	resource.UnitTest(run{}, resource.TestCase{
		Providers: map[string]terraform.ResourceProvider{"vault": vault.Provider()},
		Steps:     steps,
	})
}

func fail(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}

// run is what Terraform's tests run in.
type run struct{}

func (run) Error(args ...any) { fail(args...) }
func (run) Fatal(args ...any) { fail(args...) }
func (run) Skip(args ...any)  { fail(args...) }
func (run) Name() string      { return "vault-terraform" }
func (run) Parallel()         {}
