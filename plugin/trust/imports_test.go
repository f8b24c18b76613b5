package trust

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// A natsServer is a real one, which is asked what it makes of accounts.
type natsServer struct {
	t        *testing.T
	running  *server.Server
	operator *Key
	resolver *server.MemAccResolver
}

func startNATS(t *testing.T) *natsServer {
	t.Helper()
	n := &natsServer{t: t, operator: mustGenerate(t, Operator), resolver: &server.MemAccResolver{}}
	system := mustGenerate(t, Account)
	token, err := EncodeOperator(n.operator, "acme", jwt.Operator{SystemAccount: system.Public()}, issued)
	require.NoError(t, err)
	claims, err := jwt.DecodeOperatorClaims(token)
	require.NoError(t, err)
	n.store(system.Public(), SystemAccount())
	n.running, err = server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		TrustedOperators: []*jwt.OperatorClaims{claims}, SystemAccount: system.Public(), AccountResolver: n.resolver})
	require.NoError(t, err)
	n.running.Start()
	t.Cleanup(func() { n.running.Shutdown(); n.running.WaitForShutdown() })
	require.True(t, n.running.ReadyForConnections(10*time.Second))
	return n
}

func (n *natsServer) store(publicKey string, a *jwt.Account) {
	n.t.Helper()
	token, err := EncodeAccount(n.operator, publicKey, "", *a, issued)
	require.NoError(n.t, err)
	require.NoError(n.t, n.resolver.Store(publicKey, token))
}

// takes says why the server does not take an account as a whole.
func (n *natsServer) takes(publicKey string) error {
	if _, err := n.running.LookupAccount(publicKey); err != nil {
		return err
	}
	shown, err := n.running.Accountz(&server.AccountzOptions{Account: publicKey})
	require.NoError(n.t, err)
	if !shown.Account.Complete {
		return errors.New("imports were left out")
	}
	return nil
}

// unchecked reads a config without the checks that it is for.
func unchecked(t *testing.T, config string) *jwt.Account {
	t.Helper()
	account := jwt.NewAccountClaims("-").Account
	require.NoError(t, decodeStrict([]byte(config), &account))
	return &account
}

