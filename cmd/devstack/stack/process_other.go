//go:build unix && !linux

package stack

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// childAttributes puts a server into a process group of its own, so that Ctrl-C
// reaches only its parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// children returns the numbers of the processes that a process has started.
func children(pid int) ([]int, error) {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil, nil // there are none
	}
	if err != nil {
		return nil, err
	}
	var all []int
	for _, field := range strings.Fields(string(out)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		all = append(all, child)
	}
	return all, nil
}
