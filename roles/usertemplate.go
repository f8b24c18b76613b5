package roles

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
)

// A userTemplate is a role's user_template, parsed: the texts that may have
// placeholders, and all the rest as the limits of a NATS user.
type userTemplate struct {
	lists  [lists][]entry
	tags   []entry
	limits jwt.UserPermissionLimits // without the lists
}

// An entry is a text and where it stands in the template: "pub.allow[0]".
type entry struct {
	place string
	*text
}

// The lists of permissions, in the order in which a user JWT has them.
const (
	pubAllow = iota
	pubDeny
	subAllow
	subDeny
	lists
)

// parseUserTemplate parses NATS user claims as JSON. What they leave out has no
// limit, as with nsc.
func parseUserTemplate(source string, where place, roleType string) (*userTemplate, error) {
	u := &userTemplate{}
	u.limits.NatsLimits = jwt.NatsLimits{Subs: jwt.NoLimit, Data: jwt.NoLimit, Payload: jwt.NoLimit}
	if strings.TrimSpace(source) == "" {
		return u, nil
	}
	document, err := parseJSON(source)
	if err != nil {
		return nil, err
	}
	subjects := func(list int) func(jsonValue) error {
		return u.readTexts(&u.lists[list], where, roleType, func(e entry) error {
			return checkSubject(e.text, list, where)
		})
	}
	limit := func(limit *int64) func(jsonValue) error {
		return func(v jsonValue) (err error) {
			*limit, err = v.integer(jwt.NoLimit, "a whole number, or -1 for no limit")
			return err
		}
	}
	flag := func(flag *bool) func(jsonValue) error {
		return func(v jsonValue) (err error) {
			*flag, err = v.boolean()
			return err
		}
	}
	permission := func(allow, deny int) func(jsonValue) error {
		return func(v jsonValue) error {
			return v.fields(map[string]func(jsonValue) error{"allow": subjects(allow), "deny": subjects(deny)})
		}
	}
	err = document.fields(map[string]func(jsonValue) error{
		"pub":                      permission(pubAllow, pubDeny),
		"sub":                      permission(subAllow, subDeny),
		"resp":                     u.readResponses,
		"subs":                     limit(&u.limits.Subs),
		"data":                     limit(&u.limits.Data),
		"payload":                  limit(&u.limits.Payload),
		"src":                      u.readNetworks,
		"times":                    u.readTimes,
		"times_location":           u.readLocation,
		"bearer_token":             flag(&u.limits.BearerToken),
		"proxy_required":           flag(&u.limits.ProxyRequired),
		"allowed_connection_types": u.readConnectionTypes,
		"tags":                     u.readTexts(&u.tags, inTags, roleType, checkTag),
	})
	if err != nil {
		return nil, err
	}
	return u, u.check()
}

// readTexts reads a list of strings that may have placeholders.
func (u *userTemplate) readTexts(to *[]entry, where place, roleType string, check func(entry) error) func(jsonValue) error {
	return func(v jsonValue) error {
		return v.elements(func(v jsonValue) error {
			source, err := v.text()
			if err != nil {
				return err
			}
			parsed, err := parseText(source, where, roleType)
			if err != nil {
				return fmt.Errorf("%s: %w", v.place, err)
			}
			e := entry{v.place, parsed}
			if err := check(e); err != nil {
				return fmt.Errorf("%s %w", v.place, err)
			}
			*to = append(*to, e)
			return nil
		})
	}
}

// readResponses reads the response permission: how many messages may be
// answered, and for how long in nanoseconds.
func (u *userTemplate) readResponses(v jsonValue) error {
	resp := &jwt.ResponsePermission{}
	u.limits.Resp = resp
	return v.fields(map[string]func(jsonValue) error{
		"max": func(v jsonValue) error {
			n, err := v.integer(jwt.NoLimit, "a whole number of messages, or -1 for no limit")
			resp.MaxMsgs = int(n)
			return err
		},
		"ttl": func(v jsonValue) error {
			n, err := v.integer(jwt.NoLimit, "a whole number of nanoseconds, or -1 for no limit")
			resp.Expires = time.Duration(n)
			return err
		},
	})
}

