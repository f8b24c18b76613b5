package roles

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-secure-stdlib/strutil"
)

// An Alias is a name of a Vault entity: what an auth mount called it when it
// logged in there.
type Alias struct {
	Mount string // the mount's accessor
	Name  string
	// Metadata is what the last login of the alias wrote. Two jobs of one alias
	// overwrite each other's.
	Metadata map[string]string
}

// accessorForm is what Vault calls an auth mount, once and for all: a mount that
// is moved keeps its accessor, and one that is made anew at the same path gets
// another.
var accessorForm = regexp.MustCompile(`^auth_[\w.-]+$`)

// determinedMetadata are the metadata keys of which the alias can determine the
// value, so that it is the same whichever login wrote it.
var determinedMetadata = []string{metadataServiceAccountName, metadataServiceAccountNamespace, metadataServiceAccountUID}

// compileEntity makes ready what a role of type vault asks of its caller's entity
// and of the alias that this mount gave it.
func (c *Compiled) compileEntity() error {
	r := &c.role
	if r.RoleType != TypeVault {
		return nil
	}
	for _, f := range []struct {
		name  string
		globs []string
	}{{"bound_issuers", r.BoundIssuers}, {"bound_aliases", r.BoundAliases}} {
		if slices.Contains(f.globs, "") {
			return badField(f.name, "has an empty value")
		}
		if len(f.globs) > 0 {
			c.wantsEntity, c.wantsAlias = f.name, f.name
		}
	}
	for _, issuer := range r.BoundIssuers {
		if issuer != strings.ToLower(issuer) || strings.ContainsAny(issuer, ": ") {
			return badField("bound_issuers", "has %q, which no issuer is called: a name is in lower case and has neither a colon nor a space", issuer)
		}
	}
	if c.user.name == nil {
		c.wantsEntity = "user_name, whose default is the entity's name,"
	}
	for _, call := range c.user.calls {
		c.compileEntityCall(call)
	}
	return nil
}

func (c *Compiled) compileEntityCall(call *call) {
	f := call.function
	if f.from != fromEntity {
		return
	}
	if f.name == "alias-name" && call.argument == c.role.MountAccessor {
		call.argument = "" // this mount itself
	}
	c.wantsEntity = call.String()
	switch f.name {
	case "groups":
		c.wantsGroups = true
	case "alias-issuer", "alias-metadata":
		c.wantsAlias = call.String()
	case "alias-name":
		if call.argument == "" {
			c.wantsAlias = call.String()
		}
	}
}

// ReadsAlias says whether the role depends on the alias that this mount gave its
// caller, so that it needs to know the mount's accessor.
func (c *Compiled) ReadsAlias() bool { return c.wantsAlias != "" }

// NeedsEntity says in words what of a role of type vault asks for the caller's
// entity. It is empty for a role that serves tokens without one too.
func (c *Compiled) NeedsEntity() string { return c.wantsEntity }

// ReadsGroups says whether the role depends on the groups of its caller's entity:
// nothing but {{groups()}} reads them.
func (c *Compiled) ReadsGroups() bool { return c.wantsGroups }

// An ownAlias is an alias that this mount gave, taken apart.
type ownAlias struct {
	issuer   string
	name     string // what the issuer called the identity
	metadata map[string]string
}

// parseAlias undoes aliasName. What this mount would not have called anyone, and
// so somebody has written by hand, is not taken for anyone.
func parseAlias(a *Alias) (*ownAlias, error) {
	own := &ownAlias{issuer: DefaultIssuer, name: a.Name, metadata: a.Metadata}
	rest, prefixed := strings.CutPrefix(a.Name, issuerPrefix)
	if prefixed {
		own.issuer, own.name, _ = strings.Cut(rest, ":")
		prefixed = own.issuer != "" && own.issuer != DefaultIssuer && own.issuer == strings.ToLower(own.issuer)
	}
	if own.name == "" || !prefixed && strings.HasPrefix(strings.ToLower(a.Name), issuerPrefix) {
		return nil, fmt.Errorf("the alias %s of the caller's entity is not one that this mount gives", quote(a.Name))
	}
	return own, nil
}

