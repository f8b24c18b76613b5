package roles

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// tokenByte says which ASCII characters may stand in a subject token.
var tokenByte = func() (safe [utf8.RuneSelf]bool) {
	for c := range safe {
		safe[c] = c > ' ' && c != 0x7f && c != '.' && c != '*' && c != '>'
	}
	return safe
}()

// tokenFault says why s is not one subject token, in words that continue a
// sentence about it, or nothing if it is one.
//
// It asks for more than nats-server does, which takes "a*b" for a literal token
// and any control character but white space for text: what cannot be mistaken
// for a wildcard, a separator or a line's end by anything that reads it.
func tokenFault(s string) string {
	if s == "" {
		return "is empty"
	}
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if !tokenByte[c] {
				return "has " + nameOf(rune(c))
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if !tokenRune(r) {
			return "has " + nameOf(r)
		}
		i += size
	}
	return ""
}

// tokenRune says whether a character beyond ASCII may stand in a token.
// U+FFFD may not: decoders put it in place of what was not valid UTF-8, so that
// different values would become one.
func tokenRune(r rune) bool {
	return r != utf8.RuneError && !unicode.IsSpace(r) && !unicode.IsControl(r)
}

// nameOf names a character that may not stand in a token.
func nameOf(r rune) string {
	switch {
	case r == utf8.RuneError:
		return "bytes that are not valid UTF-8"
	case unicode.IsSpace(r):
		return fmt.Sprintf("white space (%U)", r)
	case unicode.IsControl(r):
		return fmt.Sprintf("a control character (%U)", r)
	}
	return fmt.Sprintf("a %q", string(r))
}

const upperHex = "0123456789ABCDEF"

// escape percent-encodes, byte by byte, what cannot stand in one subject token,
// and "%" itself, so that no two values have the same escaped form. Braces are
// encoded too: nats-server would take them for a placeholder in the name or a
// tag of a scoped user. The empty string stays empty, and so is no token.
func escape(s string) string {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if !escapeKeeps(r) {
			return escapeFrom(s, i)
		}
		i += size
	}
	return s
}

// escapeFrom is escape for an s whose first character to encode is at start.
func escapeFrom(s string, start int) string {
	escaped := append(make([]byte, 0, len(s)+16), s[:start]...)
	for i := start; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if escapeKeeps(r) {
			escaped = append(escaped, s[i:i+size]...)
		} else {
			for _, b := range []byte(s[i : i+size]) {
				escaped = append(escaped, '%', upperHex[b>>4], upperHex[b&0xf])
			}
		}
		i += size
	}
	return string(escaped)
}

func escapeKeeps(r rune) bool {
	if r < utf8.RuneSelf {
		return tokenByte[r] && r != '%' && r != '{' && r != '}'
	}
	return tokenRune(r)
}
