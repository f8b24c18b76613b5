package trust

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

const issued = 1795304077

// fixture reads a JWT of the nsc store under testdata.
func fixture(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "testdata", "nsc", "ACME", filepath.FromSlash(path)))
	require.NoError(t, err)
	return string(raw)
}

func TestAnImportedNscAccountLosesNothingWhenItIsSignedAgain(t *testing.T) {
	operator := mustGenerate(t, Operator)
	for _, path := range []string{"accounts/SYS/SYS.jwt", "accounts/orders/orders.jwt", "accounts/billing/billing.jwt"} {
		imported, err := DecodeAccount(fixture(t, path))
		require.NoError(t, err)
		again, err := EncodeAccount(operator, imported.Subject, imported.Name, imported.Account, imported.IssuedAt)
		require.NoError(t, err)

		// All but the issuer and the ID that depends on it.
		claims, err := jwt.DecodeAccountClaims(again)
		require.NoError(t, err)
		claims.Issuer, claims.ID = imported.Issuer, imported.ID
		before, err := jwt.DecodeAccountClaims(fixture(t, path))
		require.NoError(t, err)
		require.Equal(t, before.String(), claims.String())
	}
}

func TestDecodeOperatorReadsAnNscOperator(t *testing.T) {
	claims, err := DecodeOperator(fixture(t, "ACME.jwt"))
	require.NoError(t, err)
	require.Equal(t, "ACME", claims.Name)
	require.True(t, claims.StrictSigningKeyUsage)
	require.Len(t, claims.SigningKeys, 1)
}

// operatorSignedBy is an operator's JWT as nsc writes it once signing keys are
// required.
func operatorSignedBy(t *testing.T, identity, signer *Key, listed ...*Key) string {
	t.Helper()
	claims := jwt.NewOperatorClaims(identity.Public())
	claims.Name, claims.StrictSigningKeyUsage = "acme", true
	for _, key := range listed {
		claims.SigningKeys.Add(key.Public())
	}
	pair, err := nkeys.FromSeed([]byte(signer.Seed()))
	require.NoError(t, err)
	token, err := claims.Encode(pair)
	require.NoError(t, err)
	return token
}

func TestAnOperatorMayBeSignedByItsOwnSigningKeys(t *testing.T) {
	identity, first, second, stranger := mustGenerate(t, Operator), mustGenerate(t, Operator), mustGenerate(t, Operator), mustGenerate(t, Operator)
	for name, test := range map[string]struct {
		token       string
		listed      []string // by the JWT that is there
		alone, next bool     // whether it is taken as the first, and as the next one
	}{
		"by the identity key":                     {operatorSignedBy(t, identity, identity, first), []string{second.Public()}, true, true},
		"by a key that both list":                 {operatorSignedBy(t, identity, first, first, second), []string{first.Public()}, true, true},
		"by a key that only it lists":             {operatorSignedBy(t, identity, second, second), []string{first.Public()}, true, false},
		"by the key that it removes":              {operatorSignedBy(t, identity, first, second), []string{first.Public()}, false, true},
		"by a key that nobody lists":              {operatorSignedBy(t, identity, stranger, first), []string{first.Public()}, false, false},
		"by the identity key of someone else":     {operatorSignedBy(t, identity, stranger), nil, false, false},
		"by a key where none was listed before":   {operatorSignedBy(t, identity, first, first), nil, true, false},
		"by the identity key, which lists itself": {operatorSignedBy(t, identity, identity, identity), nil, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			claims, err := DecodeOperator(test.token)
			require.Equal(t, test.alone, err == nil, "%v", err)
			if err == nil {
				require.Equal(t, identity.Public(), claims.Subject)
			}
			claims, err = DecodeOperator(test.token, test.listed...)
			if err == nil {
				err = CheckSuccessor(claims, test.listed)
			}
			require.Equal(t, test.next, err == nil, "%v", err)
		})
	}
}

