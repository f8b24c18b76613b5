package stack

import "syscall"

// childAttributes puts a server into a process group of its own, so that Ctrl-C
// reaches only its parent, and has the kernel kill it when the parent dies.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
