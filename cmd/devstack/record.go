package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/cast"
)

// record runs the demo as far as a message, and writes the chapters from the login on into a folder: demo.cast for
// asciinema, and demo.svg for the README.
func record(ctx context.Context, dir string) (err error) {
	servers, err := startServers(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.close()) }()
	d := newStory(servers, io.Discard)
	if err := tell(ctx, d.enable, d.configure, d.defineRole, d.defineCallout, d.bootNATS); err != nil {
		return err
	}
	shown := &cast.Recording{Title: "make demo: a CI job's token becomes NATS credentials", Width: 100}
	d.out = shown
	if err := tell(ctx, d.login, d.talk); err != nil {
		return err
	}
	text, err := shown.Asciicast()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "demo.cast"), text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "demo.svg"), shown.SVG(), 0o644)
}
