package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/hashicorp/vault/api"
)

// An importer makes the steps of a plan.
type importer struct {
	vault *api.Logical // nil: only show the steps
	mount string       // path of the mount, as auth/nats
	out   io.Writer

	keyNames map[string]map[string]string // by account, then public key
}

// A tally counts steps by what became of them.
type tally struct{ done, skipped, failed int }

// run makes the steps in turn. Without the operator nothing else can be
// imported; any other failure leaves the rest to be done.
func (i *importer) run(ctx context.Context, steps []step) (tally, error) {
	var t tally
	i.keyNames = map[string]map[string]string{}
	for n, s := range steps {
		_, _ = fmt.Fprintf(i.out, "[%d/%d] %s %s", n+1, len(steps), s.kind, s.name)
		if s.skip != "" {
			t.skipped++
			_, _ = fmt.Fprintf(i.out, ": left out: %s\n", s.skip)
			continue
		}
		_, _ = fmt.Fprintf(i.out, " -> %s/%s: %s\n", i.mount, s.path, s.holds)
		if i.vault == nil {
			t.done++
			continue
		}
		warnings, err := i.write(ctx, s)
		for _, warning := range warnings {
			_, _ = fmt.Fprintf(i.out, "    warning: %s\n", withoutSeeds(warning))
		}
		switch {
		case err == nil:
			t.done++
		case ctx.Err() != nil:
			return t, ctx.Err()
		default:
			t.failed++
			_, _ = fmt.Fprintf(i.out, "    failed: %s\n", withoutSeeds(err.Error()))
		}
		if err != nil && s.kind == "operator" {
			return t, fmt.Errorf("the operator could not be imported")
		}
	}
	return t, nil
}

func (i *importer) write(ctx context.Context, s step) (warnings []string, err error) {
	if s.signer != nil && s.signer.key != "" {
		name, err := i.keyName(ctx, *s.signer)
		if err != nil {
			return nil, err
		}
		s.data["signing_key"] = name
	}
	secret, err := i.vault.WriteWithContext(ctx, i.mount+"/"+s.path, s.data)
	if err != nil || secret == nil {
		return nil, err
	}
	return secret.Warnings, nil
}

// keyName asks the mount how it calls an account's signing key.
func (i *importer) keyName(ctx context.Context, s signer) (string, error) {
	if i.keyNames[s.account] == nil {
		secret, err := i.vault.ReadWithContext(ctx, i.mount+"/jwt/"+s.account)
		if err != nil {
			return "", err
		}
		i.keyNames[s.account] = namesOf(secret)
	}
	name := i.keyNames[s.account][s.key]
	if name == "" {
		return "", fmt.Errorf("the mount does not have the signing key %s of account %s", s.key, s.account)
	}
	return name, nil
}

// namesOf reads the names of an account's signing keys, by public key.
func namesOf(secret *api.Secret) map[string]string {
	names := map[string]string{}
	if secret == nil {
		return names
	}
	keys, _ := secret.Data["signing_keys"].([]any)
	for _, key := range keys {
		k, _ := key.(map[string]any)
		public, _ := k["public_key"].(string)
		name, _ := k["name"].(string)
		names[public] = name
	}
	return names
}

var seedForm = regexp.MustCompile(`S[OAU][A-Z2-7]{56}`)

// withoutSeeds makes sure of it, whatever a server answers.
func withoutSeeds(text string) string {
	return seedForm.ReplaceAllString(strings.TrimSpace(text), "(a seed)")
}
