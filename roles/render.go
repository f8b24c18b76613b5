package roles

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-secure-stdlib/strutil"
)

// maxSubjects bounds how many subjects one list of permissions renders to, and
// how many tags there are.
// nats-server's own bound for what it expands is 4,096; a user JWT with that many would
// not fit into the control line with which a client connects.
const maxSubjects = 1000

// maxSize bounds, in bytes, a user's name, tags and permissions together, and
// then the JSON of the user JWT's nats member. It is more than nats-server takes
// by default (max_control_line), and much less than what the values of one long
// token can be combined to.
const maxSize = 64 << 10

// Account is what rendering needs to know of the role's account.
type Account struct {
	Name      string
	PublicKey string
	Tags      []string
	// IssuerAccount is the account's public key where a signing key of the
	// account signs the user JWT; empty where its identity key does.
	IssuerAccount string
}

// User is a rendered NATS user, ready to be signed.
type User struct {
	Name string
	// NATS is the nats member of the user JWT, complete, as jwt/v2 encodes it.
	NATS []byte
}

// Render fills the role's user template in for an identity that the role bound.
// Every value that it fills in is one subject token; an identity with another
// value is refused, and the error names the placeholder and so the claim.
func (c *Compiled) Render(b *Bound, a Account, userPublicKey string) (*User, error) {
	r := c.user.render(b, a, userPublicKey)
	nats := r.encode()
	if len(r.errs) > 0 {
		return nil, r.errs[0]
	}
	return &User{Name: r.name, NATS: nats}, nil
}

// A rendering is one user in the making.
type rendering struct {
	plan    *userPlan
	bound   *Bound
	account Account
	subject string

	values []value // of plan.calls
	name   string
	tags   []string
	size   int     // of what was rendered, in bytes; see maxSize
	errs   []error // why the user is refused, all reasons
}

func (p *userPlan) render(b *Bound, a Account, userPublicKey string) *rendering {
	r := &rendering{plan: p, bound: b, account: a, subject: userPublicKey, values: make([]value, len(p.calls))}
	r.resolveAll(0, p.nameEnd)
	r.renderName()
	r.resolveAll(p.nameEnd, p.tagsEnd)
	r.renderTags()
	r.resolveAll(p.tagsEnd, len(p.calls))
	for list := range p.template.lists {
		r.checkList(list)
		if p.scoped && p.repeats { // else it is what maxSubjects bounds already
			r.checkExpansion(list)
		}
	}
	return r
}

func (r *rendering) refuse(err error) { r.errs = append(r.errs, err) }

// resolveAll looks up one stage of the placeholders. A value that cannot be had
// is left as an empty list, of which nothing renders.
func (r *rendering) resolveAll(from, to int) {
	for _, c := range r.plan.calls[from:to] {
		v, err := r.resolve(c)
		if err != nil {
			v = value{many: []string{}}
			if !errors.Is(err, errNoValue) {
				r.refuse(fmt.Errorf("%s(%s) %w", c.function.name, c.argument, err))
			}
		}
		r.values[c.index] = v
	}
}

func (r *rendering) renderName() {
	if r.plan.name == nil {
		name := escape(r.bound.Alias)
		switch {
		case r.plan.scoped && isReserved(name):
			r.refuse(fmt.Errorf("the alias %w: put text before it with user_name", cannotBegin(name, scopedName)))
		case r.take("user_name", len(name)):
			r.name = name
		}
		return
	}
	switch n := r.count(r.plan.name); n {
	case 0: // a placeholder has no value, which is reported already
	case 1:
		if !r.take("user_name", r.sizeOf(r.plan.name)) {
			return
		}
		r.name = r.expand(r.plan.name)[0]
	default:
		r.refuse(errors.New("user_name has several values, since a placeholder stands for a list: a name is one"))
	}
}

func (r *rendering) renderTags() {
	total := 0
	for _, tag := range r.plan.template.tags {
		n := r.count(tag.text)
		if total += n; total > maxSubjects {
			r.refuse(fmt.Errorf("%s gives %d tags, with the entries before it more than %d", tag.place, n, maxSubjects))
			return
		}
		if !r.take(tag.place, r.sizeOf(tag.text)) {
			return
		}
		_, hasKey := tagKey(tag.text)
		for _, s := range r.expand(tag.text) {
			if !hasKey && strings.Contains(s, ":") && !tag.constant() {
				r.refuse(fmt.Errorf("%s is %s: a value with a colon would make it a key; write the tag as \"key:%s\"", tag.place, quote(s), tag.source))
				continue
			}
			r.tags = strutil.AppendIfMissing(r.tags, s)
		}
	}
}

// checkList refuses a list that would have more subjects than the bound, or make
// the user too large.
func (r *rendering) checkList(list int) {
	total := 0
	for _, e := range r.plan.template.lists[list] {
		n := r.count(e.text)
		if total += n; total > maxSubjects {
			r.refuse(fmt.Errorf("%s gives %d subjects, with the entries before it more than %d", e.place, n, maxSubjects))
			return
		}
		if !r.take(e.place, r.sizeOf(e.text)) {
			return
		}
	}
}

// maxExpansions is to how many subjects nats-server expands one list of a scope.
// It refuses the connection of a user with more.
const maxExpansions = 4096

