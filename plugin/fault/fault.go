// Package fault is what every layer of the plugin returns for a fault in what
// the caller wrote. Only the paths turn it into an answer, with status 400, or 409
// for a conflict; any other error is the server's.
package fault

import (
	"fmt"
	"regexp"
	"strings"
)

// An Error is a fault in what the caller wrote.
type Error struct {
	Field string // the request's field, as the caller spells it; empty if Fault names it
	Fault string // what is wrong with its value

	// Conflict: nothing is wrong with it, but that what was done here since stands
	// against it. Whoever brings many things can pass over such a one.
	Conflict bool
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.Fault
	}
	return e.Field + " " + e.Fault
}

// In says what is wrong with the value of a field; the format continues the
// sentence that the field's name begins: In("user_ttl", "is negative").
func In(field, format string, args ...any) error {
	return &Error{Field: field, Fault: fmt.Sprintf(format, args...)}
}

// Conflict is In for a conflict.
func Conflict(field, format string, args ...any) error {
	return &Error{Field: field, Fault: fmt.Sprintf(format, args...), Conflict: true}
}

// New says what is wrong where the text names what is at fault itself.
func New(format string, args ...any) error { return In("", format, args...) }

// CheckName refuses the names that Vault's own methods have no path for, with
// an error instead of their 404.
func CheckName(field, name string) error {
	if err := CheckLength(field, name); err != nil {
		return err
	}
	if !nameForm.MatchString(name) {
		return In(field, "%q is not a name: only letters, digits, '_', '-' and '.' may stand in it, and it begins and ends with a letter, a digit or '_'", name)
	}
	if strings.Contains(name, "..") {
		return In(field, "%q has two dots in a row, under which Vault stores nothing", name)
	}
	return nil
}

// CheckLength refuses what is too long for a name, whatever it consists of.
func CheckLength(field, name string) error {
	if len(name) > mostName {
		return In(field, "has %d bytes, which is too long for a name: at most %d", len(name), mostName)
	}
	return nil
}

// mostName is how long a name may be: it is part of a storage key, of which some
// storages take no more than a file name has.
const mostName = 200

// nameForm is what framework.GenericNameRegex matches.
var nameForm = regexp.MustCompile(`^\w(([\w.-]+)?\w)?$`)

// ShortList shows the first few of many names.
func ShortList(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
