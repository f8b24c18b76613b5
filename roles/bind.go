package roles

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/go-secure-stdlib/strutil"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// issuerPrefix begins the alias of every issuer's identities but the default
// one's, so that two issuers cannot name the same entity.
const issuerPrefix = "issuer:"

// Bound is an identity that a role took.
type Bound struct {
	// Alias is the name of the entity alias: the user claim's value, what
	// alias_name spells or the service account, prefixed with "issuer:<name>:" unless the issuer is the
	// default one. For a role of type vault it is the entity's name, empty for a
	// caller without an entity.
	Alias string
	// Groups are the names of the group aliases: the groups claim's values,
	// prefixed as Alias is. A service account has none. For a role of type vault
	// they are the names of the entity's groups.
	Groups []string
	// Metadata is for the alias and the token: the mapped claims or the service
	// account's names. The caller adds the role's name.
	Metadata map[string]string
	// AliasMetadata is for the alias alone: the service account's annotations.
	AliasMetadata map[string]string

	// Policies are those of the Vault token: the role's token_policies, with claims
	// filled in where they are templates.
	Policies []string

	claims map[string]any
	entity Entity
	alias  *ownAlias // of a role that reads it
}

// Entity is the caller's Vault entity, the identity of a role of type vault. A
// Vault token that belongs to none has the zero Entity.
type Entity struct {
	ID       string
	Name     string
	Metadata map[string]string
	Groups   []string // names
	Aliases  []Alias  // of all mounts
}

// Bind checks an identity against the role's bindings: bound_subject,
// bound_claims and what the JWT method asks of a token's claims, the service
// account rules of the Kubernetes method, and bound_expression. It refuses a
// profile of another issuer than the role's. The audience and the times of a
// token are checked where it is verified; see [Compiled.Expected].
func (c *Compiled) Bind(p *claims.Profile, now time.Time) (*Bound, error) {
	b, errs := c.bind(p, now)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return b, nil
}

// bind is Bind with all reasons for which the identity is refused. What it
// returns beside them is incomplete, or nil.
func (c *Compiled) bind(p *claims.Profile, now time.Time) (*Bound, []error) {
	switch {
	case c.role.RoleType == TypeVault:
		return nil, []error{errors.New("a role of type vault takes no token")}
	case p.Issuer != c.role.Issuer:
		return nil, []error{fmt.Errorf("the token is of the issuer %q, but the role trusts %q", p.Issuer, c.role.Issuer)}
	case p.Kind != c.role.kind():
		return nil, []error{fmt.Errorf("the token is of an issuer of kind %s, but the role is of type %s", p.Kind, c.role.RoleType)}
	}
	b := &binding{Bound: Bound{Policies: c.role.VaultPolicies, claims: p.Claims}}
	var groups []string // as the issuer names them
	if c.role.RoleType == TypeKubernetes {
		c.bindServiceAccount(b, p.ServiceAccount)
		if p.ServiceAccount != nil {
			groups = p.ServiceAccount.Groups
		}
	} else {
		groups = c.bindClaims(b, p.Claims)
	}
	if c.expression != nil {
		b.check(c.expression.holds(p.Claims, p.Issuer, groups, now))
	}
	return &b.Bound, b.errs
}

// BindEntity takes a Vault entity, for a role of type vault, or a token without
// one if nothing of the role asks for it. Who may use such a role is for Vault's
// policies to say first; bound_issuers and bound_aliases hold where these are
// written too widely.
func (c *Compiled) BindEntity(e Entity) (*Bound, error) {
	b, errs := c.bindEntity(e)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return b, nil
}

