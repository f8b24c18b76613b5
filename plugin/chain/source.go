package chain

import (
	"context"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// DeliverySettings are what the way to the servers depends on.
type DeliverySettings struct {
	serverURLs, serviceURLs []string
	tls                     delivery.TLS
	clockSkew               time.Duration
	systemAccount, operator string // public keys
}

// DeliverySettings returns nil where nothing can be delivered: without an
// operator, or while an imported one's system account is not in the mount.
func (c *Chain) DeliverySettings(ctx context.Context, s logical.Storage) (*DeliverySettings, error) {
	operator, err := c.operator(ctx, s)
	if err != nil || !operator.signs() {
		return nil, err
	}
	e := operator.entry
	index, err := readIndex(ctx, s, e.SystemAccount)
	if index == nil || err != nil {
		return nil, err
	}
	return &DeliverySettings{
		serverURLs:    e.AccountJWTServerURL,
		serviceURLs:   e.ServiceURL,
		tls:           delivery.TLS{CA: e.CAPEM, Cert: e.ClientCertPEM, Key: e.ClientKeyPEM},
		clockSkew:     e.clockSkew(),
		systemAccount: e.SystemAccount,
		operator:      e.PublicKey,
	}, nil
}

// DeliveryConfig is how delivery reaches the servers. Its functions use the keys
// of the moment in which they are called.
func (c *Chain) DeliveryConfig(s logical.Storage, settings *DeliverySettings) delivery.Config {
	return delivery.Config{
		ServerURLs:  settings.serverURLs,
		ServiceURLs: settings.serviceURLs,
		TLS:         settings.tls,
		ClockSkew:   settings.clockSkew,
		Operator:    settings.operator,
		Ours:        func(accountJWT string) bool { return c.ours(context.Background(), s, accountJWT) },
		Logger:      c.logger.Named("delivery"),
		Lead:        func(ctx context.Context) (time.Time, error) { return c.Lead(ctx, s) },
		User: func() (string, func([]byte) ([]byte, error), error) {
			return c.systemUser(context.Background(), s)
		},
		DeleteToken: func(id string) (string, error) {
			operator, err := c.operator(context.Background(), s)
			if err != nil {
				return "", err
			}
			return trust.EncodeDeletion(operator.signing, []string{id}, time.Now().Unix())
		},
		Farewell: func(id string, expires time.Time) (string, error) {
			return c.farewell(context.Background(), s, id, expires)
		},
	}
}

// farewell is the last JWT of an account that is removed: nobody may connect,
// and whoever is connected was issued before it.
func (c *Chain) farewell(ctx context.Context, s logical.Storage, id string, expires time.Time) (string, error) {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return "", err
	}
	issued := time.Now().Unix()
	revoked := time.Now().Add(operator.entry.clockSkew()).Unix()
	index, err := readIndex(ctx, s, id)
	if err != nil {
		return "", err
	}
	if index != nil {
		issued = max(issued, index.at(operator.entry))
	}
	return trust.EncodeFarewell(operator.signing, id, issued, revoked, expires.Unix())
}

// Source shows delivery the accounts in storage.
func (c *Chain) Source(s logical.Storage) delivery.Source { return &chainSource{c, s} }

type chainSource struct {
	chain   *Chain
	storage logical.Storage
}

// Wanted waits for a change that is under way, so that what is delivered is the
// account before it or after it, and never both under one time of issue.
func (c *chainSource) Wanted(ctx context.Context, id string) (string, bool, error) {
	for {
		marks := c.chain.marksOf(id)
		if err := c.chain.settled(ctx, id); err != nil {
			return "", false, err
		}
		wanted, err := c.chain.want(ctx, c.storage, id)
		switch {
		case err != nil:
			return "", false, err
		case c.chain.changedSince(id, marks):
			continue
		case wanted == nil:
			return "", false, nil
		}
		return wanted.jwt, true, nil
	}
}

