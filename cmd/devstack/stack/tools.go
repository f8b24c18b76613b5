package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ModulePath is the module that this package belongs to.
const ModulePath = "github.com/nats-vault/vault-plugin-auth-nats"

// A Tool is a program that is not part of this module: a server that the tests
// talk to, or one that checks the code.
type Tool struct {
	// Name is the program's name on PATH.
	Name string
	// Env names the environment variable whose value, a path, is used in place of
	// everything else, whatever its version.
	Env string
	// Why says what needs the tool, for the line that announces a build.
	Why string
	// Minutes is about how long a build takes on two cores with nothing cached.
	Minutes int

	dir         string   // of the nested module that pins it, below the repository's root
	pkg         string   // the main package
	module      string   // the module whose version in go.mod is the tool's
	min         version  // the oldest version on PATH that will do
	exact       bool     // only the pinned version will do
	versionArgs []string // print the version
	ldflags     string   // %s is the version
	tags        string   // what of the pinned module is built

	// install is the line that gets a version of it from those who make it.
	install func(version string) string

	// standIns are the nested module's files by those of the pinned module whose place they take, where that has
	// much in it that takes long to build and is not run. The program is built from a copy of the module then.
	standIns map[string]string
}

// The tools that Path finds or builds.
var (
	VaultTool = Tool{
		Name: "vault", Env: "VAULT_BIN", Why: "the plugin runs in it", Minutes: 8,
		dir: "testdata/servers/vault", pkg: "github.com/hashicorp/vault", module: "github.com/hashicorp/vault",
		min: version{1, 20, 0}, versionArgs: []string{"version"},
		// Without the plugins and the storage of databases and clouds, which are half of what there is to compile. What
		// is left are approle, cert, jwt, oidc and userpass, kv, pki, ssh and transit, and storage in memory and on Raft.
		tags: "minimal", install: installVault,
	}
	NATSTool = Tool{
		Name: "nats-server", Env: "NATS_SERVER_BIN", Why: "workloads connect to it", Minutes: 1,
		dir: "testdata/servers/nats-server", pkg: "github.com/nats-io/nats-server/v2", module: "github.com/nats-io/nats-server/v2",
		min: version{2, 12, 0}, versionArgs: []string{"--version"},
	}
	KubeAPIServerTool = Tool{
		Name: "kube-apiserver", Env: "KUBE_APISERVER_BIN", Why: "the tests of Kubernetes logins ask it", Minutes: 6,
		dir: "testdata/servers/kube-apiserver", pkg: "k8s.io/kubernetes/cmd/kube-apiserver", module: "k8s.io/kubernetes",
		min: version{1, 32, 0}, versionArgs: []string{"--version"},
		ldflags: "-X k8s.io/component-base/version.gitVersion=%s",
	}
	EtcdTool = Tool{
		Name: "etcd", Env: "ETCD_BIN", Why: "kube-apiserver stores in it", Minutes: 1,
		dir: "testdata/servers/etcd", pkg: "go.etcd.io/etcd/server/v3", module: "go.etcd.io/etcd/server/v3",
		min: version{3, 5, 0}, versionArgs: []string{"--version"},
	}
	NATSCLITool = Tool{
		Name: "nats", Env: "NATS_BIN", Why: "the pipelines of docs/ci.md run it", Minutes: 2,
		dir: "testdata/tools/nats", pkg: "github.com/nats-io/natscli/nats", module: "github.com/nats-io/natscli",
		min: version{0, 2, 0}, versionArgs: []string{"--version"}, ldflags: "-X main.version=%s",
	}
	TerraformTool = Tool{
		Name: "vault-terraform", Env: "VAULT_TERRAFORM_BIN", Why: "the configuration of docs/terraform.md is applied with it", Minutes: 2,
		dir: "testdata/tools/terraform", pkg: ".", module: "github.com/terraform-providers/terraform-provider-vault",
		exact: true, versionArgs: []string{"-version"},
	}
	ExternalSecretsTool = Tool{
		Name: "external-secrets", Env: "EXTERNAL_SECRETS_BIN", Why: "the manifests of docs/kubernetes.md are applied to it", Minutes: 5,
		dir: "testdata/tools/external-secrets", pkg: ".", module: "github.com/external-secrets/external-secrets",
		exact: true, versionArgs: []string{"--version"},
		standIns: map[string]string{
			"pkg/provider/register/register.go":  "providers.go",
			"pkg/generator/register/register.go": "generators.go",
		},
	}
	PromtoolTool = Tool{
		Name: "promtool", Env: "PROMTOOL_BIN", Why: "it checks metrics, alert rules and the dashboard", Minutes: 4,
		dir: "testdata/tools/prometheus", pkg: "github.com/prometheus/prometheus/cmd/promtool", module: "github.com/prometheus/prometheus",
		exact: true, versionArgs: []string{"--version"}, ldflags: "-X github.com/prometheus/common/version.Version=%s",
		tags: "remove_all_sd", // a fifth of what there is to compile asks clouds what there is to scrape
	}
	PrometheusTool = Tool{
		Name: "prometheus", Env: "PROMETHEUS_BIN", Why: "it scrapes metrics, and alerts fire in it", Minutes: 3, // after promtool
		dir: PromtoolTool.dir, pkg: "github.com/prometheus/prometheus/cmd/prometheus", module: PromtoolTool.module,
		exact: true, versionArgs: PromtoolTool.versionArgs, ldflags: PromtoolTool.ldflags, tags: PromtoolTool.tags,
	}
	LintTool = Tool{
		Name: "golangci-lint", Env: "GOLANGCI_LINT_BIN", Why: "it checks the code", Minutes: 4,
		dir: "testdata/tools/golangci-lint", pkg: "github.com/golangci/golangci-lint/v2/cmd/golangci-lint", module: "github.com/golangci/golangci-lint/v2",
		exact: true, versionArgs: []string{"version"}, ldflags: "-X main.version=%s",
	}
	ActionlintTool = Tool{
		Name: "actionlint", Env: "ACTIONLINT_BIN", Why: "it checks the workflows", Minutes: 1,
		dir: "testdata/tools/actionlint", pkg: "github.com/rhysd/actionlint/cmd/actionlint", module: "github.com/rhysd/actionlint",
		exact: true, versionArgs: []string{"-version"}, ldflags: "-X github.com/rhysd/actionlint.version=%s",
	}
	GoreleaserTool = Tool{
		Name: "goreleaser", Env: "GORELEASER_BIN", Why: "it makes releases", Minutes: 6,
		dir: "testdata/tools/goreleaser", pkg: "github.com/goreleaser/goreleaser/v2", module: "github.com/goreleaser/goreleaser/v2",
		exact: true, versionArgs: []string{"--version"}, ldflags: "-X main.version=%s",
	}
	SyftTool = Tool{
		Name: "syft", Env: "SYFT_BIN", Why: "it lists what releases are made of", Minutes: 5,
		dir: "testdata/tools/syft", pkg: "github.com/anchore/syft/cmd/syft", module: "github.com/anchore/syft",
		exact: true, versionArgs: []string{"version"}, ldflags: "-X main.version=%s",
	}
)

