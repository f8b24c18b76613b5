package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

const peersModule = "testdata/bench/peers"

// The ways to log in that are compared. All get a Vault token; this plugin and the two
// steps get NATS credentials as well.
const (
	ours        = "this plugin"
	noop        = "no-op plugin"
	least       = "least plugin"
	builtin     = "built-in JWT"
	externalJWT = "external JWT"
	twoSteps    = "two steps"
)

var contenders = []string{ours, noop, least, builtin, externalJWT, twoSteps}

var (
	algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}
	tokenTypes = []string{"service", "batch"}
	clients    = []int{1, goalClients, busyClients}
)

// busyClients is how many clients there are at most, where it takes more rounds until a ratio says something.
const (
	busyClients = 64
	rounds      = 5
	busyRounds  = 9
)

// A cell is one line of the login table.
type cell struct {
	clients   int
	alg       jose.SignatureAlgorithm
	tokenType string
}

func (c cell) String() string { return fmt.Sprintf("%d, %s, %s", c.clients, c.alg, c.tokenType) }

func cells(clients []int, algorithms ...jose.SignatureAlgorithm) []cell {
	var all []cell
	for _, n := range clients {
		for _, alg := range algorithms {
			for _, tokenType := range tokenTypes {
				all = append(all, cell{n, alg, tokenType})
			}
		}
	}
	return all
}

// byContender holds figures, one a round, by cell and contender.
type byContender map[cell]map[string][]float64

func (b byContender) add(at cell, name string, value float64) {
	if b[at] == nil {
		b[at] = map[string][]float64{}
	}
	b[at][name] = append(b[at][name], value)
}

// loginFigures are a login's rate, its latencies, and the processor time that Vault
// and the plugins spend on it.
type loginFigures struct {
	cells                           []cell
	rates, p50, p99, vault, plugins byContender
}

func newLoginFigures(cells []cell) *loginFigures {
	return &loginFigures{cells, byContender{}, byContender{}, byContender{}, byContender{}, byContender{}}
}

// benchLogin measures logins on a real Vault. Each round has a Vault of its own, since
// the tokens of a round slow Vault down; within it the contenders take turns.
func benchLogin(ctx context.Context, b *bench) error {
	programs, err := b.buildPeers(ctx)
	if err != nil {
		return err
	}
	figures := newLoginFigures(cells(clients, algorithms...))
	for round := range scale(b, busyRounds, 1) {
		if err := figures.round(ctx, b, round, programs, newWorld, scale(b, 800*time.Millisecond, 400*time.Millisecond)); err != nil {
			return err
		}
	}
	figures.reportLogins(b)
	return nil
}

// peers are the programs that the plugin is compared with.
type peers struct{ noop, least, jwt, engine string }

func (b *bench) buildPeers(ctx context.Context) (p peers, err error) {
	b.progress("building the peers")
	for pkg, program := range map[string]*string{
		"./noop": &p.noop, "./least": &p.least, "./nats-engine-standin": &p.engine,
		"github.com/hashicorp/vault-plugin-auth-jwt/cmd/vault-plugin-auth-jwt": &p.jwt,
	} {
		if *program, err = b.buildIn(ctx, peersModule, pkg); err != nil {
			return p, err
		}
	}
	return p, nil
}

// round measures every cell on a new Vault; those of few clients have said enough after some rounds.
func (f *loginFigures) round(ctx context.Context, b *bench, round int, programs peers, newWorld func(context.Context) (*world, error), length time.Duration) (err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.mountContenders(ctx, b.program, programs); err != nil {
		return err
	}
	tokens := map[jose.SignatureAlgorithm][]string{}
	for _, alg := range algorithms {
		if tokens[alg], err = w.tokens(alg, busyClients); err != nil {
			return err
		}
	}
	for _, cell := range f.cells {
		if round >= rounds && cell.clients < busyClients {
			continue
		}
		for _, name := range shuffled(contenders) {
			tasks, err := w.loginTasks(name, cell.tokenType, tokens[cell.alg][:cell.clients])
			if err != nil {
				return err
			}
			if err := f.measure(ctx, w, cell, name, tasks, length); err != nil {
				return fmt.Errorf("%s, %s: %w", name, cell, err)
			}
		}
	}
	return nil
}

// measure has a contender log in for so long.
func (f *loginFigures) measure(ctx context.Context, w *world, at cell, name string, tasks []task, length time.Duration) error {
	before, err := w.usage()
	if err != nil {
		return err
	}
	burst, err := hammer(ctx, w.target(), tasks, length)
	if err != nil {
		return err
	}
	after, err := w.usage()
	if err != nil {
		return err
	}
	f.rates.add(at, name, burst.rate)
	f.p50.add(at, name, percentile(burst.latencies, 50))
	f.p99.add(at, name, percentile(burst.latencies, 99))
	f.vault.add(at, name, (after.vault-before.vault)/float64(burst.done))
	f.plugins.add(at, name, (after.plugins-before.plugins)/float64(burst.done))
	return nil
}

