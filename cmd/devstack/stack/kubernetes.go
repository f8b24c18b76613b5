package stack

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/client-go/rest"
)

// ServiceAccountIssuer is the name that kube-apiserver issues service account tokens
// under; it is their audience too unless another is asked for.
const ServiceAccountIssuer = "https://kubernetes.default.svc"

// Kubernetes is a control plane without nodes: kube-apiserver and its etcd. It has no
// controllers, so a namespace gets no service account of its own.
type Kubernetes struct {
	Host   string       // https://127.0.0.1:port
	CACert string       // PEM
	Admin  *rest.Config // may do everything

	dir        string
	port       int
	etcdURL    string
	etcd       *process
	api        *process
	adminToken string
	signingKey *SigningKey
}

// StartKubernetes starts etcd and kube-apiserver and returns when they are ready.
func StartKubernetes(ctx context.Context) (*Kubernetes, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	dir, err := makeDir("kubernetes")
	if err != nil {
		return nil, err
	}
	k := &Kubernetes{
		Host: "https://" + loopback(ports[0]), dir: dir, port: ports[0],
		etcdURL: "http://" + loopback(ports[1]), adminToken: rand.Text(),
	}
	err = k.writeFiles()
	if err == nil {
		err = k.startEtcd(ctx, "http://"+loopback(ports[2]))
	}
	if err == nil {
		err = k.StartAPI(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// writeFiles makes the API server's certificate, the key that signs service account
// tokens, and the administrator's token.
func (k *Kubernetes) writeFiles() error {
	ca, err := NewCA()
	if err != nil {
		return err
	}
	certificate, key, err := ca.ServerPEM()
	if err != nil {
		return err
	}
	k.signingKey, err = NewSigningKey(jose.RS256)
	if err != nil {
		return err
	}
	signing, ok := k.signingKey.private.(*rsa.PrivateKey)
	if !ok {
		return fmt.Errorf("the service account key is a %T, not an RSA key", k.signingKey.private)
	}
	for name, text := range map[string][]byte{
		"server.crt": certificate,
		"server.key": key,
		"sa.key":     encodePEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(signing)),
		"tokens.csv": []byte(k.adminToken + ",admin,admin,system:masters\n"),
	} {
		if err := os.WriteFile(k.file(name), text, 0o600); err != nil {
			return err
		}
	}
	k.CACert = ca.PEM
	k.Admin = &rest.Config{
		Host: k.Host, BearerToken: k.adminToken,
		TLSClientConfig: rest.TLSClientConfig{CAData: []byte(ca.PEM)},
		QPS:             -1, // no limit: tests are not polite
	}
	return nil
}

func (k *Kubernetes) startEtcd(ctx context.Context, peerURL string) error {
	bin, err := EtcdTool.Path(ctx)
	if err != nil {
		return err
	}
	k.etcd, err = startProcess(k.dir, "etcd", nil, bin,
		"--data-dir="+k.file("etcd"), "--log-level=warn",
		"--listen-client-urls="+k.etcdURL, "--advertise-client-urls="+k.etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL,
		// What is in it need not outlive a power failure.
		"--unsafe-no-fsync",
	)
	if err != nil {
		return err
	}
	return k.etcd.ready(ctx, func() error { return isReady(ctx, http.DefaultClient, k.etcdURL+"/health") })
}

// StartAPI starts the API server, also again after StopAPI.
func (k *Kubernetes) StartAPI(ctx context.Context) error {
	bin, err := KubeAPIServerTool.Path(ctx)
	if err != nil {
		return err
	}
	k.api, err = startProcess(k.dir, "kube-apiserver", nil, bin,
		"--etcd-servers="+k.etcdURL,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+strconv.Itoa(k.port),
		"--endpoint-reconciler-type=none", // a loopback address is no valid endpoint
		"--tls-cert-file="+k.file("server.crt"), "--tls-private-key-file="+k.file("server.key"),
		"--cert-dir="+k.file("certs"),
		"--service-account-issuer="+ServiceAccountIssuer,
		"--service-account-key-file="+k.file("sa.key"), "--service-account-signing-key-file="+k.file("sa.key"),
		"--token-auth-file="+k.file("tokens.csv"), "--authorization-mode=RBAC",
		"--disable-admission-plugins=ServiceAccount", // nothing makes the accounts it waits for
		"--service-cluster-ip-range=10.0.0.0/24",
	)
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(k.Admin)
	if err != nil {
		return err
	}
	return k.api.ready(ctx, func() error { return isReady(ctx, client, k.Host+"/readyz") })
}

// StopAPI stops the API server; what it stored stays.
func (k *Kubernetes) StopAPI() { k.api.stop() }

// SigningKeyPEM returns the public key of service account tokens, as pem_keys takes it.
func (k *Kubernetes) SigningKeyPEM() string { return k.signingKey.PublicPEM }

// SignToken signs a service account token of one's own making with the cluster's key.
func (k *Kubernetes) SignToken(payload []byte) (string, error) {
	return k.signingKey.Sign(nil, payload)
}

// Log returns what the API server has logged.
func (k *Kubernetes) Log() string { return k.api.output() }

// Close stops both servers and removes their folder.
func (k *Kubernetes) Close() error {
	k.api.stop()
	k.etcd.stop()
	return os.RemoveAll(k.dir)
}

func (k *Kubernetes) file(name string) string { return filepath.Join(k.dir, name) }

// isReady asks a server's health endpoint.
func isReady(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: status %s: %s", url, response.Status, body)
}
