package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// lease is the answer of creds/:role.
type lease struct {
	*api.Secret
	JWT   string
	Creds string
}

// policy makes a policy that allows paths of the mount, and returns its name.
func (e *env) policy(name string, rules map[string]string) string {
	e.t.Helper()
	name = e.mount + "-" + name
	var text strings.Builder
	for path, capabilities := range rules {
		fmt.Fprintf(&text, "path %q { capabilities = [%s] }\n", e.path(path), capabilities)
	}
	require.NoError(e.t, e.client.Sys().PutPolicyWithContext(e.ctx(), name, text.String()))
	return name
}

// credsPolicy makes the policy of those who get credentials at creds/:role.
func (e *env) credsPolicy() string {
	e.t.Helper()
	return e.policy("creds", map[string]string{"creds/*": `"read", "update"`})
}

// creds gets credentials as the holder of the client's token: with a token of the
// workload's, or without for a role of type vault.
func (e *env) creds(client *api.Client, role string, data fields) *lease {
	e.t.Helper()
	secret, err := client.Logical().WriteWithContext(e.ctx(), e.path("creds/"+role), data)
	require.NoError(e.t, err)
	require.NotEmpty(e.t, secret.LeaseID)
	answer := &lease{Secret: secret}
	answer.JWT, _ = secret.Data["jwt"].(string)
	answer.Creds, _ = secret.Data["creds"].(string)
	return answer
}

// credsRefused asks for credentials and is answered with status 400 and these texts.
func (e *env) credsRefused(client *api.Client, role string, data fields, texts ...string) {
	e.t.Helper()
	_, err := client.Logical().WriteWithContext(e.ctx(), e.path("creds/"+role), data)
	e.isStatus(err, http.StatusBadRequest, texts...)
}

// runner is a workload that logged in with the role runner, which gives its token the
// policy to get credentials.
func (e *env) runner(role fields) *login {
	e.t.Helper()
	data := fields{"token_policies": e.credsPolicy(), "user_template": devTemplate}
	for name, value := range role {
		data[name] = value
	}
	e.role("runner", data)
	return e.login("runner", e.token(fields{"project": "shop"}))
}

func (e *env) user(jwt string) *natsjwt.UserClaims {
	e.t.Helper()
	user, err := natsjwt.DecodeUserClaims(jwt)
	require.NoError(e.t, err)
	return user
}

// accountJWT is the account as the mount has it.
func (e *env) accountJWT(name string) *natsjwt.AccountClaims {
	e.t.Helper()
	claims, err := natsjwt.DecodeAccountClaims(e.read("jwt/" + name)["jwt"].(string))
	require.NoError(e.t, err)
	return claims
}

func TestALeaseOfCredentialsLetsItsHolderTalkToNATS(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(fields{"user_ttl": "5m"})
	lease := e.creds(runner.client, "runner", fields{"jwt": e.token(fields{"project": "bakery"})})
	require.True(t, strings.HasPrefix(lease.LeaseID, e.path("creds/runner/")), lease.LeaseID)
	require.True(t, lease.Renewable)
	require.InDelta(t, 300, lease.LeaseDuration, 2)
	require.Equal(t, e.nats.URL, lease.Data["url"])

	workload := e.connect(lease.Creds)
	workload.publishes("orders.bakery.new") // and not what the alias's login had
	workload.mayNotPublish("orders.shop.new")

	// A renewal tells how long it still is, and extends nothing.
	renewed, err := runner.client.Sys().RenewWithContext(e.ctx(), lease.LeaseID, 3600)
	require.NoError(t, err)
	require.LessOrEqual(t, renewed.LeaseDuration, 301)
	require.Contains(t, strings.Join(renewed.Warnings, " "), "does not extend")
}

