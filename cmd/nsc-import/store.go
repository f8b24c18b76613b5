package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// A tree is one operator of an nsc store:
//
//	<stores>/<operator>/<operator>.jwt
//	<stores>/<operator>/accounts/<account>/<account>.jwt
//	<stores>/<operator>/accounts/<account>/users/<user>.jwt
type tree struct {
	name     string // of the operator's directory
	token    string
	claims   *jwt.OperatorClaims
	accounts []*nscAccount // sorted by name
}

type nscAccount struct {
	name   string
	token  string
	claims *jwt.AccountClaims
	users  []*nscUser // sorted by name
}

type nscUser struct {
	name   string
	claims *jwt.UserClaims
}

// readTree reads the named operator, or the only one there is.
func readTree(stores, operator string) (*tree, error) {
	if operator == "" {
		operators, err := directories(stores)
		if err != nil {
			return nil, err
		}
		switch len(operators) {
		case 0:
			return nil, fmt.Errorf("%s holds no operator", stores)
		case 1:
			operator = operators[0]
		default:
			return nil, fmt.Errorf("%s holds several operators, choose one with -operator: %s", stores, strings.Join(operators, ", "))
		}
	}
	dir := filepath.Join(stores, operator)
	t := &tree{name: operator}
	var err error
	if t.token, t.claims, err = readJWT(filepath.Join(dir, operator+".jwt"), jwt.DecodeOperatorClaims); err != nil {
		return nil, err
	}
	names, err := directories(filepath.Join(dir, "accounts"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		account, err := readAccount(filepath.Join(dir, "accounts", name), name)
		if err != nil {
			return nil, err
		}
		t.accounts = append(t.accounts, account)
	}
	return t, nil
}

func readAccount(dir, name string) (*nscAccount, error) {
	a := &nscAccount{name: name}
	var err error
	if a.token, a.claims, err = readJWT(filepath.Join(dir, name+".jwt"), jwt.DecodeAccountClaims); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "users", "*.jwt"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		u := &nscUser{name: strings.TrimSuffix(filepath.Base(file), ".jwt")}
		if _, u.claims, err = readJWT(file, jwt.DecodeUserClaims); err != nil {
			return nil, err
		}
		a.users = append(a.users, u)
	}
	return a, nil
}

// readJWT reads and checks a file with a JWT, which nsc may have decorated.
func readJWT[T any](file string, decode func(string) (T, error)) (token string, claims T, err error) {
	data, err := os.ReadFile(file) //nolint:gosec // reading the files of a directory that the caller names is the purpose
	if err != nil {
		return "", claims, err
	}
	token, err = jwt.ParseDecoratedJWT(data)
	if err != nil {
		return "", claims, fmt.Errorf("%s: %w", file, err)
	}
	token = strings.TrimSpace(token)
	if claims, err = decode(token); err != nil {
		return "", claims, fmt.Errorf("%s: %w", file, err)
	}
	return token, claims, nil
}

// directories are the names of the directories in dir, sorted; none if dir is
// not there.
func directories(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// A keystore is a directory of nsc's keys:
//
//	<keystore>/keys/<O|A|U>/<second and third letter>/<public key>.nk
//	<keystore>/creds/<operator>/<account>/<user>.creds
type keystore string

// seed returns the seed of a key, empty if the keystore does not have it.
func (k keystore) seed(publicKey string) (string, error) {
	file := filepath.Join(string(k), "keys", publicKey[:1], publicKey[1:3], publicKey+".nk")
	return k.read(file, publicKey, func(data []byte) (string, error) { return strings.TrimSpace(string(data)), nil })
}

// userSeed looks for a user's seed, in the creds file too.
func (k keystore) userSeed(operator, account, user, publicKey string) (string, error) {
	seed, err := k.seed(publicKey)
	if seed != "" || err != nil {
		return seed, err
	}
	file := filepath.Join(string(k), "creds", operator, account, user+".creds")
	return k.read(file, publicKey, func(data []byte) (string, error) {
		pair, err := jwt.ParseDecoratedUserNKey(data)
		if err != nil {
			return "", err
		}
		seed, err := pair.Seed()
		return string(seed), err
	})
}

// read makes sure that a file's seed is that of the key. Its errors do not quote
// the file.
func (k keystore) read(file, publicKey string, parse func([]byte) (string, error)) (string, error) {
	data, err := os.ReadFile(file) //nolint:gosec // reading the files of a directory that the caller names is the purpose
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	seed, err := parse(data)
	if err != nil {
		return "", fmt.Errorf("%s holds no seed", file)
	}
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return "", fmt.Errorf("%s holds no seed", file)
	}
	defer pair.Wipe()
	if public, err := pair.PublicKey(); err != nil || public != publicKey {
		return "", fmt.Errorf("%s holds the seed of another key", file)
	}
	return seed, nil
}
