package chain

import (
	"context"
	"hash/maphash"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// change is the one way in which an account is changed, its revocations
// included: mark, write, forget, deliver. The marker is stored first, with the
// account's next version, so that the account is looked at again whatever
// happens after; they mean nothing without the write, and a crash after each step
// leaves nothing lost. What is made of the account is forgotten then, and it is
// delivered, also where marker or write failed: how far they came is not known. A
// caller who hangs up in between changes nothing about that.
//
// What the mount does not deliver is written, and that is all.
func (c *Chain) change(ctx context.Context, s logical.Storage, of changeOf, write writer) error {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return err
	}
	if !operator.signs() {
		return write(ctx)
	}
	return c.changeUnder(ctx, s, operator.entry, of, write)
}

// A writer stores something, under the context of the change that it is part of.
type writer func(context.Context) error

// changeOf is what is changed.
type changeOf struct {
	id    string // public key of the account
	name  string // of an account that is written or deleted; empty for a change of revocations
	paced bool   // the change may be one of many that come together
}

// changeUnder is change under an operator that may not be stored yet.
func (c *Chain) changeUnder(ctx context.Context, s logical.Storage, o *operatorEntry, of changeOf, write writer) error {
	whole, done := store.Whole(ctx)
	defer done()
	began := time.Now()
	marked, err := c.mark(whole, s, o, of)
	if err == nil {
		err = write(whole)
	}
	if !marked {
		return err
	}
	if err == nil {
		c.lead.changed(began)
	}
	c.settle(of.id)
	c.served.Forget(of.id)
	c.deliver(context.WithoutCancel(ctx), s, of.paced, of.id)
	return err
}

// putNamed writes an entry and drops what was made of the former one.
func (c *Chain) putNamed(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	err := store.Write(ctx, s, namedPrefix+name, entry)
	c.accounts.Forget(name)
	return err
}

// dropNamed deletes an entry and drops what was made of it.
func (c *Chain) dropNamed(ctx context.Context, s logical.Storage, name string) error {
	err := store.Delete(ctx, s, namedPrefix+name)
	c.accounts.Forget(name)
	return err
}

// storeAccount stores the account under its name. The caller holds c.mu.
func (c *Chain) storeAccount(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	if entry.External {
		// If it was the mount's own once, whoever has it now puts it on the servers.
		if err := store.Delete(ctx, s, removedPrefix+entry.PublicKey); err != nil {
			return err
		}
		return c.putNamed(ctx, s, name, entry)
	}
	return c.change(ctx, s, changeOf{id: entry.PublicKey, name: name}, func(ctx context.Context) error {
		return c.putNamed(ctx, s, name, entry)
	})
}

// deleteAccount deletes the account. Its index goes when the servers have
// dropped it: until then it holds the version that the removal has to exceed.
// The caller holds c.mu.
func (c *Chain) deleteAccount(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	if entry.External {
		return c.dropNamed(ctx, s, name)
	}
	return c.change(ctx, s, changeOf{id: entry.PublicKey, name: name}, func(ctx context.Context) error {
		return c.dropNamed(ctx, s, name)
	})
}

// pendingMarker says since when an account is to be delivered.
type pendingMarker struct {
	Since int64 `json:"since"` // Unix time
}

// mark marks the account as pending and gives it its next version; settle ends
// the change, also where mark has failed once it had begun to write. It does
// nothing, and says so, where there is no account to deliver: it is someone else's,
// or one that is gone.
func (c *Chain) mark(ctx context.Context, s logical.Storage, o *operatorEntry, of changeOf) (marked bool, err error) {
	id, name := of.id, of.name
	c.versions.Lock()
	defer c.versions.Unlock()
	index, err := readIndex(ctx, s, id)
	if err != nil || index == nil && name == "" {
		return false, err
	}
	if index == nil {
		// One that was here before, and is imported once more, has those of then.
		revoked, err := store.List(ctx, s, revokedPrefix+id+"/")
		if err != nil {
			return false, err
		}
		index = &accountIndex{Revoked: len(revoked) > 0}
	}
	if name != "" {
		index.Name = name
	} else {
		index.Revoked = true // the others who mark change no entry
	}
	now := time.Now()
	index.version = index.after(o, now)
	c.marks[markSlot(id)]++
	change := c.writing[id]
	if change.writers == 0 {
		change.over = make(chan struct{})
	}
	c.writing[id] = underway{writers: change.writers + 1, since: now, over: change.over}

	if err := store.Write(ctx, s, pendingPrefix+id, pendingMarker{Since: now.Unix()}); err != nil {
		return true, err
	}
	return true, store.Write(ctx, s, accountIDPrefix+id, index)
}

// underway is a change that was marked as pending and may not be stored yet.
type underway struct {
	writers int
	since   time.Time     // the last of them began
	over    chan struct{} // closed when the last of them is done
}

// settle is called when a change that was marked is stored, or has failed to be.
func (c *Chain) settle(id string) {
	c.versions.Lock()
	defer c.versions.Unlock()
	change, ok := c.writing[id]
	if change.writers--; ok && change.writers > 0 {
		c.writing[id] = change
	} else if ok {
		close(change.over)
		delete(c.writing, id)
	}
}

// isWriting reports whether a change of the account may be half done: one that
// takes longer than store.WholeTime has died on the way. The caller holds c.versions.
func (c *Chain) isWriting(id string) bool {
	change, ok := c.writing[id]
	return ok && time.Since(change.since) < store.WholeTime
}

// markSlot says where the changes of an account are counted. That others are
// counted there too costs those who look a second look.
func markSlot(id string) uint64 { return maphash.String(markSeed, id) % markSlots }

const markSlots = 256

var markSeed = maphash.MakeSeed()

// marksOf is how often changes were marked, for changedSince.
func (c *Chain) marksOf(id string) uint64 {
	c.versions.Lock()
	defer c.versions.Unlock()
	return c.marks[markSlot(id)]
}

// changedSince reports whether what was read of the account since marks was
// asked for may be half before a change of it and half after.
func (c *Chain) changedSince(id string, marks uint64) bool {
	c.versions.Lock()
	defer c.versions.Unlock()
	return c.isWriting(id) || c.marks[markSlot(id)] != marks
}

// settled waits until no change of the account is half done.
func (c *Chain) settled(ctx context.Context, id string) error {
	c.versions.Lock()
	change, ok := c.writing[id]
	c.versions.Unlock()
	if !ok {
		return nil
	}
	dead := time.NewTimer(time.Until(change.since.Add(store.WholeTime)))
	defer dead.Stop()
	select {
	case <-change.over:
	case <-dead.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
