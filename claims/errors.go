package claims

import (
	"errors"
	"fmt"
)

// ErrUnavailable matches, through errors.Is, an error of Verify that says
// nothing about the token: its issuer could not be asked.
var ErrUnavailable = errors.New("issuer is unavailable")

// UnavailableError is an outage of an issuer. Its text can be shown to whoever
// presented the token; the cause, which may name hosts and addresses of the
// network, is for the log and comes from Unwrap.
type UnavailableError struct {
	Issuer string // the mount's name of the issuer
	What   string // what could not be had, as "its keys"
	Err    error  // the cause
}

// Error says which issuer could not be asked for what.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("issuer %q is unavailable: %s cannot be had now", e.Issuer, e.What)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Is reports whether target is ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }
