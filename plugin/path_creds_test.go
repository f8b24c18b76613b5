package plugin

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A credsMount is a mount with the account orders, an issuer whose tokens the
// test signs, and callers with Vault entities.
type credsMount struct {
	*chainMount
	system *logical.StaticSystemView
	signer jose.Signer
	public ed25519.PublicKey // the signer's
}

const (
	mountAccessor = "auth_nats_1"
	entityID      = "entity-1"
)

func newCredsMount(t *testing.T) *credsMount {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	m := &credsMount{
		chainMount: &chainMount{t: t, storage: storetest.New(), servers: map[string]string{}},
		system: &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour, EntityVal: &logical.Entity{
			ID: entityID, Name: "ann", Metadata: map[string]string{"team": "shop"},
			Aliases: []*logical.Alias{{MountAccessor: mountAccessor, Name: "runner", Metadata: map[string]string{"project": "stale"}}},
		}, GroupsVal: []*logical.Group{{Name: "ops"}, {Name: "dev"}}},
	}
	m.public = public
	m.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: private}, (&jose.SignerOptions{}).WithType("JWT"))
	require.NoError(t, err)
	b, err := Factory(t.Context(), &logical.BackendConfig{System: m.system, StorageView: m.storage})
	require.NoError(t, err)
	m.backend = b.(*backend)
	m.stop() // nothing is delivered in the background
	t.Cleanup(func() { m.backend.Cleanup(context.Background()) })

	der, err := x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
	m.write("config", map[string]any{"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	m.must(logical.CreateOperation, "jwt/orders", map[string]any{"type": "account"})
	return m
}

func (m *credsMount) restart() { m.restartOn(m.system) }

// role writes a role of the issuer, for the claim project.
func (m *credsMount) role(name string, more map[string]any) {
	m.t.Helper()
	data := map[string]any{
		"account": "orders", "bound_audiences": "vault", "user_claim": "sub", "user_ttl": "10m",
		"user_template": `{"pub":{"allow":["orders.{{claim(project)}}"]},"sub":{"allow":["_INBOX.>"]}}`,
	}
	maps.Copy(data, more)
	m.write("role/"+name, data)
}

// vaultRole writes a role of type vault.
func (m *credsMount) vaultRole(name string, more map[string]any) {
	m.t.Helper()
	data := map[string]any{
		"account": "orders", "role_type": "vault", "user_ttl": "10m",
		"user_template": `{"pub":{"allow":["{{entity-name()}}.{{entity-metadata(team)}}.{{groups()}}"]},"sub":{"allow":["_INBOX.>"]}}`,
	}
	maps.Copy(data, more)
	m.write("role/"+name, data)
}

// token is a workload's, of the subject runner unless the claims say otherwise.
func (m *credsMount) token(claims map[string]any) string {
	m.t.Helper()
	now := time.Now()
	all := map[string]any{"aud": "vault", "sub": "runner", "project": "web", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	payload, err := json.Marshal(all)
	require.NoError(m.t, err)
	signed, err := m.signer.Sign(payload)
	require.NoError(m.t, err)
	token, err := signed.CompactSerialize()
	require.NoError(m.t, err)
	return token
}

// creds asks for credentials as a caller whose Vault token has the entity.
func (m *credsMount) creds(role string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	return m.HandleRequest(m.t.Context(), m.request(role, data))
}

func (m *credsMount) request(role string, data map[string]any) *logical.Request {
	return &logical.Request{
		Operation: logical.UpdateOperation, Path: "creds/" + role, Data: data, Storage: m.storage, MountPoint: "auth/nats/",
		EntityID: entityID, MountAccessor: mountAccessor, Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	}
}

// lease gets credentials.
func (m *credsMount) lease(role string, data map[string]any) *logical.Response {
	m.t.Helper()
	resp, err := m.creds(role, data)
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	return resp
}

// refused asks for credentials, and is told why it gets none.
func (m *credsMount) refused(role string, data map[string]any, fault string) {
	m.t.Helper()
	before := m.stored()
	resp, err := m.creds(role, data)
	require.NoError(m.t, err)
	require.ErrorContains(m.t, resp.Error(), fault)
	require.Nil(m.t, resp.Secret)
	require.Equal(m.t, before, m.stored())
}

// handle has Vault renew or revoke a lease, whose data went through storage.
func (m *credsMount) handle(operation logical.Operation, secret *logical.Secret) (*logical.Response, error) {
	m.t.Helper()
	raw, err := json.Marshal(secret)
	require.NoError(m.t, err)
	stored := &logical.Secret{}
	require.NoError(m.t, json.Unmarshal(raw, stored))
	stored.InternalData["secret_type"] = secretUser
	stored.IssueTime = secret.IssueTime // which Vault keeps apart
	return m.HandleRequest(m.t.Context(), &logical.Request{Operation: operation, Path: "creds/x", Storage: m.storage, Secret: stored})
}

func TestCredentialsAreALeaseThatEndsWithTheirJWT(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	resp := m.lease("dev", map[string]any{"jwt": m.token(nil)})
	user := userClaims(t, resp.Data["jwt"])
	require.Equal(t, []string{"orders.web"}, []string(user.Pub.Allow), "rendered from the token that was sent, not from the alias's metadata")
	require.InDelta(t, 600, user.Expires-user.IssuedAt, 1)
	require.WithinDuration(t, time.Unix(user.Expires, 0), time.Now().Add(resp.Secret.TTL), 2*time.Second)
	require.LessOrEqual(t, resp.Secret.TTL, 10*time.Minute)
	require.Equal(t, resp.Secret.TTL, resp.Secret.MaxTTL)
	require.Contains(t, resp.Data["creds"], resp.Data["jwt"])
	require.Equal(t, user.Subject, resp.Data["user_public_key"])
	require.Equal(t, time.Unix(user.Expires, 0).UTC().Format(time.RFC3339), resp.Data["expiration"])
	require.Equal(t, int64(resp.Secret.TTL/time.Second), resp.Data["ttl"])
	require.Nil(t, resp.Auth)
}

// The time of issue is ahead of the clock then, maybe by more than the JWT's life.
func TestHowLongCredentialsLiveIsToldAfterARevocationToo(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", map[string]any{"user_ttl": "5m"})
	m.write("jwt/orders/revoke", map[string]any{"everyone": true})
	for _, path := range []string{"creds/dev", "login"} {
		req := m.request("", map[string]any{"role": "dev", "jwt": m.token(nil)})
		req.Path = path
		resp, err := m.HandleRequest(t.Context(), req)
		require.NoError(t, err)
		require.NoError(t, resp.Error())
		user := userClaims(t, resp.Data["jwt"])
		require.Greater(t, user.IssuedAt, time.Now().Unix(), path)
		require.WithinDuration(t, time.Unix(user.Expires, 0), time.Now().Add(time.Duration(resp.Data["ttl"].(int64))*time.Second), 3*time.Second, path)
		require.InDelta(t, 300, resp.Data["ttl"], 1, path)
	}
}

func TestALeaseKeepsNoSecret(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	token := m.token(nil)
	resp := m.lease("dev", map[string]any{"jwt": token})
	raw, err := json.Marshal(resp.Secret)
	require.NoError(t, err)
	require.NotContains(t, string(raw), token)
	require.NotContains(t, string(raw), resp.Data["jwt"])
	require.NotRegexp(t, seedForm, string(raw))
	require.ElementsMatch(t, []string{"secret_type", "role", "account", "account_public_key", "user_public_key", "issued", "expires"},
		keysOf(resp.Secret.InternalData))
}

func keysOf(object map[string]any) []string {
	var keys []string
	for key := range object {
		keys = append(keys, key)
	}
	return keys
}

func TestTheTokenOfAnotherWorkloadIsRefused(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	m.refused("dev", map[string]any{"jwt": m.token(map[string]any{"sub": "another"})}, `jwt is of "another", which is not the workload that the Vault token belongs to`)

	// An alias of the same name on another mount is another workload.
	m.system.EntityVal.Aliases[0].MountAccessor = "auth_jwt_1"
	m.refused("dev", map[string]any{"jwt": m.token(nil)}, "not the workload")
	m.system.EntityVal.Aliases[0].MountAccessor = mountAccessor
	m.lease("dev", map[string]any{"jwt": m.token(nil)})

	req := m.request("dev", map[string]any{"jwt": m.token(nil)})
	req.EntityID = ""
	resp, err := m.HandleRequest(t.Context(), req)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "which has no entity")
}

// Vault may leave the accessor out of a request that it has not routed before,
// and an alias without one is not of this mount.
func TestAWorkloadIsNotComparedWithoutTheMountsAccessor(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	m.system.EntityVal.Aliases[0].MountAccessor = ""
	req := m.request("dev", map[string]any{"jwt": m.token(nil)})
	req.MountAccessor = ""
	resp, err := m.HandleRequest(t.Context(), req)
	require.ErrorContains(t, err, "the request lacks the mount's accessor")
	require.Nil(t, resp)
}

// What stands in a query string stands in access logs, too.
func TestATokenIsNotTakenFromAQueryString(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	m.vaultRole("ops", nil)
	token := m.token(nil)
	read := func(role string, data map[string]any) error {
		req := m.request(role, data)
		req.Operation, req.MountPoint = logical.ReadOperation, "team/auth/nats/"
		resp, err := m.HandleRequest(t.Context(), req)
		require.NoError(t, err)
		return resp.Error()
	}
	err := read("dev", map[string]any{"jwt": token})
	require.ErrorContains(t, err, "jwt is in a query string, which access logs keep: send it in a body, as vault write auth/nats/creds/dev jwt=")
	require.NotContains(t, err.Error(), token)
	require.ErrorContains(t, read("dev", nil), `jwt is missing: role "dev" takes the tokens of issuer "default": send one in a body, as vault write auth/nats/creds/dev jwt=`)
	require.NoError(t, read("ops", nil))
	require.NoError(t, read("ops", map[string]any{"jwt": ""}))
}

func TestTwoJobsOfOneAliasGetTheirOwnPermissions(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", map[string]any{"claim_mappings": map[string]any{"project": "project"}, "user_template": `{"pub":{"allow":["{{metadata(project)}}.x"]}}`})
	for _, project := range []string{"web", "billing"} {
		user := userClaims(t, m.lease("dev", map[string]any{"jwt": m.token(map[string]any{"project": project})}).Data["jwt"])
		require.Equal(t, []string{project + ".x"}, []string(user.Pub.Allow))
	}
}

func TestBadRequestsForCredentialsAreRefused(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	m.role("own", map[string]any{"user_key": "client", "user_key_proof": true})
	m.vaultRole("ops", nil)
	token := m.token(nil)
	account, user := newKey(t, trust.Account), newKey(t, trust.User)
	for name, test := range map[string]struct {
		role  string
		data  map[string]any
		fault string
	}{
		"an unknown role":                    {"nobody", nil, `role "nobody" could not be found`},
		"no token for a role of an issuer":   {"dev", nil, `jwt is missing: role "dev" takes the tokens of issuer "default"`},
		"a token for a role of type vault":   {"ops", map[string]any{"jwt": token}, `jwt is given, but role "ops" is of type vault`},
		"an expired token":                   {"dev", map[string]any{"jwt": m.token(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})}, "exp"},
		"a token for another audience":       {"dev", map[string]any{"jwt": m.token(map[string]any{"aud": "other"})}, "aud"},
		"a claim that would widen a subject": {"dev", map[string]any{"jwt": m.token(map[string]any{"project": ">"})}, "claim(project)"},
		"a key of another kind":              {"dev", map[string]any{"jwt": token, "user_public_key": account.Public()}, "user_public_key is an account"},
		"a seed for a key":                   {"dev", map[string]any{"jwt": token, "user_public_key": user.Seed()}, "user_public_key"},
		"neither a key nor a seed":           {"dev", map[string]any{"jwt": token, "user_public_key": "U1"}, "user_public_key"},
		"no key where one is demanded":       {"own", map[string]any{"jwt": token}, "user_public_key is missing"},
		"no proof where one is demanded":     {"own", map[string]any{"jwt": token, "user_public_key": user.Public()}, "user_key_signature is missing"},
		"a proof without its time":           {"own", map[string]any{"jwt": token, "user_public_key": user.Public(), "user_key_signature": "?"}, "user_key_time is missing"},
		"a proof whose time is none":         {"own", map[string]any{"jwt": token, "user_public_key": user.Public(), "user_key_signature": "?", "user_key_time": "now"}, "user_key_time"},
		"a proof that is not base64":         {"own", map[string]any{"jwt": token, "user_public_key": user.Public(), "user_key_signature": "?", "user_key_time": time.Now().Unix()}, "user_key_signature is not standard base64"},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			m.refused(test.role, test.data, test.fault)
		})
	}
	m.t = t
	resp := m.lease("own", proven(user, proof.Claim{Purpose: proof.Creds, Role: "own", Token: token}))
	require.NotContains(t, resp.Data, "creds", "no seed exists here")
	require.Equal(t, user.Public(), userClaims(t, resp.Data["jwt"]).Subject)
}

