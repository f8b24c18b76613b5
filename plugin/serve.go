package plugin

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	sdk "github.com/hashicorp/vault/sdk/plugin"
	"google.golang.org/grpc"
)

// SetRuntime sets Go's runtime for the plugin's process, but for what the
// environment sets with GOGC and GOMAXPROCS.
//
// The heap grows to five times of what lives before it is collected. What lives is
// a few megabytes, for which Go's default collects many times a second under a
// load of logins: 5 to 15 % of a login's processor time in the plugin.
//
// Half of the processors are used, rounded up. Vault needs the other half and
// more, as a login takes it twice the time that it takes the plugin, and
// nats-servers may be on the same machine. With all of them, Go's scheduler would spend its time on having
// both processors of a small machine take turns with a few goroutines. A limit of
// the container counts as it is at the start.
func SetRuntime() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS((runtime.GOMAXPROCS(0) + 1) / 2)
	}
}

const (
	// quietMemory is how much memory the plugin may have, in bytes, before its garbage is
	// collected more often than GOGC says, where little of that lives.
	quietMemory = 48 << 20
	// spareMemory is what it may have beyond twice of what lives.
	spareMemory = 24 << 20
)

// boundGarbage bounds the memory that a herd of logins leaves behind until it is
// collected. What it looks at is what lived at the last collection; a bound that was not
// above that would have the runtime do nothing else than collect.
func boundGarbage() {
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for ; ; time.Sleep(time.Second) {
		runtimemetrics.Read(live)
		debug.SetMemoryLimit(memoryLimit(int64(live[0].Value.Uint64())))
	}
}

func memoryLimit(live int64) int64 { return max(quietMemory, 2*live+spareMemory) }

// Serve serves the plugin to the Vault that started this process, until Vault
// ends it. It does what ServeMultiplex of Vault's SDK does, which leaves no say
// in how the gRPC server works.
//
// tls may be nil, or is for a Vault that is too old for AutoMTLS; others do not
// call it.
func Serve(tls sdk.TLSProviderFunc) error {
	SetRuntime()
	if os.Getenv("GOMEMLIMIT") == "" {
		go boundGarbage()
	}
	if err := pluginutil.OptionallyEnableMlock(); err != nil {
		return err
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	versions := map[int]goplugin.PluginSet{}
	for version, multiplexed := range map[int]bool{3: false, 4: false, 5: true} {
		backend := &sdk.GRPCBackendPlugin{Factory: Factory, Logger: logger, MultiplexingSupport: multiplexed}
		versions[version] = goplugin.PluginSet{sdk.BackendPluginName: backend}
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  sdk.HandshakeConfig,
		VersionedPlugins: versions,
		TLSProvider:      tls,
		Logger:           logger,
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(options,
				grpc.MaxRecvMsgSize(math.MaxInt32), grpc.MaxSendMsgSize(math.MaxInt32),
				grpc.UnaryInterceptor(boundRequests),
				// A goroutine that is new for each call grows its stack anew for each: 7 %
				// of a login's processor time in the plugin. Beyond the workers, new ones
				// are made all the same.
				grpc.NumStreamWorkers(uint32(4*runtime.GOMAXPROCS(0))),
			)...)
		},
	})
	return nil
}
