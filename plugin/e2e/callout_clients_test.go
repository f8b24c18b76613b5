package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
	"github.com/nats-vault/vault-plugin-auth-nats/cmd/nats-callout/responder"
)

// otherDoors are the listeners of a nats-server for MQTT, which needs JetStream, and
// WebSocket.
type otherDoors struct{ mqtt, websocket string }

// openDoors returns them with the text of their configuration.
func openDoors(t *testing.T) (otherDoors, string) {
	t.Helper()
	var ports [2]int
	for i := range ports {
		port, err := stack.FreePort()
		require.NoError(t, err)
		ports[i] = port
	}
	return otherDoors{fmt.Sprintf("tcp://127.0.0.1:%d", ports[0]), fmt.Sprintf("ws://127.0.0.1:%d", ports[1])}, fmt.Sprintf(`
		jetstream { store_dir: "./js", max_memory_store: 64MB, max_file_store: 64MB }
		mqtt { listen: "127.0.0.1:%d" }
		websocket { listen: "127.0.0.1:%d", no_tls: true }`, ports[0], ports[1])
}

// A device is a client of a real MQTT library.
type device struct {
	mqtt.Client
	t    *testing.T
	lost chan error
}

func (c *callouts) device(broker, user, password string) (*device, error) {
	c.t.Helper()
	d := &device{t: c.t, lost: make(chan error, 1)}
	d.Client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(broker).SetClientID("device-" + user).
		SetUsername(user).SetPassword(password).SetAutoReconnect(false).SetConnectTimeout(patience).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { d.lost <- err }))
	token := d.Connect()
	require.True(c.t, token.WaitTimeout(patience))
	c.t.Cleanup(func() { d.Disconnect(100) })
	return d, token.Error()
}

func (d *device) done(token mqtt.Token) {
	d.t.Helper()
	require.True(d.t, token.WaitTimeout(patience))
	require.NoError(d.t, token.Error())
}

// The fields that MQTT and WebSocket clients have are enough, and a workload of a
// Kubernetes cluster has a token too.
func TestClientsOfMQTTAndWebSocketAndPodsPresentTheirToken(t *testing.T) {
	t.Parallel()
	doors, text := openDoors(t)
	c := startCallouts(t, map[string]fields{
		"dev": dev,
		"short": {"user_ttl": "3s", "user_template": `{"pub":{"allow":["orders.>"]},"sub":{"allow":["orders.>"]}}`,
			"bound_claims": fields{"ref_protected": "true"}},
		"tcp": {"user_template": `{"allowed_connection_types":["STANDARD"]}`},
	}, withNATS(text))
	c.write("jwt/orders", fields{"config": fields{"limits": fields{"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}}})
	c.waitForDelivery("orders")
	n := c.namespace(sharedKubernetes(t), nil)
	n.reviewer()
	n.account("api", nil)
	n.issuer(fields{"token_reviewer_jwt": n.token("reviewer", "", nil)})
	n.podRole(fields{"user_template": `{"pub":{"allow":["orders.{{metadata(service_account_namespace)}}.>"]}}`})
	c.answers(responder.Login{})
	token := c.token(gitLab(nil))

	// MQTT: topics are subjects with slashes.
	sensor, err := c.device(doors.mqtt, "dev", token)
	require.NoError(t, err)
	received := make(chan string, 10)
	sensor.done(sensor.Subscribe("orders/shop/new", 0, func(_ mqtt.Client, message mqtt.Message) { received <- string(message.Payload()) }))
	sensor.done(sensor.Publish("orders/shop/new", 0, false, "two apples"))
	require.Equal(t, "two apples", <-received)
	listener := c.letsIn("dev", gitLab(nil)).subscribes("orders.shop.>")
	sensor.done(sensor.Publish("orders/bank/new", 0, false, "all the money"))
	sensor.done(sensor.Publish("orders/shop/new", 0, false, "three pears"))
	message, err := listener.NextMsg(patience)
	require.NoError(t, err)
	require.Equal(t, "three pears", string(message.Data))
	for _, other := range [][2]string{{"dev", "hello"}, {"dev", c.token(nil)}, {"tcp", token}, {"gone", token}} {
		_, err := c.device(doors.mqtt, other[0], other[1])
		require.Error(t, err, other[0])
	}
	short, err := c.device(doors.mqtt, "short", token)
	require.NoError(t, err)
	require.Error(t, <-short.lost, "it is cut off when its user JWT ends")

	// WebSocket.
	ws := *c.nats
	ws.URL = doors.websocket
	web := &callouts{env: c.at(&ws)}
	page := web.letsIn("dev", gitLab(nil))
	page.publishes("orders.shop.new")
	page.mayNotPublish("orders.bank.new")
	web.turnsAway(nats.UserInfo("dev", "hello"))
	web.turnsAway(nats.UserInfo("tcp", token))
	c.write("jwt/orders/revoke", fields{"everyone": true})
	c.isCutOff(page)
	require.Error(t, <-sensor.lost)

	// A pod, with the token that is projected into it.
	pod := n.pod("api-1", "api")
	workload, err := c.present("pod", n.token("api", "vault", pod))
	require.NoError(t, err)
	workload.publishes("orders." + n.name + ".new")
	workload.mayNotPublish("orders.other.new")
	c.turnsAway(nats.UserInfo("pod", n.token("api", "elsewhere", pod)))
	c.turnsAway(nats.UserInfo("pod", token))
}

// Each server asks for its own clients, and any responder at any server answers.
func TestClientsOfAClusterArePresentedAtAnyServer(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	cluster := e.newNATSCluster(3)
	var urls []string
	for _, server := range cluster {
		urls = append(urls, server.URL)
	}
	e.write("config", fields{"account_jwt_server_url": strings.Join(urls, ","), "service_url": strings.Join(urls, ",")})
	e.account("auth", nil)
	e.account("orders", nil)
	e.role("dev", dev)
	e.write("callout/edge", fields{"account": "auth", "roles": "dev", "allowed_accounts": "orders"})
	text := e.serverConfig()
	for _, server := range cluster {
		require.NoError(t, server.Start(e.ctx(), text))
	}
	for _, server := range cluster {
		require.NoError(t, server.WaitForCluster(e.ctx()))
	}
	e.nats = cluster[0]
	for _, account := range []string{"auth", "orders"} {
		e.waitForDelivery(account)
	}
	c := newCallouts(e)
	c.answers(responder.Login{}, func(config *responder.Config) { config.NATS = cluster[0].URL })
	var workloads []*workload
	for _, server := range cluster {
		at := &callouts{env: c.at(server)}
		at.waitFor("the server to know who answers", func() error {
			w, err := at.present("dev", c.token(gitLab(nil)))
			if err == nil {
				workloads = append(workloads, w)
			}
			return err
		})
	}
	heard := workloads[0].subscribes("orders.shop.>")
	require.NoError(t, workloads[0].FlushTimeout(patience))
	c.waitFor("a message from the third server", func() error {
		workloads[2].publishes("orders.shop.new")
		_, err := heard.NextMsg(100 * time.Millisecond)
		return err
	})
	workloads[1].mayNotPublish("orders.bank.new")
	c.write("jwt/orders/revoke", fields{"everyone": true})
	for _, w := range workloads {
		c.isCutOff(w)
	}

	// The curve key changes under servers that seal, and nobody is turned away.
	c.write("callout/edge/rotate", nil)
	for _, server := range cluster {
		(&callouts{env: c.at(server)}).letsIn("dev", gitLab(nil))
	}
}
