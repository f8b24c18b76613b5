package plugin

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"
)

// tryLogin logs in as the mount's workload, with fields changed.
func (m *loginMount) tryLogin(operation logical.Operation, changes map[string]any) (*logical.Response, error) {
	data := map[string]any{"role": "dev", "jwt": m.workload.token}
	for field, value := range changes {
		data[field] = value
	}
	return m.HandleRequest(context.Background(), &logical.Request{
		Operation: operation, Path: "login", Storage: m.storage, Data: data,
		Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	})
}

func (m *loginMount) user() *natsjwt.UserClaims {
	m.tb.Helper()
	user, err := natsjwt.DecodeUserClaims(m.login().Data["jwt"].(string))
	require.NoError(m.tb, err)
	return user
}

func TestVaultIsToldTheAliasAndTheRoleBeforeALogin(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	ahead, err := m.tryLogin(logical.AliasLookaheadOperation, nil)
	require.NoError(t, err)
	require.Equal(t, m.login().Auth.Alias.Name, ahead.Auth.Alias.Name)
	require.Empty(t, ahead.Data, "nothing is issued")
	require.Empty(t, ahead.Auth.Policies)

	refused, err := m.tryLogin(logical.AliasLookaheadOperation, map[string]any{"jwt": m.workload.token + "x"})
	require.NoError(t, err)
	require.True(t, refused.IsError(), "an alias is told of a token that verifies, and of no other")

	resolved, err := m.tryLogin(logical.ResolveRoleOperation, nil)
	require.NoError(t, err)
	require.Equal(t, "dev", resolved.Data["role"])
	unknown, err := m.tryLogin(logical.ResolveRoleOperation, map[string]any{"role": "nobody"})
	require.NoError(t, err)
	require.True(t, unknown.IsError())
}

func TestALoginFromElsewhereThanTheBoundCIDRsIsDenied(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("role/dev", map[string]any{"token_bound_cidrs": "10.0.0.0/8"})
	_, err := m.tryLogin(logical.UpdateOperation, nil)
	require.ErrorIs(t, err, logical.ErrPermissionDenied)
}

// Another node of the cluster wrote; storage is what it has become.
func TestWhatAnotherNodeChangedIsReadAnew(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	require.Equal(t, natsjwt.StringList{"orders.shop.>"}, m.user().Pub.Allow)

	other := newLoginMountOn(t, m)
	other.write("role/dev", map[string]any{"user_template": `{"pub":{"allow":["other.>"]}}`})
	m.InvalidateKey(context.Background(), rolePrefix+"dev")
	require.Equal(t, natsjwt.StringList{"other.>"}, m.user().Pub.Allow)

	before := m.user().Issuer
	other.write("jwt/orders/rotate", map[string]any{})
	m.InvalidateKey(context.Background(), namedPrefix+"orders")
	require.NotEqual(t, before, m.user().Issuer, "a rotated key signs no more")

	other.write("config", map[string]any{"jwt_validation_pubkeys": newWorkloads(t)[2].publicPEM(t)})
	m.InvalidateKey(context.Background(), issuerPrefix+defaultIssuer)
	resp, err := m.tryLogin(logical.UpdateOperation, nil)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "signature", "the former key of the issuer is trusted no more")
}

// newLoginMountOn is another node on the same storage.
func newLoginMountOn(t *testing.T, m *loginMount) *loginMount {
	t.Helper()
	made, err := Factory(context.Background(), &logical.BackendConfig{
		System:      &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour},
		StorageView: m.storage,
	})
	require.NoError(t, err)
	other := &loginMount{tb: t, storage: m.storage, workload: m.workload, backend: made.(*backend)}
	other.stop()
	t.Cleanup(func() { other.Cleanup(context.Background()) })
	return other
}

