package claims

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The reviewers of a cluster: what they may do with it.
const (
	reviewerToken  = "reviewer-token"
	powerlessToken = "powerless-token"
)

// A cluster stands in for a Kubernetes API server: it reviews tokens, and shows
// one service account and its namespace.
type cluster struct {
	*httptest.Server

	mu      sync.Mutex
	answer  authenticationv1.TokenReviewStatus // to every review
	account corev1.ServiceAccount
	labels  map[string]string
	fault   http.HandlerFunc // answers instead, if set
	// faultyPath is the only path for which it does; empty: for all.
	faultyPath string
	faults     int // how often it did
	// allowed are the bearer tokens that may review tokens and read objects.
	allowed []string

	bearers []string // of each request
	reviews []authenticationv1.TokenReviewSpec
}

// newCluster has the service account shop/api, whose token for the audience
// vault it finds good.
func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{
		answer: authenticationv1.TokenReviewStatus{
			Authenticated: true,
			Audiences:     []string{"vault"},
			User: authenticationv1.UserInfo{
				Username: "system:serviceaccount:shop:api",
				UID:      "uid-1",
				Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:shop"},
			},
		},
		account: corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api"}},
		allowed: []string{reviewerToken},
	}
	c.Server = httptest.NewTLSServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	c.bearers = append(c.bearers, bearer)
	switch {
	case c.fault != nil && (c.faultyPath == "" || c.faultyPath == r.URL.Path):
		c.faults++
		c.fault(w, r)
	case bearer == "" || strings.HasPrefix(bearer, "expired"):
		status(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized)
	case !slices.Contains(c.allowed, bearer):
		status(w, http.StatusForbidden, metav1.StatusReasonForbidden)
	case r.URL.Path == "/apis/authentication.k8s.io/v1/tokenreviews":
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			status(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
			return
		}
		c.reviews = append(c.reviews, review.Spec)
		review.Kind, review.APIVersion = "TokenReview", "authentication.k8s.io/v1"
		review.Status = c.answer
		object(w, http.StatusCreated, review)
	case r.URL.Path == "/api/v1/namespaces/shop/serviceaccounts/api":
		account := c.account
		account.Kind, account.APIVersion = "ServiceAccount", "v1"
		object(w, http.StatusOK, account)
	case r.URL.Path == "/api/v1/namespaces/shop":
		object(w, http.StatusOK, corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: c.labels},
		})
	default:
		status(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	}
}

func object(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(must(json.Marshal(value)))
}

func status(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	object(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason),
	})
}

// change changes the cluster while no request is under way.
func (c *cluster) change(f func(*cluster)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

// config configures the cluster as an issuer with its own reviewer.
func (c *cluster) config() KubernetesConfig {
	return KubernetesConfig{
		Name: "prod", Host: c.URL, CACert: certificatePEM(c.Certificate()), TokenReviewerJWT: reviewerToken,
		DisableISSValidation: true, DisableLocalCAJWT: true,
	}
}

// projected returns the payload of a projected token, as API servers make them.
func projected(changes map[string]any) map[string]any {
	claims := payload(map[string]any{
		"iss": "https://kubernetes.default.svc.cluster.local",
		"aud": []string{"vault"},
		"sub": "system:serviceaccount:shop:api",
		"kubernetes.io": map[string]any{
			"namespace":      "shop",
			"node":           map[string]any{"name": "node-1", "uid": "node-uid"},
			"pod":            map[string]any{"name": "api-5c9f", "uid": "pod-uid"},
			"serviceaccount": map[string]any{"name": "api", "uid": "uid-1"},
			"warnafter":      now.Unix() + 200,
		},
	})
	for name, value := range changes {
		if value == nil {
			delete(claims, name)
			continue
		}
		claims[name] = value
	}
	return claims
}

// legacy returns the payload of a token in a Secret.
func legacy() map[string]any {
	return map[string]any{
		"iss":                                    defaultKubernetesIssuer,
		"sub":                                    "system:serviceaccount:shop:api",
		"kubernetes.io/serviceaccount/namespace": "shop",
		"kubernetes.io/serviceaccount/secret.name":          "api-token-x7q",
		"kubernetes.io/serviceaccount/service-account.name": "api",
		"kubernetes.io/serviceaccount/service-account.uid":  "uid-1",
	}
}
