package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nats.go"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// The ways in which a workload gets to NATS that are compared.
const (
	throughCallout   = "callout"
	answeredAtOnce   = "a callout that asks nobody"
	loginThenConnect = "login, then connect"
	readyCreds       = "ready creds"
)

var (
	waysToNATS     = []string{throughCallout, loginThenConnect, answeredAtOnce, readyCreds}
	calloutClients = []int{8, 64}
)

// benchCallout measures how many clients a second get to NATS with their token alone,
// in turn with those that log in to Vault first, and with those that have credentials
// already.
func benchCallout(ctx context.Context, b *bench) (err error) {
	program, err := stack.BuildCallout(ctx, b.dir)
	if err != nil {
		return err
	}
	f := &calloutFigures{map[string][]float64{}, map[string][]float64{}, map[string][]float64{}}
	for range scale(b, 5, 1) {
		if err := f.round(ctx, b, program); err != nil {
			return err
		}
	}
	f.report(b)
	return nil
}

// calloutFigures are, by calloutCell and what, one figure a round.
type calloutFigures struct{ rates, latencies, processor map[string][]float64 }

// calloutParts are whose processor time is looked at.
var calloutParts = []string{"Vault", "plugin", "nats-server", "responder"}

// spent is the processor time that the parts have spent, in their order.
func (w *world) spent(server *stack.NATS, responder *stack.Callout) ([]float64, error) {
	var spent []float64
	for i, dir := range []string{w.vault.Dir, server.Dir, responder.Dir} {
		used, err := usageOf(dir)
		if err != nil {
			return nil, err
		}
		spent = append(spent, used.vault)
		if i == 0 {
			spent = append(spent, used.plugins)
		}
	}
	return spent, nil
}

// round measures each way with each number of clients, on servers of its own.
func (f *calloutFigures) round(ctx context.Context, b *bench, program string) (err error) {
	w, responder, err := calloutWorld(ctx, b.program, program)
	if w != nil {
		defer func() { err = errors.Join(err, w.close()) }()
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, responder.Close()) }()
	floor, err := newFloor(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, floor.close()) }()
	tokens, err := w.tokens(jose.ES256, calloutClients[len(calloutClients)-1])
	if err != nil {
		return err
	}
	for _, clients := range calloutClients {
		for _, way := range shuffled(waysToNATS) {
			server := w.nats
			if way == answeredAtOnce {
				server = floor.nats
			}
			tasks, err := w.connectTasks(way, server, tokens[:clients])
			if err != nil {
				return err
			}
			before, err := w.spent(server, responder)
			if err != nil {
				return err
			}
			burst, err := hammer(ctx, w.target(), tasks, scale(b, 2*time.Second, 500*time.Millisecond))
			if err != nil {
				return fmt.Errorf("%s, %d clients: %w", way, clients, err)
			}
			after, err := w.spent(server, responder)
			if err != nil {
				return err
			}
			at := calloutCell(way, clients)
			f.rates[at] = append(f.rates[at], burst.rate)
			f.latencies[at] = append(f.latencies[at], percentile(burst.latencies, 99))
			for i, part := range calloutParts {
				f.processor[at+part] = append(f.processor[at+part], (after[i]-before[i])/float64(burst.done))
			}
		}
	}
	return nil
}

func calloutCell(way string, clients int) string { return fmt.Sprintf("%s, %d clients", way, clients) }

// calloutWorld is a world with a mount, its callout and one responder.
func calloutWorld(ctx context.Context, plugin, program string) (*world, *stack.Callout, error) {
	w, err := newWorld(ctx)
	if err != nil {
		return nil, nil, err
	}
	const mount = "auth/nats"
	err = errors.Join(
		w.install(ctx, plugin, api.PluginTypeCredential),
		w.client.Sys().PutPolicyWithContext(ctx, "bench", `path "secret/*" { capabilities = ["read"] }`),
		w.client.Sys().PutPolicyWithContext(ctx, "callout", `
			path "auth/nats/callout/bench/authorize" { capabilities = ["update"] }
			path "auth/nats/jwt/callout-bench" { capabilities = ["read"] }
			path "auth/nats/jwt/callout-bench/sign" { capabilities = ["update"] }`),
		w.enable(ctx, "nats", stack.PluginName, "batch"),
	)
	if err == nil {
		err = w.configure(ctx, mount)
	}
	if err == nil {
		err = w.write(ctx,
			write{mount + "/role/bench", natsRole()},
			write{mount + "/jwt/callout", map[string]any{"type": "account"}},
			write{mount + "/callout/bench", map[string]any{"account": "callout", "roles": "bench", "default_role": "bench"}},
		)
	}
	if err == nil {
		err = w.startNATS(ctx, mount)
	}
	if err != nil {
		return w, nil, err
	}
	secret, err := w.client.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"callout"}, NoDefaultPolicy: true, Type: "batch"})
	if err != nil {
		return w, nil, err
	}
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	responder, err := stack.StartCallout(starting, stack.CalloutConfig{
		Program: program, Vault: w.vault, VaultToken: secret.Auth.ClientToken, Mount: mount, Callout: "bench", NATS: w.nats.URL,
		Args: []string{"-log-level", "warn"},
	})
	return w, responder, err
}

