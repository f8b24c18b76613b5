package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// alias returns the alias that a login was made under.
func (e *env) alias(login *login) fields {
	e.t.Helper()
	secret, err := e.client.Logical().ReadWithContext(e.ctx(), "identity/entity/id/"+login.Auth.EntityID)
	require.NoError(e.t, err)
	aliases := secret.Data["aliases"].([]any)
	require.Len(e.t, aliases, 1, "each alias has its entity")
	return aliases[0].(fields)
}

// githubClaims are the claims of a GitHub Actions token, but for those that Mint adds.
func githubClaims(subject string) fields {
	return fields{
		"jti": rand.Text(), "sub": subject, "aud": "vault",
		"environment": "prod", "ref": "refs/heads/main", "sha": "1f0e3dad99908345f7439f8ffabdffc4d0a1b2c3",
		"repository": "octo-org/octo-repo", "repository_owner": "octo-org", "actor_id": "12",
		"repository_visibility": "private", "repository_id": "74", "repository_owner_id": "65",
		"run_id": "1234567890", "run_number": "10", "run_attempt": "2", "runner_environment": "github-hosted",
		"actor": "octocat", "workflow": "deploy", "head_ref": "", "base_ref": "", "event_name": "workflow_dispatch",
		"ref_protected": "true", "ref_type": "branch",
		"workflow_ref":     "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
		"job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
	}
}

// gitlabClaims are the claims of a GitLab CI token, but for those that Mint adds.
func gitlabClaims(subject string) fields {
	return fields{
		"jti": rand.Text(), "sub": subject, "aud": "vault",
		"namespace_id": "72", "namespace_path": "my-group", "project_id": "20", "project_path": "my-group/my-project",
		"user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com",
		"user_identities": []fields{{"provider": "github", "extern_uid": "2435223452345"}},
		"pipeline_id":     "574", "pipeline_source": "push", "job_id": "302",
		"ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
		"groups_direct": []string{"my-group/my-subgroup", "other-group"},
		"environment":   "test", "environment_protected": "false", "deployment_tier": "testing", "environment_action": "start",
		"runner_id": 1, "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
		"project_visibility": "public",
		"ci_config_ref_uri":  "gitlab.example.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
	}
}

// Three platforms on one mount, whose workloads happen to have the same subject.
func TestEqualSubjectsOfSeveralIssuersAreDifferentWorkloads(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	gitlab, err := stack.StartIssuer(nil, jose.RS256)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, gitlab.Close()) })
	n := e.namespace(sharedKubernetes(t), nil)
	uid := n.account("api", nil)
	n.issuer(fields{"token_reviewer_jwt": n.reviewer()})
	e.write("issuer/gitlab", fields{"jwks_url": gitlab.JWKSURL(), "bound_issuer": gitlab.URL})
	require.ElementsMatch(t, []string{"cluster", "default", "gitlab"}, e.list("issuer"))

	n.podRole(nil)
	e.role("github", fields{
		"bound_claims": fields{"repository": "octo-org/*"}, "bound_claims_type": "glob",
		"user_template": `{"pub":{"allow":["{{claim(repository_owner)}}.{{claim(repository)|escape}}.>"]}}`,
	})
	e.role("gitlab", fields{
		"issuer": "gitlab", "bound_claims": fields{"/user_identities/0/provider": "github"},
		"groups_claim": "groups_direct", "claim_mappings": fields{"project_path": "project"},
		"user_template": `{"pub":{"allow":["{{metadata(project)|escape}}.{{claim(ref_type)}}.>"]}}`,
	})

	fromGitHub := e.token(githubClaims(uid))
	fromGitLab, err := gitlab.Mint(jose.RS256, gitlabClaims(uid))
	require.NoError(t, err)
	fromCluster := n.token("api", "vault", nil)
	tokens := map[string]string{"github": fromGitHub, "gitlab": fromGitLab, "pod": fromCluster}
	names := map[string]string{"github": uid, "gitlab": "issuer:gitlab:" + uid, "pod": "issuer:cluster:" + uid}
	entities := map[string]bool{}
	for role, token := range tokens {
		login := e.login(role, token)
		entities[login.Auth.EntityID] = true
		require.Equal(t, names[role], e.alias(login)["name"])
		for other := range tokens {
			if other != role {
				_, err := e.tryLogin(other, token, nil)
				status := http.StatusBadRequest
				if other == "pod" { // as Vault's Kubernetes method answers
					status = http.StatusForbidden
				}
				e.isStatus(err, status, "token")
			}
		}
	}
	require.Len(t, entities, 3)

	e.connect(e.login("github", fromGitHub).Creds).publishes("octo-org.octo-org/octo-repo.new")
	e.connect(e.login("gitlab", fromGitLab).Creds).publishes("my-group/my-project.branch.new")
	e.loginRefused("github", e.token(githubClaims("issuer:gitlab:"+uid)), "issuer:")
}

