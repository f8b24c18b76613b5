package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// CacheDir is the folder that holds the tools that were built, one file a tool and
// version, so that another clone builds none of them again.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "vault-plugin-auth-nats", "servers"), nil
}

// build returns the tool's program in the cache folder, and builds it when it is
// not there. Processes that want the same one wait for the first of them.
func (t Tool) build(ctx context.Context, moduleDir, version, reason string) (string, error) {
	ldflags := "-s -w"
	if t.ldflags != "" {
		ldflags += " " + fmt.Sprintf(t.ldflags, version)
	}
	sum, err := pinSum(moduleDir, ldflags)
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, t.Name+"-"+version+"-"+sum)
	if isProgram(path) {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, filepath.Join(cache, t.Name+".lock"))
	if err != nil {
		return "", fmt.Errorf("wait for another build of %s: %w", t.Name, err)
	}
	defer unlock()
	if isProgram(path) {
		return path, nil
	}
	notice("building %s %s: %s, and %s; about %s the first time", t.Name, version, t.Why, reason, minutes(t.Minutes))
	began := time.Now()
	if err := t.buildAt(ctx, moduleDir, ldflags, path); err != nil {
		return "", fmt.Errorf("build %s %s: %w", t.Name, version, err)
	}
	notice("built %s in %s", path, time.Since(began).Round(time.Second))
	return path, nil
}

func (t Tool) buildAt(ctx context.Context, moduleDir, ldflags, path string) error {
	if len(t.standIns) == 0 {
		return goBuild(ctx, moduleDir, t.pkg, ldflags, path)
	}
	source, err := os.MkdirTemp("", "devstack-"+t.Name+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(source)
	if err := t.copyModule(ctx, moduleDir, source); err != nil {
		return err
	}
	return goBuild(ctx, source, t.pkg, ldflags, path)
}

// pinSum tells apart programs of one version that were built from other pins, sources
// or flags, or for another machine.
func pinSum(moduleDir, ldflags string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.GOOS, runtime.GOARCH, ldflags)
	sources, err := filepath.Glob(filepath.Join(moduleDir, "*.go"))
	if err != nil {
		return "", err
	}
	for _, name := range append([]string{filepath.Join(moduleDir, "go.mod"), filepath.Join(moduleDir, "go.sum")}, sources...) {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:4]), nil
}

// goBuild builds a static program. The file appears at path when it is whole.
func goBuild(ctx context.Context, dir, pkg, ldflags, path string) error {
	temp, err := os.MkdirTemp(filepath.Dir(path), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	built := filepath.Join(temp, filepath.Base(path))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", ldflags, "-o", built, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	// An interrupted go build takes its compilers with it; a killed one would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, strings.TrimSpace(string(out)))
	}
	return os.Rename(built, path)
}

// BuildPlugin builds the plugin's program into a folder, with the given version
// stamped in, and returns its path.
func BuildPlugin(ctx context.Context, dir, version string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	ldflags := fmt.Sprintf("-s -w -X %[1]s/plugin.Version=%[2]s -X %[1]s/plugin.Commit=%[3]s", ModulePath, version, commit(ctx, root))
	path := filepath.Join(dir, PluginName)
	if err := goBuild(ctx, root, "./cmd/"+PluginName, ldflags, path); err != nil {
		return "", err
	}
	return path, nil
}

// commit names the commit that is checked out, "unknown" outside of a git clone.
func commit(ctx context.Context, root string) string {
	cmd := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o100 != 0
}

func minutes(n int) string {
	if n == 1 {
		return "a minute"
	}
	return fmt.Sprintf("%d minutes", n)
}

// notice tells the person at the screen what takes so long.
func notice(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "devstack: "+format+"\n", args...)
}
