package roles

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// The metadata keys of a service account, as in the Kubernetes method.
const (
	metadataServiceAccountName       = "service_account_name"
	metadataServiceAccountNamespace  = "service_account_namespace"
	metadataServiceAccountUID        = "service_account_uid"
	metadataServiceAccountSecretName = "service_account_secret_name"
)

// compileKubernetes makes the bindings of the Kubernetes method ready.
func (c *Compiled) compileKubernetes() error {
	r := &c.role
	if len(r.BoundServiceAccountNames) == 0 {
		return badField("bound_service_account_names", "is required")
	}
	if len(r.BoundServiceAccountNamespaces) == 0 && r.BoundServiceAccountNamespaceSelector == "" {
		return badField("bound_service_account_namespaces", "is required, unless bound_service_account_namespace_selector is given")
	}
	for _, f := range []struct {
		name  string
		globs []string
	}{
		{"bound_service_account_names", r.BoundServiceAccountNames},
		{"bound_service_account_namespaces", r.BoundServiceAccountNamespaces},
	} {
		if len(f.globs) > 1 && slices.Contains(f.globs, "*") {
			return badField(f.name, `has "*" beside other values: it must stand alone`)
		}
		if slices.Contains(f.globs, "") {
			return badField(f.name, "has an empty value")
		}
	}
	everyNamespace := slices.ContainsFunc(r.BoundServiceAccountNamespaces, matchesAll)
	if r.BoundServiceAccountNamespaceSelector != "" {
		var err error
		if c.selector, err = parseSelector(r.BoundServiceAccountNamespaceSelector); err != nil {
			return err
		}
		everyNamespace = everyNamespace || c.selector.Empty()
	}
	everyName := slices.ContainsFunc(r.BoundServiceAccountNames, matchesAll)
	if everyName && everyNamespace && r.BoundExpression == "" && !r.TokenBoundCIDRs {
		return badField("bound_service_account_names", "takes every name and every namespace is bound: the role would take every service account of the cluster, "+
			"unless bound_expression or token_bound_cidrs bind it")
	}
	return nil
}

// matchesAll says whether the pattern leaves out nothing: it is *, or several.
func matchesAll(pattern string) bool { return pattern != "" && strings.Trim(pattern, "*") == "" }

// parseSelector parses a label selector, a JSON or YAML object. The Kubernetes
// method takes matchLabels only.
func parseSelector(source string) (labels.Selector, error) {
	const field = "bound_service_account_namespace_selector"
	var parsed metav1.LabelSelector
	if err := yaml.UnmarshalStrict([]byte(source), &parsed); err != nil {
		return nil, badField(field, "is not a label selector: %s", strings.TrimPrefix(err.Error(), "error unmarshaling JSON: "))
	}
	if parsed.MatchExpressions != nil {
		return nil, badField(field, "has matchExpressions: only matchLabels are supported")
	}
	selector, err := metav1.LabelSelectorAsSelector(&parsed)
	if err != nil {
		return nil, badField(field, "is not a label selector: %s", err)
	}
	return selector, nil
}

// selects says whether the role's namespace selector, if it has one, selects a
// namespace with the labels.
func (c *Compiled) selects(namespaceLabels map[string]string) bool {
	return c.selector != nil && c.selector.Matches(labels.Set(namespaceLabels))
}
