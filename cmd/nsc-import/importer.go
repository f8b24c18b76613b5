package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"

	"github.com/hashicorp/vault/api"
)

// An importer makes the steps of a plan, or has the mount say what would become of
// them.
type importer struct {
	vault *api.Logical
	mount string // path of the mount, as auth/nats
	dry   bool
	out   io.Writer

	lost map[*step]string // why a step was not made
}

// A tally counts steps by what became of them.
type tally struct{ done, skipped, failed int }

// run makes the steps in turn. Without the operator nothing else can be
// imported; any other failure leaves the rest to be done.
func (i *importer) run(ctx context.Context, steps []*step) (tally, error) {
	var t tally
	i.lost = map[*step]string{}
	for n, s := range steps {
		_, _ = fmt.Fprintf(i.out, "[%d/%d] %s %s", n+1, len(steps), s.kind, s.name)
		if s.skip != "" {
			t.skipped++
			_, _ = fmt.Fprintf(i.out, ": left out: %s\n", s.skip)
			continue
		}
		_, _ = fmt.Fprintf(i.out, " -> %s/%s: %s\n", i.mount, s.path, s.holds)
		err := i.makeStep(ctx, s)
		var left leftOut
		switch {
		case err == nil:
			t.done++
		case ctx.Err() != nil:
			return t, ctx.Err()
		case errors.As(err, &left):
			t.skipped++
			i.lost[s] = "is left out"
			i.say("left out", left.Error())
		default:
			t.failed++
			i.lost[s] = "could not be imported"
			i.say("failed", err.Error())
		}
		if err != nil && s.kind == "operator" {
			return t, fmt.Errorf("the operator could not be imported")
		}
	}
	return t, nil
}

// leftOut is why the mount passes something over: what was done there since
// stands against it.
type leftOut string

func (l leftOut) Error() string { return string(l) }

func (i *importer) say(what, text string) {
	_, _ = fmt.Fprintf(i.out, "    %s: %s\n", what, strings.ReplaceAll(withoutSeeds(text), "\n", "\n        "))
}

func (i *importer) makeStep(ctx context.Context, s *step) error {
	for _, needed := range s.after {
		switch why := i.lost[needed]; {
		case why == "is left out":
			return leftOut("its " + needed.kind + " is left out")
		case why != "":
			return fmt.Errorf("its %s %s", needed.kind, why)
		}
	}
	data := s.data
	if i.dry {
		var err error
		if data, err = s.dryRun(); err != nil {
			return err
		}
	}
	secret, err := i.vault.WriteWithContext(ctx, i.mount+"/"+s.path, data)
	if err != nil {
		return refusal(err)
	}
	if secret != nil {
		for _, warning := range secret.Warnings {
			i.say("warning", warning)
		}
	}
	if i.dry {
		return i.readDryRun(secret)
	}
	return nil
}

// refusal is what the mount says, without the request around it.
func refusal(err error) error {
	var answer *api.ResponseError
	if !errors.As(err, &answer) || len(answer.Errors) == 0 {
		return err
	}
	text := strings.Join(answer.Errors, ", ")
	if _, one, found := strings.Cut(text, "1 error occurred:\n\t* "); found { // so Vault has those that are not of status 400
		text = strings.TrimSpace(one)
	}
	switch answer.StatusCode {
	case http.StatusConflict:
		return leftOut(text)
	case http.StatusBadRequest:
		return errors.New(text)
	default:
		return fmt.Errorf("%s (status %d)", text, answer.StatusCode)
	}
}

// dryRun is what is sent to ask for a step. The mount is to take those that come
// before it as made, as they may not be.
func (s *step) dryRun() (map[string]any, error) {
	data := maps.Clone(s.data)
	data["dry_run"] = true
	if len(s.after) == 0 {
		return data, nil
	}
	type write struct {
		Path string         `json:"path"`
		Data map[string]any `json:"data"`
	}
	var before []write
	for _, needed := range s.after {
		before = append(before, write{needed.path, needed.data})
	}
	text, err := json.Marshal(before)
	data["assume"] = string(text)
	return data, err
}

func (i *importer) readDryRun(secret *api.Secret) error {
	if secret == nil || secret.Data["dry_run"] != true {
		return errors.New("the mount does not know dry_run, so this may have been written: it has another version than nsc-import")
	}
	if secret.Data["changes"] == false {
		_, _ = fmt.Fprintln(i.out, "    the mount has it already, and nothing would change")
	}
	return nil
}

var seedForm = regexp.MustCompile(`S[OAUX][A-Z2-7]{56}`)

// withoutSeeds makes sure of it, whatever a server answers.
func withoutSeeds(text string) string {
	return seedForm.ReplaceAllString(strings.TrimSpace(text), "(a seed)")
}
