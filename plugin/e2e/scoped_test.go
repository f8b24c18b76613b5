package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// scopedRole is a role whose users may do what their name and tags say.
func scopedRole(more fields) fields {
	all := fields{
		"scoped": true, "user_name": "{{claim(job)}}",
		"user_template": `{"pub":{"allow":["orders.{{tag(project)}}.{{name()}}"]},"sub":{"allow":["_INBOX.>"]},"tags":["project:{{claim(project)}}"]}`,
	}
	for name, value := range more {
		all[name] = value
	}
	return all
}

func TestAChangeOfAScopedRoleIsFeltByConnectedClients(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("scoped", scopedRole(nil))
	login := e.login("scoped", e.token(fields{"job": "build", "project": "shop"}))
	require.Empty(t, e.user(login.JWT).Pub.Allow, "the permissions are in the account")
	workload := e.connect(login.Creds)
	workload.publishes("orders.shop.build")
	workload.mayNotPublish("orders.shop.test")
	workload.mayNotPublish("orders.bakery.build")

	// nats-server closes the connections of a changed scope; clients come back with
	// the same credentials and the new permissions.
	e.write("role/scoped", fields{"user_template": `{"pub":{"allow":["audit.{{name()}}"]},"sub":{"allow":["_INBOX.>"]},"tags":["project:{{claim(project)}}"]}`})
	e.waitForDelivery("orders")
	e.waitFor("the connected client to have lost the old subject", func() error {
		if workload.IsClosed() {
			return nil
		}
		if workload.tryPublish("orders.shop.build") == nil {
			return errors.New("it may publish to it")
		}
		return nil
	})
	again := e.connect(login.Creds)
	again.publishes("audit.build")
	again.mayNotPublish("orders.shop.build")
}

func TestDeletingAScopedRoleCutsItsUsersOff(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("scoped", scopedRole(nil))
	e.role("other", scopedRole(nil))
	job := e.token(fields{"job": "build", "project": "shop"})
	login := e.login("scoped", job)
	workload, other := e.connect(login.Creds), e.connect(e.login("other", job).Creds)
	e.remove("role/scoped")
	e.isCutOff(workload)
	e.connectRefused(login.Creds)
	other.publishes("orders.shop.build")
}

func TestAScopedRoleMovesToAnotherAccount(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.account("billing", nil)
	e.role("scoped", scopedRole(nil))
	job := e.token(fields{"job": "build", "project": "shop"})
	before := e.login("scoped", job)
	workload := e.connect(before.Creds)
	e.write("role/scoped", fields{"account": "billing"})
	e.isCutOff(workload)
	e.connectRefused(before.Creds)
	after := e.login("scoped", job)
	require.Equal(t, e.read("jwt/billing")["public_key"], e.user(after.JWT).IssuerAccount)
	e.connect(after.Creds).publishes("orders.shop.build")
	require.Len(t, e.accountJWT("orders").SigningKeys, 1)
}

func TestNameAndTagsOfAScopedRoleAreOneSubjectTokenEach(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("scoped", scopedRole(nil))
	for _, value := range []string{">", "*", "a.b", "a b", "", "\x00", "\n", "{{name()}}", "a}}b", "$JS", "_INBOX", strings.Repeat("x", 9000)} {
		for _, claim := range []string{"job", "project"} {
			claims := fields{"job": "build", "project": "shop"}
			claims[claim] = value
			login, err := e.tryLogin("scoped", e.token(claims), nil)
			if err == nil {
				// Too long for NATS's control line, and so of no use.
				require.Greater(t, len(value), 4096, "%q was accepted as %s", value, claim)
				_, err = e.tryConnect(login.Creds)
				require.Error(t, err)
				continue
			}
			e.isStatus(err, 400)
			require.ErrorContains(t, err, fmt.Sprintf("claim(%s)", claim))
			if strings.ContainsAny(value, "{}") {
				require.ErrorContains(t, err, "could take for a placeholder")
			}
		}
	}
}

func TestAFaultInAScopedRoleIsNamed(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.refused("role/scoped", roleFields(fields{"scoped": true, "user_template": `{"pub":{"allow":["a.{{claim(project)}}"]}}`}),
		"user_template", "claim(project) may not stand in the permissions of a scoped role")
	e.refused("role/scoped", roleFields(fields{"scoped": true, "user_template": `{"pub":{"allow":["a.{{tag(project)}}"]}}`}),
		"user_template", "no tag of the template has the key")
	e.absent("role/scoped")
	require.Len(t, e.accountJWT("orders").SigningKeys, 1)
}
