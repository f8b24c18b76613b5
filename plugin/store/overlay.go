package store

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// An Overlay is storage that looks like another and leaves that as it is: what is
// written to it is in memory, and gone with it.
type Overlay struct {
	under logical.Storage

	mu      sync.Mutex
	changed map[string]*logical.StorageEntry // by key; nil for what is deleted
}

// NewOverlay returns an Overlay that looks like under.
func NewOverlay(under logical.Storage) *Overlay {
	return &Overlay{under: under, changed: map[string]*logical.StorageEntry{}}
}

// Get is part of logical.Storage.
func (o *Overlay) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	o.mu.Lock()
	entry, changed := o.changed[key]
	o.mu.Unlock()
	if !changed {
		return o.under.Get(ctx, key)
	}
	return entry, nil
}

// Put is part of logical.Storage.
func (o *Overlay) Put(_ context.Context, entry *logical.StorageEntry) error {
	kept := *entry
	kept.Value = bytes.Clone(entry.Value)
	o.set(entry.Key, &kept)
	return nil
}

// Delete is part of logical.Storage.
func (o *Overlay) Delete(_ context.Context, key string) error {
	o.set(key, nil)
	return nil
}

func (o *Overlay) set(key string, entry *logical.StorageEntry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changed[key] = entry
}

// List is part of logical.Storage.
func (o *Overlay) List(ctx context.Context, prefix string) ([]string, error) {
	names, err := o.under.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	written, deleted := o.below(prefix)
	listed := map[string]bool{}
	for _, name := range names {
		listed[name] = true
		if !deleted[name] || written[name] {
			continue
		}
		// Something in the folder is deleted: is it all?
		if strings.HasSuffix(name, "/") {
			left, err := o.List(ctx, prefix+name)
			if err != nil {
				return nil, err
			}
			listed[name] = len(left) > 0
			continue
		}
		listed[name] = false
	}
	for name := range written {
		listed[name] = true
	}
	names = names[:0]
	for name, there := range listed {
		if there {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// below returns what is written and what is deleted below prefix, each up to its
// next slash.
func (o *Overlay) below(prefix string) (written, deleted map[string]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	written, deleted = map[string]bool{}, map[string]bool{}
	for key, entry := range o.changed {
		name, below := strings.CutPrefix(key, prefix)
		if !below {
			continue
		}
		if i := strings.IndexByte(name, '/'); i >= 0 {
			name = name[:i+1]
		}
		if entry != nil {
			written[name] = true
		} else {
			deleted[name] = true
		}
	}
	return written, deleted
}

// Changes reports whether anything that begins with one of the prefixes is
// otherwise than in the storage below.
func (o *Overlay) Changes(ctx context.Context, prefixes ...string) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, entry := range o.changed {
		if !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			continue
		}
		below, err := Get(ctx, o.under, key)
		if err != nil {
			return false, err
		}
		if (below == nil) != (entry == nil) || below != nil && !bytes.Equal(below.Value, entry.Value) {
			return true, nil
		}
	}
	return false, nil
}