func TestAnIssuerIsCheckedBeforeItIsStored(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	key := e.publicKeys()[0]
	nowhere := "http://127.0.0.1:1"
	for name, test := range map[string]struct {
		config fields
		texts  []string
	}{
		"without a key source":                {fields{"bound_issuer": "x"}, []string{"oidc_discovery_url"}},
		"with two key sources":                {fields{"jwks_url": nowhere, "jwt_validation_pubkeys": key}, []string{"jwks_url", "jwt_validation_pubkeys"}},
		"whose discovery is not there":        {fields{"oidc_discovery_url": nowhere}, []string{"oidc_discovery_url"}},
		"whose JWKS is not there":             {fields{"jwks_url": e.issuer.URL + "/nothing"}, []string{"jwks_url", "404"}},
		"whose discovery names another":       {fields{"oidc_discovery_url": e.issuer.URL + "/"}, []string{"oidc_discovery_url", "discovery document"}},
		"whose key is none":                   {fields{"jwt_validation_pubkeys": "x"}, []string{"jwt_validation_pubkeys"}},
		"with an algorithm of shared secrets": {fields{"jwt_validation_pubkeys": key, "jwt_supported_algs": "HS256"}, []string{"jwt_supported_algs", "HS256"}},
		"whose API server is not there":       {fields{"kubernetes_host": nowhere, "disable_local_ca_jwt": true}, []string{"kubernetes_host"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			e.refused("issuer/new", test.config, test.texts...)
			e.absent("issuer/new")
		})
	}
	e.write("issuer/new", fields{"jwks_url": nowhere, "skip_jwks_validation": true})
	e.account("orders", nil)
	e.role("later", fields{"issuer": "new"})
	_, err := e.client.Logical().DeleteWithContext(e.ctx(), e.path("issuer/new"))
	e.isStatus(err, http.StatusBadRequest, "later")
	e.remove("role/later")
	e.remove("issuer/new")
	e.absent("issuer/new")
}

func TestAnIssuerThatFailsStopsNoLoginWithAKnownKey(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("dev", nil)
	e.login("dev", e.token(nil))
	unknown, err := stack.NewSigningKey(jose.EdDSA)
	require.NoError(t, err)
	payload, err := json.Marshal(e.issuer.Claims(fields{"aud": "vault", "sub": "workload"}))
	require.NoError(t, err)
	foreign, err := unknown.Sign(nil, payload)
	require.NoError(t, err)

	for name, fault := range map[string]stack.Fault{
		"down": stack.Down, "slow": stack.Slow, "garbage": stack.Garbage, "huge": stack.Huge,
	} {
		e.issuer.SetFault(fault)
		stranger := make(chan error, 1)
		go func() {
			_, err := e.tryLogin("dev", foreign, nil)
			stranger <- err
		}()
		for range 20 {
			started := time.Now()
			e.login("dev", e.token(nil))
			require.Less(t, time.Since(started), 5*time.Second, "the issuer is %s", name)
		}
		e.isStatus(<-stranger, http.StatusServiceUnavailable, `issuer "default" is unavailable`)
	}
	e.issuer.SetFault(stack.Redirect)
	e.loginRefused("dev", foreign, "signature")
	e.issuer.SetFault(stack.Healthy)
	e.loginRefused("dev", foreign, "signature")
}

