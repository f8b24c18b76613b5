package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// namespace is a namespace of a Kubernetes cluster that belongs to one test.
type namespace struct {
	e       *env
	name    string
	cluster *stack.Kubernetes
	client  *kubernetes.Clientset
}

// namespaces numbers the namespaces of all tests.
var namespaces atomic.Int64

// namespace creates a namespace in a cluster.
func (e *env) namespace(cluster *stack.Kubernetes, labels map[string]string) *namespace {
	e.t.Helper()
	client, err := kubernetes.NewForConfig(cluster.Admin)
	require.NoError(e.t, err)
	n := &namespace{e: e, name: fmt.Sprintf("team-%d", namespaces.Add(1)), cluster: cluster, client: client}
	_, err = client.CoreV1().Namespaces().Create(e.ctx(), &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: n.name, Labels: labels}}, meta.CreateOptions{})
	require.NoError(e.t, err)
	return n
}

// account creates a service account and returns its UID.
func (n *namespace) account(name string, annotations map[string]string) string {
	n.e.t.Helper()
	account, err := n.client.CoreV1().ServiceAccounts(n.name).Create(n.e.ctx(),
		&core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: name, Annotations: annotations}}, meta.CreateOptions{})
	require.NoError(n.e.t, err)
	return string(account.UID)
}

// deleteAccount deletes a service account.
func (n *namespace) deleteAccount(name string) {
	n.e.t.Helper()
	require.NoError(n.e.t, n.client.CoreV1().ServiceAccounts(n.name).Delete(n.e.ctx(), name, meta.DeleteOptions{}))
}

// token asks the TokenRequest API for a token of a service account, as kubelet does
// for a projected volume. pod, if not nil, is the pod that it is bound to.
func (n *namespace) token(account, audience string, pod *core.Pod) string {
	n.e.t.Helper()
	spec := authentication.TokenRequestSpec{}
	if audience != "" {
		spec.Audiences = []string{audience}
	}
	if pod != nil {
		spec.BoundObjectRef = &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	answer, err := n.client.CoreV1().ServiceAccounts(n.name).CreateToken(n.e.ctx(), account, &authentication.TokenRequest{Spec: spec}, meta.CreateOptions{})
	require.NoError(n.e.t, err)
	return answer.Status.Token
}

// pod creates a pod of a service account; there is no node to run it.
func (n *namespace) pod(name, account string) *core.Pod {
	n.e.t.Helper()
	pod, err := n.client.CoreV1().Pods(n.name).Create(n.e.ctx(), &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec: core.PodSpec{
			ServiceAccountName: account,
			Containers:         []core.Container{{Name: "main", Image: "main"}},
		},
	}, meta.CreateOptions{})
	require.NoError(n.e.t, err)
	return pod
}

// grant binds a service account to a cluster role.
func (n *namespace) grant(account, role string) {
	n.e.t.Helper()
	_, err := n.client.RbacV1().ClusterRoleBindings().Create(n.e.ctx(), &rbac.ClusterRoleBinding{
		ObjectMeta: meta.ObjectMeta{Name: n.name + "-" + account + "-" + strings.ReplaceAll(role, ":", "-")},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbac.Subject{{Kind: rbac.ServiceAccountKind, Namespace: n.name, Name: account}},
	}, meta.CreateOptions{})
	require.NoError(n.e.t, err)
}

// reviewer creates a service account that may review tokens, and see service accounts
// and namespaces, and returns its token.
func (n *namespace) reviewer() string {
	n.e.t.Helper()
	n.account("reviewer", nil)
	n.grant("reviewer", "system:auth-delegator")
	role := n.name + "-reader"
	_, err := n.client.RbacV1().ClusterRoles().Create(n.e.ctx(), &rbac.ClusterRole{
		ObjectMeta: meta.ObjectMeta{Name: role},
		Rules:      []rbac.PolicyRule{{APIGroups: []string{""}, Resources: []string{"serviceaccounts", "namespaces"}, Verbs: []string{"get"}}},
	}, meta.CreateOptions{})
	require.NoError(n.e.t, err)
	n.grant("reviewer", role)
	return n.token("reviewer", "", nil)
}

// issuer configures the cluster as the issuer "cluster" of the mount.
func (n *namespace) issuer(more fields) {
	n.e.t.Helper()
	config := fields{"kubernetes_host": n.cluster.Host, "kubernetes_ca_cert": n.cluster.CACert}
	for name, value := range more {
		config[name] = value
	}
	n.e.write("issuer/cluster", config)
}

// podRole creates the role "pod" for the namespace's service account "api".
func (n *namespace) podRole(more fields) {
	n.e.t.Helper()
	role := fields{
		"issuer": "cluster", "bound_audiences": nil, "user_claim": nil,
		"bound_service_account_names": "api", "bound_service_account_namespaces": n.name, "audience": "vault",
	}
	for name, value := range more {
		role[name] = value
	}
	n.e.role("pod", role)
}