func TestATokenOfAnotherWorkloadGetsNoLease(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(nil)
	e.credsRefused(runner.client, "runner", fields{"jwt": e.token(fields{"sub": "another", "project": "shop"})}, "jwt", `"another"`, "not the workload")
	e.credsRefused(runner.client, "runner", nil, "jwt is missing")
	_, err := runner.client.Logical().ReadWithDataWithContext(e.ctx(), e.path("creds/runner"), map[string][]string{"jwt": {e.token(fields{"project": "shop"})}})
	e.isStatus(err, http.StatusBadRequest, "query string", "vault write "+e.path("creds/runner")+" jwt=")
	e.credsRefused(e.client, "runner", fields{"jwt": e.token(fields{"project": "shop"})}, "no entity")
	e.credsRefused(runner.client, "nobody", fields{"jwt": e.token(nil)}, `role "nobody" could not be found`)
	_, err = runner.client.Logical().WriteWithContext(e.ctx(), e.path("role/runner"), roleFields(nil))
	e.isStatus(err, http.StatusForbidden)
}

// cutOff tells when the server ended a connection.
func cutOff() (nats.Option, <-chan time.Time) {
	ended := make(chan time.Time, 1)
	return nats.ClosedHandler(func(*nats.Conn) { ended <- time.Now() }), ended
}

func TestRevokingALeaseCutsItsClientOff(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.runner(nil)
	job := fields{"project": "shop"}
	for name, revoke := range map[string]func(e *env, runner *login, lease *lease){
		"by itself":                    func(e *env, _ *login, lease *lease) { e.cli("lease", "revoke", lease.LeaseID) },
		"with its Vault token":         func(e *env, runner *login, _ *lease) { e.cli("token", "revoke", runner.Auth.ClientToken) },
		"with its Vault token's entry": func(e *env, runner *login, _ *lease) { e.cli("token", "revoke", "-accessor", runner.Auth.Accessor) },
	} {
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			runner, other := e.login("runner", e.token(job)), e.login("runner", e.token(job))
			revoked := e.creds(runner.client, "runner", fields{"jwt": e.token(job)})
			kept := e.connect(e.creds(other.client, "runner", fields{"jwt": e.token(job)}).Creds)
			workload := e.connect(revoked.Creds)
			workload.publishes("orders.shop.new")
			revoke(e, runner, revoked)
			e.isCutOff(workload)
			e.connectRefused(revoked.Creds)
			kept.publishes("orders.shop.new")
		})
	}
}

func TestTheTimeFromRevokingATokenToTheDisconnect(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.runner(nil)
	job := fields{"project": "shop"}
	const rounds = 5
	least := time.Hour
	for range rounds {
		runner := e.login("runner", e.token(job))
		option, ended := cutOff()
		e.connect(e.creds(runner.client, "runner", fields{"jwt": e.token(job)}).Creds, option)
		begun := time.Now()
		require.NoError(t, runner.client.Auth().Token().RevokeSelfWithContext(e.ctx(), ""))
		select {
		case at := <-ended:
			least = min(least, at.Sub(begun))
			t.Logf("%s from the revocation of a Vault token to the disconnect", at.Sub(begun).Round(time.Millisecond))
		case <-e.ctx().Done():
			t.Fatal("the client is connected")
		}
	}
	require.Less(t, least, 2*time.Second, "it is a push, and not a poll")
}

func TestRevokingByPrefixCutsOffAllOfARole(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(nil)
	e.role("other", fields{"user_template": devTemplate})
	job := fields{"jwt": e.token(fields{"project": "shop"})}
	kept := e.connect(e.creds(runner.client, "other", job).Creds)
	var cut []*workload
	for range 5 {
		cut = append(cut, e.connect(e.creds(runner.client, "runner", job).Creds))
	}
	e.cli("lease", "revoke", "-prefix", e.path("creds/runner"))
	for _, workload := range cut {
		e.isCutOff(workload)
	}
	kept.publishes("orders.shop.new")
	require.Len(t, e.accountJWT("orders").Revocations, 5)
}

func TestDisablingTheMountCutsOffAllLeases(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(nil)
	job := fields{"jwt": e.token(fields{"project": "shop"})}
	var leases []*lease
	var cut []*workload
	for range 20 {
		leases = append(leases, e.creds(runner.client, "runner", job))
		cut = append(cut, e.connect(leases[len(leases)-1].Creds))
	}
	begun := time.Now()
	require.NoError(t, e.client.Sys().DisableAuthWithContext(e.ctx(), e.mount))
	t.Logf("%s to disable a mount with %d leases", time.Since(begun).Round(time.Millisecond), len(leases))
	for i, workload := range cut {
		e.isCutOff(workload)
		e.connectRefused(leases[i].Creds)
	}
}

