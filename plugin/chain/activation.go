package chain

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// An Activation lets an account import what another one exports with token_req.
type Activation struct {
	Exporter string // name of the account
	Importer string // name or public key of the account
	Subject  string
	Type     string        // "stream" or "service"
	TTL      time.Duration // 0 for no end
}

// ActivationToken makes the token with which the importer imports.
func (c *Chain) ActivationToken(ctx context.Context, s logical.Storage, given Activation) (string, error) {
	name := given.Exporter
	exporter, err := readNamed(ctx, s, name)
	if err != nil {
		return "", err
	}
	if exporter == nil || exporter.Type != TypeAccount {
		return "", fault.In("name", "%q is not an account", name)
	}
	kind, err := exportType(given.Type)
	if err != nil {
		return "", err
	}
	subject := jwt.Subject(given.Subject)
	if !exporter.exports(subject, kind) {
		return "", fault.In("subject", "%q is in no %s that account %q exports with token_req", subject, kind, name)
	}
	importer, err := publicKeyOf(ctx, s, given.Importer)
	if err != nil {
		return "", err
	}
	account, err := c.Account(ctx, s, name)
	if err != nil {
		return "", err
	}
	signer, err := account.Signer(PlainSigner)
	if err != nil {
		return "", err
	}
	now := time.Now()
	activation := trust.Activation{Exporter: exporter.PublicKey, Importer: importer, Subject: subject, Type: kind}
	if given.TTL > 0 {
		activation.Expires = now.Add(given.TTL)
	}
	token, err := activation.Encode(signer, max(now.Unix(), exporter.revokesActivations(subject, kind, importer)+1))
	if err != nil {
		return "", fault.In("subject", "%s", err)
	}
	return token, nil
}

// revokesActivations is the time of issue up to which the account's exports refuse
// activation tokens of an importer.
func (e *namedEntry) revokesActivations(subject jwt.Subject, kind jwt.ExportType, importer string) int64 {
	at := int64(0)
	for _, export := range e.Claims.Exports {
		if export.Type == kind && subject.IsContainedIn(export.Subject) {
			at = max(at, export.Revocations[importer], export.Revocations[jwt.All])
		}
	}
	return at
}

func exportType(name string) (jwt.ExportType, error) {
	switch name {
	case "stream":
		return jwt.Stream, nil
	case "service":
		return jwt.Service, nil
	default:
		return jwt.Unknown, fault.In("type", `is %q: allowed are "stream" and "service"`, name)
	}
}

// exports reports whether the account has an export that needs a token and
// holds the subject.
func (e *namedEntry) exports(subject jwt.Subject, kind jwt.ExportType) bool {
	for _, export := range e.Claims.Exports {
		if export.TokenReq && export.Type == kind && subject != "" && subject.IsContainedIn(export.Subject) {
			return true
		}
	}
	return false
}

// publicKeyOf takes an account's name, or its public key.
func publicKeyOf(ctx context.Context, s logical.Storage, account string) (string, error) {
	if public, err := trust.ParsePublicKey(trust.Account, account); err == nil {
		return public, nil
	}
	if err := fault.CheckName("account", account); err != nil {
		return "", err
	}
	entry, err := readNamed(ctx, s, account)
	if err != nil {
		return "", err
	}
	if entry == nil || entry.Type != TypeAccount {
		return "", fault.In("account", "%q is neither an account in the mount nor a public key", account)
	}
	return entry.PublicKey, nil
}