// What an import may and may not be, with [E] for the exporter, [I] for the
// importer, [O] for a third account.
var importCases = map[string]struct{ exports, imported, fault string }{
	"a stream":                            {`{"subject":"a.>","type":"stream"}`, `{"subject":"a.b","type":"stream"}`, ""},
	"a stream with its own subject":       {`{"subject":"a.*","type":"stream"}`, `{"subject":"a.*","type":"stream"}`, ""},
	"a part of a stream":                  {`{"subject":"a.>","type":"stream"}`, `{"subject":"a.*.b","type":"stream"}`, ""},
	"a stream under a prefix":             {`{"subject":"a.*","type":"stream"}`, `{"subject":"a.*","type":"stream","to":"in"}`, ""},
	"a stream under a prefix with a dot":  {`{"subject":"a.*","type":"stream"}`, `{"subject":"a.*","type":"stream","to":"in."}`, ""},
	"a stream under another name":         {`{"subject":"a.*.*","type":"stream"}`, `{"subject":"a.*.*","type":"stream","local_subject":"in.$2.$1"}`, ""},
	"a stream with wildcards renamed":     {`{"subject":"a.*","type":"stream"}`, `{"subject":"a.*","type":"stream","local_subject":"in.*"}`, ""},
	"all of a stream, renamed":            {`{"subject":"a.>","type":"stream"}`, `{"subject":"a.>","type":"stream","local_subject":"in.>"}`, ""},
	"a service":                           {`{"subject":"s.*","type":"service"}`, `{"subject":"s.x","type":"service"}`, ""},
	"a service under another name":        {`{"subject":"s.*","type":"service"}`, `{"subject":"s.x","type":"service","local_subject":"mine"}`, ""},
	"a service renamed with a wildcard":   {`{"subject":"s.*","type":"service"}`, `{"subject":"s.*","type":"service","local_subject":"mine.*"}`, ""},
	"a service renamed with placeholders": {`{"subject":"s.*.*","type":"service"}`, `{"subject":"s.*.*","type":"service","local_subject":"mine.$2.$1"}`, ""},
	"a service renamed in the old way":    {`{"subject":"s.*","type":"service"}`, `{"subject":"mine.x","type":"service","to":"s.x"}`, ""},
	"the importer's own stream":           {`{"subject":"a.*.>","type":"stream","account_token_position":2}`, `{"subject":"a.[I].>","type":"stream"}`, ""},
	"the importer's own service":          {`{"subject":"s.*","type":"service","account_token_position":2}`, `{"subject":"s.[I]","type":"service","local_subject":"mine"}`, ""},
	"a token that is not asked for":       {`{"subject":"s.*","type":"service","account_token_position":2,"token_req":true}`, `{"subject":"s.[I]","type":"service"}`, ""},

	"what is not exported":               {`{"subject":"a.*","type":"stream"}`, `{"subject":"b.c","type":"stream"}`, "is of nothing that the other account exports"},
	"a service that is a stream":         {`{"subject":"a.*","type":"stream"}`, `{"subject":"a.b","type":"service"}`, "is of nothing that"},
	"a stream that is a service":         {`{"subject":"a.*","type":"service"}`, `{"subject":"a.b","type":"stream"}`, "is of nothing that"},
	"more than is exported":              {`{"subject":"a.*","type":"stream"}`, `{"subject":"a.>","type":"stream"}`, "is of nothing that"},
	"more of a token than is exported":   {`{"subject":"a.b","type":"stream"}`, `{"subject":"a.*","type":"stream"}`, "is of nothing that"},
	"another account's stream":           {`{"subject":"a.*.>","type":"stream","account_token_position":2}`, `{"subject":"a.[O].>","type":"stream"}`, "for token 2 of its subject, which has to be the public key of the account that imports, [I]"},
	"another account's service":          {`{"subject":"s.*","type":"service","account_token_position":2}`, `{"subject":"s.[O]","type":"service","local_subject":"mine"}`, "for token 2 of its subject"},
	"another account's, the old way":     {`{"subject":"s.*","type":"service","account_token_position":2}`, `{"subject":"mine","type":"service","to":"s.[O]"}`, "for token 2 of its subject"},
	"every account's stream":             {`{"subject":"a.*.>","type":"stream","account_token_position":2}`, `{"subject":"a.*.>","type":"stream"}`, "where token 2 has to be the public key of the account that imports"},
	"some account's stream":              {`{"subject":"a.*.>","type":"stream","account_token_position":2}`, `{"subject":"a.*.b","type":"stream"}`, "for token 2 of its subject"},
	"every account's service":            {`{"subject":"s.*","type":"service","account_token_position":2}`, `{"subject":"s.*","type":"service","local_subject":"mine.*"}`, "where token 2 has to be"},
	"a stream that asks for a token":     {`{"subject":"a.*","type":"stream","token_req":true}`, `{"subject":"a.b","type":"stream"}`, "needs an activation token"},
	"a service that asks for a token":    {`{"subject":"a.*","type":"service","token_req":true}`, `{"subject":"a.b","type":"service"}`, "needs an activation token"},
	"one of two that ask for an account": {`{"subject":"a.*.b","type":"stream","account_token_position":2},{"subject":"a.x.*","type":"stream","account_token_position":3}`, `{"subject":"a.x.b","type":"stream"}`, "for token"},
	"a prefix with a wildcard":           {`{"subject":"a.*","type":"stream"}`, `{"subject":"a.*","type":"stream","to":"in.*"}`, `to is "in.*", which has a wildcard`},
	"a service with a name that is none": {`{"subject":"s.*","type":"service"}`, `{"subject":"s.x","type":"service","local_subject":"mine\t"}`, "local_subject is \"mine\\t\", which is not a subject"},
	"a stream with a subject that isn't": {`{"subject":"a.>","type":"stream"}`, `{"subject":"a\n.b","type":"stream"}`, "subject is \"a\\n.b\", which is not a subject"},
	"a stream renamed with less":         {`{"subject":"a.*.*","type":"stream"}`, `{"subject":"a.*.*","type":"stream","local_subject":"in.$1"}`, "local_subject goes to \"in.$1\", which does not use every \"*\" of \"a.*.*\""},
	"a stream renamed with a function":   {`{"subject":"a.*","type":"stream"}`, `{"subject":"a.*","type":"stream","local_subject":"in.*.{{partition(3,1)}}"}`, "local_subject goes to"},
	"a service renamed, unlike":          {`{"subject":"s.*","type":"service"}`, `{"subject":"mine.*.*","type":"service","to":"s.*"}`, "to goes to"},
	"a service renamed beyond its reach": {`{"subject":"s.*","type":"service"}`, `{"subject":"mine.*","type":"service","to":"s.*.>"}`, "of which only one ends in"},
}