func TestALeaseThatEndsWithItsJWTLeavesTheAccountAlone(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(fields{"user_ttl": "3s"})
	before := e.accountJWT("orders").ID
	lease := e.creds(runner.client, "runner", fields{"jwt": e.token(fields{"project": "shop"})})
	workload := e.connect(lease.Creds)
	renewed, err := runner.client.Sys().RenewWithContext(e.ctx(), lease.LeaseID, 0)
	require.NoError(t, err)
	require.LessOrEqual(t, renewed.LeaseDuration, 4)
	e.isCutOff(workload)
	e.waitFor("Vault to end the lease", func() error {
		if secret, err := e.client.Sys().LookupWithContext(e.ctx(), lease.LeaseID); err == nil {
			return fmt.Errorf("the lease is there: %v", secret.Data)
		}
		return nil
	})
	require.Equal(t, before, e.accountJWT("orders").ID, "the account was changed")
	require.Empty(t, e.read("jwt/orders/revoke")["revocations"])
}

func TestALoginWithoutCredentialsGetsThemWithItsToken(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(fields{"credentials_on_login": false})
	require.Empty(t, runner.Data)
	require.NotContains(t, runner.Auth.Metadata, "user_public_key")
	lease := e.creds(runner.client, "runner", fields{"jwt": e.token(fields{"project": "shop"})})
	e.connect(lease.Creds).publishes("orders.shop.new")
}

func TestABatchTokenGetsCredentials(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(fields{"token_type": "batch", "token_ttl": "10m"})
	token, err := runner.client.Auth().Token().LookupSelfWithContext(e.ctx())
	require.NoError(t, err)
	require.Equal(t, "batch", token.Data["type"])
	e.connect(runner.Creds).publishes("orders.shop.new")
	lease := e.creds(runner.client, "runner", fields{"jwt": e.token(fields{"project": "shop"})})
	workload := e.connect(lease.Creds)
	workload.publishes("orders.shop.new")
	e.cli("lease", "revoke", lease.LeaseID)
	e.isCutOff(workload)
}

func TestAWrappedAnswerIsUnwrappedOnce(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(nil)
	job := fields{"role": "runner", "jwt": e.token(fields{"project": "shop"})}
	wrapped := func(path string, data fields, token string) *api.Secret {
		client, err := e.vault.Client()
		require.NoError(t, err)
		client.SetToken(token)
		client.SetWrappingLookupFunc(func(string, string) string { return "5m" })
		secret, err := client.Logical().WriteWithContext(e.ctx(), e.path(path), data)
		require.NoError(t, err)
		require.Nil(t, secret.Data)
		require.Nil(t, secret.Auth)
		unwrapped, err := e.client.Logical().UnwrapWithContext(e.ctx(), secret.WrapInfo.Token)
		require.NoError(t, err)
		_, err = e.client.Logical().UnwrapWithContext(e.ctx(), secret.WrapInfo.Token)
		require.Error(t, err, "it was unwrapped twice")
		return unwrapped
	}
	login := wrapped("login", job, "")
	require.NotEmpty(t, login.Auth.ClientToken)
	e.connect(login.Data["creds"].(string)).publishes("orders.shop.new")

	creds := wrapped("creds/runner", fields{"jwt": job["jwt"]}, runner.Auth.ClientToken)
	workload := e.connect(creds.Data["creds"].(string))
	workload.publishes("orders.shop.new")
	e.cli("lease", "revoke", creds.LeaseID)
	e.isCutOff(workload)
}

func TestTheSystemAccountIsOnlyForRolesThatMayHaveIt(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.refused("role/admin", roleFields(fields{"account": "SYS"}), "account", "system account", "allow_system_account=true")
	e.role("admin", fields{"account": "SYS", "allow_system_account": true})
	admin := e.connect(e.login("admin", e.token(nil)).Creds)
	answer, err := admin.Request("$SYS.REQ.SERVER.PING", nil, patience)
	require.NoError(t, err)
	require.NotEmpty(t, answer.Data)
	e.refused("role/admin", fields{"allow_system_account": false}, "account", "system account")
}

