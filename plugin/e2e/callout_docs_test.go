package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// The manifest is what a real API server takes as it stands, strictly.
func TestTheManifestOfTheCalloutIsTakenByKubernetes(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	n := e.namespace(sharedKubernetes(t), nil)
	raw, err := os.ReadFile("../../docs/callout.yaml")
	require.NoError(t, err)
	paths := map[string]string{
		"ServiceAccount":      "/api/v1/namespaces/%/serviceaccounts/",
		"Deployment":          "/apis/apps/v1/namespaces/%/deployments/",
		"PodDisruptionBudget": "/apis/policy/v1/namespaces/%/poddisruptionbudgets/",
	}
	documents := strings.Split(string(raw), "\n---\n")
	require.Len(t, documents, len(paths))
	for _, document := range documents {
		var object unstructured.Unstructured
		require.NoError(t, yaml.Unmarshal([]byte(document), &object.Object))
		require.Contains(t, paths, object.GetKind())
		body, err := json.Marshal(object.Object)
		require.NoError(t, err)
		answer, err := n.client.RESTClient().Patch(types.ApplyPatchType).
			AbsPath(strings.Replace(paths[object.GetKind()], "%", n.name, 1)+object.GetName()).
			Param("dryRun", "All").Param("fieldManager", "test").Param("fieldValidation", "Strict").Body(body).DoRaw(e.ctx())
		require.NoError(t, err, "%s: %s", object.GetKind(), answer)
	}
}

// The commands of docs/callout.md run as they stand, and with what they set up the
// responder answers, as the manifest has it run.
func TestTheCalloutGuideRunsAsItStands(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("dev", dev)
	cluster := sharedKubernetes(t)
	n := e.namespace(cluster, nil)
	n.reviewer()
	n.account("nats-callout", nil)
	n.issuer(fields{"token_reviewer_jwt": n.token("reviewer", "", nil)})
	dir := t.TempDir()
	guide := e.guide("callout.md", map[string]string{
		"policy write nats-callout":              "policy write " + e.mount + "-callout",
		"token_policies=nats-callout":            "token_policies=" + e.mount + "-callout",
		"bound_service_account_namespaces=nats":  "bound_service_account_namespaces=" + n.name,
		"-nats nats://nats:4222":                 "-nats " + e.nats.URL,
		"--server tls://nats:4222":               "--server " + e.nats.URL,
		"-jwt-file /var/run/secrets/vault/token": "-jwt-file " + filepath.Join(dir, "token"),
	})
	commands := guide.blocks("sh")
	for _, setUp := range commands[:3] {
		e.shell(dir, setUp)
	}
	text, err := os.ReadFile(filepath.Join(dir, "nats-server.conf"))
	require.NoError(t, err)
	require.NoError(t, e.nats.Start(e.ctx(), string(text)))
	require.NoError(t, e.nats.WaitForClient(e.ctx()))
	e.waitForDelivery("callout")
	e.waitForDelivery("orders")

	pod := n.pod("nats-callout-1", "nats-callout")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "token"), []byte(n.token("nats-callout", "vault", pod)), 0o600))
	program, err := stack.BuildCallout(buildContext(t), t.TempDir())
	require.NoError(t, err)
	run := strings.Fields(commands[3])
	require.Equal(t, "nats-callout", run[0])
	responder, err := stack.StartCallout(e.ctx(), stack.CalloutConfig{
		Program: program, Vault: e.vault, Mount: "auth/" + e.mount, Callout: "edge", NATS: e.nats.URL, Args: run[1:],
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, responder.Close()) })
	c := &callouts{env: e}
	orders := c.letsIn("dev", gitLab(nil)).subscribes("orders.shop.new")
	cli := guide.section(t, "Clients").subsection(t, "nats CLI").blocks("sh")
	require.Len(t, cli, 1)
	e.runJob(cli[0], fields{"CI_JOB_JWT": c.token(gitLab(nil))}, t.TempDir())
	message, err := orders.NextMsg(patience)
	require.NoError(t, err)
	require.Equal(t, "hello", string(message.Data))
	_, err = c.present("nats-callout", n.token("nats-callout", "vault", pod))
	require.Error(t, err, "the responder's own role is not among the callout's")
}
