package plugin

import (
	"context"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// How a change of an account reaches storage. Each step is written so that a
// crash after it leaves nothing lost: the pending marker first, so that the
// account is looked at again whatever happened after; then the index with the
// next version, which means nothing without the entry; the entry last. A
// deletion goes the other way. Whoever calls these holds c.mu.

// storeAccount stores the account under its name. What the mount does not
// deliver has no version and is never pending.
func (c *chain) storeAccount(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	if entry.External {
		// If it was the mount's own once, whoever has it now puts it on the servers.
		if err := s.Delete(ctx, removedPrefix+entry.PublicKey); err != nil {
			return fmt.Errorf("deleting %s: %w", removedPrefix+entry.PublicKey, err)
		}
		return c.storeNamed(ctx, s, name, entry)
	}
	if err := c.markChange(ctx, s, entry.PublicKey, name); err != nil {
		return err
	}
	defer c.changed(entry.PublicKey)
	return c.storeNamed(ctx, s, name, entry)
}

// storeNamed writes an entry and drops what was made of the former one.
func (c *chain) storeNamed(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	err := writeEntry(ctx, s, namedPrefix+name, entry)
	c.accounts.forget(name)
	return err
}

// deleteAccount deletes the account. Its index goes when the servers have
// dropped it: until then it holds the version that the removal has to exceed.
func (c *chain) deleteAccount(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	if !entry.External {
		if err := c.markChange(ctx, s, entry.PublicKey, name); err != nil {
			return err
		}
		defer c.changed(entry.PublicKey)
	}
	return c.deleteNamed(ctx, s, name)
}

func (c *chain) deleteNamed(ctx context.Context, s logical.Storage, name string) error {
	err := s.Delete(ctx, namedPrefix+name)
	c.accounts.forget(name)
	if err != nil {
		return fmt.Errorf("deleting %s: %w", namedPrefix+name, err)
	}
	return nil
}

// pendingMarker says since when an account is to be delivered.
type pendingMarker struct {
	Since int64 `json:"since"` // Unix time
}

// markPending is called before a revocation of an account is stored or dropped,
// and changed after it.
func (c *chain) markPending(ctx context.Context, s logical.Storage, id string) error {
	return c.markChange(ctx, s, id, "")
}

// markChange marks the account as pending and gives it its next version. The
// name is that of a new account; of one that exists it may be empty.
func (c *chain) markChange(ctx context.Context, s logical.Storage, id, name string) error {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return err
	}
	c.versions.Lock()
	defer c.versions.Unlock()
	index, err := readEntry[accountIndex](ctx, s, accountIDPrefix+id)
	if err != nil {
		return err
	}
	if index == nil && name == "" || !operator.signs() {
		return nil // someone else's account, or one that is gone: nothing is delivered
	}
	if index == nil {
		// One that was here before, and is imported once more, has those of then.
		revoked, err := s.List(ctx, revokedPrefix+id+"/")
		if err != nil {
			return fmt.Errorf("listing the revocations of account %s: %w", id, err)
		}
		index = &accountIndex{Revoked: len(revoked) > 0}
	}
	if name != "" {
		index.Name = name
	} else {
		index.Revoked = true // the others who mark change no entry
	}
	now := time.Now()
	index.version = index.after(operator.entry, now)
	c.marks[markSlot(id)]++

	if err := writeEntry(ctx, s, pendingPrefix+id, pendingMarker{Since: now.Unix()}); err != nil {
		return err
	}
	if err := writeEntry(ctx, s, accountIDPrefix+id, index); err != nil {
		return err
	}
	change := c.writing[id]
	if change.writers == 0 {
		change.over = make(chan struct{})
	}
	c.writing[id] = underway{writers: change.writers + 1, since: now, over: change.over}
	return nil
}

// changed is called when a change that was marked as pending is stored, or has
// failed to be.
func (c *chain) changed(id string) {
	c.versions.Lock()
	change, ok := c.writing[id]
	if change.writers--; ok && change.writers > 0 {
		c.writing[id] = change
	} else if ok {
		close(change.over)
		delete(c.writing, id)
	}
	c.versions.Unlock()
	c.served.forget(id)
}

// writeTime is how long a writer may take from its mark to its change; one that
// takes longer has died on the way.
const writeTime = time.Minute

// isWriting reports whether a change of the account may be half done. The
// caller holds c.versions.
func (c *chain) isWriting(id string) bool {
	change, ok := c.writing[id]
	return ok && time.Since(change.since) < writeTime
}

// markSlot says where the changes of an account are counted. That others are
// counted there too costs those who look a second look.
func markSlot(id string) uint64 { return maphash.String(markSeed, id) % markSlots }

const markSlots = 256

var markSeed = maphash.MakeSeed()

// marksOf is how often changes were marked, for changedSince.
func (c *chain) marksOf(id string) uint64 {
	c.versions.Lock()
	defer c.versions.Unlock()
	return c.marks[markSlot(id)]
}

// changedSince reports whether what was read of the account since marks was
// asked for may be half before a change of it and half after.
func (c *chain) changedSince(id string, marks uint64) bool {
	c.versions.Lock()
	defer c.versions.Unlock()
	return c.isWriting(id) || c.marks[markSlot(id)] != marks
}

// settled waits until no change of the account is half done.
func (c *chain) settled(ctx context.Context, id string) error {
	c.versions.Lock()
	change, ok := c.writing[id]
	c.versions.Unlock()
	if !ok {
		return nil
	}
	dead := time.NewTimer(time.Until(change.since.Add(writeTime)))
	defer dead.Stop()
	select {
	case <-change.over:
	case <-dead.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
