package plugin

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// readEntry returns what is stored as JSON at key, nil if nothing is.
func readEntry[T any](ctx context.Context, s logical.Storage, key string) (*T, error) {
	entry, err := s.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	return decodeEntry[T](key, entry)
}

// decodeEntry is what readEntry does with what was read.
func decodeEntry[T any](key string, entry *logical.StorageEntry) (*T, error) {
	if entry == nil {
		return nil, nil
	}
	value := new(T)
	if err := entry.DecodeJSON(value); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", key, err)
	}
	return value, nil
}

// writeEntry stores value as JSON at key.
func writeEntry(ctx context.Context, s logical.Storage, key string, value any) error {
	entry, err := logical.StorageEntryJSON(key, value)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	if err := s.Put(ctx, entry); err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return nil
}