// Under a load of logins, no login that begins after a write was acknowledged
// sees what was before it: not the role's template, nor its account's key, nor
// its issuer's, nor the role at all.
func TestNoLoginServesWhatAnAcknowledgedWriteReplaced(t *testing.T) {
	workloads := newWorkloads(t)
	m := newLoginMount(t, workloads[2])
	// acknowledged is the number of the last write that has returned; each
	// template and each login carries the number it is of.
	var acknowledged, logins atomic.Int64
	template := func(n int64) map[string]any {
		return map[string]any{"user_template": fmt.Sprintf(`{"pub":{"allow":["version.%d"]}}`, n)}
	}
	m.write("role/dev", template(0))
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	stale := make(chan string, 8)
	for range 8 {
		group.Go(func() {
			for ctx.Err() == nil {
				least := acknowledged.Load()
				user, err := natsjwt.DecodeUserClaims(m.login().Data["jwt"].(string))
				if err != nil {
					stale <- err.Error()
					return
				}
				var got int64
				if _, err := fmt.Sscanf(user.Pub.Allow[0], "version.%d", &got); err != nil || got < least {
					stale <- fmt.Sprintf("a login that began after write %d has %s", least, user.Pub.Allow[0])
					return
				}
				logins.Add(1)
			}
		})
	}
	for n := int64(1); n <= 200; n++ {
		m.write("role/dev", template(n))
		acknowledged.Store(n)
	}
	stop()
	group.Wait()
	close(stale)
	for fault := range stale {
		t.Error(fault)
	}
	require.Positive(t, logins.Load())

	former := m.user().Issuer
	m.write("jwt/orders/rotate", map[string]any{"overlap": 0})
	require.NotEqual(t, former, m.user().Issuer)
	m.write("config", map[string]any{"jwt_validation_pubkeys": workloads[0].publicPEM(t)})
	resp, err := m.tryLogin(logical.UpdateOperation, nil)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "signature")
	m.write("config", map[string]any{"jwt_validation_pubkeys": workloads[2].publicPEM(t)})
	m.login()
	_, err = m.HandleRequest(context.Background(), &logical.Request{Operation: logical.DeleteOperation, Path: "role/dev", Storage: m.storage})
	require.NoError(t, err)
	resp, err = m.tryLogin(logical.UpdateOperation, nil)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "could not be found")
}

// A token and a role of two issuers do not go together, and equal subjects of
// two issuers are two aliases.
func TestIssuersAreNotConfused(t *testing.T) {
	workloads := newWorkloads(t)
	m := newLoginMount(t, workloads[2])
	m.write("issuer/other", map[string]any{"jwt_validation_pubkeys": workloads[1].publicPEM(t)})
	m.write("role/other", map[string]any{"account": "orders", "issuer": "other", "bound_audiences": "vault", "user_claim": "sub"})

	first := m.login().Auth.Alias.Name
	resp, err := m.tryLogin(logical.UpdateOperation, map[string]any{"role": "other"})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "signature", "the default issuer's token is none of the other's")
	resp, err = m.tryLogin(logical.UpdateOperation, map[string]any{"jwt": workloads[1].token})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "signature", "nor the other's one of the default issuer's")

	resp, err = m.tryLogin(logical.UpdateOperation, map[string]any{"role": "other", "jwt": workloads[1].token})
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.Equal(t, "issuer:other:"+first, resp.Auth.Alias.Name)

	resp, err = m.HandleRequest(context.Background(), &logical.Request{Operation: logical.DeleteOperation, Path: "issuer/other", Storage: m.storage})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "other", "an issuer that a role uses cannot be deleted")
}

// The keys of an issuer that was replaced must not become those of the one that
// took its place.
func TestSavedKeysAreNotTakenOverByAnotherIssuer(t *testing.T) {
	workloads := newWorkloads(t)
	m := newLoginMount(t, workloads[2])
	m.background = t.Context()
	entry, err := readIssuer(t.Context(), m.storage, defaultIssuer)
	require.NoError(t, err)
	m.saveIssuerKeys(m.storage, defaultIssuer, entry, []byte("keys"))
	m.tasks.group.Wait()
	require.NotEmpty(t, keysBelow(t, m.storage, issuerKeysPrefix))

	m.write("config", map[string]any{"jwt_validation_pubkeys": workloads[1].publicPEM(t)})
	require.Empty(t, keysBelow(t, m.storage, issuerKeysPrefix), "the former issuer's keys stay")
	m.saveIssuerKeys(m.storage, defaultIssuer, entry, []byte("late keys"))
	m.tasks.group.Wait()
	require.Empty(t, keysBelow(t, m.storage, issuerKeysPrefix), "late keys of the former issuer are stored")
}

func TestAnIssuerOutageIsToldApartFromARefusal(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("config", map[string]any{"jwks_url": "http://127.0.0.1:1/keys", "skip_jwks_validation": true})
	_, err := m.tryLogin(logical.UpdateOperation, nil)
	var coded logical.HTTPCodedError
	require.ErrorAs(t, err, &coded)
	require.Equal(t, 503, coded.Code())
	require.False(t, strings.Contains(err.Error(), m.workload.token))
}
