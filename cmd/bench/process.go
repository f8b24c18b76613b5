package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticksPerSecond is the unit of /proc/PID/stat's times, on every Linux there is.
const ticksPerSecond = 100

// A usage is what the processes of a Vault have used: the server and its plugins. It
// is zero where there is no /proc.
type usage struct {
	vault, plugins float64            // seconds of processor time
	memory         map[string]float64 // in bytes, by program
	peak           map[string]float64 // the most that it ever was
}

// usageOf reads what the processes that run in a folder have used. Vault's plugins
// run in Vault's.
func usageOf(dir string) (usage, error) {
	used := usage{memory: map[string]float64{}, peak: map[string]float64{}}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return used, err
	}
	for _, process := range processes {
		if cwd, err := os.Readlink(process + "/cwd"); err != nil || cwd != dir {
			continue // another's, or one that has ended
		}
		exe, err := os.Readlink(process + "/exe")
		if err != nil {
			continue
		}
		cpu, resident, err := readStat(process + "/stat")
		if err != nil {
			return used, err
		}
		if filepath.Base(filepath.Dir(exe)) == "plugins" {
			used.plugins += cpu
		} else {
			used.vault += cpu
		}
		used.memory[filepath.Base(exe)] += resident
		used.peak[filepath.Base(exe)] += peakOf(process + "/status")
	}
	return used, nil
}

// peakOf reads the most memory that a process ever had, in bytes.
func peakOf(path string) float64 {
	number, _, _ := strings.Cut(firstValue(path, "VmHWM"), " ")
	kilobytes, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0 // it has ended
	}
	return kilobytes * 1024
}

// readStat reads a process's processor time in seconds and its memory in bytes.
func readStat(path string) (cpu, resident float64, err error) {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return 0, 0, nil // it has ended
	}
	if err != nil {
		return 0, 0, err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	// As proc_pid_stat(5) numbers them: utime 14, stime 15, rss 24; the rest begins with 3.
	values := map[int]float64{14: 0, 15: 0, 24: 0}
	for n := range values {
		if n-3 >= len(fields) {
			return 0, 0, fmt.Errorf("%s: too few fields", path)
		}
		if values[n], err = strconv.ParseFloat(fields[n-3], 64); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", path, err)
		}
	}
	return (values[14] + values[15]) / ticksPerSecond, values[24] * float64(os.Getpagesize()), nil
}
