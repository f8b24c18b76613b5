package plugin

import (
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// A fieldError is a fault in what the caller wrote: it is answered with status
// 400 and names the field. Every other error is the server's and is answered
// with status 500.
type fieldError struct {
	Field string // the request's field, as the caller spells it
	Fault string // what is wrong with its value
}

func (e *fieldError) Error() string { return e.Field + " " + e.Fault }

// badField says what is wrong with the value of a field; the format continues
// the sentence that the field's name begins: badField("user_ttl", "is negative").
func badField(field, format string, args ...any) error {
	return &fieldError{Field: field, Fault: fmt.Sprintf(format, args...)}
}

// answer turns the fault of a handler into its response: a fieldError into a
// status 400 that shows it, any other into an internal error.
func answer(err error) (*logical.Response, error) {
	var fault *fieldError
	if errors.As(err, &fault) {
		return logical.ErrorResponse(err.Error()), nil
	}
	return nil, err
}
