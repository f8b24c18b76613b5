package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// JavaScriptDir is the folder, below the repository's root, whose package-lock.json pins the packages of
// JavaScript clients.
const JavaScriptDir = "testdata/clients/javascript"

// Node returns the path of Node.js, which runs the clients in JavaScript.
func Node() (string, error) { return nodeProgram("node") }

func nodeProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: install Node.js 18 or newer with npm, such as Debian's packages nodejs and npm", err)
	}
	return path, nil
}

// NodeModules returns a folder node_modules with the packages of JavaScriptDir. They are installed once into the
// cache folder.
func NodeModules(ctx context.Context) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	var sum []byte
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join(root, JavaScriptDir, name))
		if err != nil {
			return "", err
		}
		sum = append(sum, text...)
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, filepath.Join(cache, "javascript.lock"))
	if err != nil {
		return "", fmt.Errorf("wait for another installation of JavaScript packages: %w", err)
	}
	defer unlock()
	digest := sha256.Sum256(sum)
	dir := filepath.Join(cache, "javascript-"+hex.EncodeToString(digest[:4]))
	if _, err := os.Stat(dir); err != nil {
		if err := npmInstall(ctx, filepath.Join(root, JavaScriptDir), dir); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "node_modules"), nil
}

// npmInstall installs the packages that a folder pins. The new folder appears when it is whole.
func npmInstall(ctx context.Context, from, to string) error {
	npm, err := nodeProgram("npm")
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(to), ".install-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := os.CopyFS(temp, os.DirFS(from)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = temp
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in %s: %w\n%s", from, err, strings.TrimSpace(string(out)))
	}
	return os.Rename(temp, to)
}