// bindAlias finds the alias that this mount gave the entity and holds it against
// the role's bindings.
func (c *Compiled) bindAlias(b *binding, e *Entity) {
	found, err := e.only(c.role.MountAccessor, "this mount")
	if err != nil {
		b.check(err)
		return
	}
	alias, err := parseAlias(found)
	if err != nil {
		b.check(err)
		return
	}
	// Names are told apart by their issuer alone. So one that nobody thought of
	// when the role was written must not bring its own identities in.
	switch issuers := c.role.BoundIssuers; {
	case len(issuers) == 0 && alias.issuer != DefaultIssuer:
		b.check(fmt.Errorf("the caller's alias %s is of the issuer %q, and a role without bound_issuers takes those of the default issuer only", quote(alias.name), alias.issuer))
	case len(issuers) > 0 && !strutil.StrListContainsGlob(issuers, alias.issuer):
		b.check(fmt.Errorf("the issuer %q of the caller's alias is none of the role's bound_issuers", alias.issuer))
	}
	if aliases := c.role.BoundAliases; len(aliases) > 0 && !strutil.StrListContainsGlob(aliases, alias.name) {
		b.check(fmt.Errorf("the caller's alias %s is none of the role's bound_aliases", quote(alias.name)))
	}
	b.alias = alias
}

// only returns the entity's one alias of a mount. Of several none says who it is.
func (e *Entity) only(accessor, mount string) (*Alias, error) {
	var found *Alias
	for i := range e.Aliases {
		switch {
		case accessor == "" || e.Aliases[i].Mount != accessor:
		case found != nil:
			return nil, fmt.Errorf("the caller's entity has several aliases of %s, and none of them says who it is", mount)
		default:
			found = &e.Aliases[i]
		}
	}
	if found == nil {
		return nil, fmt.Errorf("the caller's entity has no alias of %s", mount)
	}
	return found, nil
}

// aliasName is the value of alias-name(): of this mount's alias, or of that of
// another mount.
func (b *Bound) aliasName(accessor string) (value, error) {
	if accessor == "" {
		return b.ofAlias(func(a *ownAlias) string { return a.name })
	}
	found, err := b.entity.only(accessor, "that mount")
	if err != nil {
		return value{}, fmt.Errorf("cannot be had: %w", err)
	}
	return value{one: found.Name}, nil
}

// ofAlias is a value of the alias of this mount, whose absence is reported where
// it is bound.
func (b *Bound) ofAlias(get func(*ownAlias) string) (value, error) {
	if b.alias == nil {
		return value{}, errNoValue
	}
	return value{one: get(b.alias)}, nil
}

// aliasMetadata is the value of alias-metadata(key). The metadata is what the
// alias's last login wrote, so it is used only where each login of the alias has
// to write the same: a UID is one service account's forever, and its namespace and
// name are what an alias of that kind consists of.
func (b *Bound) aliasMetadata(key string) (value, error) {
	if b.alias == nil {
		return value{}, errNoValue
	}
	metadata := b.alias.metadata
	name, namespace, uid := metadata[metadataServiceAccountName], metadata[metadataServiceAccountNamespace], metadata[metadataServiceAccountUID]
	switch {
	case name == "" || namespace == "" || uid == "":
		return value{}, fmt.Errorf("cannot be had: the alias %s is not of a service account", quote(b.alias.name))
	case b.alias.name == uid:
	case b.alias.name != namespace+"/"+name:
		return value{}, fmt.Errorf("cannot be had: the alias %s is neither the UID nor the name of the service account that logged in last", quote(b.alias.name))
	case key == metadataServiceAccountUID:
		return value{}, errors.New("cannot be had: the alias is a service account's name, which one that is made anew inherits; with alias_name_source=serviceaccount_uid it is the UID")
	}
	return value{one: metadata[key]}, nil
}
