package store

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/logical"
)

// CurrentFormat is the format in which this version of the plugin stores a mount. It is
// counted up, and then written at FormatKey before anything else, by a version whose
// entries an older one would misread, or of which that would lose a part when it writes
// them anew. A mount that has nothing there is of format 1.
const CurrentFormat = 1

// FormatKey is where a mount's format is stored.
const FormatKey = "format"

// formatEntry is as every version has to be able to read it.
type formatEntry struct {
	Format int    `json:"format"`
	Needs  string `json:"needs"` // the first version of the plugin that reads it
}

// Format refuses a mount that a newer version of the plugin has stored. Its zero value
// knows of none.
type Format struct {
	forgotten atomic.Uint64 // how often
	checked   atomic.Uint64 // one more than forgotten was when the check passed
}

// Check returns an error if the mount is stored in a format that this version of the
// plugin, as it calls itself, does not read. It reads the storage once.
func (f *Format) Check(ctx context.Context, s logical.Storage, version string) error {
	now := f.forgotten.Load() + 1
	if f.checked.Load() == now {
		return nil
	}
	stored, err := Read[formatEntry](ctx, s, FormatKey)
	if err != nil {
		return err
	}
	if stored != nil && stored.Format > CurrentFormat {
		return fmt.Errorf("the mount is stored in format %d, which version %s of the plugin reads: this is %s, and reads format %d", stored.Format, stored.Needs, version, CurrentFormat)
	}
	f.checked.Store(now)
	return nil
}

// Forget has the storage read anew by the next Check.
func (f *Format) Forget() { f.forgotten.Add(1) }
