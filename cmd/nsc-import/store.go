package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// A tree is one operator of an nsc store:
//
//	<stores>/<operator>/.nsc
//	<stores>/<operator>/<operator>.jwt
//	<stores>/<operator>/accounts/<account>/<account>.jwt
//	<stores>/<operator>/accounts/<account>/users/<user>.jwt
//
// Names are what a directory can be called, but that those of files have no space
// around them.
type tree struct {
	name     string // of the operator
	token    string
	claims   *jwt.OperatorClaims
	accounts []*nscAccount // sorted by name
	empty    []string      // directories among the accounts' without a JWT
}

type nscAccount struct {
	name   string
	token  string
	claims *jwt.AccountClaims
	users  []*nscUser // sorted by name
}

type nscUser struct {
	name   string
	token  string
	claims *jwt.UserClaims
}

// readTree reads the named operator. If none is named it is the only one there is,
// or else the one that nsc works on.
func readTree(stores, operator, selected string) (*tree, error) {
	operator, err := choose(stores, operator, selected)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(stores, operator)
	t := &tree{name: operator}
	if info := readInfo(dir); info.Name != "" {
		t.name = info.Name
	}
	if t.token, t.claims, err = readJWT(jwtFile(dir, t.name), jwt.DecodeOperatorClaims); err != nil {
		return nil, err
	}
	names, err := directories(filepath.Join(dir, "accounts"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		of := filepath.Join(dir, "accounts", name)
		if !exists(jwtFile(of, name)) {
			t.empty = append(t.empty, name)
			continue
		}
		account, err := readAccount(of, name)
		if err != nil {
			return nil, err
		}
		t.accounts = append(t.accounts, account)
	}
	return t, nil
}

func choose(stores, operator, selected string) (string, error) {
	operators, err := operatorsIn(stores)
	switch {
	case err != nil:
		return "", err
	case len(operators) == 0:
		return "", fmt.Errorf("%s holds no operator", stores)
	case operator != "" && !slices.Contains(operators, operator):
		return "", fmt.Errorf("%s does not hold the operator %s, but %s", stores, operator, strings.Join(operators, ", "))
	case operator != "":
		return operator, nil
	case len(operators) == 1:
		return operators[0], nil
	case slices.Contains(operators, selected):
		return selected, nil
	default:
		return "", fmt.Errorf("%s holds several operators, choose one with -operator: %s", stores, strings.Join(operators, ", "))
	}
}

// operatorsIn are those of the directories that are an operator's. With nsc's -H
// there are those of the keystore too.
func operatorsIn(stores string) (operators []string, err error) {
	names, err := directories(stores)
	for _, name := range names {
		if dir := filepath.Join(stores, name); isOperator(dir) || exists(jwtFile(dir, name)) {
			operators = append(operators, name)
		}
	}
	return operators, err
}

// jwtFile is where nsc keeps the JWT of what has that name.
func jwtFile(dir, name string) string {
	return filepath.Join(dir, strings.TrimSpace(name)+".jwt")
}

func readAccount(dir, name string) (*nscAccount, error) {
	a := &nscAccount{name: name}
	var err error
	if a.token, a.claims, err = readJWT(jwtFile(dir, name), jwt.DecodeAccountClaims); err != nil {
		return nil, err
	}
	users := filepath.Join(dir, "users")
	files, err := entries(users)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		name, found := strings.CutSuffix(file.Name(), ".jwt")
		if !found || file.IsDir() {
			continue
		}
		u := &nscUser{name: name}
		if u.token, u.claims, err = readJWT(filepath.Join(users, file.Name()), jwt.DecodeUserClaims); err != nil {
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

// entries are what is in dir, sorted; nothing if dir is not there.
func entries(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// directories are the names of the directories in dir, sorted.
func directories(dir string) (names []string, err error) {
	found, err := entries(dir)
	for _, entry := range found {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, err
}
