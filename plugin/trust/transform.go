package trust

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// checkMapping says why nats-server would not map one subject to another, as
// ValidateMapping and NewSubjectTransform of its subject_transform.go have it.
func checkMapping(from, to string) error {
	if err := checkSubject(from); err != nil {
		return err
	}
	for token := range strings.SplitSeq(to, ".") {
		if strings.ContainsAny(token, " \t\n\f\r") && !isFunction(token) {
			return fmt.Errorf("goes to %q, which is not a subject: it has white space in it", to)
		}
	}
	return checkTransform(from, to, false)
}

// checkRenaming says why nats-server could not rename what is imported: it has to
// find the way back, so each wildcard is needed, and no function but wildcard().
func checkRenaming(from, to string) error { return checkTransform(from, to, true) }

func checkTransform(from, to string, renaming bool) error {
	fromTokens, wildcards, err := tokensOf(from)
	if err != nil {
		return err
	}
	toTokens, toWildcards, err := tokensOf(to)
	if err != nil {
		return err
	}
	switch {
	case toWildcards > 0:
		return fmt.Errorf("goes to %q, where $1 or {{wildcard(1)}} has to stand for the first %q of %q, and so on", to, oneToken, from)
	case isOpen(fromTokens) != isOpen(toTokens):
		return fmt.Errorf("goes from %q to %q, of which only one ends in %q", from, to, restTokens)
	}
	literal := wildcards == 0 && !isOpen(fromTokens)
	used := 0
	for _, token := range toTokens {
		f, err := parseFunction(token)
		if err != nil {
			return fmt.Errorf("goes to %q: %w", to, err)
		}
		if literal && !f.withoutWildcards() {
			return fmt.Errorf("goes to %q, and %q has no %q that %s could stand for", to, from, oneToken, token)
		}
		if literal {
			continue
		}
		if renaming && f.name != "" && f.name != "wildcard" {
			return fmt.Errorf("goes to %q, where an import knows no function but wildcard", to)
		}
		for _, index := range f.indexes {
			if index > wildcards {
				return fmt.Errorf("goes to %q, where %s stands for wildcard %d of %d in %q", to, token, index, wildcards, from)
			}
		}
		used += len(f.indexes)
	}
	if renaming && used < wildcards {
		return fmt.Errorf("goes to %q, which does not use every %q of %q", to, oneToken, from)
	}
	return nil
}

// tokensOf splits a subject of a transform. Unlike checkSubject it lets white
// space pass, which functions may have.
func tokensOf(subject string) (tokens []string, wildcards int, err error) {
	tokens = strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "" || token == restTokens && i < len(tokens)-1:
			return nil, 0, fmt.Errorf("has %q, which is not a subject", subject)
		case token == oneToken:
			wildcards++
		}
	}
	return tokens, wildcards, nil
}

func isOpen(tokens []string) bool { return tokens[len(tokens)-1] == restTokens }

// A function is what a token of a mapping's destination does; the zero value
// stands for itself.
type function struct {
	name    string
	indexes []int // of the source's wildcards, counted from 1
}

// withoutWildcards reports whether the function can be where the source has no
// wildcards.
func (f function) withoutWildcards() bool {
	return f.name == "" || f.name == "random" || f.name == "partition"
}

// Functions are written as nats-server's documentation has them, or with any of
// their words in lower case.
var functionPattern = regexp.MustCompile(`^{{\s*([wW]ildcard|[pP]artition|[sS]plit[fF]rom[lL]eft|[sS]plit[fF]rom[rR]ight|` +
	`[sS]lice[fF]rom[lL]eft|[sS]lice[fF]rom[rR]ight|[sS]plit|[lL]eft|[rR]ight|[rR]andom)\s*\((.*)\)\s*}}$`)

var argumentPattern = regexp.MustCompile(`,\s*`)

// looksLikeFunction: nats-server takes what begins and ends so for one.
func looksLikeFunction(token string) bool {
	return len(token) > 4 && strings.HasPrefix(token, "{{") && strings.HasSuffix(token, "}}")
}

func isFunction(token string) bool {
	return looksLikeFunction(token) && functionPattern.MatchString(token)
}

func parseFunction(token string) (function, error) {
	if len(token) > 1 && token[0] == '$' {
		if index, err := strconv.Atoi(token[1:]); err == nil {
			return function{"wildcard", []int{index}}, nil
		}
		return function{}, nil // as in $JS
	}
	if !looksLikeFunction(token) {
		return function{}, nil
	}
	parts := functionPattern.FindStringSubmatch(token)
	if parts == nil {
		return function{}, fmt.Errorf("%s is not a function", token)
	}
	name, arguments := strings.ToLower(parts[1]), argumentPattern.Split(parts[2], -1)
	f, err := newFunction(name, arguments)
	if err != nil {
		return function{}, fmt.Errorf("%s %w", token, err)
	}
	return f, nil
}

func newFunction(name string, arguments []string) (function, error) {
	switch name {
	case "wildcard":
		if len(arguments) != 1 {
			return function{}, errors.New("takes one number")
		}
		index, err := number(arguments[0])
		return function{name, []int{index}}, err
	case "random":
		if len(arguments) != 1 {
			return function{}, errors.New("takes one number")
		}
		_, err := number(arguments[0])
		return function{name: name}, err
	case "partition":
		if _, err := number(arguments[0]); err != nil {
			return function{}, err
		}
		f := function{name: name}
		for _, argument := range arguments[1:] {
			index, err := anyNumber(argument)
			if err != nil {
				return function{}, err
			}
			f.indexes = append(f.indexes, index)
		}
		return f, nil
	}
	if len(arguments) != 2 {
		return function{}, errors.New("takes two arguments")
	}
	index, err := anyNumber(arguments[0])
	if err != nil {
		return function{}, err
	}
	if name == "split" {
		if strings.ContainsAny(arguments[1], " .") {
			return function{}, errors.New("splits at something with a space or a dot in it")
		}
		return function{name, []int{index}}, nil
	}
	if _, err := strconv.ParseInt(strings.Trim(arguments[1], " "), 10, 32); err != nil {
		return function{}, fmt.Errorf("has %q for a number", arguments[1])
	}
	return function{name, []int{index}}, nil
}

func anyNumber(text string) (int, error) {
	n, err := strconv.Atoi(strings.Trim(text, " "))
	if err != nil {
		return 0, fmt.Errorf("has %q for a number", text)
	}
	return n, nil
}

// number is anyNumber within nats-server's bound.
func number(text string) (int, error) {
	n, err := anyNumber(text)
	if err == nil && n > math.MaxInt32 {
		return 0, fmt.Errorf("has %q for a number", text)
	}
	return n, err
}

// placeholders writes the wildcards of a subject as $1, $2 and so on, as
// nats-server does with an import's local subject.
func placeholders(subject string) string {
	tokens := strings.Split(subject, ".")
	for i, n := 0, 0; i < len(tokens); i++ {
		if tokens[i] == oneToken {
			n++
			tokens[i] = "$" + strconv.Itoa(n)
		}
	}
	return strings.Join(tokens, ".")
}

// wildcarded is the inverse of placeholders, as nats-server has it.
func wildcarded(subject string) string {
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		old := len(token) > 1 && token[0] == '$' && token[1] >= '1' && token[1] <= '9'
		parts := functionPattern.FindStringSubmatch(token)
		if old || parts != nil && strings.EqualFold(parts[1], "wildcard") && parts[2] != "" && !strings.Contains(parts[2], ",") {
			tokens[i] = oneToken
		}
	}
	return strings.Join(tokens, ".")
}
