package stack

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A lock is of the file that was opened, so that this process stands for another one.
func TestAPortIsNobodyElsesThoughNothingListensOnIt(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	port, err := FreePort()
	require.NoError(t, err)
	other, err := claimPort(port)
	require.NoError(t, err)
	require.Nil(t, other)

	require.NoError(t, portsTaken[port].Close()) // as the end of its process does
	other, err = claimPort(port)
	require.NoError(t, err)
	require.NotNil(t, other)
	require.NoError(t, other.Close())
}
