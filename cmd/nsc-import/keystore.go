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

// A keystore is a directory of nsc's keys:
//
//	<keystore>/keys/<O|A|U|X>/<second and third letter>/<public key>.nk
//	<keystore>/creds/<operator>/<account>/<user>.creds
type keystore string

// seed returns the seed of a key, empty if the keystore does not have it.
func (k keystore) seed(publicKey string) (string, error) {
	return k.read(k.file(publicKey), publicKey, func(data []byte) (string, error) { return strings.TrimSpace(string(data)), nil })
}

func (k keystore) file(publicKey string) string {
	return filepath.Join(string(k), "keys", publicKey[:1], publicKey[1:3], publicKey+".nk")
}

// has reports whether there is a seed of the key, without reading it.
func (k keystore) has(publicKey string) bool { return exists(k.file(publicKey)) }

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
