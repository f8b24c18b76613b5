package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A desk is a home directory, with nothing of nsc's in the environment.
func newDesk(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	for _, variable := range []string{"NSC_HOME", "NKEYS_PATH", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "NSC_CWD_ONLY"} {
		t.Setenv(variable, "")
		require.NoError(t, os.Unsetenv(variable))
	}
	t.Chdir(dir)
	return dir
}

func makeFile(t *testing.T, text string, path ...string) {
	file := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

// makeOperator makes what nsc makes first of an operator.
func makeOperator(t *testing.T, name string, dir ...string) {
	makeFile(t, `{"managed":false,"name":"`+name+`","kind":"operator","version":"1"}`, append(dir, name, ".nsc")...)
}

func located(t *testing.T, args ...string) places {
	o, err := parse(args, os.Stderr)
	require.NoError(t, err)
	p, err := o.locate()
	require.NoError(t, err)
	return p
}

func TestThingsAreFoundWhereNscPutsThem(t *testing.T) {
	usual := newDesk(t)
	data := filepath.Join(usual, ".local", "share", "nats", "nsc")
	require.Equal(t, places{stores: filepath.Join(data, "stores"), keystore: filepath.Join(data, "keys")}, located(t))

	t.Setenv("XDG_DATA_HOME", "/data")
	require.Equal(t, places{stores: "/data/nats/nsc/stores", keystore: "/data/nats/nsc/keys"}, located(t))
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(usual, "conf"))
	makeFile(t, `{"store_root":"/elsewhere/stores","operator":"ACME","account":"orders","github_updates":"nats-io/nsc"}`, usual, "conf", "nats", "nsc", "nsc.json")
	require.Equal(t, places{stores: "/elsewhere/stores", keystore: "/data/nats/nsc/keys", operator: "ACME"}, located(t))
	t.Setenv("NSC_HOME", "~/own")
	makeFile(t, `{"store_root":"/own/stores","operator":"OWN"}`, usual, "own", "nsc.json")
	t.Setenv("NKEYS_PATH", "~/own/keys")
	require.Equal(t, places{stores: "/own/stores", keystore: filepath.Join(usual, "own", "keys"), operator: "OWN"}, located(t))
	t.Setenv("NSC_CWD_ONLY", "")
	require.Equal(t, places{stores: "/data/nats/nsc/stores", keystore: filepath.Join(usual, "own", "keys")}, located(t))
}

func TestThingsAreFoundWhereNscOfOldPutThem(t *testing.T) {
	home := newDesk(t)
	makeFile(t, `{"store_root":"/old/stores","operator":"OLD"}`, home, ".nsc", "nsc.json")
	makeFile(t, "", home, ".nkeys", "keys", "x")
	require.Equal(t, places{stores: "/old/stores", keystore: filepath.Join(home, ".nkeys"), operator: "OLD"}, located(t))

	makeFile(t, "{}", home, ".nsc", "nsc.json")
	makeOperator(t, "OLD", home, ".nsc", "nats")
	require.Equal(t, filepath.Join(home, ".nsc", "nats"), located(t).stores)

	makeFile(t, `{"store_root":"/new/stores","operator":"NEW"}`, home, ".config", "nats", "nsc", "nsc.json")
	makeFile(t, "", home, ".local", "share", "nats", "nsc", "keys", "x")
	require.Equal(t, places{stores: "/new/stores", keystore: filepath.Join(home, ".local/share/nats/nsc/keys"), operator: "NEW"}, located(t))
}

func TestFlagsComeBeforeTheEnvironment(t *testing.T) {
	home := newDesk(t)
	t.Setenv("NSC_HOME", "/nowhere")
	t.Setenv("NKEYS_PATH", "/nowhere")
	makeFile(t, `{"store_root":"/elsewhere","operator":"ACME"}`, home, "all", "nsc.json")
	all := filepath.Join(home, "all")
	require.Equal(t, places{stores: all, keystore: all, operator: "ACME"}, located(t, "-H", "~/all"))
	require.Equal(t, places{stores: "/s", keystore: filepath.Join(home, "k"), operator: "ACME"}, located(t, "-H", "all", "-stores", "/s", "-keystore", "k"))
	require.Equal(t, places{stores: "/elsewhere", keystore: "/nowhere", operator: "ACME"}, located(t, "-config", all))

	for fault, args := range map[string][]string{
		"another user":        {"-stores", "~bob/stores"},
		"nsc.json":            {"-config", "broken"},
		"unexpected end of":   {"-H", "broken"},
		"~eve/keys: the home": {"-keystore", "~eve/keys"},
	} {
		makeFile(t, `{"store_root":`, home, "broken", "nsc.json")
		o, err := parse(args, os.Stderr)
		require.NoError(t, err)
		_, err = o.locate()
		require.ErrorContains(t, err, fault)
	}
}

func TestTheWorkingDirectoryComesBeforeWhatNscRemembers(t *testing.T) {
	home := newDesk(t)
	makeFile(t, `{"store_root":"/elsewhere","operator":"ACME"}`, home, ".config", "nats", "nsc", "nsc.json")
	makeOperator(t, "HERE", home, "stores")
	makeOperator(t, "THERE", home, "stores")
	makeFile(t, "", home, "stores", "HERE", "accounts", "orders", "users", "x")
	stores := filepath.Join(home, "stores")
	for dir, want := range map[string]places{
		".":                                  {stores: "/elsewhere", operator: "ACME"},
		"stores":                             {stores: stores, operator: "ACME"},
		"stores/HERE":                        {stores: stores, operator: "HERE"},
		"stores/HERE/accounts/orders/users/": {stores: stores, operator: "HERE"},
	} {
		t.Chdir(filepath.Join(home, dir))
		got := located(t)
		got.keystore = ""
		require.Equal(t, want, got, dir)
	}
}

func TestTheOperatorIsTheNamedOneOrTheOnlyOneOrTheOneThatNscWorksOn(t *testing.T) {
	dir := newDesk(t)
	makeFile(t, "", dir, "keys", "O", "x") // as with -H
	makeFile(t, "", dir, "creds", "ACME", "x")
	_, err := choose(dir, "", "ACME")
	require.ErrorContains(t, err, "holds no operator")

	makeOperator(t, "ACME", dir)
	for _, test := range []struct{ named, selected, want, fault string }{
		{"", "", "ACME", ""},
		{"", "OTHER", "ACME", ""},
		{"ACME", "", "ACME", ""},
		{"OTHER", "", "", "does not hold the operator OTHER, but ACME"},
	} {
		got, err := choose(dir, test.named, test.selected)
		require.Equal(t, test.want, got)
		if test.fault != "" {
			require.ErrorContains(t, err, test.fault)
		}
	}
	makeOperator(t, ".OTHER", dir)
	for _, test := range []struct{ named, selected, want, fault string }{
		{"", "", "", "several operators, choose one with -operator: .OTHER, ACME"},
		{"", "gone", "", "several operators"},
		{"", ".OTHER", ".OTHER", ""},
		{"ACME", ".OTHER", "ACME", ""},
	} {
		got, err := choose(dir, test.named, test.selected)
		require.Equal(t, test.want, got)
		if test.fault != "" {
			require.ErrorContains(t, err, test.fault)
		}
	}
}
