package roles

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	texttemplate "text/template"
	"text/template/parse"
	"unicode"
	"unicode/utf8"
)

// A policyTemplate is one of token_policies with token_policies_template_claims: a
// template of text/template over the token's claims, as OpenBao's JWT method has it.
// What it does not have there: all that a claim puts in is one segment of a path.
type policyTemplate struct {
	place string // "token_policies[0]"
	*texttemplate.Template
}

// compilePolicies makes the policies ready that are templates.
func (c *Compiled) compilePolicies() error {
	if !c.role.TokenPoliciesTemplateClaims {
		return nil
	}
	for i, source := range c.role.VaultPolicies {
		place := fmt.Sprintf("[%d]", i)
		parsed, err := texttemplate.New(place).Option("missingkey=error").Funcs(policyFunctions).Parse(source)
		if err != nil {
			return badField("token_policies", "with token_policies_template_claims: %s", strings.TrimPrefix(err.Error(), "template: "))
		}
		for _, t := range parsed.Templates() {
			if t.Tree != nil {
				holdToSegments(t.Tree, t.Root)
			}
		}
		c.policies = append(c.policies, policyTemplate{"token_policies" + place, parsed})
	}
	return nil
}

// holdToSegments has each action of a template whose value is written end in the
// function _segment, as html/template has them end in its escapers. Conditions see
// the claims as they are.
func holdToSegments(tree *parse.Tree, node parse.Node) {
	branch := func(b *parse.BranchNode) {
		holdToSegments(tree, b.List)
		holdToSegments(tree, b.ElseList)
	}
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			holdToSegments(tree, child)
		}
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	case *parse.ActionNode:
		if len(n.Pipe.Decl) > 0 {
			return // {{$x := .claim}} writes nothing
		}
		n.Pipe.Cmds = append(n.Pipe.Cmds, &parse.CommandNode{
			NodeType: parse.NodeCommand,
			Pos:      n.Pos,
			Args:     []parse.Node{parse.NewIdentifier("_segment").SetTree(tree).SetPos(n.Pos)},
		})
	}
}

// noText stands for an empty value until the whole policy is known: a policy that is
// empty is none, and one with an empty part is somebody else's.
const noText = "\x00"

// segment is what may be written of a value.
func segment(v any) (string, error) {
	text, err := segmentText(v)
	switch {
	case err != nil:
		return "", err
	case text == "":
		return noText, nil
	case text == "." || text == "..":
		return "", &segmentError{fmt.Sprintf("%q is not a name", text)}
	case !utf8.ValidString(text):
		return "", &segmentError{fmt.Sprintf("%s has bytes that are not valid UTF-8", quote(text))}
	}
	for _, r := range text {
		switch {
		case strings.ContainsRune("/*+,", r), r == utf8.RuneError, unicode.IsSpace(r), unicode.IsControl(r):
			return "", &segmentError{fmt.Sprintf("%s is not one segment of a policy's name: it has %s", quote(text), nameOf(r))}
		// Vault takes policies in lower case, in which these are ASCII letters.
		case r >= utf8.RuneSelf && unicode.ToLower(r) < utf8.RuneSelf:
			return "", &segmentError{fmt.Sprintf("%s has %q, which in lower case is %q", quote(text), string(r), string(unicode.ToLower(r)))}
		}
	}
	return text, nil
}

func segmentText(v any) (string, error) {
	switch value := v.(type) {
	case nil:
		return "", &segmentError{"there is no value"}
	case string:
		return value, nil
	case json.Number:
		return string(value), nil
	}
	switch reflect.ValueOf(v).Kind() {
	case reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		return fmt.Sprint(v), nil
	}
	return "", &segmentError{"a list or an object is not a name"}
}

// A segmentError says why a value is not written.
type segmentError struct{ fault string }

func (e *segmentError) Error() string { return e.fault }

// bindPolicies fills the policies in. What comes out empty is left out.
func (c *Compiled) bindPolicies(all map[string]any) ([]string, error) {
	policies := make([]string, 0, len(c.policies))
	for _, t := range c.policies {
		var b strings.Builder
		if err := t.Execute(&b, all); err != nil {
			var value *segmentError
			if errors.As(err, &value) {
				err = value
			}
			return nil, fmt.Errorf("%s cannot be filled in: %s", t.place, strings.TrimPrefix(err.Error(), "template: "))
		}
		policy := strings.TrimSpace(b.String())
		switch {
		case strings.Trim(policy, noText) == "":
			continue
		case strings.Contains(policy, noText):
			return nil, fmt.Errorf("%s cannot be filled in: a value in it is empty", t.place)
		case strings.EqualFold(policy, "root"):
			return nil, fmt.Errorf("%s would be root, which no login gives", t.place)
		}
		if !slices.Contains(policies, policy) {
			policies = append(policies, policy)
		}
	}
	return policies, nil
}

// warnOfPolicies warns of policies that are nothing but a claim.
func (c *Compiled) warnOfPolicies(warn func(bool, string)) {
	for _, t := range c.policies {
		warn(!hasText(t.Root), t.place+" has no text of its own: whoever can choose the claim can choose any policy of one segment")
	}
}

// hasText says whether a template has text of its own.
func hasText(node parse.Node) bool {
	either := func(lists ...*parse.ListNode) bool {
		return slices.ContainsFunc(lists, func(list *parse.ListNode) bool { return list != nil && hasText(list) })
	}
	switch n := node.(type) {
	case *parse.ListNode:
		return slices.ContainsFunc(n.Nodes, hasText)
	case *parse.TextNode:
		return strings.TrimSpace(string(n.Text)) != ""
	case *parse.IfNode:
		return either(n.List, n.ElseList)
	case *parse.RangeNode:
		return either(n.List, n.ElseList)
	case *parse.WithNode:
		return either(n.List, n.ElseList)
	case *parse.TemplateNode:
		return true // maybe
	}
	return false
}
