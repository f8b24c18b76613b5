package roles

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	texttemplate "text/template"

	"github.com/hashicorp/go-secure-stdlib/strutil"
)

// policyFunctions are those that OpenBao has in templates of policies
// (sdk/helper/template), but for the time and what is random: which policies a
// login gives follows from the claims.
var policyFunctions = texttemplate.FuncMap{
	"_segment":        segment,
	"lowercase":       strings.ToLower,
	"uppercase":       strings.ToUpper,
	"replace":         func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
	"truncate":        truncate,
	"truncate_sha256": truncateSHA256,
	"sha256":          hexSHA256,
	"base64":          func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"decode_base64":   func(s string) (string, error) { return decoded(base64.StdEncoding.DecodeString(s)) },
	"hex":             func(s string) string { return hex.EncodeToString([]byte(s)) },
	"decode_hex":      func(s string) (string, error) { return decoded(hex.DecodeString(s)) },
	"glob":            func(pattern, s string) bool { return strutil.StrListContainsGlob([]string{pattern}, s) },
}

func decoded(raw []byte, err error) (string, error) { return string(raw), err }

func hexSHA256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func truncate(most int, s string) (string, error) {
	if most <= 0 {
		return "", errors.New("the length must be more than 0")
	}
	return s[:min(most, len(s))], nil
}

// truncateSHA256 is truncate, but what it leaves out is there by the first 8
// characters of its hash.
func truncateSHA256(most int, s string) (string, error) {
	const digest = 8
	if most <= digest {
		return "", errors.New("the length must be more than 8")
	}
	if len(s) <= most {
		return s, nil
	}
	return s[:most-digest] + hexSHA256(s[most-digest:])[:digest], nil
}