// checkExpansion counts as nats-server does for a scoped role
// (processUserPermissionsTemplate in its auth.go): a placeholder as often as it
// stands there, though two of one spelling are filled in with one value, and an
// entry only then if a tag is looked up in it.
func (r *rendering) checkExpansion(list int) {
	total := 0
	for _, e := range r.plan.template.lists[list] {
		n, hasTags := r.expansions(e.text)
		if total += n; hasTags && total > maxExpansions {
			r.refuse(fmt.Errorf("%s: nats-server would expand the list to more than %d subjects; it counts a list of tags each time that it is looked up",
				e.place, maxExpansions))
			return
		}
	}
}

// expansions returns how many subjects nats-server makes of a text, or more than
// maxExpansions, and whether it looks up tags for it.
func (r *rendering) expansions(t *text) (n int, hasTags bool) {
	n = 1
	for i := range t.parts {
		c := t.parts[i].call
		if c == nil {
			continue
		}
		hasTags = hasTags || c.function.argument != "" // of the functions that a scope may have, those of tags
		if n <= maxExpansions {
			n *= r.values[c.index].len()
		}
	}
	return n, hasTags
}

// take adds to the user's size what is about to be rendered, and reports whether
// it is still within the bound. If not, the user is refused, once.
func (r *rendering) take(place string, size int) bool {
	before := r.size
	r.size += size
	if before <= maxSize && r.size > maxSize {
		r.refuse(fmt.Errorf("%s: %w", place, errTooLarge))
	}
	return r.size <= maxSize
}

var errTooLarge = fmt.Errorf("the user is too large: its name, tags and permissions have more than %d bytes", maxSize)

// sizeOf returns how many bytes a text renders to that gives no more strings
// than maxSubjects.
func (r *rendering) sizeOf(t *text) int {
	n := r.count(t)
	if n == 0 {
		return 0
	}
	size := 0
	for i := range t.parts {
		p := &t.parts[i]
		if p.call == nil {
			size += n * len(p.literal)
			continue
		}
		v := r.values[p.call.index]
		size += n / v.len() * v.size() // each of its values as often as the others
	}
	return size
}

// count returns how many strings a text renders to, or more than maxSubjects.
func (r *rendering) count(t *text) int {
	n := 1
	for _, c := range t.calls {
		size := r.values[c.index].len()
		if size == 0 {
			return 0
		}
		if n *= size; n > maxSubjects {
			return n // lists of at most the login's size, so n is far from overflowing
		}
	}
	return n
}

// expand renders a text: once, or for every combination of the values of its
// lists.
func (r *rendering) expand(t *text) []string {
	var out []string
	r.each(t, func(choice []int) { out = append(out, r.fill(t, choice)) })
	return out
}

// fill renders a text with one combination of values.
func (r *rendering) fill(t *text, choice []int) string {
	var b strings.Builder
	for i := range t.parts {
		if p := &t.parts[i]; p.call != nil {
			b.WriteString(r.values[p.call.index].at(choice[p.choice]))
		} else {
			b.WriteString(p.literal)
		}
	}
	return b.String()
}

// each calls visit with every combination of values of the text's distinct
// placeholders, the last varying fastest, as in nats-server.
func (r *rendering) each(t *text, visit func(choice []int)) {
	var few [8]int
	choice := few[:]
	if len(t.calls) > len(few) {
		choice = make([]int, len(t.calls))
	}
	choice = choice[:len(t.calls)]
	if r.count(t) == 0 {
		return
	}
	for {
		visit(choice)
		i := len(choice) - 1
		for ; i >= 0; i-- {
			if choice[i]++; choice[i] < r.values[t.calls[i].index].len() {
				break
			}
			choice[i] = 0
		}
		if i < 0 {
			return
		}
	}
}

// encode writes the nats member of the user JWT, unless the user is refused.
func (r *rendering) encode() []byte {
	if len(r.errs) > 0 {
		return nil
	}
	p := r.plan
	out := make([]byte, 0, p.size)
	for i := range p.head {
		out = append(out, p.head[i].encoded...)
		if p.head[i].entry != nil {
			out = r.appendSubjects(out, p.head[i].entry.text)
		}
	}
	if r.account.IssuerAccount != "" {
		out = append(out, `,"issuer_account":`...)
		out = appendString(out, r.account.IssuerAccount)
	}
	if p.tagsVary {
		out = append(out, `,"tags":[`...)
		for i, tag := range r.tags {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendString(out, tag)
		}
		out = append(out, ']')
	}
	if out = append(out, p.tail...); len(out) > maxSize { // JSON escapes some characters
		r.refuse(errTooLarge)
		return nil
	}
	return out
}

// appendSubjects appends the subjects of a text as JSON strings with commas
// between them.
func (r *rendering) appendSubjects(out []byte, t *text) []byte {
	first := true
	r.each(t, func(choice []int) {
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(out, '"')
		for i := range t.parts {
			if p := &t.parts[i]; p.call != nil {
				out = appendEscaped(out, r.values[p.call.index].at(choice[p.choice]))
			} else {
				out = appendEscaped(out, p.literal)
			}
		}
		out = append(out, '"')
	})
	return out
}

// appendString appends s as a JSON string, as encoding/json writes it.
func appendString(out []byte, s string) []byte {
	return append(appendEscaped(append(out, '"'), s), '"')
}

// appendEscaped appends what stands between the quotes of a JSON string. What
// subjects are made of needs no more than a copy, or an escape for their ">".
func appendEscaped(out []byte, s string) []byte {
	start := len(out)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '>':
			out = append(out, `\u003e`...)
		case c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '&':
			encoded, err := json.Marshal(s)
			if err != nil {
				panic(err) // there is no string that json.Marshal refuses
			}
			return append(out[:start], encoded[1:len(encoded)-1]...)
		default:
			out = append(out, c)
		}
	}
	return out
}
