package stack

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// ExternalSecretsCRDs returns the folder of the manifests of External Secrets' kinds, a file each.
func ExternalSecretsCRDs(ctx context.Context) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	source, err := pinnedSource(ctx, filepath.Join(root, ExternalSecretsTool.dir), ExternalSecretsTool.module)
	if err != nil {
		return "", err
	}
	return filepath.Join(source, "config", "crds", "bases"), nil
}

// ExternalSecrets is the controller of the External Secrets operator.
type ExternalSecrets struct {
	dir     string
	process *process
}

// StartExternalSecrets starts the controller for one namespace of a cluster that has the kinds ExternalSecret,
// SecretStore, VaultDynamicSecret and GeneratorState, and returns when it runs.
func StartExternalSecrets(ctx context.Context, cluster *Kubernetes, namespace string) (*ExternalSecrets, error) {
	program, err := ExternalSecretsTool.Path(ctx)
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := makeDir("external-secrets")
	if err != nil {
		return nil, err
	}
	e := &ExternalSecrets{dir: dir}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	err = cluster.writeKubeconfig(kubeconfig)
	if err == nil {
		e.process, err = startProcess(dir, ExternalSecretsTool.Name, []string{"KUBECONFIG=" + kubeconfig}, program,
			"--namespace="+namespace, "--metrics-addr="+loopback(port),
			"--enable-cluster-store-reconciler=false", "--enable-cluster-external-secret-reconciler=false",
			"--enable-cluster-push-secret-reconciler=false", "--enable-push-secret-reconciler=false")
	}
	if err == nil {
		err = e.process.ready(ctx, func() error {
			response, err := get(ctx, "http://"+loopback(port)+"/metrics")
			if err != nil {
				return err
			}
			return response.Body.Close()
		})
	}
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// writeKubeconfig writes a file with which a client of Kubernetes may do everything in the cluster.
func (k *Kubernetes) writeKubeconfig(path string) error {
	type object = map[string]any
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "devstack",
		"clusters": []object{{"name": "devstack", "cluster": object{
			"server": k.Host, "certificate-authority-data": base64.StdEncoding.EncodeToString([]byte(k.CACert)),
		}}},
		"users":    []object{{"name": "admin", "user": object{"token": k.adminToken}}},
		"contexts": []object{{"name": "devstack", "context": object{"cluster": "devstack", "user": "admin"}}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// Log is all that it has logged.
func (e *ExternalSecrets) Log() string { return e.process.output() }

// Close ends it and removes its folder.
func (e *ExternalSecrets) Close() error {
	e.process.stop()
	return os.RemoveAll(e.dir)
}
