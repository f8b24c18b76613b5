package stack

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"
)

// stabilization is how long a node has to be there before it gets a vote; ten seconds
// are the default.
const stabilization = "1s"

// StartVaultCluster starts nodes that form a cluster on Raft, and returns when each has
// a vote. The first is the leader, until something happens to it.
func StartVaultCluster(ctx context.Context, size int, config VaultConfig) ([]*Vault, error) {
	config.Storage = "raft"
	leader, err := StartVault(ctx, config)
	if err != nil {
		return nil, err
	}
	nodes := []*Vault{leader}
	if nodes, err = leader.fillCluster(ctx, nodes, size); err != nil {
		for _, node := range nodes {
			err = errors.Join(err, node.Close())
		}
		return nil, err
	}
	return nodes, nil
}

// fillCluster adds nodes to the leader until there are as many as wanted.
func (v *Vault) fillCluster(ctx context.Context, nodes []*Vault, size int) ([]*Vault, error) {
	client, err := v.Client()
	if err != nil {
		return nodes, err
	}
	_, err = client.Logical().WriteWithContext(ctx, "sys/storage/raft/autopilot/configuration", map[string]any{
		"server_stabilization_time": stabilization,
	})
	if err != nil {
		return nodes, fmt.Errorf("have nodes vote soon: %w", err)
	}
	var mutex sync.Mutex
	var adding errgroup.Group
	for range size - len(nodes) {
		adding.Go(func() error {
			node, err := v.AddStandby(ctx)
			if err != nil {
				return err
			}
			mutex.Lock()
			defer mutex.Unlock()
			nodes = append(nodes, node)
			return nil
		})
	}
	if err := adding.Wait(); err != nil {
		return nodes, err
	}
	return nodes, v.waitForVotes(ctx, client)
}

// waitForVotes returns when every node of the cluster has a vote: one that has joined
// gets its own after some seconds.
func (v *Vault) waitForVotes(ctx context.Context, client *api.Client) error {
	return v.process.ready(ctx, func() error {
		secret, err := client.Logical().ReadWithContext(ctx, "sys/storage/raft/configuration")
		if err != nil {
			return err
		}
		config, _ := secret.Data["config"].(map[string]any)
		nodes, _ := config["servers"].([]any)
		for _, node := range nodes {
			if node, _ := node.(map[string]any); node["voter"] != true {
				return fmt.Errorf("node %v has no vote yet", node["node_id"])
			}
		}
		return nil
	})
}

// Leads says whether the server is active, and an error if it does not answer at once.
func (v *Vault) Leads(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := v.Client()
	if err != nil {
		return false, err
	}
	health, err := client.Sys().HealthWithContext(ctx)
	if err != nil {
		return false, err
	}
	return health.Initialized && !health.Sealed && !health.Standby, nil
}

// Running says whether the server runs; one that is frozen does.
func (v *Vault) Running() bool { return v.process.running() }
