// Package stack runs real servers on loopback addresses, for the demo, for
// development and for the end-to-end tests: Vault (or OpenBao) with the plugin in it,
// nats-server, a small OIDC issuer, and kube-apiserver with etcd.
//
// A server's program comes from the variable that names it (VAULT_BIN,
// NATS_SERVER_BIN, KUBE_APISERVER_BIN, ETCD_BIN), else from PATH when its version
// will do, else it is built once from the nested Go module that pins it, into the
// user's cache folder. See Tool.
//
// Everything listens on 127.0.0.1 on a port that was free, writes only below a
// temporary folder of its own, and ends with its parent: Close stops a server in
// good order, and on Linux the kernel kills it when the parent dies without one.
//
//	vault, err := stack.StartVault(ctx, stack.VaultConfig{})
//	defer vault.Close()
//	plugin, err := stack.BuildPlugin(ctx, vault.PluginDir, "v0.1.0")
//	err = vault.Register(ctx, plugin)
//	err = vault.Enable(ctx, "nats")
package stack
