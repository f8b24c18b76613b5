package trust

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// canonical brings the keys and tokens in an account's claims into the form in
// which nats-servers compare them. The claims are changed only where a key has
// white space around it.
func canonical(a *jwt.Account) error {
	for i, imported := range a.Imports {
		if imported == nil || imported.Account == "" {
			continue // which ValidateAccount says
		}
		if err := canonicalKey(Account, &imported.Account); err != nil {
			return fmt.Errorf("imports[%d].account %w", i, err)
		}
		imported.Token = strings.TrimSpace(imported.Token)
		if err := checkActivationKeys(imported.Token); err != nil {
			return fmt.Errorf("imports[%d].token %w", i, err)
		}
	}
	for i, export := range a.Exports {
		if export == nil {
			continue
		}
		if err := canonicalRevocations(Account, &export.Revocations); err != nil {
			return fmt.Errorf("exports[%d].revocations %w", i, err)
		}
	}
	if err := canonicalRevocations(User, &a.Revocations); err != nil {
		return fmt.Errorf("revocations %w", err)
	}
	if err := canonicalSigningKeys(&a.SigningKeys); err != nil {
		return fmt.Errorf("signing_keys %w", err)
	}
	if err := canonicalAuthorization(&a.Authorization); err != nil {
		return fmt.Errorf("authorization.%w", err)
	}
	return nil
}

func canonicalKey(kind Kind, key *string) error {
	public, err := ParsePublicKey(kind, *key)
	if err == nil {
		*key = public
	}
	return err
}

// canonicalRevocations: "*" stands for every key.
func canonicalRevocations(kind Kind, list *jwt.RevocationList) error {
	if *list == nil {
		return nil
	}
	parsed := make(jwt.RevocationList, len(*list))
	for key, at := range *list {
		if key != jwt.All {
			if err := canonicalKey(kind, &key); err != nil {
				return fmt.Errorf("has a key that %w", err)
			}
		}
		if former, twice := parsed[key]; !twice || former < at {
			parsed[key] = at
		}
	}
	*list = parsed
	return nil
}

func canonicalSigningKeys(keys *jwt.SigningKeys) error {
	if *keys == nil {
		return nil
	}
	parsed := make(jwt.SigningKeys, len(*keys))
	for key, scope := range *keys {
		if err := canonicalKey(Account, &key); err != nil {
			return fmt.Errorf("has a key that %w", err)
		}
		if _, twice := parsed[key]; twice {
			return fmt.Errorf("has the key %s twice", key)
		}
		if scoped, ok := scope.(*jwt.UserScope); ok && scoped != nil {
			scoped.Key = key
		}
		parsed[key] = scope
	}
	*keys = parsed
	return nil
}

func canonicalAuthorization(a *jwt.ExternalAuthorization) error {
	for i := range a.AuthUsers {
		if err := canonicalKey(User, &a.AuthUsers[i]); err != nil {
			return fmt.Errorf("auth_users[%d] %w", i, err)
		}
	}
	for i := range a.AllowedAccounts {
		if a.AllowedAccounts[i] == jwt.AnyAccount {
			continue
		}
		if err := canonicalKey(Account, &a.AllowedAccounts[i]); err != nil {
			return fmt.Errorf("allowed_accounts[%d] %w", i, err)
		}
	}
	if a.XKey == "" {
		return nil
	}
	if err := canonicalKey(Curve, &a.XKey); err != nil {
		return fmt.Errorf("xkey %w", err)
	}
	return nil
}

// checkActivationKeys holds an activation token against what canonical asks of
// keys. What else there is to say about it says jwt/v2.
func checkActivationKeys(token string) error {
	if token == "" {
		return nil
	}
	if err := checkTokenText(token); err != nil {
		return err
	}
	activation, err := jwt.DecodeActivationClaims(token)
	if err != nil {
		return fmt.Errorf("is not an activation token: %w", err)
	}
	if err := CheckPublicKey(Account, activation.Issuer); err != nil {
		return fmt.Errorf("has an issuer that %w", err)
	}
	if err := CheckPublicKey(Account, activation.Subject); err != nil {
		return fmt.Errorf("has a subject that %w", err)
	}
	if activation.IssuerAccount == "" {
		return nil
	}
	if err := CheckPublicKey(Account, activation.IssuerAccount); err != nil {
		return fmt.Errorf("has an issuer_account that %w", err)
	}
	return nil
}

// checkTokenText refuses a JWT with anything in it but its three parts: what
// decodes base64 passes over line breaks.
func checkTokenText(token string) error {
	for _, r := range token {
		if (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.' {
			return errors.New("is not a JWT as NATS writes one: it has a character in it that no JWT has, such as a line break")
		}
	}
	return nil
}