func TestAnImportIsTakenWhereNATSServerTakesIt(t *testing.T) {
	n := startNATS(t)
	for name, test := range importCases {
		t.Run(name, func(t *testing.T) {
			exporterKey, importerKey := mustGenerate(t, Account).Public(), mustGenerate(t, Account).Public()
			keys := strings.NewReplacer("[E]", exporterKey, "[I]", importerKey, "[O]", mustGenerate(t, Account).Public())
			exporter := unchecked(t, keys.Replace(`{"exports":[`+test.exports+`]}`))
			importer := unchecked(t, keys.Replace(`{"imports":[`+strings.Replace(test.imported, "{", `{"account":"[E]",`, 1)+`]}`))
			n.store(exporterKey, exporter)
			n.store(importerKey, importer)
			err := ValidateAccount(importerKey, importer)
			if err == nil {
				err = CheckImport(importer.Imports[0], importerKey, exporter, time.Now())
			}
			taken := n.takes(importerKey)
			require.Equal(t, taken == nil, err == nil, "the server: %v, the check: %v", taken, err)
			if test.fault != "" {
				require.ErrorContains(t, err, keys.Replace(test.fault))
			}
		})
	}
}

func TestImportsMadeByChanceAreTakenWhereNATSServerTakesThem(t *testing.T) {
	n := startNATS(t)
	random := rand.New(rand.NewPCG(3, 4))
	token := func(of ...string) string { return of[random.IntN(len(of))] }
	taken := 0
	for range 600 {
		exporterKey, importerKey := mustGenerate(t, Account).Public(), mustGenerate(t, Account).Public()
		subject := func(of ...string) string {
			parts := make([]string, 1+random.IntN(3))
			for i := range parts {
				parts[i] = token(of...)
			}
			return strings.Join(parts, ".")
		}
		kind := token("stream", "service")
		export := fmt.Sprintf(`{"subject":%q,"type":%q}`, subject("a", "*", "*", ">"), kind)
		imported := fmt.Sprintf(`{"account":%q,"subject":%q,"type":%q`, exporterKey, subject("a", "*", ">", importerKey), kind)
		switch random.IntN(4) {
		case 0:
			imported += fmt.Sprintf(`,"local_subject":%q`, subject("b", "*", "$1", "$2", ">"))
		case 1:
			imported += fmt.Sprintf(`,"to":%q`, subject("b", "a", "*", ">"))
		}
		exporter, importer := unchecked(t, `{"exports":[`+export+`]}`), unchecked(t, `{"imports":[`+imported+`}]}`)
		if position := random.IntN(3); exporter.Exports[0].Subject.HasWildCards() && random.IntN(3) == 0 {
			exporter.Exports[0].AccountTokenPosition = uint(position)
		}
		if ValidateAccount(exporterKey, exporter) != nil {
			continue // which a server would not get
		}
		n.store(exporterKey, exporter)
		n.store(importerKey, importer)
		err := ValidateAccount(importerKey, importer)
		if err == nil {
			err = CheckImport(importer.Imports[0], importerKey, exporter, time.Now())
		}
		fault := n.takes(importerKey)
		require.Equal(t, fault == nil, err == nil, "%s of %s: the server: %v, the check: %v", imported, export, fault, err)
		if err == nil {
			taken++
		}
	}
	require.Greater(t, taken, 20)
}