// Callers of every other auth method get credentials for their Vault entity.
func TestCallersOfOtherMethodsGetCredentialsForTheirEntity(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("ops", fields{
		"role_type": "vault", "bound_audiences": nil, "user_claim": nil,
		"user_template": `{"pub":{"allow":["{{entity-name()}}.{{entity-metadata(team)}}.>"]},"sub":{"allow":["groups.{{groups()}}","ids.{{entity-id()}}"]}}`,
	})
	policy := e.credsPolicy()
	for name, logIn := range map[string]func(e *env, policy string) (*api.Client, string){
		"of userpass": (*env).userpass,
		"of AppRole":  (*env).approle,
	} {
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			client, entity := logIn(e, policy)
			human := e.mount + "-" + strings.ReplaceAll(strings.TrimPrefix(name, "of "), " ", "")
			e.configureEntity(entity, human, "shop")

			lease := e.creds(client, "ops", nil)
			user := e.user(lease.JWT)
			require.Equal(t, human, user.Name)
			workload := e.connect(lease.Creds)
			workload.publishes(human + ".shop.new")
			workload.mayNotPublish(human + ".other.new")
			workload.subscribes("groups." + human + "-a")
			workload.subscribes("groups." + human + "-b")
			workload.mayNotSubscribe("groups.others")
			workload.subscribes("ids." + entity)

			// A read serves them too, and whoever may not read the path gets nothing.
			secret, err := client.Logical().ReadWithContext(e.ctx(), e.path("creds/ops"))
			require.NoError(t, err)
			require.NotEmpty(t, secret.LeaseID)
			e.credsRefused(client, "ops", fields{"jwt": e.token(nil)}, "jwt is given", "type vault")

			require.NoError(t, client.Auth().Token().RevokeSelfWithContext(e.ctx(), ""))
			e.isCutOff(workload)
		})
	}
	e.credsRefused(e.client, "ops", nil, "this Vault token has none")
	e.loginRefused("ops", e.token(nil), "type vault")
	e.refused("role/ops", fields{"user_template": `{"pub":{"allow":["{{claim(sub)}}"]}}`}, "user_template", "claim(sub)")
}

// userpass logs a user in with a password, and returns its client and entity.
func (e *env) userpass(policy string) (*api.Client, string) {
	e.t.Helper()
	mount := e.mount + "-userpass"
	e.enableAuth(mount, "userpass")
	_, err := e.client.Logical().WriteWithContext(e.ctx(), "auth/"+mount+"/users/ann", fields{"password": "secret", "token_policies": policy})
	require.NoError(e.t, err)
	return e.logInAt("auth/"+mount+"/login/ann", fields{"password": "secret"})
}

// approle logs an application in with its secret ID.
func (e *env) approle(policy string) (*api.Client, string) {
	e.t.Helper()
	mount := e.mount + "-approle"
	e.enableAuth(mount, "approle")
	write := func(path string, data fields) fields {
		secret, err := e.client.Logical().WriteWithContext(e.ctx(), "auth/"+mount+"/"+path, data)
		require.NoError(e.t, err)
		if secret == nil {
			return nil
		}
		return secret.Data
	}
	write("role/app", fields{"token_policies": policy})
	id, err := e.client.Logical().ReadWithContext(e.ctx(), "auth/"+mount+"/role/app/role-id")
	require.NoError(e.t, err)
	secretID := write("role/app/secret-id", nil)["secret_id"]
	return e.logInAt("auth/"+mount+"/login", fields{"role_id": id.Data["role_id"], "secret_id": secretID})
}

func (e *env) enableAuth(mount, kind string) {
	e.t.Helper()
	require.NoError(e.t, e.client.Sys().EnableAuthWithOptionsWithContext(e.ctx(), mount, &api.EnableAuthOptions{Type: kind}))
}

