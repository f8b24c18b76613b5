//go:build container

package e2e

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

const (
	image   = "ghcr.io/nats-vault/vault-plugin-auth-nats"
	version = "1.2.3-test"
	plugin  = "vault-plugin-auth-nats"
)

type fields = map[string]any

// A setup is a Vault that runs the plugin in a container, and a nats-server that the container can reach.
type setup struct {
	t      *testing.T
	vault  *stack.Vault
	client *api.Client
	nats   *stack.NATS
	issuer *stack.Issuer
}

// output runs a program in a folder, and returns what it prints.
func output(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // at the end of a test too
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s %s", program, strings.Join(args, " "))
	return strings.TrimSpace(string(out))
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, "", "docker", args...)
}

// pulled makes the image, pushes it to a registry on loopback, has the engine pull it, and gives it the name that it has
// in a release: Vault takes no name with a port. It returns the image's ID and what `make image` prints.
func pulled(t *testing.T) (id, checksums string) {
	t.Helper()
	served := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(served.Close)
	repository := strings.TrimPrefix(served.URL, "http://") + "/" + plugin
	checksums = output(t, filepath.Join("..", "..", ".."), "make", "--no-print-directory", "image",
		"BIN="+t.TempDir(), "VERSION=v"+version, "IMAGE="+repository)
	docker(t, "pull", "--quiet", repository+":"+version)
	docker(t, "tag", repository+":"+version, image+":"+version)
	t.Cleanup(func() { docker(t, "rmi", "--force", repository+":"+version, image+":"+version) })
	return strings.TrimPrefix(docker(t, "images", "--no-trunc", "--format", "{{.ID}}", image+":"+version), "sha256:"), checksums
}

// fromContainers is an address at which containers reach a server of this machine's loopback.
func fromContainers(t *testing.T, server string) string {
	t.Helper()
	bridge, err := net.InterfaceByName(docker(t, "network", "inspect", "bridge", "--format", `{{index .Options "com.docker.network.bridge.name"}}`))
	require.NoError(t, err)
	addresses, err := bridge.Addrs()
	require.NoError(t, err)
	require.NotEmpty(t, addresses)
	listener, err := net.Listen("tcp", net.JoinHostPort(addresses[0].(*net.IPNet).IP.String(), "0"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", server)
			if err != nil {
				_ = from.Close()
				continue
			}
			go pass(to, from)
			go pass(from, to)
		}
	}()
	return listener.Addr().String()
}

func pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	_, _ = io.Copy(to, from)
}

// start has Vault run the image, with the OCI runtime that OCI_RUNTIME names, or runc.
func start(t *testing.T, id string) *setup {
	t.Helper()
	// Vault gives the container its group, so that both may use a socket. It cannot be root's.
	require.NotZero(t, os.Getegid(), "run this with another group than root's")
	s := &setup{t: t}
	var err error
	s.vault, err = stack.StartVault(s.ctx(), stack.VaultConfig{Env: []string{"DOCKER_HOST=" + os.Getenv("DOCKER_HOST")}})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Vault's log:\n%s", s.vault.Log())
		}
		require.NoError(t, s.vault.Close())
	})
	s.client, err = s.vault.Client()
	require.NoError(t, err)
	s.issuer, err = stack.StartIssuer(nil, jose.ES256)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.issuer.Close()) })
	s.nats, err = stack.NewNATS()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.nats.Close()) })

	ociRuntime := os.Getenv("OCI_RUNTIME")
	if ociRuntime == "" {
		ociRuntime = "runc"
	}
	s.vaultCLI("plugin", "runtime", "register", "-type=container", "-oci_runtime="+ociRuntime, "tested")
	s.vaultCLI("plugin", "register", "-version=v"+version, "-oci_image="+image, "-runtime=tested", "-sha256="+id,
		"-env=GOMAXPROCS=1", "auth", plugin)
	s.vaultCLI("auth", "enable", "-path=nats", plugin)
	return s
}

func (s *setup) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute) // Vault may have to be built
	s.t.Cleanup(cancel)
	return ctx
}

func (s *setup) vaultCLI(args ...string) {
	s.t.Helper()
	_, err := s.vault.CLI(s.ctx(), args...)
	require.NoError(s.t, err)
}