// proven is what a workload sends with a key of its own: a proof at the test's
// mount, by its caller and at this time unless the claim says otherwise, and the
// token that it is over.
func proven(key *trust.Key, claim proof.Claim) map[string]any {
	claim.User = key.Public()
	claim.Mount = cmp.Or(claim.Mount, "auth/nats/")
	claim.Time = cmp.Or(claim.Time, time.Now().Unix())
	if claim.Token == "" {
		claim.Entity = cmp.Or(claim.Entity, entityID)
	}
	data := map[string]any{
		"user_public_key":    claim.User,
		"user_key_signature": base64.StdEncoding.EncodeToString(key.Sign([]byte(claim.Text()))),
		"user_key_time":      claim.Time,
	}
	if claim.Token != "" {
		data["jwt"] = claim.Token
	}
	return data
}

// but is the data with one field changed.
func but(data map[string]any, field string, value any) map[string]any {
	data[field] = value
	return data
}

func TestARoleOfTypeVaultServesTheCallersEntity(t *testing.T) {
	m := newCredsMount(t)
	m.vaultRole("ops", nil)
	user := userClaims(t, m.lease("ops", nil).Data["jwt"])
	require.Equal(t, "ann", user.Name)
	require.Equal(t, []string{"ann.shop.dev", "ann.shop.ops"}, []string(user.Pub.Allow))

	m.system.EntityVal.Name = "ann.b"
	m.refused("ops", nil, "entity-name()")
	m.system.EntityVal.Name = "ann"
	m.vaultRole("bound", map[string]any{"token_bound_cidrs": "10.0.0.0/8"})
	_, err := m.creds("bound", nil)
	require.ErrorIs(t, err, logical.ErrPermissionDenied)
	m.system.EntityVal.Disabled = true
	_, err = m.creds("ops", nil)
	require.ErrorIs(t, err, logical.ErrPermissionDenied)
	m.system.EntityVal = nil
	m.refused("ops", nil, "the Vault entity does not exist")

	resp, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "creds/ops", Storage: m.storage})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "this Vault token has none")
	resp, err = m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "login", Data: map[string]any{"role": "ops", "jwt": m.token(nil)}, Storage: m.storage,
	})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), `role "ops" is of type vault: it serves creds/ops, not login`)
}

