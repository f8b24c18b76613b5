package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A step is one write to the mount, or what is left out and why.
type step struct {
	kind   string // "operator", "account", "curve key" or "user"
	name   string // as nsc has it
	path   string // below the mount
	holds  string // what is written, in words
	data   map[string]any
	signer *signer // of a user
	skip   string  // why it is left out, if it is
}

// A signer is the account's key that signed a user. The mount gives imported
// keys their names, so that of a signing key is asked for once it is there.
type signer struct {
	account string // its name in the mount
	key     string // public key; empty for the account's identity key
	scoped  bool
}

// newPlan makes the steps, in the order in which they have to be made: the
// operator, the system account, the other accounts, the users.
func newPlan(t *tree, keys keystore) ([]step, error) {
	p := planner{tree: t, keys: keys, taken: map[string]bool{}}
	operator, err := p.operator()
	if err != nil {
		return nil, fmt.Errorf("operator %s: %w", t.name, err)
	}
	steps := []step{operator}
	for _, name := range t.empty {
		steps = append(steps, step{kind: "account", name: name, skip: "its directory holds no JWT of it"})
	}
	accounts := slices.Clone(t.accounts)
	slices.SortStableFunc(accounts, func(a, b *nscAccount) int {
		return cmp.Compare(p.rank(a), p.rank(b))
	})
	p.nameAll(accounts)
	var users []step
	for _, a := range accounts {
		account, err := p.account(a)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", a.name, err)
		}
		steps = append(steps, account)
		if curve := a.claims.Authorization.XKey; curve != "" && p.keys.has(curve) {
			steps = append(steps, step{kind: "curve key", name: a.name + "/" + curve, skip: "it stays with the service that answers the account's auth callout; the mount does not hold it"})
		}
		for _, u := range a.users {
			user, err := p.user(a, account, u)
			if err != nil {
				return nil, fmt.Errorf("user %s of account %s: %w", u.name, a.name, err)
			}
			users = append(users, user)
		}
	}
	return append(steps, users...), nil
}

type planner struct {
	tree  *tree
	keys  keystore
	taken map[string]bool   // names in the mount
	names map[string]string // those names, by what nsc has
}

// rank puts the system account first: accounts are delivered with it.
func (p *planner) rank(a *nscAccount) int {
	if a.claims.Subject == p.tree.claims.SystemAccount {
		return 0
	}
	return 1
}

func (p *planner) operator() (step, error) {
	claims := p.tree.claims
	if claims.SystemAccount == "" {
		return step{}, fmt.Errorf("it names no system account, which accounts are delivered with (nsc edit operator --system-account)")
	}
	if !slices.ContainsFunc(p.tree.accounts, func(a *nscAccount) bool { return a.claims.Subject == claims.SystemAccount }) {
		return step{}, fmt.Errorf("its system account %s is not in the store", claims.SystemAccount)
	}
	identity, err := p.keys.seed(claims.Subject)
	if err != nil {
		return step{}, err
	}
	signing, err := p.seeds(claims.SigningKeys)
	if err != nil {
		return step{}, err
	}
	if len(signing) == 0 && (identity == "" || claims.StrictSigningKeyUsage) {
		return step{}, fmt.Errorf("none of its signing keys is in the keystore")
	}
	s := step{kind: "operator", name: p.tree.name, path: "config", data: map[string]any{"operator_jwt": p.tree.token}}
	if identity != "" {
		s.data["operator_seed"] = identity
	}
	if len(signing) > 0 {
		s.data["operator_signing_seeds"] = strings.Join(signing, ",")
	}
	s.holds = keysInWords(identity, len(signing), len(claims.SigningKeys))
	return s, nil
}

// seeds are those of the keys that the keystore has, in the order of the keys.
func (p *planner) seeds(publicKeys []string) (seeds []string, err error) {
	for _, key := range publicKeys {
		seed, err := p.keys.seed(key)
		if err != nil {
			return nil, err
		}
		if seed != "" {
			seeds = append(seeds, seed)
		}
	}
	return seeds, nil
}

func (p *planner) account(a *nscAccount) (step, error) {
	s := step{kind: "account", name: a.name, data: map[string]any{"type": "account", "account_jwt": a.token}}
	s.path = "jwt/" + p.names[a.name]
	switch operator := p.tree.claims; {
	case a.claims.Issuer != operator.Subject && !slices.Contains(operator.SigningKeys, a.claims.Issuer):
		s.skip = "it is not signed by the operator"
	case a.claims.Issuer == operator.Subject && operator.StrictSigningKeyUsage:
		s.skip = "it is signed by the operator's identity key, which strict_signing_key_usage forbids"
	case a.claims.Expires != 0 || a.claims.NotBefore != 0:
		s.skip = "it has an expiry or a start, which accounts in a mount do not have"
	}
	if s.skip != "" {
		return s, nil
	}
	identity, err := p.keys.seed(a.claims.Subject)
	if err != nil {
		return s, err
	}
	listed := slices.Sorted(maps.Keys(a.claims.SigningKeys))
	signing, err := p.seeds(listed)
	if err != nil {
		return s, err
	}
	if identity != "" {
		s.data["seed"] = identity
	}
	if len(signing) > 0 {
		s.data["signing_seeds"] = strings.Join(signing, ",")
	}
	s.holds = keysInWords(identity, len(signing), len(listed))
	return s, nil
}