func (e *env) logInAt(path string, data fields) (*api.Client, string) {
	e.t.Helper()
	client, err := e.vault.Client()
	require.NoError(e.t, err)
	client.ClearToken()
	secret, err := client.Logical().WriteWithContext(e.ctx(), path, data)
	require.NoError(e.t, err)
	client.SetToken(secret.Auth.ClientToken)
	return client, secret.Auth.EntityID
}

// configureEntity names an entity, and puts it into the groups <name>-a and <name>-b.
func (e *env) configureEntity(id, name, team string) {
	e.t.Helper()
	write := func(path string, data fields) {
		_, err := e.client.Logical().WriteWithContext(e.ctx(), path, data)
		require.NoError(e.t, err)
	}
	write("identity/entity/id/"+id, fields{"name": name, "metadata": fields{"team": team}})
	for _, group := range []string{"-a", "-b"} {
		write("identity/group/name/"+name+group, fields{"member_entity_ids": id})
	}
}

func TestALeaseIsRevokedThoughNATSIsDown(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(nil)
	lease := e.creds(runner.client, "runner", fields{"jwt": e.token(fields{"project": "shop"})})
	e.nats.Stop()
	e.cli("lease", "revoke", "-sync", lease.LeaseID)
	require.Len(t, e.read("jwt/orders/revoke")["revocations"], 1, "it is durable when it is answered")
	require.NoError(t, e.nats.Restart(e.ctx()))
	e.waitFor("the server to refuse the user", func() error {
		if conn, err := e.tryConnect(lease.Creds); err == nil {
			conn.Close()
			return errors.New("the revoked user connected")
		}
		return nil
	})
	e.waitForDelivery("orders")
}

// The commands of docs/credentials.md run as they stand, and do what it says.
func TestTheCredentialsGuideRunsAsItStands(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", nil)
	e.role("batch", fields{"signing_key": "role"})
	batch := e.connect(e.login("batch", e.token(nil)).Creds)
	blocks := e.guide("credentials.md", map[string]string{
		"nats-dev": e.mount + "-dev", "nats-pipeline": e.mount + "-pipeline", "auth disable nats": "auth disable " + e.mount,
	}).blocks("sh")
	require.Len(t, blocks, 7)
	login, leases, reads, revokeLeases, named, printer, revoke := blocks[0], blocks[1], blocks[2], blocks[3], blocks[4], blocks[5], blocks[6]
	dir, job := t.TempDir(), "export CI_JOB_JWT="+e.token(fields{"project_path": "acme/web.shop"})+"\n"

	e.shell(dir, job+login)
	byLogin, err := e.dial(nats.UserCredentials(dir + "/dev.creds"))
	require.NoError(t, err)
	require.Contains(t, e.shell(dir, job+leases), "lease_id")
	e.shell(dir, job+reads)
	byRead, err := e.dial(nats.UserCredentials(dir + "/project.creds"))
	require.NoError(t, err)
	byRead.publishes("ci.acme/web%2Eshop.new")
	byRead.mayNotPublish("ci.acme/web.new")
	e.shell(dir, named)
	e.shell(dir, printer)
	byFile, err := e.dial(nats.UserCredentials(dir + "/printer.creds"))
	require.NoError(t, err)
	byFile.publishes("anything")
	worker, err := e.dial(nats.UserJWT(
		func() (string, error) { return e.read("jwt/worker")["jwt"].(string), nil },
		func(nonce []byte) ([]byte, error) { return e.signature("worker", nonce) }))
	require.NoError(t, err)

	another := e.login("batch", e.token(nil))
	listed := e.shell(dir, "export USER_PUBLIC_KEY="+another.Data["user_public_key"].(string)+"\n"+revoke)
	require.Contains(t, listed, "2025-01-02T15:04:05Z")
	e.isCutOff(worker)
	e.isCutOff(batch)
	byLogin.publishes("anything")

	runner := e.login("dev", e.token(nil))
	leased := e.connect(e.creds(runner.client, "dev", fields{"jwt": e.token(nil)}).Creds)
	e.shell(dir, "export JOB_TOKEN="+runner.Auth.ClientToken+"\n"+revokeLeases)
	e.isCutOff(leased)
}
