package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// machine is what the figures were measured on.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	OS     string `json:"os"`
	Go     string `json:"go"`
}

func thisMachine() machine {
	return machine{
		CPU:    firstValue("/proc/cpuinfo", "model name"),
		Cores:  runtime.NumCPU(),
		Memory: firstValue("/proc/meminfo", "MemTotal"),
		OS:     runtime.GOOS + "/" + runtime.GOARCH,
		Go:     runtime.Version(),
	}
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s memory, %s, %s", m.CPU, m.Cores, m.Memory, m.OS, m.Go)
}

func (m machine) print(out io.Writer) { fmt.Fprintln(out, m) }

// firstValue finds "name : value" in one of Linux's files; "unknown" elsewhere.
func firstValue(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		key, value, found := strings.Cut(line, ":")
		if found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