// bindEntity is BindEntity as bind is Bind.
func (c *Compiled) bindEntity(e Entity) (*Bound, []error) {
	switch {
	case c.role.RoleType != TypeVault:
		return nil, []error{fmt.Errorf("a role of type %s needs a token of the issuer %q", c.role.RoleType, c.role.Issuer)}
	case e.ID == "" && c.wantsEntity != "":
		return nil, []error{fmt.Errorf("%s asks for the caller's Vault entity, and this Vault token has none", c.wantsEntity)}
	case e.ID != "" && e.Name == "":
		return nil, []error{errors.New("the caller's Vault entity has no name")}
	}
	b := &binding{Bound: Bound{Alias: e.Name, Groups: e.Groups, Metadata: map[string]string{}, entity: e}}
	if c.wantsAlias != "" {
		c.bindAlias(b, &e)
	}
	return &b.Bound, b.errs
}

// A binding is a Bound in the making.
type binding struct {
	Bound
	errs []error
}

// check notes a reason to refuse the identity, if there is one.
func (b *binding) check(err error) {
	if err != nil {
		b.errs = append(b.errs, err)
	}
}

// aliasName returns the name that the issuer gave an entity or a group as Vault
// is to know it: no two issuers can give the same. Vault looks aliases up in
// lower case.
func aliasName(issuer, name string) (string, error) {
	switch {
	case issuer != DefaultIssuer:
		return issuerPrefix + issuer + ":" + name, nil
	case strings.HasPrefix(strings.ToLower(name), issuerPrefix):
		return "", fmt.Errorf("%s begins with %q, which is for the aliases of other issuers", quote(name), issuerPrefix)
	}
	return name, nil
}

// setAlias sets the alias to the value that the issuer gave the identity.
func (b *binding) setAlias(issuer, value string) (err error) {
	if b.Alias, err = aliasName(issuer, value); err != nil {
		return fmt.Errorf("the alias %w", err)
	}
	return nil
}

// setGroups sets the group aliases to the groups that the issuer gave the
// identity.
func (b *binding) setGroups(issuer string, groups []string) error {
	for _, group := range groups {
		name, err := aliasName(issuer, group)
		if err != nil {
			return fmt.Errorf("the group %w", err)
		}
		b.Groups = append(b.Groups, name)
	}
	return nil
}

// bindClaims applies the JWT method's bindings. It returns the groups as the
// token names them.
func (c *Compiled) bindClaims(b *binding, all map[string]any) (groups []string) {
	r := &c.role
	if subject, _ := all["sub"].(string); r.BoundSubject != "" && subject != r.BoundSubject {
		b.check(fmt.Errorf("the sub claim %s is not the role's bound_subject", quote(subject)))
	}
	groups, err := c.claimedGroups(all)
	b.check(err) // ahead of bound_claims that miss them as well: it may say why
	for i := range c.bound {
		b.check(c.bound[i].match(all))
	}
	b.check(c.bindUser(b, all))
	b.check(b.setGroups(r.Issuer, groups))
	if c.role.TokenPoliciesTemplateClaims {
		b.Policies, err = c.bindPolicies(all)
		b.check(err)
	}
	b.Metadata = make(map[string]string, len(c.mappings)+4) // room for what the caller adds
	for _, m := range c.mappings {
		switch value := m.claim.Find(all).(type) {
		case nil:
		case string:
			b.Metadata[m.key] = value
		default:
			b.check(fmt.Errorf("the claim %q of claim_mappings is not a string", m.claim))
		}
	}
	return groups
}

func (c *Compiled) bindUser(b *binding, all map[string]any) error {
	if c.aliasName != nil {
		name, err := c.aliasName.render(all)
		if err != nil {
			return err
		}
		return b.setAlias(c.role.Issuer, name)
	}
	claim := c.role.UserClaim
	switch value := c.userClaim.Find(all).(type) {
	case nil:
		return fmt.Errorf("the user claim %q is not in the token", claim)
	case string:
		if value == "" {
			return fmt.Errorf("the user claim %q is empty", claim)
		}
		return b.setAlias(c.role.Issuer, value)
	}
	return fmt.Errorf("the user claim %q is not a string", claim)
}