func (p *planner) user(a *nscAccount, account step, u *nscUser) (step, error) {
	name := strings.TrimPrefix(account.path, "jwt/")
	s := step{kind: "user", name: a.name + "/" + u.name, signer: &signer{account: name}}
	s.path = "jwt/" + p.names[s.name]
	switch {
	case account.skip != "":
		s.skip = "its account is left out"
	case u.claims.Expires != 0 || u.claims.NotBefore != 0:
		s.skip = "it has an end or a start, which users in a mount do not have; the JWT that it has is as good as it was"
	case a.claims.IsClaimRevoked(u.claims):
		s.skip = "it is revoked"
	}
	if s.skip != "" {
		return s, nil
	}
	seed, err := p.keys.userSeed(p.tree.name, a.name, u.name, u.claims.Subject)
	if err != nil {
		return s, err
	}
	if seed == "" {
		s.skip = "its key is not in the keystore; the JWT that it has stays good"
		return s, nil
	}
	signing := u.claims.Issuer
	if held, err := p.keys.seed(signing); err != nil || held == "" {
		s.skip = "the key that signed it is not in the keystore; the JWT that it has stays good"
		return s, err
	}
	s.holds = "identity key, signed by the account's identity key"
	if signing != a.claims.Subject {
		scope, listed := a.claims.SigningKeys[signing]
		if !listed {
			s.skip = "it is signed by " + signing + ", which is not a key of its account"
			return s, nil
		}
		s.signer.key = signing
		s.holds = "identity key, signed by a signing key"
		if s.signer.scoped = scope != nil; s.signer.scoped {
			s.holds = "identity key, signed by a scoped signing key"
		}
	}
	config, err := userConfig(u.claims, s.signer.scoped)
	if err != nil {
		return s, err
	}
	s.data = map[string]any{"type": "user", "account": name, "seed": seed, "config": config}
	return s, nil
}

// userConfig is the user's claims as the mount takes them. It is text: a server
// may limit how many strings nested JSON has. A user of a scoped key has no
// permissions and limits; those of another are all named, for 0 is not the mount's
// default.
func userConfig(claims *jwt.UserClaims, scoped bool) (string, error) {
	user := claims.User
	if scoped {
		user.UserPermissionLimits = jwt.NewUserClaims("-").UserPermissionLimits
	}
	text, err := trust.UserConfig(&user)
	return string(text), err
}

var (
	badInName = regexp.MustCompile(`[^\w.-]`)
	badDots   = regexp.MustCompile(`\.{2,}`) // Vault stores nothing under such a name
	badAtEnds = regexp.MustCompile(`^[.-]+|[.-]+$`)
)

// nameAll finds the names in the mount. Those that the mount takes as they are go
// first, so that they stay what they are whatever else comes to be there.
func (p *planner) nameAll(accounts []*nscAccount) {
	p.names = map[string]string{}
	var all, users []naming
	for _, a := range accounts {
		all = append(all, naming{nsc: a.name, wanted: a.name, key: a.claims.Subject})
	}
	p.give(all)
	for _, a := range accounts {
		for _, u := range a.users {
			users = append(users, naming{nsc: a.name + "/" + u.name, wanted: p.names[a.name] + "." + u.name, key: u.claims.Subject})
		}
	}
	p.give(users)
}

// A naming is a name that is sought in the mount.
type naming struct{ nsc, wanted, key string }

func (p *planner) give(all []naming) {
	for _, n := range all {
		if cleanName(n.wanted) == n.wanted && !p.taken[n.wanted] {
			p.names[n.nsc] = p.freeName(n.wanted, n.key)
		}
	}
	for _, n := range all {
		if p.names[n.nsc] == "" {
			p.names[n.nsc] = p.freeName(n.wanted, n.key)
		}
	}
}

func cleanName(name string) string {
	name = badDots.ReplaceAllString(badInName.ReplaceAllString(name, "_"), ".")
	return badAtEnds.ReplaceAllString(name, "")
}

// freeName is a name in the mount for one that nsc has: with nothing in it that
// the mount does not take, and not given before.
func (p *planner) freeName(name, publicKey string) string {
	name = cleanName(name)
	if name == "" || p.taken[name] {
		name = strings.TrimPrefix(name+"-"+strings.ToLower(publicKey[len(publicKey)-8:]), "-")
	}
	p.taken[name] = true
	return name
}

func keysInWords(identity string, signing, listed int) string {
	words := fmt.Sprintf("%d of %d signing keys", signing, listed)
	if identity != "" {
		return "identity key, " + words
	}
	return words + ", no identity key"
}
