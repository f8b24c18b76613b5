package stack

import (
	"fmt"
	"syscall"
)

// Freeze suspends the server and its plugins, as a virtual machine that stands still
// does. They know nothing of it: time has passed once they go on. Stop and Close wait
// for long if they are not thawed before.
func (v *Vault) Freeze() error { return v.signalGroup(syscall.SIGSTOP) }

// Thaw has the server and its plugins go on.
func (v *Vault) Thaw() error { return v.signalGroup(syscall.SIGCONT) }

// signalGroup reaches the server and the plugins that it started.
func (v *Vault) signalGroup(signal syscall.Signal) error {
	if !v.process.running() {
		return fmt.Errorf("%s does not run", v.Addr)
	}
	return syscall.Kill(-v.process.cmd.Process.Pid, signal)
}

// PluginProcesses returns the numbers of the plugin processes that the server started.
func (v *Vault) PluginProcesses() ([]int, error) {
	if !v.process.running() {
		return nil, fmt.Errorf("%s does not run", v.Addr)
	}
	return children(v.process.cmd.Process.Pid)
}

// SignalPlugins sends a signal to the server's plugin processes, and not to itself.
func (v *Vault) SignalPlugins(signal syscall.Signal) error {
	plugins, err := v.PluginProcesses()
	if err != nil {
		return err
	}
	if len(plugins) == 0 {
		return fmt.Errorf("%s has no plugin process", v.Addr)
	}
	for _, pid := range plugins {
		if err := syscall.Kill(pid, signal); err != nil {
			return err
		}
	}
	return nil
}