// An askedView counts what Vault is asked of a caller.
type askedView struct {
	*logical.StaticSystemView
	entities, groups int
}

func (v *askedView) EntityInfo(id string) (*logical.Entity, error) {
	v.entities++
	return v.StaticSystemView.EntityInfo(id)
}

func (v *askedView) GroupsForEntity(id string) ([]*logical.Group, error) {
	v.groups++
	return v.StaticSystemView.GroupsForEntity(id)
}

// Each is a call to Vault, of which a read makes no more than it has to. Who the
// caller is has to be asked each time: Vault tells nobody that an entity or an alias
// has changed.
func TestVaultIsAskedForGroupsOnlyIfTheRoleReadsThem(t *testing.T) {
	m := newCredsMount(t)
	view := &askedView{StaticSystemView: m.system}
	m.restartOn(view)
	m.vaultRole("named", map[string]any{"user_template": `{"pub":{"allow":["{{entity-name()}}.x"]}}`})
	m.vaultRole("subject", nil)
	m.vaultRole("tag", map[string]any{"user_template": `{"tags":["{{groups()}}"]}`})
	for role, groups := range map[string]int{"named": 0, "subject": 1, "tag": 1} {
		m.lease(role, nil) // the first one reads the role
		view.entities, view.groups = 0, 0
		before := m.storage.All()
		m.lease(role, nil)
		require.Equal(t, 1, view.entities, role)
		require.Equal(t, groups, view.groups, role)
		require.Equal(t, before, m.storage.All(), "%s: storage was used", role)
	}
}

