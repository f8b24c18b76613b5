package plugin

import (
	"context"
	"errors"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// A standby that answers requests, as OpenBao's do, reads what is stored and
// stores nothing. It also is behind the leader by a moment. By the error
// logical.ErrReadOnly it knows a request that the leader has to answer.

// onStandby reports whether this node is one. It costs no call to Vault.
func (b *backend) onStandby() bool {
	return b.System().ReplicationState().HasState(consts.ReplicationPerformanceStandby)
}

// forwardWhatStores has requests at a standby or a secondary that make a node
// store something go to the one that may, before anything is done: writes, and
// what makes a lease, which is stored once the plugin has answered. What only
// issues or shows is answered by the node that was asked.
func forwardWhatStores(paths []*framework.Path) {
	for _, path := range paths {
		switch path.Pattern {
		case loginPattern, previewPattern, signPattern, authorizePattern:
			continue
		case authURLPattern, callbackPattern, pollPattern:
			continue // which say themselves where they go: see oidcHelp
		}
		for operation, handler := range path.Operations {
			if path.Pattern != credsPattern && !isWrite(operation) {
				continue
			}
			if properties, ok := handler.(*framework.PathOperation); ok {
				properties.ForwardPerformanceStandby = true
				properties.ForwardPerformanceSecondary = true
			}
		}
	}
}

func isWrite(operation logical.Operation) bool {
	switch operation {
	case logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation:
		return true
	}
	return false
}

// The paths whose writes store nothing, and that whose reads do.
const (
	loginPattern     = "login$"
	previewPattern   = "role/(?P<name>[^/]+)/preview$"
	signPattern      = "jwt/(?P<name>[^/]+)/sign$"
	authorizePattern = "callout/(?P<name>[^/]+)/authorize$"
	credsPattern     = "creds/(?P<role>.+)"
)

// found has a read at a standby, of what it does not find, go to the leader,
// where it may have been written a moment ago.
func (b *backend) found(req *logical.Request, resp *logical.Response, err error) (*logical.Response, error) {
	if resp == nil && err == nil && req.Operation == logical.ReadOperation && b.onStandby() {
		return nil, logical.ErrReadOnly
	}
	return resp, err
}

// missing is the answer where something that a request names is not there.
func (b *backend) missing(err error) (*logical.Response, error) {
	if b.onStandby() {
		return nil, logical.ErrReadOnly
	}
	return answer(err)
}

// loginOrForward is login, but at a standby. There a token that has to be stored
// would have the login go to the leader once the plugin has done all of it, and
// has asked the issuer: it goes at once. A batch token is not stored. The standby
// may not have the role yet, or not what the role names.
//
// The plugin is not told of the mount's own token_type: with the role's default
// one the leader logs in, whatever the token will be.
func (b *backend) loginOrForward(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if !b.onStandby() {
		return b.login(ctx, req, d)
	}
	if b.onOpenBaoStandby(ctx) {
		return nil, logical.ErrReadOnly
	}
	role, err := b.loginRole(ctx, req.Storage, d)
	if err != nil || role.entry.TokenType != logical.TokenTypeBatch {
		return nil, logical.ErrReadOnly
	}
	resp, err := b.login(ctx, req, d)
	if err != nil && !isRefusal(err) {
		return nil, logical.ErrReadOnly
	}
	return resp, err
}

// onOpenBaoStandby tells a standby of OpenBao's, which leaves batch tokens to the
// leader too (as of 2.6.2), from one of Vault Enterprise's. Vault without that has
// none that answers.
func (b *backend) onOpenBaoStandby(ctx context.Context) bool {
	env, err := b.System().PluginEnv(ctx)
	return err == nil && env != nil && !strings.Contains(env.VaultVersionMetadata, "ent")
}

// isRefusal tells an error that is an answer to the caller from one of the mount's.
func isRefusal(err error) bool {
	var coded logical.HTTPCodedError
	return errors.As(err, &coded) || errors.Is(err, logical.ErrPermissionDenied)
}
