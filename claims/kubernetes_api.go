package claims

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

const (
	// Where Kubernetes puts the token and the CA of a pod's service account.
	localTokenPath = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	localCAPath    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
	// localPeriod is how long their contents are used before they are read again.
	// Kubernetes recommends to re-read a token once a minute.
	localPeriod = time.Minute
	// apiTimeout bounds what is asked of the API server for one login, with the
	// time until it is its turn.
	apiTimeout = 10 * time.Second
	// maxAPIBody bounds an answer of the API server, in bytes. Objects in etcd
	// have 1.5 MiB at most.
	maxAPIBody = 2 << 20
)

// kubernetesAPI is an API server, and how it is reached.
type kubernetesAPI struct {
	host       string // a URL
	caCert     string
	reviewer   string       // token_reviewer_jwt
	localToken *rotatedFile // nil with disable_local_ca_jwt, as is localCA
	localCA    *rotatedFile

	mu      sync.Mutex
	current *connection // for the CA last used; nil before the first use
}

// A connection is a pool of connections that trust one set of CA certificates.
type connection struct {
	ca      string
	http    *http.Client
	reviews rest.Interface // of the API group with TokenReview
	core    rest.Interface // of the one with ServiceAccount and Namespace
}

func newKubernetesAPI(cfg *KubernetesConfig) (*kubernetesAPI, error) {
	server, err := parseAPIServer(cfg.Host)
	if err != nil {
		return nil, err
	}
	if err := parseCACert(cfg.CACert); err != nil {
		return nil, err
	}
	api := &kubernetesAPI{host: server.String(), caCert: cfg.CACert, reviewer: strings.TrimSpace(cfg.TokenReviewerJWT)}
	if !cfg.DisableLocalCAJWT {
		api.localToken = &rotatedFile{path: localTokenPath}
		api.localCA = &rotatedFile{path: localCAPath}
	}
	return api, nil
}

// connect returns a connection with the CA certificates that hold now.
func (api *kubernetesAPI) connect() (*connection, error) {
	ca := api.caCert
	if ca == "" && api.localCA != nil {
		var err error
		if ca, err = api.localCA.read(time.Now()); err != nil {
			return nil, fmt.Errorf("kubernetes_ca_cert is not set, nor disable_local_ca_jwt, and the pod's own CA cannot be read: %w", err)
		}
	}
	api.mu.Lock()
	defer api.mu.Unlock()
	if api.current != nil && api.current.ca == ca {
		return api.current, nil
	}
	c, err := newConnection(api.host, ca)
	if err != nil {
		return nil, err
	}
	if api.current != nil {
		api.current.close()
	}
	api.current = c
	return c, nil
}

func newConnection(host, ca string) (*connection, error) {
	config := &rest.Config{
		Host: host,
		// What proxies in front of an API server understand, too.
		ContentConfig:             rest.ContentConfig{ContentType: runtime.ContentTypeJSON, AcceptContentTypes: runtime.ContentTypeJSON},
		TLSClientConfig:           rest.TLSClientConfig{CAData: []byte(ca)},
		QPS:                       -1,                // Vault has its own rate limits
		WarningHandlerWithContext: rest.NoWarnings{}, // they are about our API version
		WrapTransport:             func(base http.RoundTripper) http.RoundTripper { return bearer{base} },
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubernetes_host, kubernetes_ca_cert: %w", err)
	}
	// A token is for this host only: it must not follow a redirect elsewhere.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	reviews, err := authenticationclient.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("kubernetes_host: %w", err)
	}
	core, err := coreclient.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("kubernetes_host: %w", err)
	}
	return &connection{ca: ca, http: client, reviews: reviews.RESTClient(), core: core.RESTClient()}, nil
}

func (c *connection) close() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }

func (api *kubernetesAPI) close() {
	api.mu.Lock()
	defer api.mu.Unlock()
	if api.current != nil {
		api.current.close()
	}
}