func TestARenewalExtendsNothing(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	secret := m.lease("dev", map[string]any{"jwt": m.token(nil)}).Secret
	secret.IssueTime = time.Now()
	end := time.Now().Add(secret.TTL)
	resp, err := m.handle(logical.RenewOperation, secret)
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.WithinDuration(t, end, time.Now().Add(resp.Secret.TTL), 2*time.Second)
	require.WithinDuration(t, end, secret.IssueTime.Add(resp.Secret.MaxTTL), 2*time.Second)
	require.NotEmpty(t, resp.Warnings)

	secret.InternalData["expires"] = time.Now().Add(-time.Second).Unix()
	resp, err = m.handle(logical.RenewOperation, secret)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "has ended")
}

func TestALeaseThatEndsWithItsJWTCostsNothing(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	secret := m.lease("dev", map[string]any{"jwt": m.token(nil)}).Secret
	secret.InternalData["expires"] = time.Now().Unix()
	before := m.storage.All()
	_, err := m.handle(logical.RevokeOperation, secret)
	require.NoError(t, err)
	require.Equal(t, before, m.storage.All(), "storage was used")
}

func TestALeaseThatIsRevokedEarlyRevokesItsUser(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	resp := m.lease("dev", map[string]any{"jwt": m.token(nil)})
	user := userClaims(t, resp.Data["jwt"])
	m.deliverPending()
	_, err := m.handle(logical.RevokeOperation, resp.Secret)
	require.NoError(t, err)
	require.NotEmpty(t, storetest.KeysBelow(t, m.storage, "pending/"), "it is delivered, and after a crash too")
	claims := accountClaims(t, m.read("jwt/orders")["jwt"])
	require.True(t, claims.IsClaimRevoked(user))

	// Vault may ask twice, and a failure is told so that it does.
	m.storage.FailOn(func(operation, key string) bool { return operation == "put" })
	_, err = m.handle(logical.RevokeOperation, resp.Secret)
	require.ErrorIs(t, err, storetest.ErrStorage)
	m.storage.FailOn(nil)
	_, err = m.handle(logical.RevokeOperation, resp.Secret)
	require.NoError(t, err)
	revoked := m.read("jwt/orders/revoke")["revocations"].([]map[string]any)
	require.Len(t, revoked, 1)
	require.Equal(t, map[string]any{"user_public_key": user.Subject, "before": rfc3339(time.Unix(user.IssuedAt, 0)), "until": rfc3339(time.Unix(user.Expires, 0))}, revoked[0])
}

