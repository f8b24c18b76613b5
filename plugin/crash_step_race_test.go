//go:build race

package plugin

// crashStep is longer under the race detector, which makes all of it take six times as
// long: at every other write to storage the process dies or a delivery comes in between,
// and each of the others is torn. Every single one fails.
const crashStep = 2