func TestAnActivationIsTakenWhereNATSServerTakesIt(t *testing.T) {
	n := startNATS(t)
	now := time.Now()
	for name, test := range map[string]struct {
		change  func(a *Activation, exporter *jwt.Account, signer **Key)
		revoke  string
		fault   string
		invalid bool // which ValidateAccount says
	}{
		"by the identity key":        {change: func(*Activation, *jwt.Account, **Key) {}},
		"that has not expired":       {change: func(a *Activation, _ *jwt.Account, _ **Key) { a.Expires = now.Add(time.Hour) }},
		"of which part is imported":  {change: func(a *Activation, _ *jwt.Account, _ **Key) { a.Subject = "s.>" }},
		"revoked before it was made": {change: func(*Activation, *jwt.Account, **Key) {}, revoke: "[I] before"},
		"by a signing key": {change: func(_ *Activation, exporter *jwt.Account, signer **Key) {
			*signer = mustGenerate(t, Account)
			exporter.SigningKeys.Add((*signer).Public())
		}},
		"by a key that is none any more": {change: func(_ *Activation, _ *jwt.Account, signer **Key) { *signer = mustGenerate(t, Account) }, fault: "which is not a signing key of the account it imports from"},
		"that has expired":               {change: func(a *Activation, _ *jwt.Account, _ **Key) { a.Expires = now.Add(-time.Hour) }, fault: "has a token that expired at "},
		"that is revoked":                {change: func(*Activation, *jwt.Account, **Key) {}, revoke: "[I]", fault: "revocations revoke"},
		"that is revoked with all":       {change: func(*Activation, *jwt.Account, **Key) {}, revoke: "*", fault: "revocations revoke"},
		"for another account":            {change: func(a *Activation, _ *jwt.Account, _ **Key) { a.Importer = mustGenerate(t, Account).Public() }, fault: "doesn't match account it is being included in", invalid: true},
		"of another account": {change: func(a *Activation, _ *jwt.Account, signer **Key) {
			*signer = mustGenerate(t, Account)
			a.Exporter = (*signer).Public()
		}, fault: "activation token doesn't match account", invalid: true},
		"for another subject": {change: func(a *Activation, _ *jwt.Account, _ **Key) { a.Subject = "other" }, fault: `"other" doesn't match import`, invalid: true},
		"for a stream":        {change: func(a *Activation, _ *jwt.Account, _ **Key) { a.Type = jwt.Stream }, fault: "mismatch between token import type stream", invalid: true},
	} {
		t.Run(name, func(t *testing.T) {
			exporterKey, importerKey := mustGenerate(t, Account), mustGenerate(t, Account)
			exporter := unchecked(t, `{"exports":[{"subject":"s.*","type":"service","token_req":true}]}`)
			activation, signer := Activation{Exporter: exporterKey.Public(), Importer: importerKey.Public(), Subject: "s.x", Type: jwt.Service}, exporterKey
			test.change(&activation, exporter, &signer)
			switch test.revoke {
			case "[I] before":
				exporter.Exports[0].Revocations = jwt.RevocationList{importerKey.Public(): now.Unix() - 100}
			case "[I]":
				exporter.Exports[0].Revocations = jwt.RevocationList{importerKey.Public(): now.Unix()}
			case "*":
				exporter.Exports[0].Revocations = jwt.RevocationList{jwt.All: now.Unix()}
			}
			token, err := activation.Encode(signer, now.Unix())
			require.NoError(t, err)
			importer := unchecked(t, `{"imports":[{"account":"`+exporterKey.Public()+`","subject":"s.x","type":"service","token":"`+token+`"}]}`)
			n.store(exporterKey.Public(), exporter)
			n.store(importerKey.Public(), importer)
			err = ValidateAccount(importerKey.Public(), importer)
			require.Equal(t, test.invalid, err != nil)
			if err == nil {
				err = CheckImport(importer.Imports[0], importerKey.Public(), exporter, now)
			}
			taken := n.takes(importerKey.Public())
			require.Equal(t, taken == nil, err == nil, "the server: %v, the check: %v", taken, err)
			if test.fault != "" {
				require.ErrorContains(t, err, test.fault)
			}
		})
	}
}