// awaitRefusal logs in until it is refused: an API server believes a token that it
// reviewed for ten more seconds.
func (e *env) awaitRefusal(role, token, text string) {
	e.t.Helper()
	e.waitFor("the login to be refused", func() error {
		_, err := e.tryLogin(role, token, nil)
		if err == nil {
			return fmt.Errorf("the login succeeds")
		}
		e.isStatus(err, http.StatusForbidden, text)
		return nil
	})
}

// podRefused logs in with the role "pod" and is answered with the status that the Kubernetes method has
// for a refusal, and these texts.
func (e *env) podRefused(token string, texts ...string) {
	e.t.Helper()
	_, err := e.tryLogin("pod", token, nil)
	e.isStatus(err, http.StatusForbidden, texts...)
}

func TestAPodLogsInWithItsProjectedToken(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	n := e.namespace(sharedKubernetes(t), nil)
	uid := n.account("api", nil)
	n.account("web", nil)
	n.issuer(fields{"token_reviewer_jwt": n.reviewer()})
	n.podRole(fields{
		"user_name":     "{{metadata(service_account_namespace)}}-{{metadata(service_account_name)}}",
		"user_template": `{"pub":{"allow":["{{claim(/kubernetes.io/namespace)}}.{{claim(/kubernetes.io/pod/name)}}.>"]}}`,
	})

	pod := n.pod("api-1", "api")
	login := e.login("pod", n.token("api", "vault", pod))
	metadata := login.Auth.Metadata
	require.Equal(t, "api", metadata["service_account_name"])
	require.Equal(t, n.name, metadata["service_account_namespace"])
	require.Equal(t, uid, metadata["service_account_uid"])
	require.Contains(t, metadata, "service_account_secret_name")
	require.Equal(t, "issuer:cluster:"+uid, e.alias(login)["name"])
	workload := e.connect(login.Creds)
	workload.publishes(n.name + ".api-1.new")
	workload.mayNotPublish(n.name + ".api-2.new")

	e.loginRefused("pod", "", "jwt is missing")
	e.loginRefused("nobody", n.token("api", "vault", nil), "could not be found")
	e.podRefused(n.token("api", "other", nil), "aud")
	e.podRefused(n.token("api", "", nil), "aud") // for the API server itself
	e.podRefused(n.token("web", "vault", nil), "bound_service_account_names")
	e.podRefused(e.token(nil), "service account") // the default issuer's
	forged, err := n.cluster.SignToken([]byte(`{"aud":["vault"],"kubernetes.io":{"namespace":"` + n.name + `","serviceaccount":{"name":"api","uid":"other"}}}`))
	require.NoError(t, err)
	e.podRefused(forged, "token")

	n.issuer(fields{"pem_keys": n.cluster.SigningKeyPEM(), "disable_iss_validation": false, "issuer": stack.ServiceAccountIssuer})
	e.login("pod", n.token("api", "vault", pod))
	n.issuer(fields{"pem_keys": e.publicKeys()[0]})
	e.podRefused(n.token("api", "vault", pod), "signature")
	n.issuer(fields{"pem_keys": "", "issuer": ""})
	e.podRefused(n.token("api", "vault", pod), "iss")
}

func TestADeletedServiceAccountIsAnotherOneWhenItComesBack(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	n := e.namespace(sharedKubernetes(t), nil)
	n.account("api", nil)
	n.issuer(fields{"token_reviewer_jwt": n.reviewer()})
	policy := e.policy("reader", map[string]string{"creds/*": `"read"`})
	n.podRole(fields{"token_policies": policy})
	e.vaultRole("account", fields{
		"bound_issuers": "cluster", "user_name": "{{alias-metadata(service_account_name)}}",
		"user_template": `{"pub":{"allow":["k8s.{{alias-metadata(service_account_namespace)}}.{{alias-metadata(service_account_name)}}.>"]}}`,
	})
	e.vaultRole("uid", fields{"bound_issuers": "cluster", "user_template": `{"pub":{"allow":["uid.{{alias-metadata(service_account_uid)}}"]}}`})
	token := n.token("api", "vault", nil)
	first := e.login("pod", token)
	account := "k8s." + n.name + ".api.>"
	require.Equal(t, account, e.mayPublish(first.client, "account"))
	require.Equal(t, "uid."+first.Auth.Metadata["service_account_uid"], e.mayPublish(first.client, "uid"))

	n.deleteAccount("api")
	e.awaitRefusal("pod", token, "deleted")
	n.account("api", nil)
	e.podRefused(token, "token")
	second := e.login("pod", n.token("api", "vault", nil))
	require.NotEqual(t, first.Auth.EntityID, second.Auth.EntityID)
	require.Equal(t, "uid."+second.Auth.Metadata["service_account_uid"], e.mayPublish(second.client, "uid"))
	require.Equal(t, "uid."+first.Auth.Metadata["service_account_uid"], e.mayPublish(first.client, "uid"), "whoever holds its token is the one that was")

	// The name is inherited, and so does not tell which of them it is.
	n.podRole(fields{"token_policies": policy, "alias_name_source": "serviceaccount_name"})
	byName := e.login("pod", n.token("api", "vault", nil))
	require.Equal(t, "issuer:cluster:"+n.name+"/api", e.alias(byName)["name"])
	require.Equal(t, account, e.mayPublish(byName.client, "account"))
	e.readRefused(byName.client, "uid", "alias-metadata(service_account_uid)", "which one that is made anew inherits")
}