// mountOf is the path of a contender's auth method, below auth/.
func mountOf(name, tokenType string) string {
	return map[string]string{ours: "nats-", noop: "noop-", least: "least-", builtin: "jwt-", externalJWT: "external-", twoSteps: "jwt-"}[name] + tokenType
}

// mountContenders enables every contender twice: for service and for batch tokens.
func (w *world) mountContenders(ctx context.Context, program string, programs peers) error {
	err := errors.Join(
		w.install(ctx, program, api.PluginTypeCredential),
		w.install(ctx, programs.noop, api.PluginTypeCredential),
		w.install(ctx, programs.least, api.PluginTypeCredential, "JWKS_URL="+w.issuer.JWKSURL()),
		w.install(ctx, programs.jwt, api.PluginTypeCredential),
		w.install(ctx, programs.engine, api.PluginTypeSecrets),
		w.client.Sys().PutPolicyWithContext(ctx, "bench", `path "engine/creds/*" { capabilities = ["read"] }`),
		w.client.Sys().MountWithContext(ctx, "engine", &api.MountInput{Type: "nats-engine-standin"}),
		w.write(ctx, write{"engine/account/orders", map[string]any{"template": userLimits}}),
	)
	if err != nil {
		return err
	}
	for _, tokenType := range tokenTypes {
		for name, plugin := range map[string]string{
			ours: stack.PluginName, noop: "noop", least: "least", builtin: "jwt", externalJWT: "vault-plugin-auth-jwt",
		} {
			if err := w.enable(ctx, mountOf(name, tokenType), plugin, tokenType); err != nil {
				return err
			}
		}
		for _, name := range []string{builtin, externalJWT} {
			if err := w.configureJWT(ctx, "auth/"+mountOf(name, tokenType)); err != nil {
				return err
			}
		}
		mount := "auth/" + mountOf(ours, tokenType)
		err = errors.Join(w.configure(ctx, mount), w.write(ctx, write{mount + "/role/bench", natsRole()}))
		if err != nil {
			return err
		}
	}
	return w.startNATS(ctx, "auth/"+mountOf(ours, tokenTypes[0]))
}

// userLimits is what userTemplate comes to, as the stand-in stores it.
const userLimits = `{"pub":{"allow":["orders.shop.>"]},"sub":{"allow":["orders.shop.>","_INBOX.>"]}}`

// configureJWT gives the JWT method the issuer and the role that the plugin has.
func (w *world) configureJWT(ctx context.Context, mount string) error {
	role := natsRole()
	maps.DeleteFunc(role, func(field string, _ any) bool { return field == "account" || field == "user_template" })
	role["role_type"] = "jwt"
	return w.write(ctx,
		write{mount + "/config", map[string]any{"oidc_discovery_url": w.issuer.URL, "jwt_supported_algs": algorithms}},
		write{mount + "/role/bench", role},
	)
}

// loginTasks are the logins of one client for each token.
func (w *world) loginTasks(name, tokenType string, tokens []string) ([]task, error) {
	if name != twoSteps {
		return loginsAt(mountOf(name, tokenType), tokens)
	}
	var tasks []task
	for _, token := range tokens {
		text, err := request("PUT", "auth/"+mountOf(name, tokenType)+"/login", "", map[string]any{"role": "bench", "jwt": token})
		if err != nil {
			return nil, err
		}
		login := func(c *conn) (string, error) {
			body, err := c.do(text)
			if err != nil {
				return "", err
			}
			return clientToken(body)
		}
		tasks = append(tasks, func(c *conn) error { return thenRead(c, login) })
	}
	return tasks, nil
}

// loginsAt are logins at an auth method, of one client for each token.
func loginsAt(mount string, tokens []string) ([]task, error) {
	tasks := make([]task, len(tokens))
	for i, token := range tokens {
		text, err := request("PUT", "auth/"+mount+"/login", "", map[string]any{"role": "bench", "jwt": token})
		if err != nil {
			return nil, err
		}
		tasks[i] = func(c *conn) error {
			body, err := c.do(text)
			if err == nil {
				_, err = clientToken(body)
			}
			return err
		}
	}
	return tasks, nil
}

// thenRead is the flow of two steps: log in, then read credentials.
func thenRead(c *conn, login func(*conn) (string, error)) error {
	token, err := login(c)
	if err != nil {
		return err
	}
	read, err := request("GET", "engine/creds/orders", token, nil)
	if err != nil {
		return err
	}
	_, err = c.do(read)
	return err
}