// Each account has exports and imports; the last one is the one that is checked.
func TestImportsThatLeadBackAreFoundWhereNATSServerFindsThem(t *testing.T) {
	for name, test := range map[string]struct {
		accounts []string
		fault    string
	}{
		"two accounts that serve each other": {[]string{
			`{"exports":[{"subject":"s","type":"service"}],"imports":[{"account":"[1]","subject":"s","type":"service"}]}`,
			`{"exports":[{"subject":"s","type":"service"}],"imports":[{"account":"[0]","subject":"s","type":"service"}]}`,
		}, "imports[0] leads back"},
		"two accounts that serve each other with different things": {[]string{
			`{"exports":[{"subject":"s","type":"service"}],"imports":[{"account":"[1]","subject":"t","type":"service"}]}`,
			`{"exports":[{"subject":"t","type":"service"}],"imports":[{"account":"[0]","subject":"s","type":"service"}]}`,
		}, ""},
		"three accounts in a ring": {[]string{
			`{"exports":[{"subject":"s.*","type":"service"}],"imports":[{"account":"[1]","subject":"s.x","type":"service"}]}`,
			`{"exports":[{"subject":"s.*","type":"service"}],"imports":[{"account":"[2]","subject":"s.x","type":"service"}]}`,
			`{"exports":[{"subject":"s.*","type":"service"}],"imports":[{"account":"[0]","subject":"s.x","type":"service"}]}`,
		}, "imports[0] leads back"},
		"three accounts in a line": {[]string{
			`{"exports":[{"subject":"s.*","type":"service"}],"imports":[{"account":"[1]","subject":"s.x","type":"service"}]}`,
			`{"exports":[{"subject":"s.*","type":"service"}]}`,
			`{"imports":[{"account":"[0]","subject":"s.x","type":"service"}]}`,
		}, ""},
		"two accounts with one another's streams": {[]string{
			`{"exports":[{"subject":"a.>","type":"stream"}],"imports":[{"account":"[1]","subject":"a.>","type":"stream"}]}`,
			`{"exports":[{"subject":"a.>","type":"stream"}],"imports":[{"account":"[0]","subject":"a.>","type":"stream"}]}`,
		}, "imports[0] leads back"},
		"two accounts with one another's streams under a prefix": {[]string{
			`{"exports":[{"subject":"a.>","type":"stream"}],"imports":[{"account":"[1]","subject":"a.>","type":"stream","to":"in"}]}`,
			`{"exports":[{"subject":"a.>","type":"stream"}],"imports":[{"account":"[0]","subject":"a.>","type":"stream","to":"in"}]}`,
		}, ""},
		"a stream that comes back under another name": {[]string{
			`{"exports":[{"subject":"a.>","type":"stream"}],"imports":[{"account":"[1]","subject":"b.>","type":"stream","local_subject":"a.>"}]}`,
			`{"exports":[{"subject":"b.>","type":"stream"}],"imports":[{"account":"[0]","subject":"a.>","type":"stream","local_subject":"b.>"}]}`,
		}, "imports[0] leads back"},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNATS(t)
			var ids, keys []string
			for i := range test.accounts {
				id := mustGenerate(t, Account).Public()
				ids, keys = append(ids, id), append(keys, fmt.Sprintf("[%d]", i), id)
			}
			accounts := map[string]*jwt.Account{}
			for i, config := range test.accounts {
				parsed, err := ParseAccountConfig([]byte(strings.NewReplacer(keys...).Replace(config)))
				require.NoError(t, err)
				require.NoError(t, ValidateAccount(ids[i], parsed))
				accounts[ids[i]] = parsed
				n.store(ids[i], parsed)
			}
			last := ids[len(ids)-1]
			err := CheckCycles(last, accounts[last].Imports, func(id string) (*jwt.Account, error) { return accounts[id], nil })
			// Which of the accounts in a ring goes without depends on which comes first.
			var faults []error
			for _, id := range ids {
				faults = append(faults, n.takes(id))
			}
			require.Equal(t, errors.Join(faults...) == nil, err == nil, "the server: %v, the check: %v", errors.Join(faults...), err)
			if test.fault != "" {
				require.ErrorContains(t, err, test.fault)
			}
		})
	}
	err := CheckCycles("A", jwt.Imports{{Account: "B", Subject: "s", Type: jwt.Service}},
		func(string) (*jwt.Account, error) { return nil, errors.New("storage is away") })
	require.EqualError(t, err, "storage is away")
}