func TestALaterLeaseForTheSameKeyOutlivesARevokedOne(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	key := newKey(t, trust.User)
	own := func() map[string]any {
		return proven(key, proof.Claim{Purpose: proof.Creds, Role: "dev", Token: m.token(nil)})
	}
	secret := m.lease("dev", own()).Secret
	secret.InternalData["issued"] = time.Now().Add(-time.Minute).Unix()
	later := userClaims(t, m.lease("dev", own()).Data["jwt"])
	_, err := m.handle(logical.RevokeOperation, secret)
	require.NoError(t, err)
	claims := accountClaims(t, m.read("jwt/orders")["jwt"])
	require.Contains(t, claims.Revocations, key.Public())
	require.False(t, claims.IsClaimRevoked(later))
}

// The key of a lease is revoked with it, so nobody may have one made out to a key
// that is another's.
func TestALeaseIsForAKeyThatTheCallerHas(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	m.vaultRole("ops", nil)
	victim := newKey(t, trust.User)
	token := m.token(nil)
	m.refused("dev", map[string]any{"jwt": token, "user_public_key": victim.Public()}, "user_key_signature is missing")
	m.refused("ops", map[string]any{"user_public_key": victim.Public()}, "user_key_signature is missing")
	m.lease("dev", proven(victim, proof.Claim{Purpose: proof.Creds, Role: "dev", Token: token}))
	m.lease("ops", proven(victim, proof.Claim{Purpose: proof.Creds, Role: "ops"}))
}

