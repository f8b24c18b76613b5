package claims

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	capjwt "github.com/hashicorp/cap/jwt"
	"github.com/stretchr/testify/require"
)

func TestVerifyRules(t *testing.T) {
	at := func(offset int64) int64 { return now.Unix() + offset }
	none := Expected{Audiences: []string{"vault"}, ExpirationLeeway: -1, NotBeforeLeeway: -1, ClockSkewLeeway: -1}
	maxAge := Expected{Audiences: []string{"vault"}, MaxAge: time.Minute, ClockSkewLeeway: -1}
	cases := map[string]struct {
		claims map[string]any // changes to a good payload
		bound  []string
		want   Expected
		fault  string // empty: accepted
	}{
		"a good token": {nil, nil, forVault, ""},

		"an iss that is bound":          {nil, []string{"https://issuer.example.com"}, forVault, ""},
		"an iss that is one of several": {nil, []string{"https://old.example.com", "https://issuer.example.com"}, forVault, ""},
		"an iss that is not bound":      {nil, []string{"https://other.example.com"}, forVault, "iss claim is not a bound issuer"},
		"an iss with a slash more":      {map[string]any{"iss": "https://issuer.example.com/"}, []string{"https://issuer.example.com"}, forVault, "iss claim is not a bound issuer"},
		"an iss in another case":        {map[string]any{"iss": "https://ISSUER.example.com"}, []string{"https://issuer.example.com"}, forVault, "iss claim is not a bound issuer"},
		"no iss where one is bound":     {map[string]any{"iss": nil}, []string{"https://issuer.example.com"}, forVault, "iss claim is not a bound issuer"},
		"no iss where none is bound":    {map[string]any{"iss": nil}, nil, forVault, ""},
		"an iss that is a number":       {map[string]any{"iss": 1}, nil, forVault, "iss claim is not a string"},
		"an iss that is a list":         {map[string]any{"iss": []string{"https://issuer.example.com"}}, []string{"https://issuer.example.com"}, forVault, "iss claim is not a string"},
		"a sub that is an object":       {map[string]any{"sub": map[string]any{}}, nil, forVault, "sub claim is not a string"},
		"a jti that is a number":        {map[string]any{"jti": 1}, nil, forVault, "jti claim is not a string"},
		"no sub":                        {map[string]any{"sub": nil}, nil, forVault, ""},

		"an aud that is a string":             {map[string]any{"aud": "vault"}, nil, forVault, ""},
		"an aud that is a list":               {map[string]any{"aud": []string{"other", "vault"}}, nil, forVault, ""},
		"an aud that is one of several":       {nil, nil, Expected{Audiences: []string{"other", "vault"}}, ""},
		"an aud that is not bound":            {map[string]any{"aud": "other"}, nil, forVault, "aud claim has none of the role's bound audiences"},
		"an aud in another case":              {map[string]any{"aud": "Vault"}, nil, forVault, "aud claim has none of the role's bound audiences"},
		"an aud that begins with a bound one": {map[string]any{"aud": "vault2"}, nil, forVault, "aud claim has none of the role's bound audiences"},
		"an empty list as aud":                {map[string]any{"aud": []string{}}, nil, forVault, "aud claim has none of the role's bound audiences"},
		"no aud where one is bound":           {map[string]any{"aud": nil}, nil, forVault, "aud claim has none of the role's bound audiences"},
		"an aud where none is bound":          {nil, nil, Expected{}, "aud claim is set, but the role has no bound_audiences"},
		"a list as aud where none is bound":   {map[string]any{"aud": []string{""}}, nil, Expected{}, "aud claim is set, but the role has no bound_audiences"},
		"no aud where none is bound":          {map[string]any{"aud": nil}, nil, Expected{}, ""},
		"an empty aud where none is bound":    {map[string]any{"aud": ""}, nil, Expected{}, ""},
		"an empty list where none is bound":   {map[string]any{"aud": []string{}}, nil, Expected{}, ""},
		"an aud that is a number":             {map[string]any{"aud": 1}, nil, forVault, "aud claim is neither a string nor a list of strings"},
		"an aud that is an object":            {map[string]any{"aud": map[string]any{"vault": true}}, nil, forVault, "aud claim is neither a string nor a list of strings"},
		"an aud with a number in it":          {map[string]any{"aud": []any{"vault", 1}}, nil, forVault, "aud claim has an element that is not a string"},

		"an exp within the clock skew":          {map[string]any{"exp": at(-60)}, nil, forVault, ""},
		"an exp beyond the clock skew":          {map[string]any{"exp": at(-61)}, nil, forVault, "token is expired: exp claim is 2023-12-31T23:58:59Z"},
		"an exp now without leeway":             {map[string]any{"exp": at(0)}, nil, none, ""},
		"an exp a second ago without leeway":    {map[string]any{"exp": at(-1)}, nil, none, "token is expired: exp claim is 2023-12-31T23:59:59Z"},
		"an exp within a clock skew of its own": {map[string]any{"exp": at(-120)}, nil, Expected{Audiences: []string{"vault"}, ClockSkewLeeway: 2 * time.Minute}, ""},
		"an exp with a fraction":                {map[string]any{"exp": float64(at(10)) + 0.5}, nil, none, ""},
		"an exp with an exponent":               {map[string]any{"exp": json.Number("1.7040673e9")}, nil, none, ""},
		"an exp that is a string":               {map[string]any{"exp": "1704067500"}, nil, forVault, "exp claim is not a number"},
		"an exp that is true":                   {map[string]any{"exp": true}, nil, forVault, "exp claim is not a number"},
		"an exp in the far future":              {map[string]any{"exp": json.Number("99999999999")}, nil, forVault, ""},
		"an exp that overflows":                 {map[string]any{"exp": json.Number("9223372036854775807")}, nil, forVault, "exp claim is not a time"},
		"an exp that overflows as float":        {map[string]any{"exp": json.Number("1e300")}, nil, forVault, "exp claim is not a time"},
		"an exp beyond all floats":              {map[string]any{"exp": json.Number("1e999")}, nil, forVault, "exp claim is not a time"},
		"an exp before 1970":                    {map[string]any{"exp": -5}, nil, forVault, "token is expired: exp claim is 1969-12-31T23:59:55Z"},

		"no exp, iat just now":             {map[string]any{"exp": nil}, nil, forVault, ""},
		"no exp, iat within the leeways":   {map[string]any{"exp": nil, "nbf": nil, "iat": at(-210)}, nil, forVault, ""},
		"no exp, iat beyond the leeways":   {map[string]any{"exp": nil, "nbf": nil, "iat": at(-211)}, nil, forVault, "token is expired: exp claim is 2023-12-31T23:58:59Z"},
		"no exp, a later nbf counts":       {map[string]any{"exp": nil, "nbf": at(-210), "iat": at(-500)}, nil, forVault, ""},
		"no exp and no leeway for it":      {map[string]any{"exp": nil, "nbf": nil, "iat": at(-1)}, nil, none, "token is expired: exp claim is 2023-12-31T23:59:59Z"},
		"an exp of zero is none":           {map[string]any{"exp": 0}, nil, forVault, ""},
		"an exp of null is none":           {map[string]any{"exp": json.RawMessage("null")}, nil, forVault, ""},
		"an exp alone":                     {map[string]any{"nbf": nil, "iat": nil, "exp": at(210)}, nil, forVault, ""},
		"an exp alone, too far ahead":      {map[string]any{"nbf": nil, "iat": nil, "exp": at(211)}, nil, forVault, "token is not yet valid: nbf claim is 2024-01-01T00:01:01Z"},
		"none of exp, nbf and iat":         {map[string]any{"exp": nil, "nbf": nil, "iat": nil}, nil, forVault, "token has none of the claims exp, nbf and iat"},
		"all of exp, nbf and iat are zero": {map[string]any{"exp": 0, "nbf": 0, "iat": 0}, nil, forVault, "token has none of the claims exp, nbf and iat"},

		"an nbf within the clock skew": {map[string]any{"nbf": at(60)}, nil, forVault, ""},
		"an nbf beyond the clock skew": {map[string]any{"nbf": at(61)}, nil, forVault, "token is not yet valid: nbf claim is 2024-01-01T00:01:01Z"},
		"an nbf ahead without leeway":  {map[string]any{"nbf": at(1)}, nil, none, "token is not yet valid: nbf claim is 2024-01-01T00:00:01Z"},
		"an nbf that is a string":      {map[string]any{"nbf": "1"}, nil, forVault, "nbf claim is not a number"},
		"no nbf, iat counts":           {map[string]any{"nbf": nil, "iat": at(61)}, nil, forVault, "token is not yet valid: nbf claim is 2024-01-01T00:01:01Z"},
		"an iat in the future":         {map[string]any{"iat": at(61)}, nil, forVault, "token is issued in the future: iat claim is 2024-01-01T00:01:01Z"},
		"an iat within the clock skew": {map[string]any{"iat": at(60)}, nil, forVault, ""},
		"an iat that is an object":     {map[string]any{"iat": map[string]any{}}, nil, forVault, "iat claim is not a number"},
		"an iat long ago":              {map[string]any{"iat": 1}, nil, forVault, ""},

		"auth_time within max_age":                  {map[string]any{"auth_time": at(-60)}, nil, maxAge, ""},
		"auth_time beyond max_age":                  {map[string]any{"auth_time": at(-61)}, nil, maxAge, "auth_time claim is 2023-12-31T23:58:59Z, longer ago than max_age"},
		"auth_time before iat counts":               {map[string]any{"auth_time": at(-3600), "iat": at(0)}, nil, maxAge, "auth_time claim is 2023-12-31T23:00:00Z, longer ago than max_age"},
		"auth_time that is a string":                {map[string]any{"auth_time": "1704067200"}, nil, maxAge, "auth_time claim is not a number"},
		"auth_time of zero is none":                 {map[string]any{"auth_time": 0, "iat": at(-60)}, nil, maxAge, ""},
		"auth_time of zero, and an iat beyond":      {map[string]any{"auth_time": 0, "iat": at(-61)}, nil, maxAge, "iat claim is 2023-12-31T23:58:59Z, longer ago than max_age"},
		"auth_time of a fraction is none":           {map[string]any{"auth_time": 0.5, "iat": at(-61)}, nil, maxAge, "iat claim is 2023-12-31T23:58:59Z, longer ago than max_age"},
		"auth_time of null is none":                 {map[string]any{"auth_time": json.RawMessage("null"), "iat": at(-60)}, nil, maxAge, ""},
		"auth_time of zero and no iat":              {map[string]any{"auth_time": 0, "iat": nil}, nil, maxAge, "token has neither an auth_time nor an iat claim to hold against max_age"},
		"auth_time and iat of zero":                 {map[string]any{"auth_time": 0, "iat": 0}, nil, maxAge, "token has neither an auth_time nor an iat claim to hold against max_age"},
		"auth_time before 1970":                     {map[string]any{"auth_time": -5}, nil, maxAge, "auth_time claim is 1969-12-31T23:59:55Z, longer ago than max_age"},
		"auth_time of false":                        {map[string]any{"auth_time": false}, nil, maxAge, "auth_time claim is not a number"},
		"iat within max_age":                        {map[string]any{"iat": at(-60)}, nil, maxAge, ""},
		"iat beyond max_age":                        {map[string]any{"iat": at(-61)}, nil, maxAge, "iat claim is 2023-12-31T23:58:59Z, longer ago than max_age"},
		"iat beyond max_age, within the clock skew": {map[string]any{"iat": at(-120)}, nil, Expected{Audiences: []string{"vault"}, MaxAge: time.Minute}, ""},
		"neither auth_time nor iat":                 {map[string]any{"iat": nil}, nil, maxAge, "token has neither an auth_time nor an iat claim to hold against max_age"},
		"any age without max_age":                   {map[string]any{"auth_time": 1, "iat": 1}, nil, forVault, ""},
	}
	signer := newSigner("ed")
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			j := newJWT(t, JWTConfig{ValidationPubKeys: []string{signer.pem()}, BoundIssuers: c.bound})
			identity, err := j.Verify(context.Background(), signer.mint(payload(c.claims)), now, c.want)
			if c.fault == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, c.fault)
			require.Nil(t, identity)
		})
	}
}

