package trust

import (
	"errors"
	"fmt"
	"strings"
)

// How nats-server reads subjects. Its sublist.go decides, and not jwt/v2, whose
// checks let some pass that a server then drops without a word.

const (
	oneToken   = "*" // stands for any one token
	restTokens = ">" // stands for one token or more, at the end
)

// checkSubject says why nats-server would not take a subject, with or without
// wildcards.
func checkSubject(subject string) error {
	if subject == "" {
		return errors.New("is empty")
	}
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return fmt.Errorf("is %q, which is not a subject: it has an empty token", subject)
		case strings.ContainsAny(token, " \t\n\f\r"):
			return fmt.Errorf("is %q, which is not a subject: it has white space in it", subject)
		case token == restTokens && i < len(tokens)-1:
			return fmt.Errorf("is %q, which is not a subject: %q stands before its end", subject, restTokens)
		}
	}
	return nil
}

// checkLiteral says why nats-server could not publish to a subject.
func checkLiteral(subject string) error {
	if err := checkSubject(subject); err != nil {
		return err
	}
	if hasWildcard(subject) {
		return fmt.Errorf("is %q, which has a wildcard: it has to be a subject that can be published to", subject)
	}
	return nil
}

func hasWildcard(subject string) bool {
	for token := range strings.SplitSeq(subject, ".") {
		if token == oneToken || token == restTokens {
			return true
		}
	}
	return false
}

// isSubset reports whether all that matches the subject matches the other one
// too, as nats-server's isSubsetMatch has it.
func isSubset(subject, of string) bool {
	tokens, others := strings.Split(subject, "."), strings.Split(of, ".")
	for i, other := range others {
		switch {
		case i >= len(tokens) || other == "":
			return false
		case other == restTokens:
			return true
		case tokens[i] == "" || tokens[i] == restTokens:
			return false
		case tokens[i] == oneToken:
			if other != oneToken {
				return false
			}
		case other[0] != '*' && tokens[i] != other:
			return false
		}
	}
	return len(tokens) == len(others)
}

// collide reports whether one literal subject could match both, as nats-server's
// SubjectsCollide has it.
func collide(a, b string) bool {
	if a == b {
		return true
	}
	switch wildA, wildB := hasWildcard(a), hasWildcard(b); {
	case !wildA && !wildB:
		return false
	case !wildA:
		return isSubset(a, b)
	case !wildB:
		return isSubset(b, a)
	}
	tokensA, tokensB := strings.Split(a, "."), strings.Split(b, ".")
	if len(tokensA) > len(tokensB) {
		tokensA, tokensB, a, b = tokensB, tokensA, b, a
	}
	openA, openB := strings.HasSuffix("."+a, ".>"), strings.HasSuffix("."+b, ".>")
	if len(tokensA) < len(tokensB) && !openA || !openA && !openB && len(tokensA) != len(tokensB) {
		return false
	}
	for i, tokenA := range tokensA {
		tokenB := tokensB[i]
		if tokenA == "" || tokenB == "" {
			return false
		}
		if !strings.ContainsAny(tokenA[:1]+tokenB[:1], "*>") && tokenA != tokenB {
			return false
		}
	}
	return true
}
