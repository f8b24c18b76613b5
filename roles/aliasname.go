package roles

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An aliasTemplate is a role's alias_name: an alias of several claims. No two
// combinations of their values give the same alias: in a value each separator, which
// is what the template's own text has beside letters and digits, is encoded, and
// between two values there is one.
type aliasTemplate struct {
	*text
	separators string
}

// compileAliasName makes alias_name ready, if there is one.
func (c *Compiled) compileAliasName() error {
	source := c.role.AliasName
	if source == "" {
		return nil
	}
	parsed, err := parseText(source, inAliasName, c.role.RoleType)
	if err != nil {
		return badField("alias_name", "%s", err)
	}
	a := &aliasTemplate{text: parsed}
	if fault := a.check(); fault != "" {
		return badField("alias_name", "is %q: %s", source, fault)
	}
	if _, err := aliasName(c.role.Issuer, source); err != nil {
		return badField("alias_name", "%s", err)
	}
	c.aliasName = a
	return nil
}

// check collects the separators, and says in words why the text cannot name an
// alias.
func (a *aliasTemplate) check() (fault string) {
	if a.constant() {
		return "it has no placeholder, and would name everyone alike"
	}
	separated := true
	for _, p := range a.parts {
		switch {
		case p.call != nil && !separated:
			return fmt.Sprintf("nothing separates %s from the value before it: put text between them that has more than letters and digits", p.call)
		case p.call != nil:
			separated = false
			continue
		}
		for _, r := range p.literal {
			switch {
			case r <= ' ' || r >= 0x7f || r == '%':
				return fmt.Sprintf("%q cannot stand in it: its own text is of ASCII characters without white space and %%", string(r))
			case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			default:
				separated = true
				a.separators += string(r)
			}
		}
	}
	return ""
}

// render gives the name that the claims spell.
func (a *aliasTemplate) render(all map[string]any) (string, error) {
	var b strings.Builder
	for _, p := range a.parts {
		if p.call == nil {
			b.WriteString(p.literal)
			continue
		}
		v, err := claimValue(p.call.claim.Find(all))
		switch {
		case err != nil:
		case v.many != nil:
			err = errors.New("is a list, and an alias is one name")
		case v.one == "":
			err = errors.New("is empty")
		case !utf8.ValidString(v.one) || strings.ContainsRune(v.one, utf8.RuneError):
			err = fmt.Errorf("%s has bytes that are not valid UTF-8", quote(v.one))
		}
		if err != nil {
			return "", fmt.Errorf("the claim of %s in alias_name %w", p.call, err)
		}
		a.writeEscaped(&b, v.one)
	}
	return b.String(), nil
}

// writeEscaped writes a value with each of the separators percent-encoded, and "%",
// white space and control characters.
func (a *aliasTemplate) writeEscaped(b *strings.Builder, s string) {
	for _, r := range s {
		if r != '%' && !strings.ContainsRune(a.separators, r) && !unicode.IsSpace(r) && !unicode.IsControl(r) {
			b.WriteRune(r)
			continue
		}
		for _, encoded := range []byte(string(r)) {
			b.WriteByte('%')
			b.WriteByte(upperHex[encoded>>4])
			b.WriteByte(upperHex[encoded&0xf])
		}
	}
}