// What the holder of a key once signed for one use is of no use for any other, nor
// after some minutes.
func TestAProofOfAKeyIsForOneUse(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	m.role("web", nil)
	m.vaultRole("ops", nil)
	m.vaultRole("admins", nil)
	victim, token := newKey(t, trust.User), m.token(nil)
	dev, ops := proof.Claim{Purpose: proof.Creds, Role: "dev", Token: token}, proof.Claim{Purpose: proof.Creds, Role: "ops"}
	with := func(claim proof.Claim, change func(*proof.Claim)) map[string]any {
		change(&claim)
		return proven(victim, claim)
	}
	bare := func(text string) map[string]any {
		return but(proven(victim, ops), "user_key_signature", base64.StdEncoding.EncodeToString(victim.Sign([]byte(text))))
	}
	for name, test := range map[string]struct {
		role  string
		data  map[string]any
		fault string
	}{
		"at another role of the issuer":  {"web", proven(victim, dev), `user_key_signature is not by the key of user_public_key over the proof for purpose creds, mount "auth/nats/", role "web", this jwt`},
		"at another role of type vault":  {"admins", proven(victim, ops), `mount "auth/nats/", role "admins", the entity entity-1 and the time`},
		"at another mount":               {"dev", with(dev, func(c *proof.Claim) { c.Mount = "auth/other/" }), "user_key_signature"},
		"by another entity":              {"ops", with(ops, func(c *proof.Claim) { c.Entity = "entity-2" }), "user_key_signature"},
		"with another token":             {"dev", but(proven(victim, dev), "jwt", m.token(map[string]any{"jti": "2"})), "user_key_signature"},
		"of an entity, with a token":     {"dev", but(proven(victim, proof.Claim{Purpose: proof.Creds, Role: "dev"}), "jwt", token), "user_key_signature"},
		"of a login":                     {"dev", with(dev, func(c *proof.Claim) { c.Purpose = proof.Login }), "user_key_signature"},
		"of a login with no role":        {"dev", with(dev, func(c *proof.Claim) { c.Purpose, c.Role = proof.Login, "" }), "user_key_signature"},
		"after its time":                 {"dev", with(dev, func(c *proof.Claim) { c.Time = time.Now().Add(-proof.MostOff - time.Minute).Unix() }), "user_key_time is 2"},
		"after its time, of type vault":  {"ops", with(ops, func(c *proof.Claim) { c.Time = time.Now().Add(-time.Hour).Unix() }), "user_key_time is 2"},
		"before its time":                {"ops", with(ops, func(c *proof.Claim) { c.Time = time.Now().Add(proof.MostOff + time.Minute).Unix() }), "user_key_time is 2"},
		"after its time, with a new one": {"ops", but(proven(victim, proof.Claim{Purpose: proof.Creds, Role: "ops", Time: 1}), "user_key_time", time.Now().Unix()), "user_key_signature"},
		"by another key":                 {"ops", but(proven(newKey(t, trust.User), ops), "user_public_key", victim.Public()), "user_key_signature"},
		"that is a nonce's signature":    {"ops", bare("ltpSkJ1Hd2A"), "user_key_signature"},
		"that names the path alone":      {"ops", bare("creds/ops"), "user_key_signature"},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			m.refused(test.role, test.data, test.fault)
		})
	}
	m.t = t
	for _, off := range []time.Duration{time.Minute - proof.MostOff, 0, proof.MostOff - time.Minute} {
		ops.Time = time.Now().Add(off).Unix()
		m.lease("ops", proven(victim, ops))
	}
	// In a namespace Vault names the mount with it, and a caller does not.
	req := m.request("ops", proven(victim, proof.Claim{Purpose: proof.Creds, Role: "ops"}))
	req.MountPoint = "team/sub/auth/nats/"
	resp, err := m.HandleRequest(t.Context(), req)
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	// A read has its fields in the query string, where all are texts.
	req = m.request("ops", proven(victim, proof.Claim{Purpose: proof.Creds, Role: "ops"}))
	req.Data["user_key_time"] = fmt.Sprint(req.Data["user_key_time"])
	req.Operation = logical.ReadOperation
	resp, err = m.HandleRequest(t.Context(), req)
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	req.MountPoint = ""
	_, err = m.HandleRequest(t.Context(), req)
	require.ErrorContains(t, err, "the request lacks the mount's path")
}

