package roles

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// A Preview shows what a role gives an identity, or every reason for which it
// refuses it, without anything being issued.
type Preview struct {
	// Alias, Groups, Metadata, AliasMetadata and Policies are those of [Bound].
	Alias         string
	Groups        []string
	Metadata      map[string]string
	AliasMetadata map[string]string
	Policies      []string
	// Name is the user's name.
	Name string
	// NATS is the nats member of the user JWT. It is nil for an identity that
	// is refused.
	NATS json.RawMessage
	// Origins says where each permission, each tag and the name came from. For
	// a scoped role the permissions are those that nats-server will expand.
	Origins []Origin
	// Errors are all the reasons for which the identity is refused.
	Errors []error
}

// An Origin is a rendered string and what it came from.
type Origin struct {
	Place    string    `json:"place"`    // "pub.allow[0]", "tags[1]" or "user_name"
	Rendered string    `json:"rendered"` // "orders.web.>"
	Template string    `json:"template"` // "orders.{{claim(project)}}.>"
	Values   []Filling `json:"values"`
}

// A Filling is a placeholder and the value that it got.
type Filling struct {
	Placeholder string `json:"placeholder"` // "{{claim(project)}}"
	Value       string `json:"value"`       // "web"
}

// Preview shows what the role gives the identity, in the way of [Compiled.Bind] and
// [Compiled.Render].
func (c *Compiled) Preview(p *claims.Profile, a Account, userPublicKey string, now time.Time) *Preview {
	b, errs := c.bind(p, now)
	return c.preview(b, errs, a, userPublicKey)
}

// PreviewEntity is Preview for a role of type vault.
func (c *Compiled) PreviewEntity(e Entity, a Account, userPublicKey string) *Preview {
	b, errs := c.bindEntity(e)
	return c.preview(b, errs, a, userPublicKey)
}

// preview renders for b, which may be nil or incomplete if there are errors.
func (c *Compiled) preview(b *Bound, errs []error, a Account, userPublicKey string) *Preview {
	preview := &Preview{Errors: errs}
	if b == nil {
		return preview
	}
	preview.Alias, preview.Groups = b.Alias, b.Groups
	preview.Metadata, preview.AliasMetadata, preview.Policies = b.Metadata, b.AliasMetadata, b.Policies

	r := c.user.render(b, a, userPublicKey)
	preview.Name = r.name
	nats := r.encode()
	preview.Errors = append(preview.Errors, r.errs...)
	preview.Origins = r.origins()
	if len(preview.Errors) == 0 {
		preview.NATS = nats
	}
	return preview
}

// origins lists what could be rendered, and from what, as far as the bounds on a
// user and on the list go.
func (r *rendering) origins() []Origin {
	var origins []Origin
	var entries []entry
	if r.plan.name != nil {
		entries = append(entries, entry{"user_name", r.plan.name})
	} else if r.name != "" {
		origins = append(origins, Origin{Place: "user_name", Rendered: r.name, Template: "the alias, escaped"})
	}
	entries = append(entries, r.plan.template.tags...)
	entries = append(entries, slices.Concat(r.plan.template.lists[:]...)...)
	room, rendered := maxOrigins, 0
	for _, e := range entries {
		if r.count(e.text) > maxSubjects {
			continue
		}
		if rendered += r.sizeOf(e.text); rendered > maxSize {
			break
		}
		if size := r.originsSize(e.text); size <= room {
			room -= size
			origins = r.appendOrigins(origins, e)
		}
	}
	return origins
}

// maxOrigins bounds what a preview says of where a user's parts came from, in
// bytes of JSON. An entry that is too large for what is left is not shown.
const maxOrigins = 1 << 20

// originsSize is how many bytes of JSON an entry's origins have, at most about.
func (r *rendering) originsSize(t *text) int {
	const keys = 100 // what JSON has around the strings of an origin, or of a filling
	return 2*r.sizeOf(t) + r.count(t)*(2*len(t.source)+keys*(1+len(t.calls)))
}

// appendOrigins appends what an entry renders to.
func (r *rendering) appendOrigins(origins []Origin, e entry) []Origin {
	r.each(e.text, func(choice []int) {
		o := Origin{Place: e.place, Template: e.source}
		o.Rendered = r.fill(e.text, choice)
		for i, c := range e.calls {
			o.Values = append(o.Values, Filling{c.String(), r.values[c.index].at(choice[i])})
		}
		origins = append(origins, o)
	})
	return origins
}
