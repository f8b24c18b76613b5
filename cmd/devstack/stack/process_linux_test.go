package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// parentVariable has the test program start a server, name its URL and wait.
const parentVariable = "DEVSTACK_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) == "" {
		os.Exit(m.Run())
	}
	server, err := NewNATS()
	if err == nil {
		err = server.Start(context.Background(), "")
	}
	fmt.Println(server.Dir, err)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends it
}

func TestAServerDiesWithItsParent(t *testing.T) {
	ctx := testContext(t, NATSTool)
	own, err := os.Executable()
	require.NoError(t, err)
	parent := exec.CommandContext(ctx, own)
	parent.Env = append(os.Environ(), parentVariable+"=1")
	_, err = parent.StdinPipe()
	require.NoError(t, err)
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	var dir, failure string
	_, err = fmt.Fscan(out, &dir, &failure)
	require.NoError(t, err)
	require.Equal(t, "<nil>", failure)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NotEmpty(t, processesIn(t, dir))

	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	require.NoError(t, WaitFor(ctx, "the server to end", func() error {
		if left := processesIn(t, dir); len(left) > 0 {
			return errors.New("still running: " + strings.Join(left, ", "))
		}
		return nil
	}))
}

// processesIn lists the processes whose working folder is dir.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var found []string
	for _, entry := range entries {
		if cwd, err := os.Readlink("/proc/" + entry.Name() + "/cwd"); err == nil && cwd == dir {
			found = append(found, entry.Name())
		}
	}
	return found
}

func TestAServerThatDoesNotStopIsKilled(t *testing.T) {
	p, err := startProcess(t.TempDir(), "stubborn", nil, "/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done")
	require.NoError(t, err)
	require.NoError(t, p.ready(testContext(t), func() error {
		if !strings.Contains(p.output(), "deaf") {
			return errors.New("not deaf yet")
		}
		return nil
	}))
	p.stopWithin(100 * time.Millisecond)
	require.ErrorContains(t, p.err, "killed")
}
