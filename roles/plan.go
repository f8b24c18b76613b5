package roles

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// A userPlan is how a role's NATS user is rendered. Placeholders that are spelled
// alike share one value, which is looked up once per login, in three stages:
// those of the name, then of the tags, then of the permissions, since the later
// ones may read what the earlier ones gave.
type userPlan struct {
	template *userTemplate
	scoped   bool
	repeats  bool  // a text has one placeholder twice
	name     *text // nil: the alias, escaped

	calls    []*call
	nameEnd  int // calls[:nameEnd] are the stage of the name
	tagsEnd  int // calls[nameEnd:tagsEnd] are the stage of the tags
	tagsVary bool

	// The user JWT's nats member, in order: head, issuer_account if it is set,
	// tags if they vary, tail.
	head []piece
	tail []byte
	size int // how long the whole is about, to set memory aside
}

// A piece of the user JWT's nats member: encoded JSON, then the subjects of an
// entry if it has one.
type piece struct {
	encoded []byte
	entry   *entry
}

// compileUser makes the NATS side of the role ready.
func (c *Compiled) compileUser() error {
	r := &c.role
	where := inPermissions
	if r.Scoped {
		where = inScopedPermissions
	}
	template, err := parseUserTemplate(r.UserTemplate, where, r.RoleType)
	if err != nil {
		return badField("user_template", "%s", err)
	}
	plan := &userPlan{template: template, scoped: r.Scoped}
	if r.UserName != "" {
		if plan.name, err = parseUserName(r.UserName, r.RoleType); err != nil {
			return badField("user_name", "%s", err)
		}
	}
	if err := plan.link(); err != nil {
		return badField("user_template", "%s", err)
	}
	if err := plan.reserve(); err != nil {
		return err
	}
	if err := c.checkMetadataCalls(plan); err != nil {
		return err
	}
	if err := plan.encode(); err != nil {
		return fmt.Errorf("encoding the user template: %w", err)
	}
	if size := plan.constantSize(); size > maxSize {
		return badField("user_template", "renders to at least %d bytes, more than the %d of a user", size, maxSize)
	}
	c.user = plan
	return nil
}

func parseUserName(source, roleType string) (*text, error) {
	name, err := parseText(source, inUserName, roleType)
	if err != nil {
		return nil, err
	}
	sample := name.sample()
	if fault := tokenFault(sample); fault != "" {
		return nil, fmt.Errorf("is %q: it %s, but a name must be able to stand in a subject token", source, fault)
	}
	if strings.ContainsAny(sample, "{}") {
		return nil, fmt.Errorf("is %q: a name has no braces", source)
	}
	return name, nil
}

// link gives each distinct placeholder its value's index.
func (p *userPlan) link() error {
	known := map[string]*call{}
	if p.name != nil {
		p.share(p.name, known)
	}
	p.nameEnd = len(p.calls)
	tagKeys := map[string]bool{}
	for _, e := range p.template.tags {
		p.share(e.text, known)
		p.tagsVary = p.tagsVary || !e.constant()
		if key, ok := tagKey(e.text); ok {
			tagKeys[key] = true
		}
	}
	p.tagsEnd = len(p.calls)
	for list, entries := range p.template.lists {
		for _, e := range entries {
			p.share(e.text, known)
			for _, c := range e.calls {
				c.expanded = p.scoped
				if c.function.name == "tag" && !tagKeys[c.argument] { // none of the role's users can ever have it
					return fmt.Errorf("has {{tag(%s)}} at %s, but no tag of the template has the key %q", c.argument, e.place, c.argument)
				}
			}
			if first := e.parts[0].call; first != nil && (list == pubAllow || list == subAllow) {
				first.begins = "a subject"
			}
		}
	}
	for _, c := range p.calls[:p.tagsEnd] {
		c.named = true
	}
	return nil
}

// reserve keeps $ and _, which begin the subjects of NATS itself, from beginning
// a name or a tag's value of a scoped role, wherever its template puts them now:
// the JWTs that are out are filled into whatever the template becomes, and with
// someone else's account into a scope that this mount does not even know.
// A new key for a role of which a placeholder newly begins a subject would hold
// that too, but cut off everyone of the role, and would have to remember every
// template that a living JWT was issued under. Whoever has such values puts text
// before them, in user_name or in the tag.
func (p *userPlan) reserve() error {
	if !p.scoped {
		return nil
	}
	const fault = "is %q: in a scoped role %s cannot begin with %q, since the template could begin a subject with it, and those belong to NATS"
	if p.name != nil {
		if sample := p.name.sample(); isReserved(sample) {
			return badField("user_name", fault, p.name.source, "a name", sample[:1])
		}
		if first := p.name.parts[0].call; first != nil {
			first.begins = scopedName
		}
	}
	for _, tag := range p.template.tags {
		key, value, hasKey := strings.Cut(tag.parts[0].literal, ":")
		switch {
		case !hasKey: // nothing reads it
		case isReserved(value):
			return badField("user_template", "has a tag at %s that "+fault, tag.place, tag.source, "the value of a tag", value[:1])
		case value == "":
			tag.parts[1].call.begins = fmt.Sprintf("the tag %q of a scoped role", key)
		}
	}
	return nil
}

const scopedName = "the name of a scoped role's user"

// isReserved says whether a subject that begins with s is NATS's own: $SYS, $JS,
// _INBOX.
func isReserved(s string) bool { return s != "" && (s[0] == '$' || s[0] == '_') }

