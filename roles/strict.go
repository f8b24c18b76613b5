package roles

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A jsonValue is a piece of a JSON document that knows its place, for errors
// that name it. Its raw value is one of []member, []any, string, json.Number,
// bool and nil.
type jsonValue struct {
	place string // "pub.allow[0]"; empty for the whole document
	raw   any
}

type member struct {
	key   string
	value any
}

// maxDepth bounds how deep a document is nested; a user template needs three.
const maxDepth = 8

// parseJSON parses one document. Unlike encoding/json it refuses a member that
// is there twice, of which the decoders downstream would each take their pick.
func parseJSON(source string) (jsonValue, error) {
	d := json.NewDecoder(strings.NewReader(source))
	d.UseNumber()
	value, err := parseValue(d, "", 0)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = fmt.Errorf("has more than one JSON value: the second begins at character %d", d.InputOffset())
		}
	}
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("is not JSON: it ends too early")
	case errors.As(err, &syntax):
		err = fmt.Errorf("is not JSON: %s, at character %d", syntax, syntax.Offset)
	}
	return jsonValue{raw: value}, err
}

func parseValue(d *json.Decoder, place string, depth int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	delim, nested := token.(json.Delim)
	if !nested {
		return token, nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("is nested too deep at %s", place)
	}
	if delim == '[' {
		list := []any{}
		for d.More() {
			value, err := parseValue(d, place+"["+strconv.Itoa(len(list))+"]", depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = d.Token()
		return list, err
	}
	members, seen := []member{}, map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		key := token.(string) // the decoder takes nothing else for a key
		if seen[key] {
			return nil, fmt.Errorf("has %s twice", under(place, key))
		}
		seen[key] = true
		value, err := parseValue(d, under(place, key), depth+1)
		if err != nil {
			return nil, err
		}
		members = append(members, member{key, value})
	}
	_, err = d.Token()
	return members, err
}

func under(place, key string) string {
	if place == "" {
		return key
	}
	return place + "." + key
}

// wrong says that the value is not what it should be.
func (v jsonValue) wrong(want string) error {
	place := v.place
	if place == "" {
		place = "it"
	}
	is := "null"
	switch v.raw.(type) {
	case []member:
		is = "an object"
	case []any:
		is = "a list"
	case string:
		is = "a string"
	case json.Number:
		is = "a number"
	case bool:
		is = "a boolean"
	}
	return fmt.Errorf("%s is %s: it must be %s", place, is, want)
}

// fields reads an object: each member goes to the function under its key, and
// one that has none is an error.
func (v jsonValue) fields(known map[string]func(jsonValue) error) error {
	members, ok := v.raw.([]member)
	if !ok {
		return v.wrong("an object")
	}
	for _, m := range members {
		read := known[m.key]
		if read == nil {
			return fmt.Errorf("has the unknown key %s", under(v.place, m.key))
		}
		if err := read(jsonValue{under(v.place, m.key), m.value}); err != nil {
			return err
		}
	}
	return nil
}

// elements reads a list.
func (v jsonValue) elements(read func(jsonValue) error) error {
	list, ok := v.raw.([]any)
	if !ok {
		return v.wrong("a list")
	}
	for i, element := range list {
		if err := read(jsonValue{v.place + "[" + strconv.Itoa(i) + "]", element}); err != nil {
			return err
		}
	}
	return nil
}

func (v jsonValue) text() (string, error) {
	s, ok := v.raw.(string)
	if !ok {
		return "", v.wrong("a string")
	}
	return s, nil
}

// plainText reads a string in which a placeholder has no meaning.
func (v jsonValue) plainText() (string, error) {
	s, err := v.text()
	if err == nil && strings.Contains(s, "{{") {
		err = fmt.Errorf("%s has a placeholder: they may stand only in pub, sub and tags", v.place)
	}
	return s, err
}

func (v jsonValue) boolean() (bool, error) {
	b, ok := v.raw.(bool)
	if !ok {
		return false, v.wrong("true or false")
	}
	return b, nil
}

// integer reads a whole number that is at least least.
func (v jsonValue) integer(least int64, meaning string) (int64, error) {
	number, ok := v.raw.(json.Number)
	if !ok {
		return 0, v.wrong(meaning)
	}
	n, err := number.Int64()
	if err != nil || n < least {
		return 0, fmt.Errorf("%s is %s: it must be %s", v.place, number, meaning)
	}
	return n, nil
}
