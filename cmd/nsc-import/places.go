package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Places are where nsc keeps what it has, found as nsc itself finds it: flags,
// then the environment, then the directory that one works in, then what nsc.json
// remembers, then the usual directories.
type places struct {
	stores   string // directory with one for each operator
	keystore string
	operator string // the one that nsc works on; empty if that is not known
}

// locate fills in what the flags leave open.
func (o options) locate() (places, error) {
	config, err := expand(o.config, o.all, os.Getenv("NSC_HOME"))
	if err != nil {
		return places{}, err
	}
	if config == "" {
		config = usualConfig()
	}
	remembered, err := readConfig(config)
	if err != nil {
		return places{}, err
	}
	if here := workingOn(); here.stores != "" {
		remembered.stores = here.stores
		if here.operator != "" {
			remembered.operator = here.operator
		}
	}
	p := places{operator: remembered.operator}
	if p.stores, err = expand(o.stores, o.all); err != nil {
		return places{}, err
	}
	if p.stores == "" {
		p.stores = remembered.stores
	}
	if p.stores == "" {
		p.stores = usualData("stores", ".nsc/nats")
	}
	if p.keystore, err = expand(o.keystore, o.all, os.Getenv("NKEYS_PATH")); err != nil {
		return places{}, err
	}
	if p.keystore == "" {
		p.keystore = usualData("keys", ".nkeys")
	}
	return p, nil
}

// expand makes the first path that is given absolute, and has ~ stand for the
// home directory, as nsc does in flags and variables.
func expand(paths ...string) (string, error) {
	for _, path := range paths {
		switch {
		case path == "":
			continue
		case path == "~" || strings.HasPrefix(path, "~/"):
			path = filepath.Join(homeDir(), path[1:])
		case strings.HasPrefix(path, "~"):
			return "", fmt.Errorf("%s: the home directory of another user cannot be named so", path)
		}
		return filepath.Abs(path)
	}
	return "", nil
}

func homeDir() string {
	dir, err := os.UserHomeDir()
	if err != nil {
		return "."
	}
	return dir
}

// usualConfig is the directory of nsc.json. The one of nsc before 2.6 is taken
// where only that is there.
func usualConfig() string {
	usual := filepath.Join(baseDir("XDG_CONFIG_HOME", ".config"), "nats", "nsc")
	old := filepath.Join(homeDir(), ".nsc")
	if !exists(filepath.Join(usual, "nsc.json")) && exists(filepath.Join(old, "nsc.json")) {
		return old
	}
	return usual
}

// usualData is the directory of the stores or keys, with the same regard to where
// they were once.
func usualData(kind, before string) string {
	usual := filepath.Join(baseDir("XDG_DATA_HOME", ".local/share"), "nats", "nsc", kind)
	old := filepath.Join(homeDir(), before)
	if !exists(usual) && exists(old) {
		return old
	}
	return usual
}

func baseDir(variable, usual string) string {
	if dir := os.Getenv(variable); dir != "" {
		return dir
	}
	return filepath.Join(homeDir(), usual)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readConfig reads what nsc remembers: what `nsc env` has set. With NSC_CWD_ONLY
// it remembers nothing.
func readConfig(dir string) (places, error) {
	if _, ok := os.LookupEnv("NSC_CWD_ONLY"); ok {
		return places{}, nil
	}
	file := filepath.Join(dir, "nsc.json")
	data, err := os.ReadFile(file) //nolint:gosec // reading the files of a directory that the caller names is the purpose
	if errors.Is(err, fs.ErrNotExist) {
		return places{}, nil
	}
	if err != nil {
		return places{}, err
	}
	var config struct {
		StoreRoot string `json:"store_root"`
		Operator  string `json:"operator"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return places{}, fmt.Errorf("%s: %w", file, err)
	}
	return places{stores: config.StoreRoot, operator: config.Operator}, nil
}

// workingOn finds the stores, and the operator if it is one, that the working
// directory lies in or holds.
func workingOn() places {
	dir, err := os.Getwd()
	if err != nil {
		return places{}
	}
	if isOperator(dir) {
		return places{stores: filepath.Dir(dir), operator: filepath.Base(dir)}
	}
	below, err := os.ReadDir(dir)
	if err != nil {
		return places{}
	}
	for _, entry := range below {
		if entry.IsDir() && isOperator(filepath.Join(dir, entry.Name())) {
			return places{stores: dir}
		}
	}
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		if isOperator(up) {
			return places{stores: filepath.Dir(up), operator: filepath.Base(up)}
		}
	}
	return places{}
}

// isOperator reports whether nsc has made the directory for an operator.
func isOperator(dir string) bool { return readInfo(dir).Kind == "operator" }

// An operatorInfo is what nsc writes into an operator's directory, as .nsc.
type operatorInfo struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
}

// readInfo returns the zero value where there is nothing of the kind: in a home
// directory, .nsc was once a directory.
func readInfo(dir string) (info operatorInfo) {
	data, err := os.ReadFile(filepath.Join(dir, ".nsc")) //nolint:gosec // reading the files of a directory that the caller names is the purpose
	if err != nil || json.Unmarshal(data, &info) != nil {
		return operatorInfo{}
	}
	return info
}