// Tools lists all of them, those first that the demo needs.
var Tools = []Tool{VaultTool, NATSTool, KubeAPIServerTool, EtcdTool, NATSCLITool, TerraformTool, ExternalSecretsTool, PromtoolTool, PrometheusTool, LintTool, ActionlintTool}

// ReleaseTools lists those that only a release needs, which take long to build.
var ReleaseTools = []Tool{GoreleaserTool, SyftTool}

// Path returns where the tool's program is, and builds it when there is none.
// A build may take minutes: it says so on standard error.
func (t Tool) Path(ctx context.Context) (string, error) {
	p, err := t.pin()
	if err != nil {
		return "", err
	}
	path, reason, err := t.find(ctx, p)
	if err != nil || path != "" {
		return path, err
	}
	return t.build(ctx, p, reason)
}

// Found says whether Path would build nothing.
func (t Tool) Found(ctx context.Context) (bool, error) {
	p, err := t.pin()
	if err != nil {
		return false, err
	}
	path, _, err := t.find(ctx, p)
	if err != nil || path != "" {
		return err == nil, err
	}
	built, err := t.cached(p)
	return isProgram(built), err
}

// A pin is the nested module that pins a tool, and the version that it pins.
type pin struct{ moduleDir, version string }

func (t Tool) pin() (pin, error) {
	root, err := Root()
	if err != nil {
		return pin{}, err
	}
	p := pin{moduleDir: filepath.Join(root, t.dir)}
	if p.version, err = pinnedVersion(filepath.Join(p.moduleDir, "go.mod"), t.module); err != nil {
		return pin{}, fmt.Errorf("%s: %w", t.Name, err)
	}
	return p, nil
}