func (s *setup) write(path string, data fields) *api.Secret {
	s.t.Helper()
	secret, err := s.client.Logical().WriteWithContext(s.ctx(), "auth/nats/"+path, data)
	require.NoError(s.t, err)
	return secret
}

// configure makes the mount an operator whose nats-server runs, with a role for the issuer's tokens.
func (s *setup) configure() {
	s.t.Helper()
	at := "nats://" + fromContainers(s.t, strings.TrimPrefix(s.nats.URL, "nats://"))
	issuer := "http://" + fromContainers(s.t, strings.TrimPrefix(s.issuer.URL, "http://"))
	s.write("config", fields{
		"jwks_url": issuer + stack.JWKSPath, "bound_issuer": s.issuer.URL, "account_jwt_server_url": at, "service_url": s.nats.URL,
	})
	server, err := s.client.Logical().ReadWithContext(s.ctx(), "auth/nats/config/server")
	require.NoError(s.t, err)
	require.NoError(s.t, s.nats.Start(s.ctx(), server.Data["config"].(string)))
	s.write("jwt/orders", fields{"type": "account"})
	permissions := fields{"allow": []string{"orders.{{claim(sub)}}"}}
	s.write("role/dev", fields{
		"account": "orders", "bound_audiences": "vault", "user_claim": "sub", "user_template": fields{"pub": permissions, "sub": permissions},
	})
}

// connect logs in, and connects with the credentials of the answer.
func (s *setup) connect() (conn *nats.Conn, userPublicKey string, closed <-chan struct{}) {
	s.t.Helper()
	token, err := s.issuer.Mint(jose.ES256, fields{"aud": "vault", "sub": "web"})
	require.NoError(s.t, err)
	data := s.write("login", fields{"role": "dev", "jwt": token}).Data
	ended := make(chan struct{})
	conn, err = nats.Connect(s.nats.URL, nats.UserCredentialBytes([]byte(data["creds"].(string))), nats.NoReconnect(),
		nats.ClosedHandler(func(*nats.Conn) { close(ended) }))
	require.NoError(s.t, err)
	s.t.Cleanup(conn.Close)
	return conn, data["user_public_key"].(string), ended
}

// containers are those of the image that run.
func (s *setup) containers() []string {
	s.t.Helper()
	return strings.Fields(docker(s.t, "ps", "--quiet", "--filter", "ancestor="+image+":"+version))
}

// Vault runs the image as docs/install.md says: a workload logs in, its messages flow and others do not, what is revoked
// is cut off, and a reload brings another container that knows all that the first did.
func TestVaultRunsThePluginInAContainer(t *testing.T) {
	id, checksums := pulled(t)
	// Engines that store images with containerd show the index.
	require.Regexp(t, `(?m)^(linux/`+runtime.GOARCH+` image|index) +`+id+`$`, checksums)
	s := start(t, id)
	first := s.containers()
	require.Len(t, first, 1)
	s.configure()

	conn, user, closed := s.connect()
	heard, err := conn.SubscribeSync("orders.web")
	require.NoError(t, err)
	require.NoError(t, conn.Publish("orders.web", []byte("three pears")))
	message, err := heard.NextMsg(10 * time.Second)
	require.NoError(t, err)
	require.Equal(t, "three pears", string(message.Data))
	require.NoError(t, conn.Publish("orders.bank", []byte("all the money")))
	require.NoError(t, conn.Flush())
	require.ErrorIs(t, conn.LastError(), nats.ErrPermissionViolation)

	s.vaultCLI("plugin", "reload", "-type=auth", "-plugin="+plugin)
	s.write("jwt/orders/revoke", fields{"user_public_key": user})
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		require.Fail(t, "a revoked user stays connected")
	}
	second := s.containers()
	require.Len(t, second, 1)
	require.NotEqual(t, first, second, "a reload starts the plugin anew")
	s.connect()

	s.vault.Stop()
	require.NoError(t, stack.WaitFor(s.ctx(), "the end of the container", func() error {
		if left := s.containers(); len(left) > 0 {
			return fmt.Errorf("%v runs", left)
		}
		return nil
	}))
}