// A key from a file ends in a line break, which NATS passes over when it decodes the
// key and not when it compares two.
func TestAWorkloadsKeyIsWhatNATSWritesHoweverItIsSent(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", map[string]any{"user_template": `{"pub":{"allow":["{{subject()}}"]}}`})
	key, token := newKey(t, trust.User), m.token(nil)
	claim := proof.Claim{Purpose: proof.Creds, Role: "dev", Token: token}
	paths := map[string]func(public string) (*logical.Response, error){
		"login": func(public string) (*logical.Response, error) {
			return m.do(logical.UpdateOperation, "login", map[string]any{"role": "dev", "jwt": token, "user_public_key": public})
		},
		"creds/dev": func(public string) (*logical.Response, error) {
			return m.creds("dev", but(proven(key, claim), "user_public_key", public))
		},
		"role/dev/preview": func(public string) (*logical.Response, error) {
			return m.do(logical.UpdateOperation, "role/dev/preview", map[string]any{"jwt": token, "user_public_key": public})
		},
	}
	public := key.Public()
	for path, ask := range paths {
		resp, err := ask("\r\n " + public + "\n")
		require.NoError(t, err, path)
		require.NoError(t, resp.Error(), path)
		if path == "role/dev/preview" {
			require.Contains(t, fmt.Sprint(resp.Data["user"]), "allow:["+public+"]")
			continue
		}
		require.Equal(t, public, resp.Data["user_public_key"])
		user := userClaims(t, resp.Data["jwt"])
		require.Equal(t, public, user.Subject)
		require.Equal(t, []string{public}, []string(user.Pub.Allow))
		if path == "login" {
			require.Equal(t, public, resp.Auth.Metadata["user_public_key"])
		} else {
			require.Equal(t, public, resp.Secret.InternalData["user_public_key"])
		}
	}
	for _, within := range []string{"\n", "\r\n", " "} {
		for path, ask := range paths {
			resp, err := ask(public[:20] + within + public[20:])
			require.NoError(t, err, path)
			require.ErrorContains(t, resp.Error(), "user_public_key is not a user public key", path)
		}
	}
}