// find returns where the program is that need not be built, or why none will do.
func (t Tool) find(ctx context.Context, p pin) (path, reason string, err error) {
	if path := os.Getenv(t.Env); path != "" {
		abs, err := exec.LookPath(path)
		if err != nil {
			return "", "", fmt.Errorf("%s: %w", t.Env, err)
		}
		abs, err = filepath.Abs(abs)
		return abs, "", err
	}
	reason = "it is not on PATH"
	if onPath, err := exec.LookPath(t.Name); err == nil {
		found, err := t.versionOf(ctx, onPath)
		switch {
		case err != nil:
			reason = fmt.Sprintf("the one on PATH does not say its version (%v)", err)
		case t.accepts(found, p.version):
			path, err = filepath.Abs(onPath)
			return path, "", err
		default:
			reason = fmt.Sprintf("the one on PATH is %s", found)
		}
	}
	return "", reason, nil
}

// accepts says whether a program of this version can stand in for the pinned one.
func (t Tool) accepts(found version, pinned string) bool {
	want, err := parseVersion(pinned)
	if err != nil {
		return false
	}
	if t.exact {
		return found == want
	}
	return found[0] == want[0] && !found.less(t.min)
}

// versionOf asks a program for its version.
func (t Tool) versionOf(ctx context.Context, path string) (version, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, t.versionArgs...).Output()
	if err != nil {
		return version{}, err
	}
	return parseVersion(string(out))
}

// A version is major, minor and patch.
type version [3]int

func (v version) String() string { return fmt.Sprintf("v%d.%d.%d", v[0], v[1], v[2]) }

func (v version) less(other version) bool {
	for i := range v {
		if v[i] != other[i] {
			return v[i] < other[i]
		}
	}
	return false
}

var versionPattern = regexp.MustCompile(`\b[vV]?(\d+)\.(\d+)\.(\d+)\b`)

// parseVersion returns the first version in a text, such as "Vault v1.21.1 (...)".
func parseVersion(text string) (version, error) {
	match := versionPattern.FindStringSubmatch(text)
	if match == nil {
		return version{}, fmt.Errorf("no version in %q", strings.TrimSpace(text))
	}
	var v version
	for i, digits := range match[1:] {
		n, err := strconv.Atoi(digits)
		if err != nil {
			return version{}, err
		}
		v[i] = n
	}
	return v, nil
}

// pinnedVersion reads from a go.mod which version of a module it requires.
func pinnedVersion(gomod, module string) (string, error) {
	file, err := os.Open(gomod)
	if err != nil {
		return "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(lines.Text()), "require "))
		if len(fields) >= 2 && fields[0] == module && strings.HasPrefix(fields[1], "v") {
			return fields[1], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", fmt.Errorf("%s does not require %s", gomod, module)
}

// Root returns the repository's root: the folder, at or above the working one,
// whose go.mod is this module's.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.Contains(string(text), "module "+ModulePath+"\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside a clone of " + ModulePath)
		}
		dir = parent
	}
}
