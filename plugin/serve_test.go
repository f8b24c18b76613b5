package plugin

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheRuntimeIsThePluginsUnlessTheEnvironmentHasASay(t *testing.T) {
	processors, percent := runtime.GOMAXPROCS(5), debug.SetGCPercent(100)
	defer func() { runtime.GOMAXPROCS(processors); debug.SetGCPercent(percent) }()

	t.Setenv("GOMAXPROCS", "5")
	t.Setenv("GOGC", "100")
	SetRuntime()
	require.Equal(t, 5, runtime.GOMAXPROCS(0))
	require.Equal(t, 100, debug.SetGCPercent(100))

	t.Setenv("GOMAXPROCS", "")
	t.Setenv("GOGC", "")
	SetRuntime()
	require.Equal(t, 3, runtime.GOMAXPROCS(0), "half of the processors, rounded up")
	require.Equal(t, 400, debug.SetGCPercent(100))

	runtime.GOMAXPROCS(1)
	SetRuntime()
	require.Equal(t, 1, runtime.GOMAXPROCS(0), "one cannot be halved")
}

func TestThePluginMayAlwaysHaveMoreMemoryThanLives(t *testing.T) {
	require.Equal(t, int64(quietMemory), memoryLimit(0))
	for live := int64(0); live < 4<<30; live += 7 << 20 {
		require.GreaterOrEqual(t, memoryLimit(live), 2*live, "or Go would do nothing else than collect")
	}
}
