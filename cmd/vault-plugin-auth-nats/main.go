// Command vault-plugin-auth-nats is the plugin that Vault starts. It is not run by
// hand, but for -version.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin"
)

func main() {
	meta := &api.PluginAPIClientMeta{}
	flags := meta.FlagSet()
	version := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(os.Args[1:]); err != nil {
		os.Exit(2) // the flag set has said why
	}
	if *version {
		fmt.Printf("vault-plugin-auth-nats %s (%s)\n", plugin.Version, plugin.Commit)
		return
	}
	go exitWithParent(os.Getppid())
	// Vault with AutoMTLS needs no provider; older ones unwrap a token from the environment.
	if err := plugin.Serve(api.VaultPluginTLSProvider(meta.GetTLSConfig())); err != nil {
		hclog.New(&hclog.LoggerOptions{}).Error("the plugin ends", "error", err)
		os.Exit(1)
	}
}

// exitWithParent ends the plugin when the Vault that started it is gone. A Vault that
// was killed cannot end its plugins, and one left alone would hold keys in memory for
// nobody.
func exitWithParent(parent int) {
	for range time.Tick(time.Second) {
		if os.Getppid() != parent {
			os.Exit(1)
		}
	}
}
