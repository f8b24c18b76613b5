// Command observed is the plugin with a window: it serves what its Go runtime counts,
// for the benchmark that watches memory and goroutines under a long load. What Vault
// starts in production has no such window.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime/metrics"
	"time"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin"
)

// addressVariable says where to listen.
const addressVariable = "BENCH_OBSERVED"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	// The plugin is multiplexed, but Vault starts it once more to ask for its version.
	// Whoever comes second has nothing to show.
	if listener, err := net.Listen("tcp", os.Getenv(addressVariable)); err == nil {
		server := &http.Server{Handler: http.HandlerFunc(show), ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = server.Serve(listener) }() // until the process ends
	}
	return plugin.Serve(nil)
}

// show answers with the number of goroutines and the bytes that the last garbage
// collection left alive.
func show(w http.ResponseWriter, _ *http.Request) {
	samples := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	_ = json.NewEncoder(w).Encode(map[string]uint64{ // a client that went away needs no answer
		"goroutines": samples[0].Value.Uint64(), "heap": samples[1].Value.Uint64(),
	})
}