// The tokens of known platforms log in with what their documentation says to
// bind.
func TestVerifyAcceptsTheTokensOfPlatforms(t *testing.T) {
	signer := rs256()
	for name, c := range map[string]struct{ payload, issuer, sub string }{
		"GitHub Actions": {githubPayload, "https://token.actions.githubusercontent.com", "repo:octo-org/octo-repo:environment:prod"},
		"GitLab CI":      {gitlabPayload, "https://gitlab.example.com", "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1"},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJWT(t, JWTConfig{ValidationPubKeys: []string{signer.pem()}, BoundIssuers: []string{c.issuer}})
			identity, err := j.Verify(context.Background(), signer.mint(c.payload), now, forVault)
			require.NoError(t, err)
			require.Equal(t, c.sub, identity.Profile().Claims["sub"])
		})
	}
}

// FuzzVerifyAgainstTheJWTMethod holds every rule against the validator that
// Vault's JWT method uses, and its own rule for a missing bound audience. Only
// where this package is meant to be stricter may it refuse what they accept.
func FuzzVerifyAgainstTheJWTMethod(f *testing.F) {
	signer := newSigner("ed")
	j, err := NewJWT(JWTConfig{ValidationPubKeys: []string{signer.pem()}, BoundIssuers: []string{"iss"}})
	require.NoError(f, err)
	keys, err := capjwt.NewStaticKeySet([]crypto.PublicKey{signer.private.Public()})
	require.NoError(f, err)
	validator, err := capjwt.NewValidator(keys)
	require.NoError(f, err)

	for _, text := range []string{
		`{"iss":"iss","aud":"vault","exp":1704067500}`,
		`{"iss":"iss","aud":["vault","x"],"iat":1704067000}`,
		`{"iss":"iss","nbf":1704067261,"iat":1704067259.9,"exp":null}`,
		`{"iss":"iss","aud":"","nbf":-1,"exp":0,"iat":1.704067e9}`,
		`{"iss":1,"aud":[1]}`, `{"Iss":"iss","exp":1}`, `{"iss":"iss","exp":1704067200,"exp":1}`,
		`{"iss":"iss","exp":4611686018427387904}`, `{"iss":"iss","exp":4611686018427387903,"nbf":1}`, `{"iss":"iss","aud":null,"exp":1704067201}`,
	} {
		for _, leeway := range []int16{0, -1, 30} {
			f.Add(text, true, leeway, -leeway, leeway)
			f.Add(text, false, leeway, leeway, leeway)
		}
	}
	f.Fuzz(func(t *testing.T, text string, bound bool, expiration, notBefore, skew int16) {
		want := Expected{
			ExpirationLeeway: time.Duration(expiration) * time.Second,
			NotBeforeLeeway:  time.Duration(notBefore) * time.Second,
			ClockSkewLeeway:  time.Duration(skew) * time.Second,
		}
		if bound {
			want.Audiences = []string{"vault"}
		}
		token := signer.mint(text)
		identity, err := j.Verify(context.Background(), token, now, want)
		claims, capErr := validator.Validate(context.Background(), token, capjwt.Expected{
			Issuer: "iss", Audiences: want.Audiences, SigningAlgorithms: []capjwt.Alg{capjwt.EdDSA},
			NotBeforeLeeway: want.NotBeforeLeeway, ExpirationLeeway: want.ExpirationLeeway, ClockSkewLeeway: want.ClockSkewLeeway,
			Now: func() time.Time { return now },
		})
		accepted := capErr == nil && (bound || !hasAudience(claims["aud"]))

		switch {
		case err == nil && !accepted:
			// The JWT method reads all numbers as floats, and fails where it cannot.
			require.ErrorContains(t, capErr, "cannot unmarshal number")
		case err != nil && accepted:
			require.Regexp(t, "surrogate|UTF-8|nested more than|longer than|claim is not a time", err.Error())
		case err == nil:
			require.Equal(t, claims["sub"], identity.Profile().Claims["sub"])
		}
	})
}

