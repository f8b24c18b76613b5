package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
)

// A step is one write to the mount, or what is left out and why.
type step struct {
	kind  string // "operator", "account", "curve key" or "user"
	name  string // as nsc has it
	path  string // below the mount
	holds string // what is written, in words
	data  map[string]any
	after []*step // what has to be there before: the operator, and a user's account
	skip  string  // why it is left out, if it is
}

// newPlan makes the steps, in the order in which they have to be made: the
// operator, the system account, the other accounts, the users.
func newPlan(t *tree, keys keystore) ([]*step, error) {
	p := planner{tree: t, keys: keys, taken: map[string]bool{}}
	operator, err := p.operator()
	if err != nil {
		return nil, fmt.Errorf("operator %s: %w", t.name, err)
	}
	steps := []*step{operator}
	for _, name := range t.empty {
		steps = append(steps, &step{kind: "account", name: name, skip: "its directory holds no JWT of it"})
	}
	accounts := slices.Clone(t.accounts)
	slices.SortStableFunc(accounts, func(a, b *nscAccount) int {
		return cmp.Compare(p.rank(a), p.rank(b))
	})
	p.nameAll(accounts)
	var users []*step
	for _, a := range accounts {
		account, err := p.account(a)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", a.name, err)
		}
		account.after = []*step{operator}
		steps = append(steps, account)
		if curve := a.claims.Authorization.XKey; curve != "" && p.keys.has(curve) {
			steps = append(steps, &step{kind: "curve key", name: a.name + "/" + curve, skip: "it stays with the service that answers the account's auth callout; the mount does not hold it"})
		}
		for _, u := range a.users {
			user, err := p.user(a, account, u)
			if err != nil {
				return nil, fmt.Errorf("user %s of account %s: %w", u.name, a.name, err)
			}
			user.after = []*step{operator, account}
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

func (p *planner) operator() (*step, error) {
	claims := p.tree.claims
	if claims.SystemAccount == "" {
		return nil, fmt.Errorf("it names no system account, which accounts are delivered with (nsc edit operator --system-account)")
	}
	if !slices.ContainsFunc(p.tree.accounts, func(a *nscAccount) bool { return a.claims.Subject == claims.SystemAccount }) {
		return nil, fmt.Errorf("its system account %s is not in the store", claims.SystemAccount)
	}
	identity, err := p.keys.seed(claims.Subject)
	if err != nil {
		return nil, err
	}
	signing, err := p.seeds(claims.SigningKeys)
	if err != nil {
		return nil, err
	}
	if len(signing) == 0 && (identity == "" || claims.StrictSigningKeyUsage) {
		return nil, fmt.Errorf("none of its signing keys is in the keystore")
	}
	s := &step{kind: "operator", name: p.tree.name, path: "config", data: map[string]any{"operator_jwt": p.tree.token}}
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

func (p *planner) account(a *nscAccount) (*step, error) {
	s := &step{kind: "account", name: a.name, data: map[string]any{"type": "account", "account_jwt": a.token}}
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

func (p *planner) user(a *nscAccount, account *step, u *nscUser) (*step, error) {
	s := &step{kind: "user", name: a.name + "/" + u.name}
	s.path = "jwt/" + p.names[s.name]
	signed, err := p.signed(a, account, u.claims)
	if err != nil {
		return nil, err
	}
	switch {
	case account.skip != "":
		s.skip = "its account is left out"
	case u.claims.Expires != 0 && u.claims.Expires <= time.Now().Unix():
		s.skip = "it has ended at " + showTime(u.claims.Expires)
	case a.claims.IsClaimRevoked(u.claims):
		s.skip = "it is revoked"
	case !a.claims.DidSign(u.claims):
		s.skip = "it is signed by " + u.claims.Issuer + ", which is not a key of its account"
	case signed == "":
		s.skip = "the key that signed it is not in the keystore; the JWT that it has stays good"
	}
	if s.skip != "" {
		return s, nil
	}
	seed, err := p.keys.userSeed(p.tree.name, a.name, u.name, u.claims.Subject)
	if err != nil {
		return nil, err
	}
	s.data = map[string]any{"type": "user", "account": p.names[a.name], "user_jwt": u.token}
	s.holds = "public key alone, as its seed is not in the keystore"
	if seed != "" {
		s.data["seed"], s.holds = seed, "identity key"
	}
	s.holds += ", " + signed
	if u.claims.NotBefore > time.Now().Unix() {
		s.holds += ", starts at " + showTime(u.claims.NotBefore)
	}
	if u.claims.Expires != 0 {
		s.holds += ", ends at " + showTime(u.claims.Expires)
	}
	return s, nil
}

func showTime(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }

// signed says what the user is signed with, empty if that is not in the keystore.
// In the place of an account's identity key its plain signing key signs.
func (p *planner) signed(a *nscAccount, account *step, user *jwt.UserClaims) (string, error) {
	if user.Issuer == a.claims.Subject {
		_, identity := account.data["seed"]
		_, signing := account.data["signing_seeds"]
		if !identity && !signing {
			return "", nil
		}
		return "signed by the account's identity key", nil
	}
	seed, err := p.keys.seed(user.Issuer)
	switch {
	case err != nil || seed == "":
		return "", err
	case a.claims.SigningKeys[user.Issuer] != nil:
		return "signed by a scoped signing key", nil
	default:
		return "signed by a signing key", nil
	}
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
