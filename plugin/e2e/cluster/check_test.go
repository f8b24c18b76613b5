package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	natsjwt "github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// checked is how many users of a kind are tried after each fault, the latest, and as many
// others by chance.
const checked = 10

// converges waits until every server holds what the mount holds and nothing that was
// deleted, and the mount knows it. Nobody writes meanwhile. It returns how long it took.
func (r *trial) converges() time.Duration {
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if err := stack.WaitFor(ctx, "the servers to hold what the mount holds", r.agree); err != nil {
		r.finds(lost, "%s", err)
	}
	return time.Since(began)
}

// agree returns nil if mount and servers do.
func (r *trial) agree() error {
	client := r.asks()
	list, err := client.Logical().ListWithContext(r.t.Context(), r.path("jwt"))
	if err != nil {
		return err
	}
	if list == nil {
		return errors.New("the mount lists nothing")
	}
	names, _ := list.Data["keys"].([]any)
	for _, name := range names {
		entry, err := client.Logical().ReadWithContext(r.t.Context(), r.path("jwt/"+name.(string)))
		if err != nil {
			return err
		}
		if entry == nil {
			return fmt.Errorf("account %s is listed, and cannot be read", name)
		}
		if err := r.serversHave(name.(string), entry.Data); err != nil {
			return err
		}
	}
	var gone map[string]string
	r.ledger.with(func() { gone = r.ledger.deleted })
	for id, name := range gone {
		for i, server := range r.servers {
			if claims, _, err := held(server, id); err != nil || claims != nil && claims.Expires == 0 {
				return fmt.Errorf("server %d holds account %s, which was deleted (%v)", i, name, err)
			}
		}
	}
	return nil
}

// serversHave returns nil if the servers have an account as the mount says that it is.
func (r *trial) serversHave(name string, entry fields) error {
	id, _ := entry["public_key"].(string)
	accountJWT, _ := entry["jwt"].(string)
	claims, err := natsjwt.DecodeAccountClaims(accountJWT)
	if err != nil {
		return fmt.Errorf("the JWT of account %s: %w", name, err)
	}
	for i, server := range r.servers {
		has, text, err := held(server, id)
		if err == nil && strings.TrimSpace(text) == accountJWT {
			continue
		}
		older := err == nil && (has == nil || has.IssuedAt < claims.IssuedAt)
		if older && entry["delivered"] == true && !r.behind.Load() {
			r.finds(lied, "account %s is said to be delivered, and server %d has an older one", name, i)
		}
		return fmt.Errorf("server %d has not account %s as the mount has it (%v)", i, name, err)
	}
	if entry["delivered"] != true {
		return fmt.Errorf("the mount does not know that account %s is delivered", name)
	}
	for i, server := range r.servers {
		has, revoked, err := goesBy(r.t.Context(), server, id)
		if err != nil || has != "" && has != accountJWT {
			return fmt.Errorf("server %d has account %s on disk as the mount has it, and judges by another (%v)", i, name, err)
		}
		same := func(before int64, shown time.Time) bool { return before == shown.Unix() }
		if has != "" && !maps.EqualFunc(claims.Revocations, revoked, same) {
			return fmt.Errorf("server %d has loaded account %s as the mount has it, and judges by %d revocations where there are %d", i, name, len(revoked), len(claims.Revocations))
		}
	}
	return nil
}

// check holds the mount and the servers against the ledger. Nobody writes meanwhile.
func (r *trial) check() {
	accounts, roles := map[string]account{}, map[string]string{}
	var good, revoked []*user
	r.ledger.with(func() {
		accounts, roles = r.ledger.accounts, r.ledger.roles
		good, revoked = some(r.ledger.good, checked), some(r.ledger.revoked, checked)
	})
	for name, want := range accounts {
		config, _ := r.readOrFind("jwt/" + name)["config"].(fields)
		if is, _ := config["description"].(string); is != want.description {
			r.finds(lost, "account %s is %q, and was made %q", name, is, want.description)
		}
	}
	for name, subject := range roles {
		template := fmt.Sprint(r.readOrFind("role/" + name)["user_template"])
		if !strings.Contains(template, strings.TrimSuffix(subject, ">")) {
			r.finds(lost, "role %s is %s, and was made with %s", name, template, subject)
		}
	}
	r.tryEverywhere(good, true)
	r.tryEverywhere(revoked, false)
	r.ledger.isOut(revoked...)
	r.waitFor("the connected user to get its own message", r.talks)
}

// readOrFind reads what has to be there.
func (r *trial) readOrFind(path string) fields {
	var secret *api.Secret
	r.waitFor("an answer at "+path, func() (err error) {
		secret, err = r.asks().Logical().ReadWithContext(r.t.Context(), r.path(path))
		return err
	})
	if secret == nil {
		r.finds(lost, "%s", path)
		return nil
	}
	return secret.Data
}

// tryEverywhere has users try to come in at all servers.
func (r *trial) tryEverywhere(users []*user, may bool) {
	var tries sync.WaitGroup
	for i, server := range r.servers {
		tries.Go(func() {
			for _, u := range users {
				in, err := letsIn(server, u)
				for range 2 {
					if err != nil { // on a machine with much to do it was not answered in time
						in, err = letsIn(server, u)
					}
				}
				switch {
				case err != nil:
					r.finds(refused, "server %d cannot be asked: %s", i, err)
				case in && !may && staysIn(server, u):
					r.finds(letIn, "server %d lets a revoked user of account %s in", i, u.account)
				case in && !may:
					r.t.Logf("server %d let a revoked user of account %s in for a moment", i, u.account)
				case !in && may:
					r.finds(refused, "server %d refuses a good user of account %s", i, u.account)
				}
			}
		})
	}
	tries.Wait()
}
