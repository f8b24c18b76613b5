package stack

import (
	"testing"

	"github.com/stretchr/testify/require"
	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func TestKubernetesMakesAndReviewsTokensAlsoAfterARestart(t *testing.T) {
	ctx := testContext(t, EtcdTool, KubeAPIServerTool)
	cluster, err := StartKubernetes(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Close()) })
	client, err := kubernetes.NewForConfig(cluster.Admin)
	require.NoError(t, err)

	accounts := client.CoreV1().ServiceAccounts("default")
	_, err = accounts.Create(ctx, &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "ci"}}, meta.CreateOptions{})
	require.NoError(t, err)
	request, err := accounts.CreateToken(ctx, "ci", &authentication.TokenRequest{
		Spec: authentication.TokenRequestSpec{Audiences: []string{"vault"}},
	}, meta.CreateOptions{})
	require.NoError(t, err)

	cluster.StopAPI()
	require.NoError(t, cluster.StartAPI(ctx))
	review, err := client.AuthenticationV1().TokenReviews().Create(ctx, &authentication.TokenReview{
		Spec: authentication.TokenReviewSpec{Token: request.Status.Token, Audiences: []string{"vault"}},
	}, meta.CreateOptions{})
	require.NoError(t, err)
	require.True(t, review.Status.Authenticated, review.Status.Error)
	require.Equal(t, "system:serviceaccount:default:ci", review.Status.User.Username)
}