// hasAudience is the JWT method's test for an audience that no role binds.
func hasAudience(aud any) bool {
	switch aud := aud.(type) {
	case []any:
		return len(aud) > 0
	case string:
		return aud != ""
	}
	return false
}

func TestNumericDateIsExact(t *testing.T) {
	for text, want := range map[string]int64{
		"1704067200": 1_704_067_200, "1.5": 1, "-1.5": -1, "1e3": 1000, "9007199254740992": 1 << 53,
	} {
		got, err := numericDate(map[string]any{"exp": json.Number(text)}, "exp")
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"9007199254740993", "-9007199254740993", "9223372036854775808", "1e16", strings.Repeat("9", 400)} {
		_, err := numericDate(map[string]any{"exp": json.Number(text)}, "exp")
		require.EqualError(t, err, "exp claim is not a time", text)
	}
}

// given is a capjwt.KeySet that vouches for any claims.
type given map[string]any

func (g given) VerifySignature(context.Context, string) (map[string]any, error) { return g, nil }

// Every combination of time claims and leeways around their bounds is judged as
// the JWT method judges it.
func TestTimesAreJudgedAsTheJWTMethodJudgesThem(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	offsets := []int64{-360, -301, -211, -210, -209, -151, -150, -149, -91, -90, -61, -60, -59, -31, -30, -1, 0}
	date := func() any {
		offset := offsets[random.IntN(len(offsets))]
		if random.IntN(2) == 0 {
			offset = -offset
		}
		switch random.IntN(8) {
		case 0, 1:
			return nil
		case 2:
			return json.Number("0")
		case 3:
			return json.Number(fmt.Sprintf("%d.75", now.Unix()+offset))
		}
		return json.Number(strconv.FormatInt(now.Unix()+offset, 10))
	}
	leeway := func() time.Duration {
		return []time.Duration{-1 * time.Second, 0, 30 * time.Second, 90 * time.Second}[random.IntN(4)]
	}
	token := eddsa().mint(payload(nil))
	accepted := 0
	for range 5000 {
		claims := map[string]any{"exp": date(), "nbf": date(), "iat": date()}
		want := Expected{ExpirationLeeway: leeway(), NotBeforeLeeway: leeway(), ClockSkewLeeway: leeway()}
		validator, err := capjwt.NewValidator(given(claims))
		require.NoError(t, err)
		expected := capjwt.Expected{
			SigningAlgorithms: []capjwt.Alg{capjwt.EdDSA}, Now: func() time.Time { return now },
			ExpirationLeeway: want.ExpirationLeeway, NotBeforeLeeway: want.NotBeforeLeeway, ClockSkewLeeway: want.ClockSkewLeeway,
		}
		_, capErr := validator.Validate(context.Background(), token, expected)
		err = checkTimes(claims, now, want, false)
		require.Equal(t, capErr == nil, err == nil, "%v with %+v: %v, but the JWT method says %v", claims, want, err, capErr)
		_, capErr = validator.ValidateAllowMissingIatNbfExp(context.Background(), token, expected)
		require.Equal(t, capErr == nil, checkTimes(claims, now, want, true) == nil, "%v with %+v in a Secret", claims, want)
		if err == nil {
			accepted++
		}
	}
	require.Greater(t, accepted, 500)
	require.Less(t, accepted, 4500)
}
