package main

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

func TestTheCalloutThatAsksNobodyLetsClientsIn(t *testing.T) {
	f, err := newFloor(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.close()) })
	for range 20 {
		require.NoError(t, connect(f.nats, nats.UserInfo("bench", "token")), f.nats.Log())
	}
}