// readNetworks reads CIDRs: a list, or as jwt/v2 also takes it, one string with
// commas.
func (u *userTemplate) readNetworks(v jsonValue) error {
	if _, ok := v.raw.(string); ok {
		joined, err := v.plainText()
		if err == nil {
			u.limits.Src.Set(joined)
		}
		return err
	}
	return v.elements(func(v jsonValue) error {
		cidr, err := v.plainText()
		u.limits.Src = append(u.limits.Src, cidr)
		return err
	})
}

func (u *userTemplate) readTimes(v jsonValue) error {
	return v.elements(func(v jsonValue) error {
		var span jwt.TimeRange
		clock := func(to *string) func(jsonValue) error {
			return func(v jsonValue) (err error) {
				*to, err = v.plainText()
				return err
			}
		}
		err := v.fields(map[string]func(jsonValue) error{"start": clock(&span.Start), "end": clock(&span.End)})
		u.limits.Times = append(u.limits.Times, span)
		return err
	})
}

func (u *userTemplate) readLocation(v jsonValue) (err error) {
	u.limits.Locale, err = v.plainText()
	return err
}

// connectionTypes are those that nats-server knows. It disconnects a user whose
// types it knows none of, and ignores single ones.
var connectionTypes = []string{
	jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket,
	jwt.ConnectionTypeLeafnode, jwt.ConnectionTypeLeafnodeWS,
	jwt.ConnectionTypeMqtt, jwt.ConnectionTypeMqttWS, jwt.ConnectionTypeInProcess,
}

func (u *userTemplate) readConnectionTypes(v jsonValue) error {
	return v.elements(func(v jsonValue) error {
		name, err := v.plainText()
		if err != nil {
			return err
		}
		for _, known := range connectionTypes {
			if strings.EqualFold(name, known) {
				u.limits.AllowedConnectionTypes = append(u.limits.AllowedConnectionTypes, known)
				return nil
			}
		}
		return fmt.Errorf("%s is %q: it must be one of %q", v.place, name, connectionTypes)
	})
}

// check looks at the whole, once it is read.
func (u *userTemplate) check() error {
	for _, entries := range append(u.lists[:], u.tags) {
		if len(entries) > maxSubjects {
			return fmt.Errorf("has %d entries, and %s is one too many", len(entries), entries[maxSubjects].place)
		}
	}
	if err := u.checkJWT(); err != nil {
		return err
	}
	return u.checkConnects()
}

// checkJWT has jwt/v2 look at the whole: networks, times, location, and once
// more the shape of the subjects.
func (u *userTemplate) checkJWT() error {
	sample := u.limits
	sample.Pub.Allow, sample.Pub.Deny = samples(u.lists[pubAllow]), samples(u.lists[pubDeny])
	sample.Sub.Allow, sample.Sub.Deny = samples(u.lists[subAllow]), samples(u.lists[subDeny])
	user := jwt.User{UserPermissionLimits: sample}
	results := jwt.CreateValidationResults()
	user.Validate(results)
	for _, issue := range results.Issues {
		if issue.Blocking {
			return fmt.Errorf("is refused: %s", issue.Description)
		}
	}
	return nil
}

// checkConnects refuses what jwt/v2 has nothing against, and with what
// nats-server lets nobody connect: that is not how a role is turned off.
func (u *userTemplate) checkConnects() error {
	// It closes a connection whose subscriptions have reached their limit,
	// before there is one (applyAccountLimits in its client.go).
	if u.limits.Subs == 0 {
		return errors.New("has subs of 0, with which nats-server closes every connection: it must be more, or -1 for no limit")
	}
	for i, span := range u.limits.Times {
		// Neither is before the other, nor the range one that crosses midnight
		// (validateTimeRangeAt in its jwt.go).
		if timeOfDay(span.Start) == timeOfDay(span.End) {
			return fmt.Errorf("has times[%d] from %s to %s, in which no time lies", i, span.Start, span.End)
		}
	}
	// It has the JWT for its password, and nothing to sign the server's nonce
	// with.
	if types := u.limits.AllowedConnectionTypes; len(types) > 0 && !u.limits.BearerToken &&
		!slices.ContainsFunc(types, func(t string) bool { return t != jwt.ConnectionTypeMqtt && t != jwt.ConnectionTypeMqttWS }) {
		return fmt.Errorf("has allowed_connection_types of %q, which need bearer_token: a client of MQTT cannot prove its key", types)
	}
	return nil
}

