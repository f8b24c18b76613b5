package plugin

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

// mostCountedRoles is how many roles are counted each for itself. Only roles that exist
// are, from when they are first used; those beyond are counted together.
const mostCountedRoles = 500

// What stands in labels in place of a role's or an issuer's name. No name has parentheses.
const (
	noName    = "(none)"  // a login named none that there is, or the role has no issuer
	otherName = "(other)" // those beyond the most
)

// A way is how credentials are asked for.
type way int

const (
	byLogin way = iota
	byCreds
	byCallout
	byOIDC
	ways
)

var wayNames = [ways]string{"login", "creds", "callout", "oidc"}

// An outcome is what a login comes to.
type outcome int

const (
	succeeded   outcome = iota
	badToken            // the issuer did not say who it is: the token is false, over, or another's
	denied              // it is known who it is, or what was asked for cannot be, and the role does not take it
	unavailable         // the issuer, or the mount, could not be asked now
	failed              // the fault is the mount's
	outcomes
)

var outcomeNames = [outcomes]string{"success", "bad_token", "denied", "unavailable", "error"}

// tokenError is a refusal by the issuer: it says nothing of the role.
type tokenError struct{ error }

func (e tokenError) Unwrap() error { return e.error }

func outcomeOf(err error) outcome {
	if err == nil {
		return succeeded
	}
	return outcomeOfFault(err)
}

// outcomeOfFault has variables that do not stay on the stack, which a login that succeeds
// does not pay for.
func outcomeOfFault(err error) outcome {
	var token tokenError
	var person *people.Refusal
	var theirs *fault.Error
	var coded logical.HTTPCodedError
	switch {
	case errors.As(err, &token), errors.As(err, &person):
		return badToken
	case isUnavailable(err), errors.Is(err, people.ErrBusy), errors.As(err, &coded) && coded.Code() == http.StatusServiceUnavailable:
		return unavailable
	case errors.As(err, &theirs), isRefusal(err):
		return denied
	}
	return failed
}

// loginCounts are of the logins with one role.
type loginCounts struct {
	role, issuer string
	main         way // which is shown before the first login, so that its rate is known
	counts       [ways][outcomes]atomic.Uint64
}

// loginMetrics count logins. What a login costs of it is one atomic addition: the counts
// of a role are found when it is made ready for use.
type loginMetrics struct {
	// nobody counts those that named no role that there is, and others those with roles
	// beyond the most.
	nobody, others loginCounts

	mu       sync.Mutex
	roles    map[string]*loginCounts
	suspects suspects
}

func newLoginMetrics() loginMetrics {
	return loginMetrics{
		nobody: loginCounts{role: noName, issuer: noName, main: byLogin},
		others: loginCounts{role: otherName, issuer: otherName, main: ways},
		roles:  make(map[string]*loginCounts),
	}
}

// of returns the counts for a role that was read from storage. With another issuer it
// begins anew.
func (m *loginMetrics) of(name string, entry *roleEntry) *loginCounts {
	issuer, main := entry.Issuer, byLogin
	switch entry.RoleType {
	case roles.TypeVault:
		issuer, main = noName, byCreds
	case roles.TypeOIDC:
		main = byOIDC
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := m.roles[name]
	if counts != nil && counts.issuer == issuer && counts.main == main {
		return counts
	}
	// A storage may have one role under several keys, as a path with dots in it.
	if counts == nil && (len(m.roles) >= mostCountedRoles || fault.CheckName("role", name) != nil) {
		return &m.others
	}
	counts = &loginCounts{role: name, issuer: issuer, main: main}
	m.roles[name] = counts
	return counts
}

// changed notes that a role may have been deleted, here or by another node.
func (m *loginMetrics) changed(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.roles[name] != nil {
		m.suspects.add(name)
	}
}

// dropDeleted drops the counts of roles that are not there any more.
func (m *loginMetrics) dropDeleted(ctx context.Context, s logical.Storage) error {
	return m.suspects.deleted(ctx, s, rolePrefix, func(name string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.roles, name)
	})
}

// counted counts a login with a role, nil where it named none that there is.
func (b *backend) counted(by way, with *role, err error) {
	outcome := outcomeOf(err)
	if outcome == failed && b.onStandby() {
		return // it goes to the leader
	}
	counts := &b.metrics.logins.nobody
	if with != nil {
		counts = with.logins
	}
	counts.counts[by][outcome].Add(1)
}

// countedEnd counts a login of a person that ended in their browser, without success.
func (b *backend) countedEnd(login *people.Login, err error) {
	m := &b.metrics.logins
	m.mu.Lock()
	counts := m.roles[login.Role]
	m.mu.Unlock()
	if counts == nil {
		counts = &m.others
	}
	counts.counts[byOIDC][outcomeOf(err)].Add(1)
}

var loginsTotal = metric("logins_total", "Logins that have come to an end, by way: login, creds, callout or oidc.", "path", "role", "issuer", "outcome")

// Describe implements prometheus.Collector.
func (m *loginMetrics) Describe(descs chan<- *prometheus.Desc) { descs <- loginsTotal }

// Collect implements prometheus.Collector.
func (m *loginMetrics) Collect(metrics chan<- prometheus.Metric) {
	m.nobody.collect(metrics)
	m.others.collect(metrics)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, counts := range m.roles {
		counts.collect(metrics)
	}
}

func (c *loginCounts) collect(metrics chan<- prometheus.Metric) {
	for by := range c.counts {
		var values [outcomes]uint64
		used := way(by) == c.main
		for i := range values {
			values[i] = c.counts[by][i].Load()
			used = used || values[i] > 0
		}
		if !used {
			continue
		}
		for i, value := range values {
			sink(metrics).counter(loginsTotal, value, wayNames[by], c.role, c.issuer, outcomeNames[i])
		}
	}
}

// sum is how many logins had each outcome since the mount was loaded.
func (m *loginMetrics) sum() (sum [outcomes]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add := func(c *loginCounts) {
		for by := range c.counts {
			for i := range sum {
				sum[i] += c.counts[by][i].Load()
			}
		}
	}
	add(&m.nobody)
	add(&m.others)
	for _, counts := range m.roles {
		add(counts)
	}
	return sum
}
