package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// answer turns the fault of a handler into its response: a fault.Error into
// a status 400 that shows it, any other into an internal error.
func answer(err error) (*logical.Response, error) {
	var refusal forbidden
	if errors.As(err, &refusal) {
		return nil, logical.CodedError(http.StatusForbidden, refusal.Error())
	}
	var theirs *fault.Error
	if errors.As(err, &theirs) && theirs.Conflict {
		return nil, logical.CodedError(http.StatusConflict, err.Error())
	}
	if errors.As(err, &theirs) {
		return logical.ErrorResponse(err.Error()), nil
	}
	return nil, err
}

// userFault makes a fault that a pure package found in what the user wrote a
// status 400.
func userFault(err error) error {
	return fault.New("%s", err)
}

// jsonFields are the fields that take a JSON object, whether it arrives as an
// object in a request body or, as from the command line, as a string that holds
// one. Those that are false are declared as strings, the others as maps.
var jsonFields = map[string]bool{
	"config":          false,
	"user_template":   false,
	"bound_claims":    true,
	"claims":          true,
	"provider_config": true,
}

// timeFields are the fields that are declared as times. A number that a request's body
// has comes to a plugin as a float64, which the framework does not take for a time.
var timeFields = []string{"expiration", "not_before", "before"}

// mostJSON is how many bytes a JSON field may have: twice of what may come of the
// largest of them, an account's JWT.
const mostJSON = 2 * trust.MaxJWT

// normalizeFields turns the fields of a request into the form that their schema
// declares, JSON with numbers as they were written. It can be applied twice. A field that
// the path does not declare is not looked at.
func (b *backend) normalizeFields(req *logical.Request) error {
	if err := b.normalizeJSON(req); err != nil {
		return err
	}
	for _, name := range timeFields {
		seconds, ok := req.Data[name].(float64)
		if !ok {
			continue
		}
		if path := b.Route(req.Path); path == nil || path.Fields[name] == nil {
			continue
		}
		if seconds != math.Trunc(seconds) || math.Abs(seconds) > math.MaxInt32<<8 {
			return fault.In(name, "is not a Unix time in whole seconds")
		}
		req.Data[name] = int64(seconds)
	}
	return nil
}

func (b *backend) normalizeJSON(req *logical.Request) error {
	var path *framework.Path
	for name, asMap := range jsonFields {
		value, ok := req.Data[name]
		if !ok {
			continue
		}
		if path == nil {
			if path = b.Route(req.Path); path == nil {
				return nil
			}
		}
		if _, declared := path.Fields[name]; !declared {
			continue
		}
		normalized, err := normalJSON(name, value, asMap)
		if err != nil {
			return err
		}
		req.Data[name] = normalized
	}
	return nil
}

// normalJSON gives the value of a field as a map, or else as text.
func normalJSON(name string, value any, asMap bool) (any, error) {
	text, isText := value.(string)
	if object, isObject := value.(map[string]any); isObject {
		raw, err := json.Marshal(object)
		if err != nil {
			return nil, fault.In(name, "is not JSON: %s", err)
		}
		text, isText = string(raw), true
	}
	switch {
	case !isText || asMap && text == "":
		return value, nil
	case len(text) > mostJSON:
		return nil, fault.In(name, "has %d bytes: at most %d are taken", len(text), mostJSON)
	case !asMap:
		return text, nil
	}
	// Strict: a binding that another of its name overwrote, or that came after the
	// object, would be lost without a word.
	object, err := claims.DecodeObject(text)
	if err != nil {
		return nil, fault.In(name, "is not a JSON object: %s", err)
	}
	return object, nil
}

// written is the answer to a write that has nothing to show but, maybe,
// warnings. It is nil, so that Vault answers 204, unless there are some or the
// framework has one to add about parameters that the path does not know.
func written(req *logical.Request, d *framework.FieldData, warnings ...string) *logical.Response {
	resp := &logical.Response{Warnings: warnings}
	for name := range req.Data {
		if _, known := d.Schema[name]; !known {
			return resp
		}
	}
	if len(warnings) == 0 {
		return nil
	}
	return resp
}

// operationPrefix leads the operation names of the OpenAPI document, as the
// method's type does in those of Vault's own methods.
const operationPrefix = "nats"

// The set functions change a value only if its field was given.
func setString(d *framework.FieldData, field string, value *string) {
	if v, ok := d.GetOk(field); ok {
		*value = v.(string)
	}
}

func setStrings(d *framework.FieldData, field string, value *[]string) {
	if v, ok := d.GetOk(field); ok {
		*value = v.([]string)
	}
}

func setBool(d *framework.FieldData, field string, value *bool) {
	if v, ok := d.GetOk(field); ok {
		*value = v.(bool)
	}
}

// setSeconds takes a duration in any form that Vault knows.
func setSeconds(d *framework.FieldData, field string, value *int64) {
	if v, ok := d.GetOk(field); ok {
		*value = int64(v.(int))
	}
}

// given returns the value of a field as T has it, nil if the field was not given.
func given[T any](d *framework.FieldData, field string) *T {
	v, ok := d.GetOk(field)
	if !ok {
		return nil
	}
	value := v.(T)
	return &value
}

func dropUnlessGiven(d *framework.FieldData, field string, value *string) {
	if _, ok := d.GetOk(field); !ok {
		*value = ""
	}
}

// orEmpty makes a list that is not there an empty one: [] and not null in JSON.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// asUnix reads a Unix time from a lease's internal data, where JSON has been in
// between.
func asUnix(value any) (time.Time, error) {
	switch v := value.(type) {
	case int64:
		return time.Unix(v, 0), nil
	case float64:
		return time.Unix(int64(v), 0), nil
	case json.Number:
		seconds, err := v.Int64()
		return time.Unix(seconds, 0), err
	}
	return time.Time{}, fmt.Errorf("%v is not a time", value)
}

// The functions below describe answers for the OpenAPI document.

func responds(status int, description string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{status: {{Description: description, Fields: fields}}}
}

func noContent(description string) map[int][]framework.Response {
	return responds(http.StatusNoContent, description, nil)
}

func listed(description string) map[int][]framework.Response {
	return responds(http.StatusOK, description, map[string]*framework.FieldSchema{
		"keys": {Type: framework.TypeStringSlice, Required: true, Description: description},
	})
}

// mountOf is the path of the mount in its namespace, auth/nats/ for one. Vault puts
// the namespace in front, where auth names none.
func mountOf(req *logical.Request) string {
	if strings.HasPrefix(req.MountPoint, "auth/") {
		return req.MountPoint
	}
	if _, mount, ok := strings.Cut(req.MountPoint, "/auth/"); ok {
		return "auth/" + mount
	}
	return req.MountPoint
}

// textOf returns a string field as it was sent, empty if it was not. The
// framework's own Get makes four allocations on the way to the same text.
func textOf(d *framework.FieldData, field string) string {
	if text, ok := d.Raw[field].(string); ok {
		return text
	}
	return d.Get(field).(string)
}
