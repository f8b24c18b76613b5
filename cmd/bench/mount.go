package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin"
)

// The caller of creds/:role in a mount of this process.
const (
	entityID      = "entity"
	mountAccessor = "auth_nats"
)

// A mount is the plugin's backend in this process, on storage in memory: to measure
// it where a real Vault would take too long, or would add more time than it takes.
type mount struct {
	storage logical.Storage
	backend logical.Backend
	token   string // of a workload that all roles take
}

// openMount opens the mount that storage holds. A quiet one delivers nothing, as in a
// cluster that waits for the disaster of another.
func openMount(ctx context.Context, storage logical.Storage, token string, quiet bool) (*mount, error) {
	alias := &logical.Alias{MountAccessor: mountAccessor, Name: workloadClaims(0)["sub"].(string)}
	view := &logical.StaticSystemView{
		DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour,
		EntityVal: &logical.Entity{ID: entityID, Name: entityID, Aliases: []*logical.Alias{alias}},
	}
	if quiet {
		view.ReplicationStateVal = consts.ReplicationDRSecondary
	}
	backend, err := plugin.Factory(ctx, &logical.BackendConfig{
		StorageView: storage, System: view, Logger: hclog.NewNullLogger(), BackendUUID: rand.Text(),
	})
	if err != nil {
		return nil, err
	}
	m := &mount{storage: storage, backend: backend, token: token}
	if err := backend.Initialize(ctx, &logical.InitializationRequest{Storage: storage}); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// asPlugin sets Go's runtime as it is in the plugin's own process, for mounts in this
// one. What it returns sets it back.
func asPlugin() (restore func()) {
	processors, percent := runtime.GOMAXPROCS(0), debug.SetGCPercent(100)
	debug.SetGCPercent(percent) // the only way to read it is to set it
	plugin.SetRuntime()
	return func() {
		runtime.GOMAXPROCS(processors)
		debug.SetGCPercent(percent)
	}
}

func (m *mount) close() { m.backend.Cleanup(context.Background()) }

// request makes a request that must succeed, and returns the answer's data.
func (m *mount) request(ctx context.Context, operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	response, err := m.backend.HandleRequest(ctx, &logical.Request{
		Operation: operation, Path: path, Data: maps.Clone(data), Storage: m.storage,
		MountPoint: "auth/nats/", MountAccessor: mountAccessor, EntityID: entityID,
		Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	})
	if err == nil && response.IsError() {
		err = response.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", operation, path, err)
	}
	return response, nil
}

func (m *mount) write(ctx context.Context, path string, data map[string]any) (map[string]any, error) {
	response, err := m.request(ctx, logical.UpdateOperation, path, data)
	if err != nil || response == nil {
		return nil, err
	}
	return response.Data, nil
}

func (m *mount) read(ctx context.Context, path string) (map[string]any, error) {
	response, err := m.request(ctx, logical.ReadOperation, path, nil)
	if err != nil {
		return nil, err
	}
	if response == nil {
		return nil, fmt.Errorf("nothing at %s", path)
	}
	return response.Data, nil
}

func (m *mount) login(ctx context.Context, role string) error {
	response, err := m.request(ctx, logical.UpdateOperation, "login", map[string]any{"role": role, "jwt": m.token})
	if err != nil {
		return err
	}
	if response.Auth == nil || response.Data["creds"] == nil {
		return errors.New("a login without a token or without creds")
	}
	return nil
}

// configure makes the operator of an empty mount, for workloads of a key's and for a
// nats-server.
func (m *mount) configure(ctx context.Context, key *stack.SigningKey, natsURL string) error {
	_, err := m.write(ctx, "config", map[string]any{
		"jwt_validation_pubkeys": []string{key.PublicPEM}, "account_jwt_server_url": natsURL, "service_url": natsURL,
	})
	return err
}

// addAccount makes an account and returns its public key.
func (m *mount) addAccount(ctx context.Context, name string) (string, error) {
	data, err := m.write(ctx, "jwt/"+name, map[string]any{"type": "account"})
	if err != nil {
		return "", err
	}
	id, ok := data["public_key"].(string)
	if !ok {
		return "", fmt.Errorf("jwt/%s has no public_key", name)
	}
	return id, nil
}

func (m *mount) addRole(ctx context.Context, name, account string) error {
	role := natsRole()
	role["account"] = account
	_, err := m.write(ctx, "role/"+name, role)
	return err
}

// A populated mount has the accounts account-0, account-1, ... and a role of each:
// role-0, role-1, ...
type populated struct {
	*mount
	size int
	ids  []string // public keys of the accounts
	nats *stack.NATS
}

// populate makes a mount with so many accounts and roles, and its nats-server, which
// holds none of them yet.
func populate(ctx context.Context, size int, key *stack.SigningKey, token string) (p *populated, err error) {
	p = &populated{size: size, ids: make([]string, size)}
	if p.nats, err = stack.NewNATS(); err != nil {
		return nil, err
	}
	if p.mount, err = openMount(ctx, &logical.InmemStorage{}, token, true); err != nil {
		return nil, errors.Join(err, p.nats.Close())
	}
	if err := p.fill(ctx, key); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *populated) fill(ctx context.Context, key *stack.SigningKey) error {
	if err := p.configure(ctx, key, p.nats.URL); err != nil {
		return err
	}
	err := inParallel(ctx, p.size, func(ctx context.Context, i int) (err error) {
		if p.ids[i], err = p.addAccount(ctx, fmt.Sprintf("account-%d", i)); err != nil {
			return err
		}
		return p.addRole(ctx, fmt.Sprintf("role-%d", i), fmt.Sprintf("account-%d", i))
	})
	if err != nil {
		return err
	}
	config, err := p.read(ctx, "config/server")
	if err != nil {
		return err
	}
	return p.nats.Start(ctx, config["config"].(string))
}

// sync brings nats-server to what the mount holds: its accounts and the system account.
func (p *populated) sync(ctx context.Context) error {
	report, err := p.write(ctx, "sync", nil)
	if err != nil {
		return err
	}
	if delivered := fmt.Sprint(report["delivered"]); delivered != strconv.Itoa(p.size+1) {
		return fmt.Errorf("nats-server has %s of %d accounts: %v", delivered, p.size, report)
	}
	return nil
}

// reopen closes the mount and opens it anew, as after a restart of Vault.
func (p *populated) reopen(ctx context.Context, quiet bool) (err error) {
	p.mount.close()
	p.mount, err = openMount(ctx, p.storage, p.token, quiet)
	return err
}

func (p *populated) close() error {
	if p.mount != nil {
		p.mount.close()
	}
	return p.nats.Close()
}

// inParallel does something for each number below n, some at a time.
func inParallel(ctx context.Context, n int, do func(context.Context, int) error) error {
	const workers = 64
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	next := make(chan int)
	for range workers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range next {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		}()
	}
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	wait.Wait()
	return context.Cause(ctx)
}

// newWorkload makes a key, and the token of a workload that it signed.
func newWorkload() (key *stack.SigningKey, token string, err error) {
	if key, err = stack.NewSigningKey(jose.EdDSA); err != nil {
		return nil, "", err
	}
	payload, err := json.Marshal(workloadClaims(0))
	if err != nil {
		return nil, "", err
	}
	token, err = key.Sign(nil, payload)
	return key, token, err
}
