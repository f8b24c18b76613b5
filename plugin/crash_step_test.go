//go:build !race

package plugin

// crashStep says at which of a write's operations on storage each breakage is tried.
const crashStep = 1
