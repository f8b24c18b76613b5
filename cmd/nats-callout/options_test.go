package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOptionsComeFromFlagsOrTheEnvironment(t *testing.T) {
	env := map[string]string{
		"NATS_CALLOUT_MOUNT": "auth/other/", "NATS_CALLOUT_TOKEN_FILE": "/token", "NATS_CALLOUT_CONCURRENCY": "7", "NATS_URL": "nats://a,nats://b",
		"NATS_CALLOUT_TIMEOUT": "3s",
	}
	o, err := parse([]string{"-callout", "edge", "-timeout", "4s"}, func(name string) string { return env[name] }, &bytes.Buffer{})
	require.NoError(t, err)
	require.Equal(t, "auth/other", o.place.Mount)
	require.Equal(t, "callout-edge", o.place.User)
	require.Equal(t, "/token", o.login.TokenFile)
	require.Equal(t, "nats://a,nats://b", o.nats)
	require.Equal(t, 7, o.concurrency)
	require.Equal(t, 4*time.Second, o.timeout, "a flag wins")
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for args, fault := range map[string]string{
		"":                              "-callout is missing",
		"-callout edge":                 "-nats is missing",
		"-callout a/b -nats x":          "without a slash",
		"-callout edge -nats x y":       "unexpected argument: y",
		"-callout edge -nats x -role r": "-role is given without -jwt-file",
		"-callout edge -nats x -jwt-file j -token-file t": "which is it",
		"-callout edge -nats x -nats-cert c":              "go together",
		"-callout edge -nats x -concurrency 0":            "positive",
		"-callout edge -nats x -log-format xml":           "text or json",
		"-callout edge -nats x -log-level loud":           "loud",
	} {
		t.Run(args, func(t *testing.T) {
			var out bytes.Buffer
			_, err := parse(strings.Fields(args), func(string) string { return "" }, &out)
			require.ErrorContains(t, err, fault)
			require.Contains(t, out.String(), fault, "the user is told")
		})
	}
}
