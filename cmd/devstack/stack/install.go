package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// installVault is a line for the shell: Homebrew's where there is one, else that of HashiCorp's own download.
func installVault(version string) string {
	if _, err := exec.LookPath("brew"); err == nil {
		return "brew install hashicorp/tap/vault"
	}
	version = strings.TrimPrefix(version, "v")
	file := fmt.Sprintf("vault_%s_%s_%s.zip", version, runtime.GOOS, runtime.GOARCH)
	return fmt.Sprintf("curl -fsSO https://releases.hashicorp.com/vault/%s/%s && sudo unzip %s vault -d /usr/local/bin", version, file, file)
}

// openBao is taken from PATH, and is never built.
var openBao = Tool{Name: "bao", min: version{2, 5, 0}, versionArgs: []string{"version"}}

// PreferOpenBao has OpenBao's bao on PATH run in Vault's place, where Vault would have to be built. It is for what shows
// or tries things; tests ask for Vault.
func PreferOpenBao(ctx context.Context) error {
	found, err := VaultTool.Found(ctx)
	if err != nil || found {
		return err
	}
	path, _, err := openBao.find(ctx, pin{version: openBao.min.String()})
	if err != nil {
		return err
	}
	if path == "" {
		notice("OpenBao's bao on PATH serves as well as a vault: https://openbao.org/docs/install/")
		return nil
	}
	notice("%s runs in Vault's place", path)
	return os.Setenv(VaultTool.Env, path)
}
