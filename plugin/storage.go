package plugin

import (
	"context"
	"fmt"

	json "github.com/go-json-experiment/json/v1" // encoding/json as of Go 1.27, which decodes in half the time
	"github.com/hashicorp/vault/sdk/logical"
)

// readEntry returns what is stored as JSON at key, nil if nothing is.
func readEntry[T any](ctx context.Context, s logical.Storage, key string) (*T, error) {
	entry, err := getEntry(ctx, s, key)
	if err != nil {
		return nil, err
	}
	return decodeEntry[T](entry)
}

// decodeEntry is what readEntry does with what it has got.
func decodeEntry[T any](entry *logical.StorageEntry) (*T, error) {
	if entry == nil {
		return nil, nil
	}
	value := new(T)
	if err := json.Unmarshal(entry.Value, value); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", entry.Key, err)
	}
	return value, nil
}

// getEntry returns what is stored at key, nil if nothing is.
func getEntry(ctx context.Context, s logical.Storage, key string) (*logical.StorageEntry, error) {
	entry, err := s.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	return entry, nil
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
