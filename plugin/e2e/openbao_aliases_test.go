//go:build openbao

package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// A mount in a namespace has the aliases of that namespace. Who comes from another,
// whatever it is called there, has none at the mount.
func TestAnAliasIsOfItsNamespace(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.reader("login", nil)
	team := *e
	team.client = e.inNamespace(e.client, e.mount+"-team")
	_, err := e.client.Logical().WriteWithContext(e.ctx(), "sys/namespaces/"+e.mount+"-team", nil)
	require.NoError(t, err)
	require.NoError(t, team.client.Sys().EnableAuthWithOptionsWithContext(e.ctx(), e.mount, &api.EnableAuthOptions{Type: stack.PluginName}))
	team.configure()
	team.account("orders", nil)
	team.reader("login", nil)
	team.vaultRole("ci", fields{"user_name": "{{alias-name()|escape}}"})
	require.NotEqual(t, e.accessor(e.mount), team.accessor(e.mount))

	anonymous, err := e.vault.Client()
	require.NoError(t, err)
	anonymous.ClearToken()
	login, err := e.inNamespace(anonymous, e.mount+"-team").Logical().WriteWithContext(e.ctx(), team.path("login"), fields{"role": "login", "jwt": e.token(nil)})
	require.NoError(t, err)
	job := e.inNamespace(anonymous, e.mount+"-team")
	job.SetToken(login.Auth.ClientToken)
	require.Equal(t, "ci.default.workload.>", team.mayPublish(job, "ci"))

	// The same name at the mount of the same path in the namespace above.
	policy := e.mount + "-below"
	require.NoError(t, e.client.Sys().PutPolicyWithContext(e.ctx(), policy, fmt.Sprintf("path %q { capabilities = [\"read\"] }", e.mount+"-team/"+team.path("creds/ci"))))
	e.reader("login", fields{"token_policies": policy})
	above := e.login("login", e.token(nil))
	_, err = team.readCreds(e.inNamespace(above.client, e.mount+"-team"), "ci")
	e.isStatus(err, http.StatusBadRequest, "the Vault entity does not exist in this namespace")
}

// inNamespace is a client of the same token in a namespace.
func (e *env) inNamespace(client *api.Client, namespace string) *api.Client {
	e.t.Helper()
	clone, err := client.Clone()
	require.NoError(e.t, err)
	clone.SetToken(client.Token())
	clone.SetNamespace(namespace)
	return clone
}
