package e2e

import (
	"testing"

	kubernetesauth "github.com/hashicorp/vault/api/auth/kubernetes"
	"github.com/stretchr/testify/require"
)

// Programs written for the Kubernetes method need another mount path, and no more.
func TestTheKubernetesClientLibraryLogsIn(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	n := e.namespace(sharedKubernetes(t), nil)
	n.account("api", nil)
	n.issuer(fields{"token_reviewer_jwt": n.reviewer()})
	n.podRole(nil)

	method, err := kubernetesauth.NewKubernetesAuth("pod",
		kubernetesauth.WithMountPath(e.mount), kubernetesauth.WithServiceAccountTokenPath(e.file(n.token("api", "vault", nil))))
	require.NoError(t, err)
	client, err := e.vault.Client()
	require.NoError(t, err)
	client.ClearToken()
	secret, err := client.Auth().Login(e.ctx(), method)
	require.NoError(t, err)
	require.Equal(t, n.name, secret.Auth.Metadata["service_account_namespace"])
	require.NotEmpty(t, secret.Data["creds"])
}