// The keys of an issuer that is down survive Vault's restart.
func TestTheLastKeysOfAnIssuerSurviveARestart(t *testing.T) {
	t.Parallel()
	vault := ownVault(t, stack.VaultConfig{Storage: "raft"})
	e := start(t, onVault(vault), withoutNATS)
	e.account("orders", nil)
	e.role("dev", nil)
	e.login("dev", e.token(nil))
	e.waitFor("the keys to be stored", func() error {
		// Raft's database has the names of storage keys in it as they are.
		stored, err := os.ReadFile(filepath.Join(vault.Dir, "data", "vault.db"))
		if err == nil && !bytes.Contains(stored, []byte("issuer-keys/default")) {
			err = errors.New("not yet")
		}
		return err
	})
	e.issuer.SetFault(stack.Down)
	vault.Stop()
	require.NoError(t, vault.Start(buildContext(t)))
	e.waitFor("the mount to answer", func() error {
		_, err := e.tryLogin("dev", e.token(nil), nil)
		return err
	})
}

func TestLoginsGoOnWhileAnIssuerRotatesItsKeys(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("dev", nil)
	e.login("dev", e.token(nil))
	requested := e.issuer.Requests(stack.JWKSPath)

	stop := make(chan struct{})
	var logins atomic.Int64
	var workers sync.WaitGroup
	failures := make(chan error, 4)
	for range 4 {
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				token, err := e.issuer.Mint(jose.ES256, fields{"aud": "vault", "sub": "workload"})
				if err == nil {
					_, err = e.tryLogin("dev", token, nil)
				}
				if err != nil {
					failures <- err
					return
				}
				logins.Add(1)
			}
		})
	}
	started := time.Now()
	const rotations = 3
	for range rotations {
		// The old key stays published, as issuers do it.
		_, err := e.issuer.AddKey(jose.ES256)
		require.NoError(t, err)
		wanted := logins.Load() + 40
		e.waitFor("logins with the new key", func() error {
			select {
			case err := <-failures:
				t.Fatalf("a login failed: %v", err)
			default:
			}
			if logins.Load() < wanted {
				return errors.New("not yet")
			}
			return nil
		})
	}
	close(stop)
	workers.Wait()
	require.Empty(t, failures)
	allowed := rotations + int(time.Since(started)/(3*time.Second)) + 1
	require.LessOrEqual(t, e.issuer.Requests(stack.JWKSPath)-requested, allowed)
}

// 10,000 tokens with made-up kids: a request in three seconds reaches the issuer, and
// workloads with a good key log in all the while.
func TestAFloodOfMadeUpKidsDoesNotReachTheIssuer(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("dev", nil)
	e.login("dev", e.token(nil))
	attacker, err := stack.NewSigningKey(jose.EdDSA)
	require.NoError(t, err)
	payload, err := json.Marshal(e.issuer.Claims(fields{"aud": "vault", "sub": "workload"}))
	require.NoError(t, err)
	client, err := e.vault.Client()
	require.NoError(t, err)
	client.ClearToken()

	requested := e.issuer.Requests(stack.JWKSPath)
	started := time.Now()
	const flood = 10_000
	var sent, answered atomic.Int64
	var attackers sync.WaitGroup
	for range 800 {
		attackers.Go(func() {
			for n := sent.Add(1); n <= flood; n = sent.Add(1) {
				token, err := attacker.Sign(map[string]any{"kid": fmt.Sprint("kid-", n)}, payload)
				if err != nil {
					t.Errorf("sign a token: %v", err)
					return
				}
				_, err = client.Logical().WriteWithContext(t.Context(), e.path("login"), fields{"role": "dev", "jwt": token})
				var response *api.ResponseError
				if !errors.As(err, &response) {
					t.Errorf("a made-up kid was answered with %v", err)
					return
				}
				answered.Add(1)
			}
		})
	}
	done := make(chan struct{})
	go func() { attackers.Wait(); close(done) }()
	good := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			e.login("dev", e.token(nil))
			good++
		}
	}
	require.EqualValues(t, flood, answered.Load())
	allowed := int(time.Since(started)/(3*time.Second)) + 2
	require.LessOrEqual(t, e.issuer.Requests(stack.JWKSPath)-requested, allowed)
	require.Positive(t, good)
	t.Logf("%d logins with a good key within %s of the flood", good, time.Since(started).Round(time.Millisecond))
}
