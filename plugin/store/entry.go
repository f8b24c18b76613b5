// Package store is how anything of the plugin lies in Vault's storage: as JSON
// entries, in caches that never serve what a finished write has replaced, and in
// lists of who depends on what.
package store

import (
	"context"
	"fmt"
	"time"

	json "github.com/go-json-experiment/json/v1" // encoding/json as of Go 1.27, which decodes in half the time
	"github.com/hashicorp/vault/sdk/logical"
)

// WholeTime is how long a change may take from its first write to its last.
const WholeTime = time.Minute

// Whole returns the context of a change that takes more than one write. It does
// not end with the request: a caller who hangs up in between must not leave half
// of the change.
func Whole(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), WholeTime)
}

// Read returns what is stored as JSON at key, nil if nothing is.
func Read[T any](ctx context.Context, s logical.Storage, key string) (*T, error) {
	entry, err := Get(ctx, s, key)
	if err != nil {
		return nil, err
	}
	return Decode[T](entry)
}

// Decode is what Read does with what it has got.
func Decode[T any](entry *logical.StorageEntry) (*T, error) {
	if entry == nil {
		return nil, nil
	}
	value := new(T)
	if err := json.Unmarshal(entry.Value, value); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", entry.Key, err)
	}
	return value, nil
}

// Get returns what is stored at key, nil if nothing is.
func Get(ctx context.Context, s logical.Storage, key string) (*logical.StorageEntry, error) {
	entry, err := s.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	return entry, nil
}

// Write stores value as JSON at key.
func Write(ctx context.Context, s logical.Storage, key string, value any) error {
	entry, err := logical.StorageEntryJSON(key, value)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	return Put(ctx, s, entry)
}

// Put stores an entry as it is; one without a value is deleted.
func Put(ctx context.Context, s logical.Storage, entry *logical.StorageEntry) error {
	if entry.Value == nil {
		return Delete(ctx, s, entry.Key)
	}
	if err := s.Put(ctx, entry); err != nil {
		return fmt.Errorf("writing %s: %w", entry.Key, err)
	}
	return nil
}

// Delete deletes what is stored at key, if anything is.
func Delete(ctx context.Context, s logical.Storage, key string) error {
	if err := s.Delete(ctx, key); err != nil {
		return fmt.Errorf("deleting %s: %w", key, err)
	}
	return nil
}

// List returns what stands below prefix, each up to its next slash.
func List(ctx context.Context, s logical.Storage, prefix string) ([]string, error) {
	keys, err := s.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", prefix, err)
	}
	return keys, nil
}