// check asks for the review of a token that is none.
func (api *kubernetesAPI) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	s, err := api.session("")
	if err != nil {
		return err
	}
	s.token = "none"
	_, err = s.review(ctx, nil)
	refused, forbidden := refusal(err)
	switch {
	case s.own && (refused || forbidden):
		return nil // it is there, and does not talk to strangers
	case refused:
		return errors.New("token_reviewer_jwt is refused by the API server")
	case forbidden:
		return errors.New("token_reviewer_jwt may not create token reviews: its service account needs the ClusterRole system:auth-delegator")
	case err != nil:
		return fmt.Errorf("kubernetes_host: %w", err)
	}
	return nil
}

// A session asks the API server about one token.
type session struct {
	*connection
	token  string // what is asked about
	bearer string // what authenticates us
	own    bool   // bearer is token
}

// session authenticates with token_reviewer_jwt, the pod's own token, or else
// with the token itself.
func (api *kubernetesAPI) session(token string) (*session, error) {
	c, err := api.connect()
	if err != nil {
		return nil, err
	}
	reviewer := api.reviewer
	if reviewer == "" && api.localToken != nil {
		// Outside of a pod there is no such file.
		reviewer, _ = api.localToken.read(time.Now())
	}
	if reviewer == "" {
		return &session{connection: c, token: token, bearer: token, own: true}, nil
	}
	return &session{connection: c, token: token, bearer: reviewer}, nil
}

func (s *session) review(ctx context.Context, aud []string) (*authenticationv1.TokenReviewStatus, error) {
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: s.token, Audiences: aud}}
	var answer authenticationv1.TokenReview
	err := s.do(ctx, s.reviews.Post().Resource("tokenreviews").Body(review), &answer)
	return &answer.Status, err
}

func (s *session) annotations(ctx context.Context, namespace, name string) (map[string]string, error) {
	var account corev1.ServiceAccount
	err := s.do(ctx, s.core.Get().Namespace(namespace).Resource("serviceaccounts").Name(name), &account)
	return account.Annotations, err
}

func (s *session) namespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	var namespace corev1.Namespace
	err := s.do(ctx, s.core.Get().Resource("namespaces").Name(name), &namespace)
	return namespace.Labels, err
}

// do makes a request once. client-go would repeat it up to ten times, as long
// after as the server says, while the login waits; who logs in can try again, and
// knows better for how long. What client-go would log of the request it returns,
// too, as an error that is logged where it belongs.
func (s *session) do(ctx context.Context, request *rest.Request, answer runtime.Object) error {
	ctx = context.WithValue(ctx, bearerKey{}, s.bearer)
	return request.MaxRetries(0).Do(klog.NewContext(ctx, klog.Logger{})).Into(answer)
}

// refusal tells whether the API server does not take the bearer token, or does
// not let its owner do what was asked.
func refusal(err error) (refused, forbidden bool) {
	return apierrors.IsUnauthorized(err), apierrors.IsForbidden(err)
}

// bearerKey is the key of a request's bearer token in its context: with it, all
// logins share one client and its connections, whatever token they use.
type bearerKey struct{}

// bearer is a transport that authenticates a request with the bearer token in
// its context, and bounds the answer.
type bearer struct{ base http.RoundTripper }

// RoundTrip is of http.RoundTripper.
func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	if token, _ := request.Context().Value(bearerKey{}).(string); token != "" {
		request = request.Clone(request.Context())
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := b.base.RoundTrip(request)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxAPIBody)
	}
	return response, err
}

// WrappedRoundTripper lets apimachinery find the transport to close.
func (b bearer) WrappedRoundTripper() http.RoundTripper { return b.base }

// A rotatedFile is a file that is replaced from time to time.
type rotatedFile struct {
	path string

	mu   sync.Mutex
	text string
	next time.Time // when to read it again
}

// read returns the file's content without surrounding white space.
func (f *rotatedFile) read(now time.Time) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Before(f.next) {
		return f.text, nil
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return "", err
	}
	f.text, f.next = strings.TrimSpace(string(data)), now.Add(localPeriod)
	return f.text, nil
}
