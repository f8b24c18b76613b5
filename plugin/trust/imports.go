package trust

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
)

// checkImports says which of an account's imports nats-server would leave out
// whatever the other account exports (accounts.go, AddStreamImportWithClaim and
// AddServiceImportWithClaim).
func checkImports(publicKey string, imports jwt.Imports) error {
	seen := map[string]int{}
	for i, imported := range imports {
		if imported == nil {
			continue // which jwt/v2 says
		}
		if imported.Account == "" {
			return fmt.Errorf("imports[%d].account is missing", i)
		}
		if err := CheckPublicKey(Account, imported.Account); err != nil {
			return fmt.Errorf("imports[%d].account %w", i, err)
		}
		if imported.Account == publicKey {
			return fmt.Errorf("imports[%d] imports from the account itself", i)
		}
		if err := checkSubject(string(imported.Subject)); err != nil {
			return fmt.Errorf("imports[%d].subject %w", i, err)
		}
		if err := checkLocal(imported); err != nil {
			return fmt.Errorf("imports[%d].%w", i, err)
		}
		// A stream may be imported once, and a local subject stand for one service.
		key := "stream " + imported.Account + " " + string(imported.Subject)
		if imported.IsService() {
			local, _ := serviceSubjects(imported)
			key = "service " + imported.Account + " " + wildcarded(local)
		}
		if first, twice := seen[key]; twice {
			return fmt.Errorf("imports[%d] imports what imports[%d] does", i, first)
		}
		seen[key] = i
	}
	return nil
}

// checkLocal checks what the import is called in the importing account.
func checkLocal(i *jwt.Import) error {
	subject, to, local := string(i.Subject), i.GetTo(), string(i.LocalSubject)
	if local != "" && to != "" {
		return errors.New("to is given with local_subject, which takes its place")
	}
	if local != "" {
		if err := checkSubject(local); err != nil {
			return fmt.Errorf("local_subject %w", err)
		}
		if !hasWildcard(subject) || local == subject {
			return nil
		}
		if err := checkRenaming(wildcardedFor(i, subject), placeholders(local)); err != nil {
			return fmt.Errorf("local_subject %w", err)
		}
		return nil
	}
	if to == "" {
		return nil
	}
	if i.IsStream() { // it is a prefix
		if err := checkLiteral(strings.TrimSuffix(to, ".")); err != nil {
			return fmt.Errorf("to %w", err)
		}
		return nil
	}
	if err := checkSubject(to); err != nil {
		return fmt.Errorf("to %w", err)
	}
	if !hasWildcard(to) || to == subject {
		return nil
	}
	if err := checkRenaming(wildcarded(to), placeholders(subject)); err != nil {
		return fmt.Errorf("to %w", err)
	}
	return nil
}

// wildcardedFor: of a service, nats-server takes placeholders in the exporter's
// subject for wildcards too.
func wildcardedFor(i *jwt.Import, subject string) string {
	if i.IsService() {
		return wildcarded(subject)
	}
	return subject
}

// serviceSubjects are those at which the importer requests, and at which the
// exporter answers.
func serviceSubjects(i *jwt.Import) (local, remote string) {
	switch {
	case i.LocalSubject != "":
		return string(i.LocalSubject), string(i.Subject)
	case i.GetTo() != "":
		return string(i.Subject), i.GetTo()
	default:
		return string(i.Subject), string(i.Subject)
	}
}

// streamSubjects are those at which the importer subscribes, and at which the
// exporter publishes.
func streamSubjects(i *jwt.Import) (local, remote string) {
	remote = string(i.Subject)
	switch {
	case i.LocalSubject != "":
		return string(i.LocalSubject), remote
	case i.GetTo() != "":
		return strings.TrimSuffix(i.GetTo(), ".") + "." + remote, remote
	default:
		return remote, remote
	}
}

// ExportedSubject is the subject of an import in the exporting account.
func ExportedSubject(i *jwt.Import) string {
	if i.IsService() {
		_, remote := serviceSubjects(i)
		return remote
	}
	return string(i.Subject)
}

// ErrNotExported is the fault of an import that no export holds.
var ErrNotExported = errors.New("is of nothing that the other account exports")

// ErrNeedsToken is the fault of an import without the activation token that its
// export asks for.
var ErrNeedsToken = errors.New("needs an activation token, since its export has token_req")

// CheckImport says why a nats-server would leave an import out of the account
// that imports, given the account that exports, with all of its signing keys
// (accounts.go, checkStreamImportAuthorized and checkServiceImportAuthorized).
// Its errors continue a sentence that begins with the import.
func CheckImport(i *jwt.Import, importer string, exporter *jwt.Account, now time.Time) error {
	subject := ExportedSubject(i)
	exports := exportsOf(exporter, i.Type, subject)
	if len(exports) == 0 {
		return ErrNotExported
	}
	// Of several a server takes any one, so each has to allow the import.
	for _, export := range exports {
		if err := checkAllowed(i, subject, export, importer, exporter, now); err != nil {
			return err
		}
	}
	return nil
}

