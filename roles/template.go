package roles

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// A text is a string of a role's template: literal text and placeholders.
type text struct {
	source string
	parts  []part
	calls  []*call // the distinct placeholders
}

// A part of a text is a placeholder, or literal text where call is nil.
type part struct {
	literal string
	call    *call
	choice  int // of the call among the text's distinct ones
}

// A call is one placeholder: a function, its argument, and whether its value
// is escaped.
type call struct {
	function *function
	argument string
	claim    claims.Path // the argument of claim(x), ready to look up
	escape   bool
	index    int    // of its value among those of a rendering; see userPlan
	begins   string // in words, what its value begins that must not begin with $ or _; empty for nothing
	named    bool   // it stands in user_name or in tags
	expanded bool   // nats-server expands it, in a scope
}

// String is the call's one spelling: nats-server's own, where it knows the
// function.
func (c *call) String() string {
	if c.escape {
		return "{{" + c.function.name + "(" + c.argument + ")|escape}}"
	}
	return "{{" + c.function.name + "(" + c.argument + ")}}"
}

// A place is where a text stands; it decides which functions the text may use.
type place int

const (
	inUserName place = iota
	inTags
	inPermissions       // of a role whose permissions are written into the user JWT
	inScopedPermissions // of a role whose permissions nats-server expands
	inAliasName
	places
)

func (p place) String() string {
	return [places]string{"user_name", "tags", "permissions", "the permissions of a scoped role", "alias_name"}[p]
}

// A function of the template language.
type function struct {
	name     string
	argument string       // what its argument is; empty if it takes none
	optional bool         // it can do without its argument
	from     source       // where its value comes from
	places   [places]bool // where it may stand
}

// A source is where a function's value comes from.
type source int

const (
	fromUser    source = iota // the user JWT that is being rendered
	fromAccount               // the role's account
	fromToken                 // the workload's token: roles of an issuer
	fromEntity                // the caller's Vault entity: roles of type vault
)

// functions are nats-server's own for user permissions (processUserPermissionsTemplate
// in its auth.go) and those that read the identity. A function of the identity
// cannot stand where nats-server does the expanding; nor can a text use what is
// rendered after it: name before tags before permissions.
var functions = []*function{
	{name: "name", from: fromUser, places: [places]bool{inTags: true, inPermissions: true, inScopedPermissions: true}},
	{name: "subject", from: fromUser, places: everywhere},
	{name: "tag", argument: "a tag's key", from: fromUser, places: [places]bool{inPermissions: true, inScopedPermissions: true}},
	{name: "account-name", from: fromAccount, places: everywhere},
	{name: "account-subject", from: fromAccount, places: everywhere},
	{name: "account-tag", argument: "a tag's key", from: fromAccount, places: everywhere},
	{name: "claim", argument: "a claim's name or a JSON pointer", from: fromToken, places: [places]bool{inUserName: true, inTags: true, inPermissions: true, inAliasName: true}},
	{name: "metadata", argument: "a metadata key", from: fromToken, places: notScoped},
	{name: "entity-name", from: fromEntity, places: notScoped},
	{name: "entity-id", from: fromEntity, places: notScoped},
	{name: "entity-metadata", argument: "a metadata key", from: fromEntity, places: notScoped},
	{name: "groups", from: fromEntity, places: notScoped},
	{name: "alias-name", argument: "the accessor of an auth mount", optional: true, from: fromEntity, places: notScoped},
	{name: "alias-issuer", from: fromEntity, places: notScoped},
	{name: "alias-metadata", argument: "a metadata key", from: fromEntity, places: notScoped},
}

var (
	everywhere = [places]bool{inUserName: true, inTags: true, inPermissions: true, inScopedPermissions: true}
	notScoped  = [places]bool{inUserName: true, inTags: true, inPermissions: true}
)

// parseText parses a template string. Errors say where in the string the fault
// is, counted in characters from 1.
func parseText(source string, where place, roleType string) (*text, error) {
	t := &text{source: source}
	for at := 0; at < len(source); {
		open := strings.Index(source[at:], "{{")
		literal := source[at:]
		if open >= 0 {
			literal = source[at : at+open]
		}
		if stray := strings.Index(literal, "}}"); stray >= 0 {
			return nil, faultAt(source, at+stray, `"}}" closes no placeholder`)
		}
		if literal != "" {
			t.parts = append(t.parts, part{literal: literal})
		}
		if open < 0 {
			break
		}
		open += at
		end := strings.Index(source[open:], "}}")
		if end < 0 {
			return nil, faultAt(source, open, `"{{" is not closed`)
		}
		c, fault := parseCall(source[open+2:open+end], where, roleType)
		if fault != "" {
			return nil, faultAt(source, open, "%s", fault)
		}
		t.parts = append(t.parts, part{call: c})
		at = open + end + 2
	}
	return t, nil
}

func faultAt(source string, offset int, format string, args ...any) error {
	return fmt.Errorf("%s, at character %d of %q", fmt.Sprintf(format, args...),
		utf8.RuneCountInString(source[:offset])+1, source)
}