// All yields the accounts of the mount, and those whose removal is pending.
func (c *chainSource) All(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		ids, err := c.chain.accountKeys(ctx, c.storage, accountIDPrefix)
		if err != nil {
			yield("", err)
			return
		}
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

// Pending lists the accounts with a marker, and those that the marker for all of
// them still stands for.
func (c *chainSource) Pending(ctx context.Context) ([]string, error) {
	c.chain.versions.Lock()
	defer c.chain.versions.Unlock()
	ids, err := c.chain.accountKeys(ctx, c.storage, pendingPrefix)
	if err != nil {
		return nil, err
	}
	// What is known of the marker for all is kept: some may be delivered already.
	if c.chain.everyone == nil {
		all, err := store.Get(ctx, c.storage, pendingAllKey)
		if all == nil || err != nil {
			return ids, err
		}
		every, err := c.chain.accountKeys(ctx, c.storage, accountIDPrefix)
		if err != nil {
			return nil, err
		}
		c.chain.everyonePending(every)
	}
	ids = slices.AppendSeq(ids, maps.Keys(c.chain.everyone))
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// removedMarker says when the servers had dropped an account.
type removedMarker struct {
	At int64 `json:"at"` // Unix time
}

// Removed lists the accounts that the servers dropped of late, and forgets those
// of longer ago. One of which cannot be read when it was is one of late: its marker
// is made anew.
func (c *chainSource) Removed(ctx context.Context) ([]string, error) {
	ids, err := c.chain.accountKeys(ctx, c.storage, removedPrefix)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	oldest := now.Add(-delivery.RememberRemoved).Unix()
	var recent []string
	for _, id := range ids {
		marker, err := store.Read[removedMarker](ctx, c.storage, removedPrefix+id)
		if err != nil {
			c.chain.logger.Warn("it cannot be read when an account was removed, which is taken for now", "account", id, "error", err)
			marker = &removedMarker{At: now.Unix()}
			if err := store.Write(ctx, c.storage, removedPrefix+id, marker); err != nil {
				return nil, err
			}
		}
		switch {
		case marker == nil:
		case marker.At >= oldest:
			recent = append(recent, id)
		default:
			if err := store.Delete(ctx, c.storage, removedPrefix+id); err != nil {
				return nil, err
			}
		}
	}
	return recent, nil
}

// Delivered drops the marker, unless the account has changed since that JWT was
// made or is being changed right now.
func (c *chainSource) Delivered(ctx context.Context, id, accountJWT string) error {
	c.chain.versions.Lock()
	defer c.chain.versions.Unlock()
	// A rotation holds the lock too, so this is the operator of the marker.
	operator, err := c.chain.operator(ctx, c.storage)
	if err != nil || !operator.signs() {
		return err
	}
	if c.chain.isWriting(id) {
		return nil
	}
	index, err := readIndex(ctx, c.storage, id)
	if err != nil {
		return err
	}
	switch {
	case index != nil && accountJWT != "":
		issued, err := issuedAt(accountJWT)
		if err != nil {
			return err
		}
		if issued != index.at(operator.entry) {
			return nil
		}
	case index != nil:
		gone, err := c.isGone(ctx, id, index)
		if err != nil || !gone {
			return err
		}
		if err := store.Write(ctx, c.storage, removedPrefix+id, removedMarker{At: time.Now().Unix()}); err != nil {
			return err
		}
		if err := store.Delete(ctx, c.storage, accountIDPrefix+id); err != nil {
			return err
		}
	case accountJWT != "":
		return nil // it was deleted meanwhile
	}
	if err := store.Delete(ctx, c.storage, pendingPrefix+id); err != nil {
		return err
	}
	return c.chain.oneDelivered(ctx, c.storage, id)
}

// isGone reports whether an account that has an index has no entry any more.
func (c *chainSource) isGone(ctx context.Context, id string, index *accountIndex) (bool, error) {
	entry, err := readNamed(ctx, c.storage, index.Name)
	if err != nil {
		return false, err
	}
	return entry == nil || entry.PublicKey != id, nil
}

// everyonePending notes the accounts that pendingAllKey stands for. The caller
// holds c.versions.
func (c *Chain) everyonePending(ids []string) {
	c.everyone = make(map[string]bool, len(ids))
	for _, id := range ids {
		c.everyone[id] = true
	}
}

// oneDelivered drops pendingAllKey once it stands for no account any more. The
// caller holds c.versions.
func (c *Chain) oneDelivered(ctx context.Context, s logical.Storage, id string) error {
	if c.everyone == nil {
		return nil
	}
	delete(c.everyone, id)
	if len(c.everyone) > 0 {
		return nil
	}
	if err := store.Delete(ctx, s, pendingAllKey); err != nil {
		return err
	}
	c.everyone = nil
	return nil
}

// Pending reports whether the account is to be delivered still.
func (c *Chain) Pending(ctx context.Context, s logical.Storage, id string) (bool, error) {
	c.versions.Lock()
	pending, known := c.everyone[id], c.everyone != nil
	c.versions.Unlock()
	if pending {
		return true, nil
	}
	marker, err := store.Get(ctx, s, pendingPrefix+id)
	if marker != nil || err != nil || known {
		return marker != nil, err
	}
	// A node that does not deliver knows no more than that all of them were.
	all, err := store.Get(ctx, s, pendingAllKey)
	return all != nil, err
}
