package stack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// NATS is a nats-server, running or not. Its address is known before it runs, so
// that a mount can be told where it will be.
type NATS struct {
	URL     string // nats://127.0.0.1:port
	Monitor string // http://127.0.0.1:port, nats-server's monitoring endpoints
	Dir     string // its folder, in which it runs; gone after Close

	name        string
	port        int
	monitorPort int
	cluster     []string // flags that join it to a cluster
	peers       int      // the cluster's other servers
	process     *process
}

// NewNATS prepares a server without starting it.
func NewNATS() (*NATS, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	dir, err := makeDir("nats")
	if err != nil {
		return nil, err
	}
	return &NATS{
		URL: "nats://" + loopback(ports[0]), Monitor: "http://" + loopback(ports[1]), Dir: dir,
		name: "nats-" + strconv.Itoa(ports[0]), port: ports[0], monitorPort: ports[1],
	}, nil
}

// NewNATSCluster prepares servers that form a cluster once all of them run.
func NewNATSCluster(size int) (cluster []*NATS, err error) {
	ports, err := freePorts(size)
	if err != nil {
		return nil, err
	}
	routes := make([]string, size)
	for i, port := range ports {
		routes[i] = "nats://" + loopback(port)
	}
	for i := range size {
		n, err := NewNATS()
		if err != nil {
			for _, made := range cluster {
				err = errors.Join(err, made.Close())
			}
			return nil, err
		}
		n.peers = size - 1
		n.cluster = []string{"--cluster_name", "devstack", "--cluster", routes[i], "--routes", strings.Join(routes, ",")}
		cluster = append(cluster, n)
	}
	return cluster, nil
}

// Start starts the server with the text of a configuration, and returns when it takes
// clients. It listens on loopback ports of its own, whatever the text says.
func (n *NATS) Start(ctx context.Context, config string) error {
	if err := n.writeConfig(config); err != nil {
		return err
	}
	return n.Restart(ctx)
}

// writeConfig adds the server's name to its configuration. With the name as a flag,
// nats-server would refuse each reload as a change of it.
func (n *NATS) writeConfig(config string) error {
	return os.WriteFile(n.configPath(), fmt.Appendf(nil, "%s\nserver_name: %q\n", config, n.name), 0o600)
}

// Restart starts the server with its last configuration; one that runs is stopped first.
func (n *NATS) Restart(ctx context.Context) error {
	bin, err := NATSTool.Path(ctx)
	if err != nil {
		return err
	}
	n.process.stop()
	args := append([]string{
		"--config", n.configPath(), "--addr", "127.0.0.1",
		"--port", strconv.Itoa(n.port), "--http_port", strconv.Itoa(n.monitorPort),
	}, n.cluster...)
	n.process, err = startProcess(n.Dir, "nats-server", nil, bin, args...)
	if err != nil {
		return err
	}
	return n.process.ready(ctx, n.takesClients)
}

// takesClients looks for the line with which a server greets every client.
func (n *NATS) takesClients() error {
	conn, err := net.DialTimeout("tcp", loopback(n.port), time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "INFO ") {
		return fmt.Errorf("port %d is not nats-server's: it says %q", n.port, line)
	}
	return nil
}

// WaitForCluster returns when the server has a route to every other one.
func (n *NATS) WaitForCluster(ctx context.Context) error {
	return n.process.ready(ctx, func() error {
		var routes struct {
			Routes []struct {
				Remote string `json:"remote_id"`
			} `json:"routes"`
		}
		if err := n.Status(ctx, "routez", &routes); err != nil {
			return err
		}
		remotes := map[string]bool{}
		for _, route := range routes.Routes {
			remotes[route.Remote] = true
		}
		if len(remotes) < n.peers {
			return fmt.Errorf("routes to %d of %d servers", len(remotes), n.peers)
		}
		return nil
	})
}

// WaitForClient returns when a client is connected. A mount that did not find the
// server before it ran tries again after a pause; once it is connected, what changes is
// delivered at once.
func (n *NATS) WaitForClient(ctx context.Context) error {
	return n.process.ready(ctx, func() error {
		var status struct {
			Connections int `json:"num_connections"`
		}
		if err := n.Status(ctx, "connz", &status); err != nil {
			return err
		}
		if status.Connections == 0 {
			return errors.New("no client is connected")
		}
		return nil
	})
}

// Status reads one of the server's monitoring endpoints, such as "connz?auth=true".
func (n *NATS) Status(ctx context.Context, endpoint string, into any) error {
	response, err := get(ctx, n.Monitor+"/"+endpoint)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(into)
}

// get asks for what has to be answered with status 200.
func get(ctx context.Context, url string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: status %s", request.URL.Path, response.Status), response.Body.Close())
	}
	return response, nil
}

// Reload has the server read a new configuration without a restart.
func (n *NATS) Reload(config string) error {
	if err := n.writeConfig(config); err != nil {
		return err
	}
	n.process.signal(syscall.SIGHUP)
	return nil
}

// Stop ends the server in good order; what it stored stays.
func (n *NATS) Stop() { n.process.stop() }

// Kill ends the server at once, as kill -9 does.
func (n *NATS) Kill() { n.process.kill() }

// Running says whether the server runs.
func (n *NATS) Running() bool { return n.process.running() }

// Wipe removes all that a stopped server stored, its account JWTs too.
func (n *NATS) Wipe() error {
	entries, err := os.ReadDir(n.Dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(n.Dir, entry.Name())
		if path == n.configPath() || (n.process != nil && path == n.process.logPath) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// Close stops the server and removes its folder.
func (n *NATS) Close() error {
	n.Stop()
	return os.RemoveAll(n.Dir)
}

// Log returns all that the server has logged, over its restarts too.
func (n *NATS) Log() string { return n.process.output() }

func (n *NATS) configPath() string { return filepath.Join(n.Dir, "nats-server.conf") }
