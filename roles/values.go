package roles

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A value is what a placeholder stands for in one rendering: one subject token,
// or several of a list. It has none where it could not be rendered.
type value struct {
	one  string
	many []string // used instead of one if it is not nil
}

func (v value) len() int {
	if v.many == nil {
		return 1
	}
	return len(v.many)
}

func (v value) at(i int) string {
	if v.many == nil {
		return v.one
	}
	return v.many[i]
}

// size is how many bytes the values have together.
func (v value) size() int {
	n := len(v.one)
	for _, s := range v.many {
		n += len(s)
	}
	return n
}

// errNoValue says that a value cannot be had for a reason that is reported
// elsewhere.
var errNoValue = errors.New("depends on what could not be rendered")

// resolve looks up a placeholder's value, and makes sure that it is one subject
// token, or several: nothing else gets into what is rendered.
func (r *rendering) resolve(c *call) (value, error) {
	v, err := r.lookUp(c)
	if err != nil {
		return value{}, err
	}
	if v.len() == 0 {
		return value{}, errors.New("is an empty list")
	}
	if c.escape {
		v = v.escaped()
	}
	for i := range v.len() {
		if err := c.checkValue(v.at(i)); err != nil {
			return value{}, err
		}
	}
	return v, nil
}

// checkValue is where invariant 1 is held: a rendered value is one subject
// token.
func (c *call) checkValue(s string) error {
	err := c.valueFault(s)
	if err != nil && c.escapable() && c.valueFault(escape(s)) == nil {
		return fmt.Errorf("%w; {{%s(%s)|escape}} would encode it", err, c.function.name, c.argument)
	}
	return err
}

// escapable says whether |escape could be added to the placeholder. A name and
// tags are tokens without it.
func (c *call) escapable() bool { return !c.escape && !c.expanded && c.function.from != fromUser }

// valueFault says why a value cannot stand where the placeholder does.
func (c *call) valueFault(s string) error {
	if fault := tokenFault(s); fault != "" {
		return fmt.Errorf("%s is not one subject token: it %s", quote(s), fault)
	}
	// nats-server fills one placeholder in after the other.
	if (c.expanded || c.named) && strings.ContainsAny(s, "{}") {
		return fmt.Errorf("%s has a brace, which nats-server could take for a placeholder", quote(s))
	}
	// Only the template may name subjects of NATS's own, not a value.
	if c.begins != "" && isReserved(s) {
		return fmt.Errorf("%w: put text before it, as in x-%s", cannotBegin(s, c.begins), c)
	}
	return nil
}

func cannotBegin(s, what string) error {
	return fmt.Errorf("%s cannot begin %s, since subjects that begin with %q belong to NATS", quote(s), what, s[:1])
}

// quote shows a value in an error, cut where it is long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}

func (v value) escaped() value {
	if v.many == nil {
		return value{one: escape(v.one)}
	}
	many := make([]string, len(v.many))
	for i, s := range v.many {
		many[i] = escape(s)
	}
	return value{many: many}
}

// lookUp finds the value of a function, as it is.
func (r *rendering) lookUp(c *call) (value, error) {
	switch c.function.name {
	case "name":
		if r.name == "" {
			return value{}, errNoValue
		}
		return value{one: r.name}, nil
	case "subject":
		return value{one: r.subject}, nil
	case "tag":
		return tagged(r.tags, c.argument)
	case "account-name":
		return value{one: r.account.Name}, nil
	case "account-subject":
		return value{one: r.account.PublicKey}, nil
	case "account-tag":
		return tagged(r.account.Tags, c.argument)
	case "claim":
		return claimValue(c.claim.Find(r.bound.claims))
	case "metadata":
		return metadataValue(r.bound, c.argument)
	case "entity-name":
		return value{one: r.bound.entity.Name}, nil
	case "entity-id":
		return value{one: r.bound.entity.ID}, nil
	case "entity-metadata":
		return present(r.bound.entity.Metadata, c.argument)
	case "groups":
		return value{many: append([]string{}, r.bound.Groups...)}, nil
	case "alias-name":
		return r.bound.aliasName(c.argument)
	case "alias-issuer":
		return r.bound.ofAlias(func(a *ownAlias) string { return a.issuer })
	case "alias-metadata":
		return r.bound.aliasMetadata(c.argument)
	}
	return value{}, fmt.Errorf("has no meaning") // functions and this switch name the same
}

// tagged returns the values of the tags with the key, as nats-server does.
func tagged(tags []string, key string) (value, error) {
	var many []string
	for _, tag := range tags {
		if len(tag) > len(key) && tag[len(key)] == ':' && tag[:len(key)] == key {
			many = append(many, tag[len(key)+1:])
		}
	}
	switch len(many) {
	case 0:
		return value{}, errors.New("is not among the tags")
	case 1:
		return value{one: many[0]}, nil
	}
	return value{many: many}, nil
}

func present(metadata map[string]string, key string) (value, error) {
	s, ok := metadata[key]
	if !ok {
		return value{}, errors.New("is not in the metadata")
	}
	return value{one: s}, nil
}

func metadataValue(b *Bound, key string) (value, error) {
	if s, ok := b.AliasMetadata[key]; ok {
		return value{one: s}, nil
	}
	return present(b.Metadata, key)
}

// claimValue turns a claim into text: a string as it is, a whole number and a
// boolean as JSON writes them, and a list of these.
func claimValue(claim any) (value, error) {
	list, ok := claim.([]any)
	if !ok {
		s, err := claimText(claim)
		return value{one: s}, err
	}
	many := make([]string, len(list))
	for i, element := range list {
		var err error
		if many[i], err = claimText(element); err != nil {
			return value{}, fmt.Errorf("has the element %d, which %w", i, err)
		}
	}
	return value{many: many}, nil
}

func claimText(claim any) (string, error) {
	switch v := claim.(type) {
	case nil:
		return "", errors.New("is not in the token")
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case json.Number:
		if digits := strings.TrimPrefix(string(v), "-"); digits == "" || strings.Trim(digits, "0123456789") != "" {
			return "", fmt.Errorf("is %s, which is not a whole number", v)
		}
		return string(v), nil
	case []any:
		return "", errors.New("is a list in a list")
	case map[string]any:
		return "", errors.New("is an object")
	}
	return "", fmt.Errorf("is of a type that JSON does not have: %T", claim)
}