// As nsc 2.14 leaves them: "nsc edit account --js-tier 1 --js-disk-storage 1G", and
// then any other edit.
func TestTieredLimitsBesideGlobalOnesThatLimitNothingAreTaken(t *testing.T) {
	const limits = `{"limits":{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":5,"leaf":-1,
		"streams":-1,"consumer":-1,"max_ack_pending":-1,"mem_max_stream_bytes":-1,"disk_max_stream_bytes":-1,
		"tiered_limits":{"R1":{"disk_storage":1000000000,"streams":5,"consumer":-1,"max_ack_pending":-1,"mem_max_stream_bytes":-1,"disk_max_stream_bytes":-1}}}}`
	written := unchecked(t, limits)
	require.EqualValues(t, -1, written.Limits.Streams)
	operator, account := mustGenerate(t, Operator), mustGenerate(t, Account).Public()
	token, err := EncodeAccount(operator, account, "shop", *written, issued)
	require.NoError(t, err)
	imported, err := DecodeAccount(token)
	require.NoError(t, err)
	parsed, err := ParseAccountConfig([]byte(limits))
	require.NoError(t, err)
	require.NoError(t, ValidateAccount(account, parsed))
	bySelf, err := jwt.DecodeAccountClaims(token)
	require.NoError(t, err)
	for _, limits := range []jwt.OperatorLimits{imported.Limits, parsed.Limits} {
		require.Equal(t, bySelf.Limits, limits, "a server reads them in another way")
	}

	// A server would pass over global limits that do limit something too. Where they
	// come with a JWT that is how they were, and in a config a contradiction.
	written.Limits.DiskStorage = 7
	token, err = EncodeAccount(operator, account, "shop", *written, issued)
	require.NoError(t, err)
	imported, err = DecodeAccount(token)
	require.NoError(t, err)
	require.Zero(t, imported.Limits.JetStreamLimits)
	shown, err := AccountConfig(written)
	require.NoError(t, err)
	parsed, err = ParseAccountConfig(shown)
	require.NoError(t, err)
	require.ErrorContains(t, ValidateAccount(account, parsed), "mutually exclusive")
}

func TestDecodingAForeignJWTSaysWhatIsWrongWithIt(t *testing.T) {
	operator, other, account := mustGenerate(t, Operator), mustGenerate(t, Operator), mustGenerate(t, Account)
	byOther := jwt.NewOperatorClaims(operator.Public())
	pair, err := nkeys.FromSeed([]byte(other.Seed()))
	require.NoError(t, err)
	notSelfSigned, err := byOther.Encode(pair)
	require.NoError(t, err)
	accountJWT := fixture(t, "accounts/orders/orders.jwt")
	withUnknownKey := operator.seal([]byte(`{"iss":"` + operator.Public() + `","sub":"` + account.Public() + `","nats":{"quota":1,"type":"account","version":2}}`))
	ofVersionOne := operator.seal([]byte(`{"iss":"` + operator.Public() + `","sub":"` + account.Public() + `","type":"account","nats":{}}`))

	for name, test := range map[string]struct {
		err   error
		fault string
	}{
		"an account for an operator":      {second(DecodeOperator(accountJWT)), "is the JWT of an account where that of an operator is wanted"},
		"an operator for an account":      {second(DecodeAccount(fixture(t, "ACME.jwt"))), "is the JWT of an operator where that of an account is wanted"},
		"an operator signed by another":   {second(DecodeOperator(notSelfSigned)), "is not signed by the operator's own identity key"},
		"a signature that does not match": {second(DecodeAccount(accountJWT[:len(accountJWT)-8] + "AAAAAAAA")), "is not a valid NATS JWT: "},
		"a seed":                          {second(DecodeAccount(account.Seed())), "is not a valid NATS JWT: expected 3 chunks"},
		"nothing":                         {second(DecodeAccount("")), "is not a valid NATS JWT: expected 3 chunks"},
		"a key that would be lost":        {second(DecodeAccount(withUnknownKey)), `has an unknown key "quota" at nats`},
		"a JWT of version 1":              {second(DecodeAccount(ofVersionOne)), "is "},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, test.err, test.fault)
			require.NotContains(t, test.err.Error(), account.Seed())
		})
	}
}

func second[T any](_ T, err error) error { return err }

func TestTwoContentsNeverShareAnID(t *testing.T) {
	operator, account := mustGenerate(t, Operator), mustGenerate(t, Account)
	ids := map[string]bool{}
	for _, config := range []string{`{}`, `{"limits":{"conn":1}}`, `{"description":"x"}`} {
		parsed, err := ParseAccountConfig([]byte(config))
		require.NoError(t, err)
		token, err := EncodeAccount(operator, account.Public(), "orders", *parsed, issued)
		require.NoError(t, err)
		claims, err := jwt.DecodeAccountClaims(token)
		require.NoError(t, err)
		require.NotEmpty(t, claims.ID)
		require.False(t, ids[claims.ID])
		ids[claims.ID] = true
	}
}

func TestAnAccountTooLargeForNATSIsRefused(t *testing.T) {
	account := jwt.NewAccountClaims("-").Account
	account.Revocations = jwt.RevocationList{}
	for range 20000 {
		account.Revocations[mustGenerate(t, User).Public()] = issued
	}
	_, err := EncodeAccount(mustGenerate(t, Operator), mustGenerate(t, Account).Public(), "orders", account, issued)
	require.ErrorContains(t, err, "is too large: its JWT has ")
}

