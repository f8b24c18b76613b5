package main

import (
	"slices"
	"time"
)

// median of some figures; 0 of none.
func median(values []float64) float64 { return percentile(values, 50) }

// percentile by the nearest rank, of values in any order; 0 of none.
func percentile(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if p == 50 && len(sorted)%2 == 0 {
		return (sorted[len(sorted)/2-1] + sorted[len(sorted)/2]) / 2
	}
	rank := (p*len(sorted) + 99) / 100
	return sorted[max(0, rank-1)]
}

// ratios divides round by round: what disturbed a round disturbed both.
func ratios(of, to []float64) []float64 {
	quotients := make([]float64, min(len(of), len(to)))
	for i := range quotients {
		quotients[i] = of[i] / to[i]
	}
	return quotients
}

// seconds of some durations.
func seconds(durations []time.Duration) []float64 {
	all := make([]float64, len(durations))
	for i, d := range durations {
		all[i] = d.Seconds()
	}
	return all
}
