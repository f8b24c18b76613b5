package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// decodeStrict decodes raw into v as encoding/json does, and refuses what that
// lets pass without a word: keys that v has no field for, keys that differ from
// the field's in case, keys given twice, nulls, and anything after the value.
// Each error says where, in the form limits.conn or exports[2].subject.
//
// The errors continue a sentence that begins with the name of what was decoded.
func decodeStrict(raw []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := checkValue(decoder, reflect.TypeOf(v).Elem(), ""); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("has something after its JSON object")
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("is not valid: %w", err)
	}
	return nil
}

// Types of jwt/v2 that decode themselves, and what may stand for them.
var (
	typeSigningKeys = reflect.TypeFor[jwt.SigningKeys]()
	typeCIDRList    = reflect.TypeFor[jwt.CIDRList]()
	typeSampling    = reflect.TypeFor[jwt.SamplingRate]()
	typeExport      = reflect.TypeFor[jwt.ExportType]()
	typeScope       = reflect.TypeFor[jwt.ScopeType]()
	typeUserScope   = reflect.TypeFor[jwt.UserScope]()
)

func checkValue(d *json.Decoder, t reflect.Type, at string) error {
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("is not valid JSON%s: %w", in(at), err)
	}
	return checkToken(d, token, t, at)
}

// checkToken checks the value that token begins against the type it is for.
func checkToken(d *json.Decoder, token json.Token, t reflect.Type, at string) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case typeExport, typeScope:
		return checkKind(token, "", at, "a string")
	case typeSampling:
		if _, isString := token.(string); isString {
			return nil
		}
		return checkNumber(token, 32, at)
	case typeCIDRList:
		if _, isString := token.(string); isString {
			return nil
		}
	case typeSigningKeys:
		return checkSigningKeys(d, token, at)
	}
	switch t.Kind() {
	case reflect.Struct:
		return checkStruct(d, token, t, at)
	case reflect.Map:
		return checkObject(d, token, at, func(string) (reflect.Type, error) { return t.Elem(), nil })
	case reflect.Slice:
		return checkList(d, token, at, func(token json.Token, at string) error { return checkToken(d, token, t.Elem(), at) })
	case reflect.String:
		return checkKind(token, "", at, "a string")
	case reflect.Bool:
		return checkKind(token, false, at, "true or false")
	default:
		return checkNumber(token, t.Bits(), at)
	}
}

func checkStruct(d *json.Decoder, token json.Token, t reflect.Type, at string) error {
	fields := map[string]reflect.Type{}
	addFields(fields, t)
	return checkObject(d, token, at, func(key string) (reflect.Type, error) {
		if field, ok := fields[key]; ok {
			return field, nil
		}
		known := make([]string, 0, len(fields))
		for name := range fields {
			known = append(known, name)
		}
		sort.Strings(known)
		return nil, fmt.Errorf("has an unknown key %q%s: known are %s", key, in(at), strings.Join(known, ", "))
	})
}

// addFields collects the JSON names of a struct's fields, those of embedded
// structs included.
func addFields(fields map[string]reflect.Type, t reflect.Type) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" && field.Anonymous {
			addFields(fields, field.Type)
			continue
		}
		fields[name] = field.Type
	}
}

func checkObject(d *json.Decoder, token json.Token, at string, typeOf func(key string) (reflect.Type, error)) error {
	if token != json.Delim('{') {
		return wrongType(token, at, "an object")
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return fmt.Errorf("is not valid JSON%s: %w", in(at), err)
		}
		key := token.(string) // the decoder lets nothing else be a key
		if seen[key] {
			return fmt.Errorf("has the key %q%s twice", key, in(at))
		}
		seen[key] = true
		t, err := typeOf(key)
		if err != nil {
			return err
		}
		if err := checkValue(d, t, join(at, key)); err != nil {
			return err
		}
	}
	return checkClosed(d, at)
}

func checkList(d *json.Decoder, token json.Token, at string, element func(token json.Token, at string) error) error {
	if token != json.Delim('[') {
		return wrongType(token, at, "a list")
	}
	for i := 0; d.More(); i++ {
		place := at + "[" + strconv.Itoa(i) + "]"
		token, err := d.Token()
		if err != nil {
			return fmt.Errorf("is not valid JSON%s: %w", in(place), err)
		}
		if err := element(token, place); err != nil {
			return err
		}
	}
	return checkClosed(d, at)
}

// checkSigningKeys: a plain signing key is a string, a scoped one an object.
func checkSigningKeys(d *json.Decoder, token json.Token, at string) error {
	return checkList(d, token, at, func(token json.Token, at string) error {
		if _, isString := token.(string); isString {
			return nil
		}
		return checkStruct(d, token, typeUserScope, at)
	})
}

func checkClosed(d *json.Decoder, at string) error {
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("is not valid JSON%s: %w", in(at), err)
	}
	return nil
}

func checkKind(token json.Token, want any, at, name string) error {
	if reflect.TypeOf(token) != reflect.TypeOf(want) {
		return wrongType(token, at, name)
	}
	return nil
}

func checkNumber(token json.Token, bits int, at string) error {
	number, ok := token.(json.Number)
	if !ok {
		return wrongType(token, at, "a number")
	}
	value, err := number.Int64()
	if err != nil || bits < 64 && (value > 1<<(bits-1) || value < math.MinInt32) {
		return fmt.Errorf("has %s%s, which is not a whole number in range", number, in(at))
	}
	return nil
}

func wrongType(token json.Token, at, want string) error {
	got := "null"
	switch v := token.(type) {
	case json.Delim:
		got = map[json.Delim]string{'{': "an object", '[': "a list"}[v]
	case string:
		got = "a string"
	case json.Number:
		got = "a number"
	case bool:
		got = strconv.FormatBool(v)
	}
	if at == "" {
		return fmt.Errorf("is %s where %s is wanted", got, want)
	}
	return fmt.Errorf("has %s%s where %s is wanted", got, in(at), want)
}

func in(at string) string {
	if at == "" {
		return ""
	}
	return " at " + at
}

func join(at, key string) string {
	if strings.ContainsAny(key, ".[] ") {
		key = strconv.Quote(key)
	}
	if at == "" {
		return key
	}
	return at + "." + key
}
