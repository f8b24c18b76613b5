package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/require"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// startExternalSecrets installs the kinds of External Secrets, and runs its controller for the namespace until the
// test ends.
func (p *kubernetesPage) startExternalSecrets(e *env) {
	e.t.Helper()
	dir, err := stack.ExternalSecretsCRDs(buildContext(e.t))
	require.NoError(e.t, err)
	for _, kind := range []string{
		"external-secrets.io_externalsecrets", "external-secrets.io_secretstores",
		"generators.external-secrets.io_vaultdynamicsecrets", "generators.external-secrets.io_generatorstates",
	} {
		text, err := os.ReadFile(filepath.Join(dir, kind+".yaml"))
		require.NoError(e.t, err)
		p.apply(e, string(text))
	}
	controller, err := stack.StartExternalSecrets(buildContext(e.t), p.cluster, p.name)
	require.NoError(e.t, err)
	e.t.Cleanup(func() {
		if e.t.Failed() {
			e.t.Logf("the log of External Secrets:\n%s", controller.Log())
		}
		require.NoError(e.t, controller.Close())
	})
}

// apply has the API server take manifests, without a field that it does not know. A kind that was just made is
// waited for.
func (p *kubernetesPage) apply(e *env, manifests string) {
	e.t.Helper()
	for _, text := range strings.Split(manifests, "\n---\n") {
		var object meta.PartialObjectMetadata
		require.NoError(e.t, yaml.Unmarshal([]byte(text), &object))
		path := "/apis/" + object.APIVersion
		if object.Namespace != "" {
			path += "/namespaces/" + object.Namespace
		}
		path += "/" + strings.ToLower(object.Kind) + "s/" + object.Name
		e.waitFor(object.Kind+" to be taken", func() error {
			return p.client.RESTClient().Patch(types.ApplyPatchType).AbsPath(path).
				Param("fieldManager", "test").Param("fieldValidation", "Strict").Body([]byte(text)).Do(e.ctx()).Error()
		})
	}
}

// secret waits until the file of a Secret has other credentials than before, and returns them.
func (p *kubernetesPage) secret(e *env, name, file, before string) (creds string) {
	e.t.Helper()
	e.waitFor("the Secret "+name, func() error {
		secret, err := p.client.CoreV1().Secrets(p.name).Get(e.ctx(), name, meta.GetOptions{})
		if err != nil {
			return err
		}
		if creds = string(secret.Data[file]); creds == before {
			return errors.New("it is as it was")
		}
		return nil
	})
	return creds
}

// testExternalSecrets applies the page's manifests for the operator's real controller.
func testExternalSecrets(e *env, p *kubernetesPage) {
	p.startExternalSecrets(e)
	blocks := p.section(e.t, "External Secrets").blocks("yaml")
	require.Len(e.t, blocks, 2)
	for i, text := range blocks {
		require.Contains(e.t, text, "refreshInterval: 30m\n", "half of the credentials' hour")
		blocks[i] = strings.ReplaceAll(text, "refreshInterval: 30m\n", "refreshInterval: 2s\n")
	}
	testVaultDynamicSecret(e, p, blocks[0])
	testSecretStore(e, p, blocks[1])
}

func testVaultDynamicSecret(e *env, p *kubernetesPage, manifests string) {
	p.apply(e, manifests)
	creds := p.secret(e, "nats", "creds", "")
	before := e.connect(creds)
	before.publishes(p.subject)
	e.connect(p.secret(e, "nats", "creds", creds)).publishes(p.subject)
	before.publishes(p.subject) // until it ends by itself
}

// testSecretStore looks last at what the page warns of: a store whose tokens can be revoked, which the operator does
// when it has read. In this order no credentials of that store are left to be taken for those of the page's.
func testSecretStore(e *env, p *kubernetesPage, manifests string) {
	p.apply(e, manifests)
	creds := p.secret(e, "nats-of-store", "nats.creds", "")
	service := e.connect(creds)
	renewed := p.secret(e, "nats-of-store", "nats.creds", creds)
	e.connect(renewed).publishes(p.subject)
	service.publishes(p.subject) // no token was revoked

	require.Contains(e.t, manifests, "role: store\n")
	p.apply(e, strings.Replace(manifests, "role: store\n", "role: pod\n", 1))
	e.waitFor("credentials that were revoked with their token", func() error {
		if _, err := e.tryConnect(p.secret(e, "nats-of-store", "nats.creds", renewed)); err == nil {
			return errors.New("they connect")
		}
		return nil
	})
}
