package stack

import (
	"context"
	"fmt"
	"time"
)

// pollInterval is how often a condition is looked at.
const pollInterval = 20 * time.Millisecond

// WaitFor returns when the condition returns nil. When the context ends first, the
// error says what was waited for and the condition's last error.
func WaitFor(ctx context.Context, what string, condition func() error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		last := condition()
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, ctx.Err(), last)
		case <-tick.C:
		}
	}
}
