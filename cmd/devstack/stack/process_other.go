//go:build unix && !linux

package stack

import "syscall"

// childAttributes puts a server into a process group of its own, so that Ctrl-C
// reaches only its parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