func TestAnActivationLetsTheImporterImport(t *testing.T) {
	exporter, signing, importer := mustGenerate(t, Account), mustGenerate(t, Account), mustGenerate(t, Account)
	for name, signer := range map[string]*Key{"signed by the identity key": exporter, "signed by a signing key": signing} {
		t.Run(name, func(t *testing.T) {
			token, err := Activation{Exporter: exporter.Public(), Importer: importer.Public(), Subject: "orders.>", Type: jwt.Stream,
				Expires: time.Unix(4102444800, 0)}.Encode(signer, issued)
			require.NoError(t, err)
			parsed, err := ParseAccountConfig([]byte(`{"imports":[{"subject":"orders.>","type":"stream","account":"` + exporter.Public() + `","token":"` + token + `"}]}`))
			require.NoError(t, err)
			require.NoError(t, ValidateAccount(importer.Public(), parsed))
			require.ErrorContains(t, ValidateAccount(mustGenerate(t, Account).Public(), parsed), "activation token doesn't match account")
		})
	}
}

// TestANATSServerTakesTheConfigurationAsItIs starts a server with the text and
// has it read accounts of the operator.
func TestANATSServerTakesTheConfigurationAsItIs(t *testing.T) {
	identity, signing, system := mustGenerate(t, Operator), mustGenerate(t, Operator), mustGenerate(t, Account)
	operatorJWT, err := EncodeOperator(identity, "acme", jwt.Operator{SigningKeys: jwt.StringList{signing.Public()},
		SystemAccount: system.Public(), StrictSigningKeyUsage: true}, issued)
	require.NoError(t, err)
	systemJWT, err := EncodeAccount(signing, system.Public(), "SYS", *SystemAccount(), issued)
	require.NoError(t, err)

	for _, resolver := range []Resolver{ResolverFull, ResolverCache, ResolverMemory} {
		t.Run(string(resolver), func(t *testing.T) {
			text := ServerConfig{OperatorJWT: operatorJWT, SystemAccount: system.Public(), Resolver: resolver, Dir: t.TempDir(),
				SystemAccountJWT: systemJWT, Accounts: []PreloadedAccount{{system.Public(), systemJWT}}}.Text()
			file := filepath.Join(t.TempDir(), "nats.conf")
			require.NoError(t, os.WriteFile(file, []byte("listen: 127.0.0.1:-1\n"+text), 0o600))
			options, err := server.ProcessConfigFile(file)
			require.NoError(t, err, "%s", text)
			options.NoLog, options.NoSigs = true, true
			running, err := server.NewServer(options)
			require.NoError(t, err)
			running.Start()
			defer running.Shutdown()
			require.True(t, running.ReadyForConnections(10*time.Second))
			account, err := running.LookupAccount(system.Public())
			require.NoError(t, err)
			require.Equal(t, system.Public(), account.GetName())
		})
	}
}

func TestTheConfigurationForAURLResolverNamesTheURL(t *testing.T) {
	text := ServerConfig{OperatorJWT: "eyJ", SystemAccount: "A", Resolver: ResolverURL, URL: "https://vault:8200/v1/auth/nats/jwt/v1/accounts/",
		SystemAccountJWT: "eyJ"}.Text()
	require.Equal(t, "operator: eyJ\nsystem_account: A\n\nresolver: URL(https://vault:8200/v1/auth/nats/jwt/v1/accounts/)\n", text)
}

func TestADeletionIsSignedByTheOperatorAboutItself(t *testing.T) {
	operator, account := mustGenerate(t, Operator), mustGenerate(t, Account)
	token, err := EncodeDeletion(operator, []string{account.Public()}, issued)
	require.NoError(t, err)
	claims, err := jwt.DecodeGeneric(token)
	require.NoError(t, err)
	require.Equal(t, operator.Public(), claims.Issuer)
	require.Equal(t, operator.Public(), claims.Subject)
	require.Equal(t, []any{account.Public()}, claims.Data["accounts"])
}

func TestTheDeliveryUserIsAValidUserThatMayDoLittle(t *testing.T) {
	account := mustGenerate(t, Account)
	user := DeliveryUser(account.Public())
	results := jwt.CreateValidationResults()
	user.Validate(results)
	require.True(t, results.IsEmpty())
	require.NotContains(t, user.Pub.Allow, ">")
	require.NotEmpty(t, user.Sub.Allow)
}
