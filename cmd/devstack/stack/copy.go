package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// copyModule copies the tool's pinned module from Go's module cache into a folder, with the stand-ins in place.
func (t Tool) copyModule(ctx context.Context, moduleDir, to string) error {
	from, err := pinnedSource(ctx, moduleDir, t.module)
	if err != nil {
		return err
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	for file, standIn := range t.standIns {
		text, err := os.ReadFile(filepath.Join(moduleDir, standIn))
		if err != nil {
			return err
		}
		path := filepath.Join(to, filepath.FromSlash(file))
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%s stands in for nothing: %w", standIn, err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// pinnedSource returns the folder with the source of a module that a nested module pins, and downloads it first
// where need be.
func pinnedSource(ctx context.Context, moduleDir, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = moduleDir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, failed := cmd.Output()
	var answer struct{ Dir, Error string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return "", fmt.Errorf("go mod download %s: %w", module, errors.Join(failed, err))
	}
	if failed != nil {
		return "", fmt.Errorf("go mod download %s: %w: %s", module, failed, answer.Error)
	}
	return answer.Dir, nil
}
