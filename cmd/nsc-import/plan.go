package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// A step is one write to the mount, or what is left out and why.
type step struct {
	kind   string // "operator", "account" or "user"
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
	accounts := slices.Clone(t.accounts)
	slices.SortStableFunc(accounts, func(a, b *nscAccount) int {
		return cmp.Compare(p.rank(a), p.rank(b))
	})
	var users []step
	for _, a := range accounts {
		account, err := p.account(a)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", a.name, err)
		}
		steps = append(steps, account)
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
	taken map[string]bool // names in the mount
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
		s.data["operator_signing_seeds"] = signing
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
	s.path = "jwt/" + p.freeName(a.name, a.claims.Subject)
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
		s.data["signing_seeds"] = signing
	}
	s.holds = keysInWords(identity, len(signing), len(listed))
	return s, nil
}

func (p *planner) user(a *nscAccount, account step, u *nscUser) (step, error) {
	name := strings.TrimPrefix(account.path, "jwt/")
	s := step{kind: "user", name: a.name + "/" + u.name, signer: &signer{account: name}}
	s.path = "jwt/" + p.freeName(name+"."+u.name, u.claims.Subject)
	if account.skip != "" {
		s.skip = "its account is left out"
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
		if scope != nil {
			s.holds = "identity key, signed by a scoped signing key"
		}
	}
	config, err := userConfig(u.claims)
	if err != nil {
		return s, err
	}
	s.data = map[string]any{"type": "user", "account": name, "seed": seed, "config": config}
	return s, nil
}

// userConfig is the user's claims as the mount takes them.
func userConfig(claims *jwt.UserClaims) (map[string]any, error) {
	text, err := json.Marshal(claims.User)
	if err != nil {
		return nil, err
	}
	var config map[string]any
	return config, json.Unmarshal(text, &config)
}

var (
	badInName = regexp.MustCompile(`[^\w.-]`)
	badAtEnds = regexp.MustCompile(`^[.-]+|[.-]+$`)
)

// freeName is a name in the mount for one that nsc has: with nothing in it that
// the mount does not take, and not given before.
func (p *planner) freeName(name, publicKey string) string {
	name = badAtEnds.ReplaceAllString(badInName.ReplaceAllString(name, "_"), "")
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
