package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// orphanVariable has the test's program wait for its parent's end.
const orphanVariable = "PLUGIN_TEST_ORPHAN"

func TestMain(m *testing.M) {
	if os.Getenv(orphanVariable) == "" {
		os.Exit(m.Run())
	}
	parent := os.Getppid()
	fmt.Println("waiting")
	exitWithParent(parent)
}

func TestThePluginEndsWithItsVault(t *testing.T) {
	own, err := os.Executable()
	require.NoError(t, err)
	// The shell stands for Vault: it starts the plugin and is gone when its input ends.
	vault := exec.CommandContext(t.Context(), "sh", "-c", `"$0" & read end`, own)
	vault.Env = append(os.Environ(), orphanVariable+"=1")
	input, err := vault.StdinPipe()
	require.NoError(t, err)
	output, plugin, err := os.Pipe()
	require.NoError(t, err)
	defer output.Close()
	vault.Stdout = plugin
	require.NoError(t, vault.Start())
	require.NoError(t, plugin.Close())

	require.NoError(t, output.SetReadDeadline(time.Now().Add(time.Minute)))
	reader := bufio.NewReader(output)
	line, err := reader.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "waiting\n", line)

	require.NoError(t, input.Close())
	require.Error(t, vault.Wait(), "read found the end of its input")
	// The plugin holds the pipe's other end for as long as it runs.
	_, err = io.ReadAll(reader)
	require.NoError(t, err)
}