// connectTasks are the connects of one client for each token.
func (w *world) connectTasks(way string, server *stack.NATS, tokens []string) ([]task, error) {
	var tasks []task
	for _, token := range tokens {
		login, err := loginForCreds("nats", token)
		if err != nil {
			return nil, err
		}
		switch way {
		case throughCallout, answeredAtOnce:
			tasks = append(tasks, func(*conn) error { return connect(server, nats.UserInfo("bench", token)) })
		case loginThenConnect:
			tasks = append(tasks, func(c *conn) error {
				creds, err := login(c)
				if err != nil {
					return err
				}
				return connect(server, nats.UserCredentialBytes(creds))
			})
		default:
			var creds []byte
			err := once(w.target(), func(c *conn) (err error) {
				creds, err = login(c)
				return err
			})
			if err != nil {
				return nil, err
			}
			tasks = append(tasks, func(*conn) error { return connect(server, nats.UserCredentialBytes(creds)) })
		}
	}
	return tasks, nil
}

// loginForCreds is a login at a mount of the plugin's that keeps the credentials.
func loginForCreds(mount, token string) (func(*conn) ([]byte, error), error) {
	text, err := request("PUT", "auth/"+mount+"/login", "", map[string]any{"role": "bench", "jwt": token})
	if err != nil {
		return nil, err
	}
	return func(c *conn) ([]byte, error) {
		body, err := c.do(text)
		if err != nil {
			return nil, err
		}
		return credsOf(body)
	}, nil
}

// credsOf finds the creds file in the answer to a login.
func credsOf(body []byte) ([]byte, error) {
	var answer struct {
		Data struct {
			Creds string `json:"creds"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	if answer.Data.Creds == "" {
		return nil, fmt.Errorf("the answer has no creds: %s", bytes.TrimSpace(body))
	}
	return []byte(answer.Data.Creds), nil
}

// connect connects to NATS and closes the connection again.
func connect(server *stack.NATS, user nats.Option) error {
	connection, err := nats.Connect(server.URL, user, nats.NoReconnect(), nats.Timeout(requestTimeout))
	if err != nil {
		return err
	}
	connection.Close()
	return nil
}

// chart draws the rates.
func (f *calloutFigures) chart() chart {
	drawn := chart{File: "callout.png", Title: "Clients that get to NATS", YLabel: "connects a second"}
	for _, clients := range calloutClients {
		drawn.Groups = append(drawn.Groups, fmt.Sprintf("%d clients", clients))
	}
	for _, way := range waysToNATS {
		bars := series{Name: way}
		for _, clients := range calloutClients {
			bars.Values = append(bars.Values, median(f.rates[calloutCell(way, clients)]))
		}
		drawn.Series = append(drawn.Series, bars)
	}
	return drawn
}

func (f *calloutFigures) report(b *bench) {
	t := table{
		Title:   "Clients that get to NATS, a second",
		Columns: append([]string{"clients", "way", "connects a second", "p99", "the callout to it"}, calloutParts...),
		Notes: []string{"Each client connects, and closes its connection again, one after another. With the callout it presents its token and nothing else. " +
			"One responder runs, on the same machine as Vault and nats-server. " +
			"The callout that asks nobody lets everyone in at once, from within the benchmark: no callout can be faster than that. " +
			"The last columns are the processor time of one connect."},
	}
	worst := 0.0
	for _, clients := range calloutClients {
		ours := f.rates[calloutCell(throughCallout, clients)]
		for _, way := range waysToNATS {
			at := calloutCell(way, clients)
			ratio := median(ratios(ours, f.rates[at]))
			row := []string{
				fmt.Sprint(clients), way, number(b.report.measured("callout", at, "connects/s", f.rates[at])), milliseconds(median(f.latencies[at])), number(ratio),
			}
			for _, part := range calloutParts {
				row = append(row, milliseconds(b.report.measured("callout", at+", processor time of "+part, "s", f.processor[at+part])))
			}
			t.Rows = append(t.Rows, row)
			if way == loginThenConnect && (worst == 0 || ratio < worst) {
				worst = ratio
			}
		}
	}
	b.show(t)
	b.report.Charts = append(b.report.Charts, f.chart())
	b.report.Goals = append(b.report.Goals, goal{
		What: "connects through the callout to logins that then connect", Want: 1.5, Got: worst, Where: "the worse of 8 and 64 clients, batch tokens",
	})
}
