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

// cached is where a build of the tool is, or would be.
func (t Tool) cached(p pin) (string, error) {
	sum, err := pinSum(p.moduleDir, t.flavour(p.version))
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, t.Name+"-"+p.version+"-"+sum), nil
}

// build returns the tool's program in the cache folder, and builds it when it is
// not there. Processes that want the same one wait for the first of them.
func (t Tool) build(ctx context.Context, p pin, reason string) (string, error) {
	path, err := t.cached(p)
	if err != nil {
		return "", err
	}
	if isProgram(path) {
		return path, nil
	}
	cache := filepath.Dir(path)
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
	notice("building %s %s: %s, and %s; about %s the first time", t.Name, p.version, t.Why, reason, minutes(t.Minutes))
	if t.install != nil {
		notice("with one on PATH there is nothing to build:\n  %s", t.install(p.version))
	}
	began := time.Now()
	if err := t.buildAt(ctx, p, path); err != nil {
		return "", fmt.Errorf("build %s %s: %w", t.Name, p.version, err)
	}
	notice("built %s in %s", path, time.Since(began).Round(time.Second))
	return path, nil
}

// A flavour is what of go build's flags decides what comes out.
type flavour struct{ ldflags, tags string }

func (f flavour) linked() string { return strings.TrimSpace("-s -w " + f.ldflags) }

func (f flavour) args() []string {
	args := []string{"-ldflags", f.linked()}
	if f.tags != "" {
		args = append(args, "-tags", f.tags)
	}
	return args
}

// String is part of the name of what was built: another one has everything without tags built again.
func (f flavour) String() string {
	text := f.linked()
	if f.tags != "" {
		text += " -tags " + f.tags
	}
	return text
}

func (t Tool) flavour(version string) flavour {
	if t.ldflags == "" {
		return flavour{tags: t.tags}
	}
	return flavour{ldflags: fmt.Sprintf(t.ldflags, version), tags: t.tags}
}

func (t Tool) buildAt(ctx context.Context, p pin, path string) error {
	moduleDir, flavour := p.moduleDir, t.flavour(p.version)
	progress := stderr.follow(t.Name)
	defer progress.end()
	if len(t.standIns) > 0 {
		source, err := os.MkdirTemp("", "devstack-"+t.Name+"-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(source)
		if err := t.copyModule(ctx, moduleDir, source); err != nil {
			return err
		}
		moduleDir = source
	}
	if err := progress.count(ctx, moduleDir, t.pkg, flavour); err != nil {
		return err
	}
	return goBuild(ctx, moduleDir, t.pkg, flavour, path, progress)
}

// pinSum tells apart programs of one version that were built from other pins, sources
// or flags, or for another machine.
func pinSum(moduleDir string, flavour flavour) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.GOOS, runtime.GOARCH, flavour)
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

// goBuild builds a static program. The file appears at path when it is whole. A progress is told how far it is, and
// may be nil.
func goBuild(ctx context.Context, dir, pkg string, flavour flavour, path string, progress *progress) error {
	temp, err := os.MkdirTemp(filepath.Dir(path), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	built := filepath.Join(temp, filepath.Base(path))
	args := append([]string{"build", "-trimpath", "-o", built}, flavour.args()...)
	if progress == nil {
		progress = unseen()
	} else {
		args = append(args, "-v") // name what is compiled
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, buildEnv(), progress
	// An interrupted go build takes its compilers with it; a killed one would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, progress.complaint())
	}
	return os.Rename(built, path)
}

func buildEnv() []string { return append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off") }

// BuildPlugin builds the plugin's program into a folder, with the given version
// stamped in, and returns its path.
func BuildPlugin(ctx context.Context, dir, version string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	ldflags := fmt.Sprintf("-X %[1]s/plugin.Version=%[2]s -X %[1]s/plugin.Commit=%[3]s", ModulePath, version, commit(ctx, root))
	path := filepath.Join(dir, PluginName)
	if err := goBuild(ctx, root, "./cmd/"+PluginName, flavour{ldflags: ldflags}, path, nil); err != nil {
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
