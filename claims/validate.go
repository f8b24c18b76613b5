package claims

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The leeways that a zero value in Expected stands for.
const (
	defaultLeeway          = 150 * time.Second // exp and nbf
	defaultClockSkewLeeway = 60 * time.Second
)

// registered are the registered claim names of RFC 7519 section 4.1.
var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}

// checkRegistered refuses claims that another reader of the token could take
// for registered ones, and registered ones of the wrong type.
func checkRegistered(claims map[string]any) error {
	for name := range claims {
		// A name that folds to one of three ASCII letters has at most six bytes.
		if len(name) < 3 || len(name) > 6 || slices.Contains(registered, name) {
			continue
		}
		for _, r := range registered {
			if strings.EqualFold(name, r) {
				return fmt.Errorf("claim %q can be taken for the registered claim %s", name, r)
			}
		}
	}
	for _, name := range []string{"iss", "sub", "jti"} {
		switch claims[name].(type) {
		case string, nil:
		default:
			return fmt.Errorf("%s claim is not a string", name)
		}
	}
	return nil
}

// checkIssuer refuses a token whose iss claim is none of bound; with none
// bound, every iss is good, as in the JWT method.
func checkIssuer(claims map[string]any, bound []string) error {
	if len(bound) == 0 {
		return nil
	}
	if iss, _ := claims["iss"].(string); !slices.Contains(bound, iss) {
		return errors.New("iss claim is not a bound issuer")
	}
	return nil
}

// audiences returns the aud claim: a string or a list of strings (RFC 7519
// section 4.1.3).
func audiences(claims map[string]any) ([]string, error) {
	value, ok := claims["aud"]
	if !ok {
		return nil, nil
	}
	switch aud := value.(type) {
	case string:
		return []string{aud}, nil
	case []any:
		list := make([]string, len(aud))
		for i, element := range aud {
			if list[i], ok = element.(string); !ok {
				return nil, errors.New("aud claim has an element that is not a string")
			}
		}
		return list, nil
	}
	return nil, errors.New("aud claim is neither a string nor a list of strings")
}

// checkAudience refuses a token that has none of the wanted audiences.
func checkAudience(aud, wanted []string) error {
	for _, a := range aud {
		if slices.Contains(wanted, a) {
			return nil
		}
	}
	return errors.New("aud claim has none of the role's bound audiences")
}

// checkTimes applies the time rules of the JWT method: exp, nbf and iat, each
// made up for by the others where it is missing or zero. With none of the three
// a token is refused unless timeless is true, and then it is good for ever.
func checkTimes(claims map[string]any, now time.Time, want Expected, timeless bool) error {
	exp, err := numericDate(claims, "exp")
	if err != nil {
		return err
	}
	nbf, err := numericDate(claims, "nbf")
	if err != nil {
		return err
	}
	iat, err := numericDate(claims, "iat")
	if err != nil {
		return err
	}
	if exp == 0 && nbf == 0 && iat == 0 {
		if timeless {
			return nil
		}
		return errors.New("token has none of the claims exp, nbf and iat")
	}
	if exp == 0 {
		exp = max(iat, nbf) + seconds(want.ExpirationLeeway, defaultLeeway)
	}
	if nbf == 0 {
		if nbf = iat; nbf == 0 {
			nbf = exp - seconds(want.NotBeforeLeeway, defaultLeeway)
		}
	}

	skew := leeway(want.ClockSkewLeeway, defaultClockSkewLeeway)
	switch latest, earliest := now.Add(skew), now.Add(-skew); {
	case latest.Before(time.Unix(nbf, 0)):
		return fmt.Errorf("token is not yet valid: nbf claim is %s", date(nbf))
	case earliest.After(time.Unix(exp, 0)):
		return fmt.Errorf("token is expired: exp claim is %s", date(exp))
	case latest.Before(time.Unix(iat, 0)):
		return fmt.Errorf("token is issued in the future: iat claim is %s", date(iat))
	}
	return nil
}

// checkAge refuses a token whose bearer authenticated longer than want.MaxAge
// ago: auth_time (OpenID Connect Core section 2), or iat for the tokens of
// platforms, which know no other moment of authentication.
func checkAge(claims map[string]any, now time.Time, want Expected) error {
	if want.MaxAge <= 0 {
		return nil
	}
	name := "auth_time"
	since, err := numericDate(claims, name)
	if err == nil && since == 0 { // missing, or zero as some issuers write it where nobody logged in
		name = "iat"
		since, err = numericDate(claims, name)
	}
	if err != nil {
		return err
	}
	if since == 0 {
		return errors.New("token has neither an auth_time nor an iat claim to hold against max_age")
	}
	skew := leeway(want.ClockSkewLeeway, defaultClockSkewLeeway)
	if now.Add(-skew).After(time.Unix(since, 0).Add(want.MaxAge)) {
		return fmt.Errorf("%s claim is %s, longer ago than max_age", name, date(since))
	}
	return nil
}

// leeway resolves the special values of a leeway.
func leeway(given, standard time.Duration) time.Duration {
	switch {
	case given < 0:
		return 0
	case given == 0:
		return standard
	}
	return given
}

func seconds(given, standard time.Duration) int64 {
	return int64(leeway(given, standard) / time.Second)
}

// maxDate bounds a time claim to the whole seconds that every JSON reader sees
// as the same number, some 285 million years; sums of them do not overflow.
const maxDate = 1 << 53

// numericDate returns a time claim (RFC 7519 section 2, NumericDate) in seconds
// since the epoch, cut to whole ones; 0 if it is missing.
func numericDate(claims map[string]any, name string) (int64, error) {
	value := claims[name]
	if value == nil {
		return 0, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return 0, fmt.Errorf("%s claim is not a number", name)
	}
	date, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(string(number), 64)
		if err != nil || f > maxDate || f < -maxDate {
			return 0, fmt.Errorf("%s claim is not a time", name)
		}
		return int64(f), nil
	}
	if date > maxDate || date < -maxDate {
		return 0, fmt.Errorf("%s claim is not a time", name)
	}
	return date, nil
}

func date(seconds int64) string {
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}