// exportsOf are the exports that nats-server may hold against an import: the one
// with the very subject, or else those that hold it.
func exportsOf(exporter *jwt.Account, kind jwt.ExportType, subject string) []*jwt.Export {
	var holding []*jwt.Export
	for _, export := range exporter.Exports {
		switch {
		case export.Type != kind:
		case string(export.Subject) == subject:
			return []*jwt.Export{export}
		case isSubset(subject, string(export.Subject)):
			holding = append(holding, export)
		}
	}
	return holding
}

func checkAllowed(i *jwt.Import, subject string, export *jwt.Export, importer string, exporter *jwt.Account, now time.Time) error {
	if position := export.AccountTokenPosition; position > 0 {
		tokens := strings.Split(subject, ".")
		switch {
		case uint(len(tokens)) < position || subject == string(export.Subject): // the latter a server never takes
			return fmt.Errorf("is of %q, where token %d has to be the public key of the account that imports (account_token_position of the export)", subject, position)
		case tokens[position-1] != importer:
			return fmt.Errorf("has %q for token %d of its subject, which has to be the public key of the account that imports, %s (account_token_position of the export)", tokens[position-1], position, importer)
		}
		return nil // a server asks for no token then
	}
	if !export.TokenReq {
		return nil
	}
	if i.Token == "" {
		return ErrNeedsToken
	}
	return checkActivation(i, export, exporter, now)
}

// checkActivation checks what an activation token's signature does not show, as
// nats-server's checkActivation does. That it is for these accounts and this
// subject is ValidateAccount's to check.
func checkActivation(i *jwt.Import, export *jwt.Export, exporter *jwt.Account, now time.Time) error {
	activation, err := jwt.DecodeActivationClaims(i.Token)
	if err != nil {
		return fmt.Errorf("has a token that is not an activation token: %w", err)
	}
	switch {
	case activation.IssuerAccount != "" && activation.IssuerAccount != i.Account,
		activation.IssuerAccount == "" && activation.Issuer != i.Account:
		return errors.New("has a token that is not of the account it imports from")
	case activation.IssuerAccount != "" && activation.Issuer != i.Account && !exporter.SigningKeys.Contains(activation.Issuer):
		return fmt.Errorf("has a token that is signed by %s, which is not a signing key of the account it imports from", activation.Issuer)
	case activation.Expires != 0 && activation.Expires <= now.Unix():
		return fmt.Errorf("has a token that expired at %s", time.Unix(activation.Expires, 0).UTC().Format(time.RFC3339))
	case activation.NotBefore > now.Unix():
		return fmt.Errorf("has a token that is not valid before %s", time.Unix(activation.NotBefore, 0).UTC().Format(time.RFC3339))
	case export.IsClaimRevoked(activation):
		return errors.New("has a token that the export's revocations revoke")
	}
	return nil
}

// maxCycleDepth is how many accounts nats-server follows imports through.
const maxCycleDepth = 1024

// CheckCycles says which of an account's imports nats-server would leave out
// since they lead back to the account (accounts.go, serviceImportFormsCycle and
// streamImportFormsCycle). of returns another account, nil if there is none.
func CheckCycles(importer string, imports jwt.Imports, of func(publicKey string) (*jwt.Account, error)) error {
	for n, i := range imports {
		var starts []string
		if i.IsService() {
			local, remote := serviceSubjects(i)
			if hasWildcard(remote) {
				local = wildcarded(local)
			}
			starts = []string{local}
		} else {
			local, remote := streamSubjects(i)
			starts = []string{local, remote}
		}
		for _, subject := range starts {
			search := cycleSearch{of: of, service: i.IsService(), visited: map[string]bool{importer: true}}
			found, err := search.from(i.Account, subject)
			if err != nil {
				return err
			}
			if found {
				return &CycleError{Import: n}
			}
		}
	}
	return nil
}

// CycleError is that an import leads back to the account that has it.
type CycleError struct{ Import int }

func (e *CycleError) Error() string {
	return fmt.Sprintf("imports[%d] leads back to the account itself, through imports of the account it imports from", e.Import)
}

type cycleSearch struct {
	of      func(string) (*jwt.Account, error)
	service bool
	visited map[string]bool
}

// from reports whether the subject leads from that account to one that was
// visited.
func (s *cycleSearch) from(publicKey, subject string) (bool, error) {
	if len(s.visited) >= maxCycleDepth {
		return true, nil
	}
	account, err := s.of(publicKey)
	if account == nil || err != nil || !s.service && len(exportsOf(account, jwt.Stream, subject)) == 0 {
		return false, err
	}
	for _, i := range account.Imports {
		if i.IsService() != s.service {
			continue
		}
		// Of a service it is the exporter's subject that counts, and of a stream the
		// importer's.
		local, meets := serviceSubjects(i)
		narrower := wildcarded(local)
		if !s.service {
			local, _ = streamSubjects(i)
			meets, narrower = wildcarded(local), wildcarded(local)
		}
		if !collide(subject, meets) {
			continue
		}
		if s.visited[i.Account] {
			return true, nil
		}
		s.visited[publicKey] = true
		next := subject
		if isSubset(narrower, subject) {
			next = narrower
		}
		if found, err := s.from(i.Account, next); found || err != nil {
			return found, err
		}
	}
	return false, nil
}
