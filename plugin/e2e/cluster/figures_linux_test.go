package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// figuresOf reads the figures of a process.
func figuresOf(pid int) (figures, error) {
	var f figures
	dir := fmt.Sprintf("/proc/%d", pid)
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		switch name {
		case "VmRSS":
			f.memory, err = strconv.ParseInt(number, 10, 64)
			f.memory <<= 10 // it is in kB
		case "Threads":
			f.threads, err = strconv.Atoi(number)
		}
		if err != nil {
			return f, err
		}
	}
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return f, err
	}
	f.files = len(files)
	for _, file := range files {
		// One that was closed meanwhile is none.
		if link, err := os.Readlink(filepath.Join(dir, "fd", file.Name())); err == nil && strings.HasPrefix(link, "socket:") {
			f.connections++
		}
	}
	return f, nil
}
