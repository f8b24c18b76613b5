//go:build unix

package stack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// claimPort locks a file that stands for the port, for as long as it is open. It returns
// nil where another has it. Tests of several packages run at once, and a port is free
// until its server listens.
func claimPort(port int) (*os.File, error) {
	tools, err := CacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(filepath.Dir(tools), "ports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, file.Close()
	case err != nil:
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// lockFile holds a file's lock until it is released or the process ends.
func lockFile(ctx context.Context, path string) (release func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = WaitFor(ctx, "lock "+path, func() error {
		return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}
