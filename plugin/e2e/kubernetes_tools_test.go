package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	authentication "k8s.io/api/authentication/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
)

// kubernetesPage is docs/kubernetes.md with its commands run, for a namespace that has the service account
// api. What its role for reads gives lives for seconds, so that Agent is seen to replace it.
type kubernetesPage struct {
	guide
	*namespace
	subject string // of the service account
}

func (e *env) kubernetesPage() *kubernetesPage {
	e.t.Helper()
	n := e.namespace(sharedKubernetes(e.t), nil)
	n.account("api", nil)
	dir := e.t.TempDir()
	for name, text := range map[string]string{"ca.pem": n.cluster.CACert, "reviewer.jwt": n.reviewer()} {
		require.NoError(e.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	p := &kubernetesPage{namespace: n, subject: "orders." + n.name + ".api.new"}
	p.guide = e.guide("kubernetes.md", map[string]string{
		"https://kubernetes.example.com:6443": n.cluster.Host,
		"https://vault.example.com:8200":      e.vault.Addr, "nats://nats.example.com:4222": e.nats.URL,
		"policy write nats-service": "policy write " + e.mount, "token_policies=nats-service": "token_policies=" + e.mount,
		"namespaces=shop": "namespaces=" + n.name, "namespace: shop": "namespace: " + n.name, "orders.shop.api": "orders." + n.name + ".api",
		"mountPath: nats\n": "mountPath: " + e.mount + "\n", "mount: nats\n": "mount: " + e.mount + "\n",
		"vaultAuthMountPath: nats": "vaultAuthMountPath: " + e.mount, "user_ttl=1h": "user_ttl=8s",
	})
	for _, block := range p.blocks("sh") {
		e.shell(dir, block)
	}
	return p
}

// objects are the manifests of a section, by their kinds.
func (p *kubernetesPage) objects(t *testing.T, section string) map[string]fields {
	t.Helper()
	blocks := p.section(t, section).blocks("yaml")
	require.Len(t, blocks, 1)
	objects := map[string]fields{}
	for _, text := range strings.Split(blocks[0], "\n---\n") {
		var object fields
		require.NoError(t, yaml.Unmarshal([]byte(text), &object))
		require.Equal(t, p.name, at(t, object, "metadata", "namespace"))
		objects[object["kind"].(string)] = object
	}
	return objects
}

// accepted has the API server take the one manifest of a section, without a field that it does not know.
func (p *kubernetesPage) accepted(e *env, client rest.Interface, resource, section string) fields {
	e.t.Helper()
	text := p.section(e.t, section).blocks("yaml")[0]
	require.NoError(e.t, client.Post().Namespace(p.name).Resource(resource).Param("fieldValidation", "Strict").
		SetHeader("Content-Type", "application/yaml").Body([]byte(text)).Do(e.ctx()).Error())
	var object fields
	require.NoError(e.t, yaml.Unmarshal([]byte(text), &object))
	return object
}

// tokenOf asks for a token of the service account, as kubelet and the operators do.
func (p *kubernetesPage) tokenOf(e *env, account any, seconds int64, audiences ...any) string {
	e.t.Helper()
	spec := authentication.TokenRequestSpec{ExpirationSeconds: &seconds}
	for _, audience := range audiences {
		spec.Audiences = append(spec.Audiences, audience.(string))
	}
	answer, err := p.client.CoreV1().ServiceAccounts(p.name).CreateToken(e.ctx(), account.(string),
		&authentication.TokenRequest{Spec: spec}, meta.CreateOptions{})
	require.NoError(e.t, err)
	return answer.Status.Token
}

// projected writes the token of a pod's projected volume into a file, and returns where.
func (p *kubernetesPage) projected(e *env, pod fields, volume int) string {
	e.t.Helper()
	source := at(e.t, pod, "volumes", volume, "projected", "sources", 0, "serviceAccountToken").(fields)
	require.Equal(e.t, "token", source["path"])
	file := filepath.Join(e.t.TempDir(), "token")
	token := p.tokenOf(e, pod["serviceAccountName"], source["expirationSeconds"].(int64), source["audience"])
	require.NoError(e.t, os.WriteFile(file, []byte(token), 0o600))
	return file
}

// The tools of docs/kubernetes.md, on a real Vault, nats-server and kube-apiserver.
func TestWorkloadsInKubernetesGetWhatTheirServiceAccountMay(t *testing.T) {
	t.Parallel()
	e := start(t)
	p := e.kubernetesPage()
	t.Run("Vault Agent injector", func(t *testing.T) { testAgentInjector(e.in(t), p) })
	e.write("role/service", fields{"user_ttl": "1h"}) // as the page has it
	for section, test := range map[string]func(e *env, p *kubernetesPage){
		"A job":                      testJob,
		"External Secrets":           testExternalSecrets,
		"Vault Secrets Operator":     testVaultSecretsOperator,
		"Secrets Store CSI provider": testCSIProvider,
		"another service account":    testOtherServiceAccounts,
	} {
		t.Run(section, func(t *testing.T) {
			t.Parallel()
			test(e.in(t), p)
		})
	}
}

func testJob(e *env, p *kubernetesPage) {
	job := p.accepted(e, p.client.BatchV1().RESTClient(), "jobs", "A job")
	pod := at(e.t, job, "spec", "template", "spec").(fields)
	variables := fields{}
	for _, variable := range at(e.t, pod, "containers", 0, "env").([]any) {
		variables[variable.(fields)["name"].(string)] = variable.(fields)["value"]
	}
	require.Equal(e.t, []any{"sh", "-ec"}, at(e.t, pod, "containers", 0, "command").([]any)[:2])
	require.Equal(e.t, "/var/run/secrets/vault", at(e.t, pod, "containers", 0, "volumeMounts", 1, "mountPath"))
	commands := strings.ReplaceAll(at(e.t, pod, "containers", 0, "command", 2).(string), "/var/run/secrets/vault/token", p.projected(e, pod, 1))

	e.role("watcher", fields{"user_template": `{"sub":{"allow":["orders.>"]}}`})
	orders := e.connect(e.login("watcher", e.token(nil)).Creds).subscribes("orders." + p.name + ".api.report")
	e.runJob(commands, variables, e.t.TempDir())
	message, err := orders.NextMsg(patience)
	require.NoError(e.t, err)
	require.Equal(e.t, "two apples", string(message.Data))
}

// testAgentInjector runs the Agent that the injector would, with the configuration that it makes of the
// annotations (vault-k8s, agent-inject/agent/config.go).
func testAgentInjector(e *env, p *kubernetesPage) {
	deployment := p.accepted(e, p.client.AppsV1().RESTClient(), "deployments", "Vault Agent injector")
	pod := at(e.t, deployment, "spec", "template").(fields)
	annotations := at(e.t, pod, "metadata", "annotations").(fields)
	annotation := func(name string) string {
		return at(e.t, annotations, "vault.hashicorp.com/"+name).(string)
	}
	require.Equal(e.t, annotation("agent-service-account-token-volume-name"), at(e.t, pod, "spec", "volumes", 0, "name"))
	dir := e.t.TempDir()
	creds := filepath.Join(dir, "nats.creds")
	config, err := json.Marshal(fields{
		"pid_file": filepath.Join(dir, ".pid"), "exit_after_auth": false, "vault": fields{"address": e.vault.Addr},
		"auto_auth": fields{
			"method": fields{"type": "kubernetes", "mount_path": annotation("auth-path"), "config": fields{
				"role": annotation("role"), "token_path": p.projected(e, pod["spec"].(fields), 0),
			}},
			"sink": []fields{{"type": "file", "config": fields{"path": filepath.Join(dir, ".vault-token")}}},
		},
		"template": []fields{{
			"destination": creds, "contents": annotation("agent-inject-template-nats.creds"),
			"left_delimiter": "{{", "right_delimiter": "}}", "perms": annotation("agent-inject-perms-nats.creds"),
		}},
		"template_config": fields{"exit_on_retry_failure": true},
	})
	require.NoError(e.t, err)
	e.startAgent(dir, string(config))

	var first []byte
	renewed := func() error {
		now, err := os.ReadFile(creds)
		switch {
		case err != nil:
			return err
		case string(now) == string(first):
			return errors.New("the file is as it was")
		}
		first = now
		return nil
	}
	for _, what := range []string{"the creds file", "the next creds file"} {
		e.waitFor(what, renewed)
		e.connect(string(first)).publishes(p.subject)
	}
}

// testVaultSecretsOperator makes the operator's requests (vault-secrets-operator 1.x,
// controllers/vaultdynamicsecret_controller.go): it reads anew when a renewal is shorter than the lease was.
func testVaultSecretsOperator(e *env, p *kubernetesPage) {
	objects := p.objects(e.t, "Vault Secrets Operator")
	auth, secret := at(e.t, objects["VaultAuth"], "spec").(fields), at(e.t, objects["VaultDynamicSecret"], "spec").(fields)
	require.Equal(e.t, at(e.t, objects["VaultAuth"], "metadata", "name"), secret["vaultAuthRef"])
	require.Equal(e.t, at(e.t, objects["VaultConnection"], "metadata", "name"), auth["vaultConnectionRef"])
	vault := at(e.t, objects["VaultConnection"], "spec", "address").(string)
	jwt := p.tokenOf(e, at(e.t, auth, "kubernetes", "serviceAccount"), 600, at(e.t, auth, "kubernetes", "audiences").([]any)...)
	from := secret["mount"].(string) + "/" + secret["path"].(string)
	token, answer := e.readBy(goLibrary, vault, auth["mount"].(string), at(e.t, auth, "kubernetes", "role").(string), jwt, from)
	e.connect(at(e.t, answer, "data", "creds").(string)).publishes(p.subject)
	require.Equal(e.t, true, answer["renewable"], "the operator looks after renewable leases only")

	e.waitFor("a renewal that is shorter than the lease", func() error {
		renewal := e.request(goLibrary, http.MethodPut, vault+"/v1/sys/leases/renew", token,
			fields{"lease_id": answer["lease_id"], "increment": answer["lease_duration"]})
		if renewal["lease_duration"].(float64) >= answer["lease_duration"].(float64) {
			return fmt.Errorf("renewed for %v s", renewal["lease_duration"])
		}
		return nil
	})
	again := e.request(goLibrary, http.MethodGet, vault+"/v1/"+from, token, nil)
	require.NotEqual(e.t, answer["lease_id"], again["lease_id"])
	e.connect(at(e.t, again, "data", "creds").(string)).publishes(p.subject)
}

// testCSIProvider makes the provider's requests (vault-csi-provider, internal/client).
func testCSIProvider(e *env, p *kubernetesPage) {
	parameters := at(e.t, p.objects(e.t, "Secrets Store CSI provider")["SecretProviderClass"], "spec", "parameters").(fields)
	var objects []fields
	require.NoError(e.t, yaml.Unmarshal([]byte(parameters["objects"].(string)), &objects))
	jwt := p.tokenOf(e, "api", 900, parameters["audience"])
	_, answer := e.readBy(csiProvider, parameters["vaultAddress"].(string), parameters["vaultAuthMountPath"].(string),
		parameters["roleName"].(string), jwt, objects[0]["secretPath"].(string))
	e.connect(at(e.t, answer, "data", objects[0]["secretKey"]).(string)).publishes(p.subject)
}

// Another service account of the namespace gets its own subjects, with dots escaped, and one of another
// namespace nothing.
func testOtherServiceAccounts(e *env, p *kubernetesPage) {
	p.account("web.shop", nil)
	_, answer := e.readBy(goLibrary, e.vault.Addr, e.mount, "pod", p.tokenOf(e, "web.shop", 600, "vault"), e.path("creds/service"))
	web := e.connect(at(e.t, answer, "data", "creds").(string))
	web.publishes("orders." + p.name + ".web%2Eshop.new")
	web.mayNotPublish(p.subject)
	require.Equal(e.t, p.name+":web%2Eshop", e.user(at(e.t, answer, "data", "jwt").(string)).Name)

	other := e.namespace(p.cluster, nil)
	other.account("api", nil)
	e.podRefused(other.token("api", "vault", nil), "namespace")
}