// claimedGroups reads the groups claim: a list of strings, or one string. Empty
// ones are passed over, as in the JWT method.
func (c *Compiled) claimedGroups(all map[string]any) ([]string, error) {
	claim := c.role.GroupsClaim
	if claim == "" {
		return nil, nil
	}
	var list []any
	switch value := c.groups.Find(all).(type) {
	case nil:
		return nil, fmt.Errorf("the groups claim %q is not in the token%s", claim, overage(all, c.groups.Name()))
	case []any:
		list = value
	case string:
		list = []any{value}
	default:
		return nil, fmt.Errorf("the groups claim %q is not a list of strings", claim)
	}
	groups := make([]string, 0, len(list))
	for i, element := range list {
		group, ok := element.(string)
		if !ok {
			return groups, fmt.Errorf("the groups claim %q has the element %d, which is not a string", claim, i)
		}
		if group != "" {
			groups = append(groups, group)
		}
	}
	return groups, nil
}

// overage says that a token leaves groups out because it has no room for them, where
// it says so: as OpenID Connect Core section 5.6.2 has it for claims that are to be
// had elsewhere, and as Entra ID has it in short tokens.
func overage(all map[string]any, claim string) string {
	names, _ := all["_claim_names"].(map[string]any)
	if _, ok := names[claim]; !ok && all["hasgroups"] != true && all["hasgroups"] != "true" {
		return ""
	}
	return ", which says that there are too many groups for it: the issuer needs a provider_config with the provider that can fetch them"
}

// couldTake says why the role takes no service account of these names, or
// nothing if it takes them, perhaps only with certain labels of the namespace.
func (c *Compiled) couldTake(namespace, name string) error {
	if err := c.checkAccountName(name); err != nil {
		return err
	}
	return c.checkNamespace(namespace, c.selector != nil)
}

// needsLabels says whether it depends on the namespace's labels if the role takes
// it: the selector adds to the namespaces that are listed.
func (c *Compiled) needsLabels(namespace string) bool {
	return c.selector != nil && !strutil.StrListContainsGlob(c.role.BoundServiceAccountNamespaces, namespace)
}

func (c *Compiled) checkAccountName(name string) error {
	if !strutil.StrListContainsGlob(c.role.BoundServiceAccountNames, name) {
		return fmt.Errorf("the service account name %s is none of the role's bound_service_account_names", quote(name))
	}
	return nil
}

func (c *Compiled) checkNamespace(namespace string, selected bool) error {
	if !selected && !strutil.StrListContainsGlob(c.role.BoundServiceAccountNamespaces, namespace) {
		return fmt.Errorf("the namespace %s is not one that the role binds", quote(namespace))
	}
	return nil
}

// bindServiceAccount applies the Kubernetes method's bindings.
func (c *Compiled) bindServiceAccount(b *binding, account *claims.ServiceAccount) {
	if account == nil || account.Name == "" || account.Namespace == "" || account.UID == "" {
		b.check(errors.New("the token is not of a service account with a name, a namespace and a UID"))
		return
	}
	b.check(c.checkAccountName(account.Name))
	b.check(c.checkNamespace(account.Namespace, c.selects(account.NamespaceLabels)))
	alias := account.UID
	if c.role.AliasNameSource == AliasServiceAccountName {
		alias = account.Namespace + "/" + account.Name
	}
	b.check(b.setAlias(c.role.Issuer, alias))
	b.Metadata = map[string]string{
		metadataServiceAccountName:       account.Name,
		metadataServiceAccountNamespace:  account.Namespace,
		metadataServiceAccountUID:        account.UID,
		metadataServiceAccountSecretName: account.SecretName,
	}
	for _, key := range reservedMetadata {
		if _, ok := account.Annotations[key]; ok {
			b.check(fmt.Errorf("the service account has an annotation for the alias metadata %q, which is reserved", key))
		}
	}
	b.AliasMetadata = maps.Clone(account.Annotations)
}