// share replaces the text's calls by the plan's own of the same spelling, which
// are known.
func (p *userPlan) share(t *text, known map[string]*call) {
	choices := map[*call]int{}
	for i := range t.parts {
		c := t.parts[i].call
		if c == nil {
			continue
		}
		shared := known[c.String()]
		if shared == nil {
			shared = c
			shared.index = len(p.calls)
			p.calls = append(p.calls, shared)
			known[c.String()] = shared
		}
		choice, chosen := choices[shared]
		if !chosen {
			choice = len(t.calls)
			t.calls = append(t.calls, shared)
			choices[shared] = choice
		}
		p.repeats = p.repeats || chosen
		t.parts[i].call, t.parts[i].choice = shared, choice
	}
}

// checkMetadataCalls refuses a look-up of metadata to which no claim is mapped.
// What a service account has is not known before it logs in.
func (c *Compiled) checkMetadataCalls(p *userPlan) error {
	if c.role.kind() != claims.KindJWT {
		return nil
	}
	mapped := make(map[string]bool, len(c.mappings))
	for _, m := range c.mappings {
		mapped[m.key] = true
	}
	for _, call := range p.calls {
		if call.function.name == "metadata" && !mapped[call.argument] {
			return badField("claim_mappings", "maps no claim to %q, which the template reads with metadata(%s)", call.argument, call.argument)
		}
	}
	return nil
}

// encode makes the constant parts of the JSON ready.
func (p *userPlan) encode() error {
	user := jwt.User{UserPermissionLimits: p.template.limits}
	if p.scoped {
		user.UserPermissionLimits = jwt.UserPermissionLimits{} // jwt/v2 refuses a scoped user that has any
	}
	encoded, err := json.Marshal(user)
	if err != nil {
		return err
	}
	// The lists are empty in user, so that what comes after them is known.
	rest, ok := bytes.CutPrefix(encoded, []byte(`{"pub":{},"sub":{}`))
	if !ok {
		return fmt.Errorf("jwt/v2 encodes a user in an unknown way: %s", encoded)
	}
	rest = bytes.TrimSuffix(rest, []byte("}"))

	e := &encoder{}
	e.add(`{"pub":{`)
	if !p.scoped {
		e.lists(p.template, pubAllow, pubDeny)
	}
	e.add(`},"sub":{`)
	if !p.scoped {
		e.lists(p.template, subAllow, subDeny)
	}
	e.add("}" + string(rest))
	e.flush(nil)
	p.head = e.pieces

	tail := &bytes.Buffer{}
	if tags := p.constantTags(); len(tags) > 0 {
		encoded, err := json.Marshal(tags)
		if err != nil {
			return err
		}
		tail.WriteString(`,"tags":`)
		tail.Write(encoded)
	}
	fmt.Fprintf(tail, `,"type":%q,"version":%d}`, jwt.UserClaim, userClaimsVersion)
	p.tail = tail.Bytes()
	p.size = len(p.tail) + 128 // issuer_account and some tags
	for i := range p.head {
		p.size += len(p.head[i].encoded) + 64 // a subject
	}
	return nil
}

// constantSize is how many bytes a user has whatever its values are.
func (p *userPlan) constantSize() int {
	size := len(p.tail)
	for i := range p.head {
		size += len(p.head[i].encoded)
	}
	if p.scoped {
		for _, e := range slices.Concat(p.template.lists[:]...) {
			size += len(e.sample())
		}
	}
	return size
}

// userClaimsVersion is the version of the NATS claims that jwt/v2 encodes.
const userClaimsVersion = 2

// constantTags returns the tags if none has a placeholder.
func (p *userPlan) constantTags() jwt.TagList {
	if p.tagsVary {
		return nil
	}
	var tags jwt.TagList
	for _, tag := range p.template.tags {
		tags.Add(tag.sample())
	}
	return tags
}

// An encoder collects the pieces of the nats member.
type encoder struct {
	pieces  []piece
	pending []byte
}

func (e *encoder) add(s string) { e.pending = append(e.pending, s...) }

// flush ends a piece with the entry, or with none.
func (e *encoder) flush(end *entry) {
	e.pieces = append(e.pieces, piece{e.pending, end})
	e.pending = nil
}

// lists adds the allow and the deny list of one permission.
func (e *encoder) lists(t *userTemplate, allow, deny int) {
	if len(t.lists[allow]) > 0 {
		e.list(`"allow":[`, t.lists[allow])
	}
	if len(t.lists[deny]) > 0 {
		if len(t.lists[allow]) > 0 {
			e.add(",")
		}
		e.list(`"deny":[`, t.lists[deny])
	}
}

// list adds one list. Each entry renders to at least one subject, so the commas
// between entries are constant.
func (e *encoder) list(head string, entries []entry) {
	e.add(head)
	for i := range entries {
		if i > 0 {
			e.add(",")
		}
		if !entries[i].constant() {
			e.flush(&entries[i])
			continue
		}
		e.pending = appendString(e.pending, entries[i].sample())
	}
	e.add("]")
}

// scope is the permissions as nats-server is to expand them.
func (p *userPlan) scope() *jwt.UserPermissionLimits {
	scope := p.template.limits
	for list, to := range []*jwt.StringList{&scope.Pub.Allow, &scope.Pub.Deny, &scope.Sub.Allow, &scope.Sub.Deny} {
		for _, e := range p.template.lists[list] {
			*to = append(*to, e.canonical())
		}
	}
	return &scope
}
