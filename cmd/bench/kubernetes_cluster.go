package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// A namespace is one of a cluster's, with a reviewer and the workloads that log in.
type namespace struct {
	cluster  *stack.Kubernetes
	client   *kubernetes.Clientset
	name     string
	reviewer string   // the token of one who may have tokens reviewed
	tokens   []string // of the service accounts api-0, api-1, ...
}

// reviews are how many token reviews each login took, by contender.
type reviews map[string][]float64

// newNamespace starts a cluster and makes so many service accounts in a namespace.
func newNamespace(ctx context.Context, accounts int) (n *namespace, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	n = &namespace{name: "shop"}
	if n.cluster, err = stack.StartKubernetes(ctx); err != nil {
		return nil, err
	}
	if err := n.fill(ctx, accounts); err != nil {
		return nil, errors.Join(err, n.cluster.Close())
	}
	return n, nil
}

func (n *namespace) fill(ctx context.Context, accounts int) (err error) {
	if n.client, err = kubernetes.NewForConfig(n.cluster.Admin); err != nil {
		return err
	}
	if _, err = n.client.CoreV1().Namespaces().Create(ctx, &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: n.name}}, meta.CreateOptions{}); err != nil {
		return err
	}
	if n.reviewer, err = n.account(ctx, "reviewer"); err != nil {
		return err
	}
	_, err = n.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbac.ClusterRoleBinding{
		ObjectMeta: meta.ObjectMeta{Name: "reviewer"},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects:   []rbac.Subject{{Kind: rbac.ServiceAccountKind, Namespace: n.name, Name: "reviewer"}},
	}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	n.tokens = make([]string, accounts)
	for i := range n.tokens {
		if n.tokens[i], err = n.account(ctx, fmt.Sprintf("api-%d", i), "vault"); err != nil {
			return err
		}
	}
	return nil
}

// account makes a service account and returns a token of it, as kubelet gives it to a
// pod, for some audiences or else for the API server itself.
func (n *namespace) account(ctx context.Context, name string, audiences ...string) (string, error) {
	accounts := n.client.CoreV1().ServiceAccounts(n.name)
	if _, err := accounts.Create(ctx, &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: name}}, meta.CreateOptions{}); err != nil {
		return "", err
	}
	life := int64(4 * time.Hour / time.Second)
	answer, err := accounts.CreateToken(ctx, name, &authentication.TokenRequest{
		Spec: authentication.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: &life},
	}, meta.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}

// reviewed is how many token reviews the API server has answered.
func (n *namespace) reviewed(ctx context.Context) (float64, error) {
	text, err := n.client.RESTClient().Get().AbsPath("/metrics").Stream(ctx)
	if err != nil {
		return 0, err
	}
	count, err := countReviews(text)
	return count, errors.Join(err, text.Close())
}

// countReviews finds the requests for token reviews in the API server's metrics:
//
//	apiserver_request_total{code="201",…,resource="tokenreviews",…,verb="POST",version="v1"} 7
func countReviews(metrics io.Reader) (count float64, err error) {
	lines := bufio.NewScanner(metrics)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "apiserver_request_total{") || !strings.Contains(line, `resource="tokenreviews"`) {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("%q: %w", line, err)
		}
		count += value
	}
	return count, lines.Err()
}