func TestALoginTakesAProofOfItsOwn(t *testing.T) {
	m := newCredsMount(t)
	m.write("config", map[string]any{"default_role": "own"})
	m.role("own", map[string]any{"user_key": "client", "user_key_proof": true})
	m.role("dev", map[string]any{"user_key_proof": true})
	key, token := newKey(t, trust.User), m.token(nil)
	login := func(role string, data map[string]any) error {
		req := m.request("", data)
		req.Path, req.EntityID = "login", ""
		if role != "" {
			data["role"] = role
		}
		resp, err := m.HandleRequest(t.Context(), req)
		require.NoError(t, err)
		if resp.IsError() {
			return resp.Error()
		}
		require.Equal(t, key.Public(), userClaims(t, resp.Data["jwt"]).Subject)
		require.NotContains(t, resp.Data, "creds", "no seed exists here")
		return nil
	}
	over := func(purpose, role string) map[string]any {
		return proven(key, proof.Claim{Purpose: purpose, Role: role, Token: token})
	}
	require.NoError(t, login("own", over(proof.Login, "own")))
	require.NoError(t, login("OWN", over(proof.Login, "own")))
	require.NoError(t, login("", over(proof.Login, "")))
	data := over(proof.Login, "own")
	data["jwt"] = " " + token + "\n"
	require.NoError(t, login("own", data), "as with the token itself, white space around it does not matter")

	require.ErrorContains(t, login("own", map[string]any{"jwt": token, "user_public_key": key.Public()}), "user_key_signature is missing")
	for name, err := range map[string]error{
		"at another role":                   login("dev", over(proof.Login, "own")),
		"at the default role":               login("", over(proof.Login, "own")),
		"of the default role, at a role":    login("own", over(proof.Login, "")),
		"of creds/:role":                    login("own", over(proof.Creds, "own")),
		"of creds/:role, without its token": login("own", but(proven(key, proof.Claim{Purpose: proof.Login, Role: "own"}), "jwt", token)),
	} {
		require.ErrorContains(t, err, "user_key_signature is not by the key of user_public_key over the proof for purpose login", name)
	}
	require.ErrorContains(t, login("", over(proof.Login, "own")), `the default role`)
}

// To Vault's policies creds/OPS is another path than creds/ops.
func TestARolesNameIsTakenInLowerCaseOnly(t *testing.T) {
	m := newCredsMount(t)
	m.vaultRole("ops", nil)
	m.refused("OPS", nil, "lower case")
}

func TestALeaseThatSaysNothingIsNotTakenForRevoked(t *testing.T) {
	m := newCredsMount(t)
	for _, data := range []map[string]any{
		{},
		{"account_public_key": "A", "user_public_key": "U", "issued": 5},
		{"account_public_key": "A", "user_public_key": "U", "issued": "soon", "expires": 5},
		{"account_public_key": 1, "user_public_key": "U", "issued": 1, "expires": 5},
	} {
		_, err := m.handle(logical.RevokeOperation, &logical.Secret{InternalData: data})
		require.ErrorContains(t, err, "the lease does not say which NATS user it is of")
	}
}

func TestCredentialsOfSomeoneElsesAccountComeWithAWarning(t *testing.T) {
	m := newCredsMount(t)
	signing := newKey(t, trust.Account)
	m.must(logical.CreateOperation, "jwt/hosted", map[string]any{"type": "account", "public_key": newKey(t, trust.Account).Public(), "signing_seeds": signing.Seed()})
	m.role("dev", map[string]any{"account": "hosted"})
	resp := m.lease("dev", map[string]any{"jwt": m.token(nil)})
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], `account "hosted" is one of someone else's NATS`)
	_, err := m.handle(logical.RevokeOperation, resp.Secret)
	require.NoError(t, err)
	m.refuse(logical.UpdateOperation, "jwt/hosted/revoke", map[string]any{"everyone": true}, `name "hosted" is of an account of someone else's NATS`)
}
