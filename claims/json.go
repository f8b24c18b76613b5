package claims

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep the objects and arrays of a token may be nested. The
// deepest claim sets of known platforms need four.
const maxDepth = 32

// DecodeObject decodes a JSON object as I-JSON (RFC 7493) has it, which is
// stricter than encoding/json: no member name twice, no invalid UTF-8 and no
// half of a surrogate pair, so that no two different texts give one value and
// no other reader of the token can see another value. Numbers stay as written.
//
// Strings without escapes share the memory of s.
func DecodeObject(s string) (map[string]any, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("is not valid UTF-8")
	}
	d := decoder{s: s}
	d.space()
	if d.peek() != '{' {
		return nil, errors.New("is not a JSON object")
	}
	object, err := d.object()
	if err != nil {
		return nil, err
	}
	d.space()
	if d.pos != len(s) {
		return nil, d.fault("has data after the JSON object")
	}
	return object, nil
}

// A decoder is a recursive-descent parser; pos is the next byte to read.
type decoder struct {
	s     string
	pos   int
	depth int
}

// fault describes what is wrong and where. It never quotes the input, which is
// a credential.
func (d *decoder) fault(what string) error {
	return fmt.Errorf("%s at byte %d", what, d.pos)
}

// peek returns the next byte, or 0 at the end: no JSON text has a NUL byte
// outside of a string, and strings are not read through peek.
func (d *decoder) peek() byte {
	if d.pos < len(d.s) {
		return d.s[d.pos]
	}
	return 0
}

func (d *decoder) space() {
	for d.pos < len(d.s) {
		switch d.s[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

func (d *decoder) value() (any, error) {
	switch c := d.peek(); {
	case c == '"':
		return d.string()
	case c == '{':
		return d.object()
	case c == '[':
		return d.array()
	case c == '-' || '0' <= c && c <= '9':
		return d.number()
	}
	switch rest := d.s[d.pos:]; {
	case strings.HasPrefix(rest, "true"):
		d.pos += len("true")
		return true, nil
	case strings.HasPrefix(rest, "false"):
		d.pos += len("false")
		return false, nil
	case strings.HasPrefix(rest, "null"):
		d.pos += len("null")
		return nil, nil
	}
	return nil, d.fault("has no JSON value")
}

// enter counts a level of nesting and skips the opening bracket.
func (d *decoder) enter() error {
	if d.depth == maxDepth {
		return d.fault(fmt.Sprintf("is nested more than %d levels deep", maxDepth))
	}
	d.depth++
	d.pos++
	d.space()
	return nil
}

// leave skips the closing bracket.
func (d *decoder) leave() {
	d.depth--
	d.pos++
}

func (d *decoder) object() (map[string]any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	room := 0
	if d.depth == 1 {
		// Growing would cost as much as all the rest: the claims of platforms
		// take 24 bytes or more each.
		room = min(len(d.s)/24, 48)
	}
	object := make(map[string]any, room)
	if d.peek() == '}' {
		d.leave()
		return object, nil
	}
	for {
		if d.peek() != '"' {
			return nil, d.fault("has no member name")
		}
		name, err := d.string()
		if err != nil {
			return nil, err
		}
		d.space()
		if d.peek() != ':' {
			return nil, d.fault("has no colon after a member name")
		}
		d.pos++
		d.space()
		value, err := d.value()
		if err != nil {
			return nil, err
		}
		before := len(object)
		if object[name] = value; len(object) == before {
			return nil, d.fault("has a member name twice in one object")
		}
		more, err := d.next('}')
		if err != nil {
			return nil, err
		}
		if !more {
			return object, nil
		}
	}
}

func (d *decoder) array() ([]any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	array := []any{}
	if d.peek() == ']' {
		d.leave()
		return array, nil
	}
	for {
		value, err := d.value()
		if err != nil {
			return nil, err
		}
		array = append(array, value)
		more, err := d.next(']')
		if err != nil {
			return nil, err
		}
		if !more {
			return array, nil
		}
	}
}

// next reads what stands after an element: a comma, and there is more, or the
// closing bracket.
func (d *decoder) next(closing byte) (more bool, err error) {
	d.space()
	switch d.peek() {
	case ',':
		d.pos++
		d.space()
		return true, nil
	case closing:
		d.leave()
		return false, nil
	}
	return false, d.fault("has an object or array that does not go on or end")
}

// number reads a number by the grammar of RFC 8259 section 6.
func (d *decoder) number() (json.Number, error) {
	start := d.pos
	if d.peek() == '-' {
		d.pos++
	}
	if d.peek() == '0' {
		d.pos++
	} else if !d.digits() {
		return "", d.fault("has a malformed number")
	}
	if d.peek() == '.' {
		d.pos++
		if !d.digits() {
			return "", d.fault("has a malformed number")
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.pos++
		if c := d.peek(); c == '+' || c == '-' {
			d.pos++
		}
		if !d.digits() {
			return "", d.fault("has a malformed number")
		}
	}
	return json.Number(d.s[start:d.pos]), nil
}

// digits skips digits and reports whether there was one.
func (d *decoder) digits() bool {
	start := d.pos
	for d.pos < len(d.s) && '0' <= d.s[d.pos] && d.s[d.pos] <= '9' {
		d.pos++
	}
	return d.pos > start
}

// string reads a string, whose opening quote is next.
func (d *decoder) string() (string, error) {
	d.pos++
	start := d.pos
	for ; d.pos < len(d.s); d.pos++ {
		switch c := d.s[d.pos]; {
		case c == '"':
			d.pos++
			return d.s[start : d.pos-1], nil
		case c == '\\':
			return d.escaped(start)
		case c < 0x20:
			return "", d.fault("has a control character in a string")
		}
	}
	return "", d.fault("has a string that does not end")
}

// escaped reads the rest of a string that began at start and has an escape at
// pos.
func (d *decoder) escaped(start int) (string, error) {
	var text strings.Builder
	text.WriteString(d.s[start:d.pos])
	for d.pos < len(d.s) {
		c := d.s[d.pos]
		d.pos++
		switch {
		case c == '"':
			return text.String(), nil
		case c < 0x20:
			return "", d.fault("has a control character in a string")
		case c != '\\':
			text.WriteByte(c)
			continue
		}
		r, err := d.escape()
		if err != nil {
			return "", err
		}
		text.WriteRune(r)
	}
	return "", d.fault("has a string that does not end")
}

// escape reads what follows a backslash.
func (d *decoder) escape() (rune, error) {
	c := d.peek()
	d.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, err := d.hex()
		if err != nil || !utf16.IsSurrogate(r) {
			return r, err
		}
		if strings.HasPrefix(d.s[d.pos:], `\u`) {
			d.pos += len(`\u`)
			low, err := d.hex()
			if err != nil {
				return 0, err
			}
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, nil
			}
		}
		return 0, d.fault("has half of a surrogate pair in a string")
	}
	return 0, d.fault("has an unknown escape in a string")
}

// hex reads the four digits of a \u escape.
func (d *decoder) hex() (rune, error) {
	if len(d.s)-d.pos < 4 {
		return 0, d.fault("has a string that does not end")
	}
	digits := d.s[d.pos : d.pos+4]
	if digits[0] == '+' || digits[0] == '-' {
		return 0, d.fault("has an unknown escape in a string")
	}
	r, err := strconv.ParseUint(digits, 16, 32)
	if err != nil {
		return 0, d.fault("has an unknown escape in a string")
	}
	d.pos += 4
	return rune(r), nil
}