// parseCall parses what stands between the braces of a placeholder. It returns
// the fault in words if there is one.
func parseCall(body string, where place, roleType string) (c *call, fault string) {
	if strings.ContainsAny(body, "{}") {
		return nil, fmt.Sprintf("a brace inside of the placeholder {{%s}}", body)
	}
	left, right := strings.IndexByte(body, '('), strings.LastIndexByte(body, ')')
	if left < 0 || right < left {
		return nil, fmt.Sprintf("%q is not a function: a placeholder is {{name()}} or {{name(argument)}}", strings.TrimSpace(body))
	}
	name := strings.TrimSpace(body[:left])
	// nats-server compares the names of its functions without regard to case.
	f := functionNamed(strings.ToLower(name))
	if f == nil {
		return nil, fmt.Sprintf("unknown function %q", name)
	}
	c = &call{function: f, argument: strings.TrimSpace(body[left+1 : right])}
	filter := strings.TrimSpace(body[right+1:])
	if rest, piped := strings.CutPrefix(filter, "|"); piped && strings.TrimSpace(rest) == "escape" {
		c.escape = true
	} else if filter != "" {
		return nil, fmt.Sprintf("%q after %s(%s): only |escape may follow", filter, f.name, c.argument)
	}
	return c, c.check(where, roleType)
}

// check says in words what is wrong with a call that stands where it does.
func (c *call) check(where place, roleType string) (fault string) {
	f := c.function
	switch {
	case f.from == fromToken && roleType == TypeVault:
		return fmt.Sprintf("%s(%s) reads a token, and a role of type vault has none: use entity-name(), entity-id(), entity-metadata(x), groups(), alias-name(), alias-issuer() or alias-metadata(x)", f.name, c.argument)
	case f.from == fromEntity && roleType != TypeVault:
		return fmt.Sprintf("%s(%s) is only for roles of type vault: use claim(x) or metadata(x)", f.name, c.argument)
	case !f.places[where]:
		return fmt.Sprintf("%s(%s) may not stand in %s", f.name, c.argument, where)
	case c.escape && where == inScopedPermissions:
		return fmt.Sprintf("|escape may not stand in %s: nats-server does not know it", where)
	case c.escape && where == inAliasName:
		return fmt.Sprintf("|escape may not stand in %s: its values are escaped as they are", where)
	case f.argument == "" && c.argument != "":
		return fmt.Sprintf("%s() takes no argument", f.name)
	case f.argument != "" && c.argument == "" && !f.optional:
		return fmt.Sprintf("%s(x) needs %s", f.name, f.argument)
	}
	switch f.name {
	case "claim":
		path, err := claims.ParsePath(c.argument)
		if err != nil {
			return fmt.Sprintf("claim(%s): %s", c.argument, err)
		}
		c.claim = path
	case "tag", "account-tag":
		// A key ends at a tag's first colon. One with a colon would let a
		// value that has one pass for a longer key.
		if strings.ContainsAny(c.argument, ": ") {
			return fmt.Sprintf("%s(%s): a tag's key has no colon and no space", f.name, c.argument)
		}
		c.argument = strings.ToLower(c.argument) // as nats-server looks it up
	case "alias-name":
		if c.argument != "" && !accessorForm.MatchString(c.argument) {
			return fmt.Sprintf("alias-name(%s): %q is not the accessor of an auth mount, which begins with auth_: Vault tells a plugin of no mount's path, "+
				"which may also come to be another mount's; vault read -field=accessor sys/auth/<path> has it", c.argument, c.argument)
		}
	case "alias-metadata":
		if !slices.Contains(determinedMetadata, c.argument) {
			return fmt.Sprintf("alias-metadata(%s): an alias's metadata is what its last login wrote, perhaps another job's: only %q are to be had, which follow from the alias",
				c.argument, determinedMetadata)
		}
	}
	return ""
}

func functionNamed(name string) *function {
	for _, f := range functions {
		if f.name == name {
			return f
		}
	}
	return nil
}

// constant says whether the text has no placeholder.
func (t *text) constant() bool {
	for _, p := range t.parts {
		if p.call != nil {
			return false
		}
	}
	return true
}

// sample is the text with each placeholder replaced by a token, to check the
// shape of what it will render to.
func (t *text) sample() string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.call != nil {
			b.WriteByte('x')
		} else {
			b.WriteString(p.literal)
		}
	}
	return b.String()
}

// canonical is the text with each placeholder in its one spelling.
func (t *text) canonical() string {
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.canonical())
	}
	return b.String()
}

// subject is the canonical text without the queue name that may follow a space.
// An argument may have a space, too.
func (t *text) subject() string {
	var b strings.Builder
	for _, p := range t.parts {
		if subject, _, hasQueue := strings.Cut(p.literal, " "); hasQueue {
			b.WriteString(subject)
			break
		}
		b.WriteString(p.canonical())
	}
	return b.String()
}

func (p *part) canonical() string {
	if p.call != nil {
		return p.call.String()
	}
	return p.literal
}