func TestATokenEndsWithThePodThatItIsBoundTo(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	n := e.namespace(sharedKubernetes(t), nil)
	n.account("api", nil)
	n.issuer(fields{"token_reviewer_jwt": n.reviewer()})
	n.podRole(nil)
	pod := n.pod("api-1", "api")
	token := n.token("api", "vault", pod)
	e.login("pod", token)

	require.NoError(t, n.client.CoreV1().Pods(n.name).Delete(e.ctx(), pod.Name, meta.DeleteOptions{}))
	e.awaitRefusal("pod", token, "deleted")
	e.login("pod", n.token("api", "vault", nil))
}

func TestANamespaceSelectorFollowsTheLabels(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	n := e.namespace(sharedKubernetes(t), map[string]string{"env": "test"})
	n.account("api", nil)
	reviewer := n.reviewer()
	n.issuer(fields{"token_reviewer_jwt": reviewer})
	n.podRole(fields{"bound_service_account_namespaces": nil, "bound_service_account_namespace_selector": `{"matchLabels":{"env":"prod"}}`})
	token := n.token("api", "vault", nil)
	e.podRefused(token, "namespace")

	label := func(env string) {
		patch := []byte(`{"metadata":{"labels":{"env":"` + env + `"}}}`)
		_, err := n.client.CoreV1().Namespaces().Patch(e.ctx(), n.name, types.MergePatchType, patch, meta.PatchOptions{})
		require.NoError(t, err)
	}
	label("prod")
	e.login("pod", token)
	label("test")
	e.podRefused(token, "namespace")
}

func TestAnnotationsBecomeMetadataOfTheAlias(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	n := e.namespace(sharedKubernetes(t), nil)
	n.account("api", map[string]string{"vault.hashicorp.com/alias-metadata-team": "orders", "example.com/team": "other"})
	reviewer := n.reviewer()
	n.issuer(fields{"token_reviewer_jwt": reviewer, "use_annotations_as_alias_metadata": true})
	n.podRole(nil)
	login := e.login("pod", n.token("api", "vault", nil))
	metadata := e.alias(login)["metadata"].(fields)
	require.Equal(t, "orders", metadata["team"])
	require.Equal(t, "api", metadata["service_account_name"])
	require.NotContains(t, metadata, "example.com/team")
	require.NotContains(t, login.Auth.Metadata, "team", "an annotation is for the alias, as in the Kubernetes method")

	n.deleteAccount("api")
	n.account("api", map[string]string{"vault.hashicorp.com/alias-metadata-service_account_name": "admin"})
	e.podRefused(n.token("api", "vault", nil), "service_account_name", "reserved")
}

func TestAWorkloadsOwnTokenReviewsItself(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	n := e.namespace(sharedKubernetes(t), nil)
	n.account("api", nil)
	n.issuer(nil)
	n.podRole(fields{"audience": nil})
	// Only a token for the API server itself authenticates to it.
	token := n.token("api", "", nil)
	e.podRefused(token, "token_reviewer_jwt")
	n.grant("api", "system:auth-delegator")
	e.waitFor("the API server to know of the grant", func() error {
		_, err := e.tryLogin("pod", token, nil)
		return err
	})
	e.podRefused(n.token("api", "vault", nil), "token")
}

// A server of its own, since the test stops it.
func TestLoginsReturnWithTheAPIServer(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	cluster, err := stack.StartKubernetes(buildContext(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Close()) })
	n := e.namespace(cluster, nil)
	n.account("api", nil)
	n.issuer(fields{"token_reviewer_jwt": n.reviewer()})
	n.podRole(nil)
	e.role("dev", nil)
	token := n.token("api", "vault", nil)
	e.login("pod", token)

	cluster.StopAPI()
	_, err = e.tryLogin("pod", token, nil)
	e.isStatus(err, http.StatusServiceUnavailable, `issuer "cluster" is unavailable`)
	require.NotContains(t, err.Error(), cluster.Host, "who logs in is not told where the API server is")
	e.login("dev", e.token(nil)) // another issuer's
	e.refused("issuer/cluster", fields{"use_annotations_as_alias_metadata": true}, "kubernetes_host")

	require.NoError(t, cluster.StartAPI(buildContext(t)))
	e.login("pod", token)
}