// timeOfDay is a time as nats-server reads it, which has no fractions.
func timeOfDay(s string) time.Duration {
	t, err := time.Parse("15:04:05", s)
	if err != nil { // which jwt/v2 refuses
		return 0
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second
}

func samples(entries []entry) jwt.StringList {
	var list jwt.StringList
	for _, e := range entries {
		list = append(list, e.sample())
	}
	return list
}

// checkSubject checks the shape of a permission: tokens that are not empty,
// wildcards that are tokens of their own, and for subscriptions perhaps a space
// and a queue name, which is shaped like a subject.
func checkSubject(t *text, list int, where place) error {
	subject, queue, hasQueue := strings.Cut(t.sample(), " ")
	if fault := subjectFault(subject); fault != "" {
		return fmt.Errorf("is %q: %s", t.source, fault)
	}
	if !hasQueue {
		return nil
	}
	if list == pubAllow || list == pubDeny {
		return fmt.Errorf("is %q: only a subscription can have a queue name after a space", t.source)
	}
	if fault := subjectFault(queue); fault != "" {
		return fmt.Errorf("is %q: in the queue name, %s", t.source, fault)
	}
	// nats-server leaves an entry with a space out of a list that it expands:
	// an allowed queue would be lost, and a denied one refuse every connection.
	if where == inScopedPermissions {
		return fmt.Errorf("is %q: nats-server does not take queue names in the permissions of a scoped role", t.source)
	}
	return nil
}

func subjectFault(subject string) string {
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "*", token == ">" && i == len(tokens)-1:
		case token == ">":
			return `">" must be the last token`
		case token == "":
			return "a token is empty"
		case strings.ContainsAny(token, "*>"):
			return fmt.Sprintf("the wildcard in %q must be a token of its own", token)
		default:
			if fault := tokenFault(token); fault != "" {
				return fmt.Sprintf("the token %q %s", token, fault)
			}
		}
	}
	return ""
}

// checkTag checks the literal text of a tag, which as a whole is one subject
// token, since {{tag(x)}} may put it into a subject. A tag's key ends at its
// first colon, and must be literal: a value must not make it another key.
func checkTag(e entry) error {
	if fault := tokenFault(e.sample()); fault != "" {
		return fmt.Errorf("is %q: it %s, but a tag must be able to stand in a subject token", e.source, fault)
	}
	if strings.ContainsAny(e.sample(), "{}") {
		return fmt.Errorf("is %q: a tag has no braces", e.source)
	}
	hasCall := false
	for _, p := range e.parts {
		if p.call != nil {
			hasCall = true
			continue
		}
		if colon := strings.IndexByte(p.literal, ':'); colon >= 0 {
			if hasCall {
				return fmt.Errorf("is %q: the key of a tag, before its first colon, cannot have a placeholder", e.source)
			}
			break
		}
	}
	if key, value, ok := strings.Cut(e.sample(), ":"); ok && (key == "" || value == "") {
		return fmt.Errorf("is %q: a tag with a colon needs a key before and a value after it", e.source)
	}
	// As NATS's own tools do. A placeholder's value keeps its case, so that two
	// values never make the same tag.
	for i := range e.parts {
		e.parts[i].literal = strings.ToLower(e.parts[i].literal)
	}
	return nil
}

// tagKey returns the key of a tag, and whether it has one.
func tagKey(t *text) (string, bool) {
	if len(t.parts) == 0 || t.parts[0].call != nil {
		return "", false
	}
	key, _, ok := strings.Cut(t.parts[0].literal, ":")
	return key, ok
}
