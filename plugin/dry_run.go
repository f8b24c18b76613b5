package plugin

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// withDryRun gives the writes of a path the field dry_run. A write that has it is
// made by a backend of its own on storage that keeps nothing: so it is checked and
// answered by what would check and answer it, and whatever may be written later
// cannot be forgotten here. Nothing is delivered. Those that import things which
// belong to others have the field assume, too.
func (b *backend) withDryRun(path *framework.Path, assumes bool) *framework.Path {
	path.Fields["dry_run"] = &framework.FieldSchema{
		Type:        framework.TypeBool,
		Query:       true,
		Description: "Check the write or deletion as it stands and answer whether it would be taken, storing nothing.",
	}
	if assumes {
		path.Fields["assume"] = &framework.FieldSchema{
			Type: framework.TypeString,
			Description: `With dry_run: what an import will have written before. A JSON list of objects with path, which is "config" or that of an account, and data, which has fields of an import only: ` +
				`operator_jwt, operator_seed and operator_signing_seeds, or type, account_jwt, seed and signing_seeds.`,
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		}
	}
	for operation, handler := range path.Operations {
		switch operation {
		case logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation:
			properties := handler.(*framework.PathOperation)
			properties.Callback = b.orDryRun(properties.Callback)
			for _, response := range properties.Responses[http.StatusOK] {
				maps.Copy(response.Fields, dryRunResponse())
			}
		}
	}
	return path
}

func dryRunResponse() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"dry_run": {Type: framework.TypeBool, Description: "Of a dry run, which answers with this and changes only: true."},
		"changes": {Type: framework.TypeBool, Description: "Of a dry run: whether anything would be stored."},
	}
}

func (b *backend) orDryRun(write framework.OperationFunc) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		_, assumes := d.Schema["assume"]
		switch {
		case d.Get("dry_run").(bool):
			return b.dryRun(ctx, req, d)
		case assumes && d.Get("assume").(string) != "":
			return answer(fault.In("assume", "is given without dry_run"))
		default:
			return write(ctx, req, d)
		}
	}
}

// changesOf is what counts as a change: all but what is derived from it.
var changesOf = append(chain.Stored(), issuerPrefix, settingsKey)

func (b *backend) dryRun(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	scratch, err := b.scratch(ctx)
	if err != nil {
		return nil, err
	}
	defer scratch.Cleanup(ctx)
	assumed := store.NewOverlay(req.Storage)
	if err := scratch.assume(ctx, req, assumed, d); err != nil {
		return answer(err)
	}
	written := store.NewOverlay(assumed)
	resp, err := scratch.writeTo(ctx, req, written, req.Operation, req.Path, req.Data)
	if err != nil || resp.IsError() {
		return resp, err
	}
	changes, err := written.Changes(ctx, changesOf...)
	if err != nil {
		return nil, err
	}
	dry := &logical.Response{Data: map[string]any{"dry_run": true, "changes": changes}}
	if resp != nil {
		dry.Warnings = resp.Warnings
	}
	return dry, nil
}

// scratch is a backend with nothing in its caches, which delivers nothing.
func (b *backend) scratch(ctx context.Context) (*backend, error) {
	conf := &logical.BackendConfig{Logger: b.Logger(), System: b.System()}
	scratch := newBackend(conf)
	scratch.dry = true
	return scratch, scratch.Setup(ctx, conf)
}

// writeTo makes a write that is not a dry run any more.
func (b *backend) writeTo(ctx context.Context, of *logical.Request, s logical.Storage, operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	req := *of
	req.Operation, req.Path, req.Storage, req.Data = operation, path, s, maps.Clone(data)
	delete(req.Data, "dry_run")
	delete(req.Data, "assume")
	return b.HandleRequest(ctx, &req)
}

// assumable are the writes that a dry run may come after, and their fields: those
// of an import, which ask nobody and need no path but what they name.
var assumable = []struct {
	path   *regexp.Regexp
	fields []string
}{
	{regexp.MustCompile(`^config$`), []string{"operator_jwt", "operator_seed", "operator_signing_seeds"}},
	{regexp.MustCompile(`^jwt/[^/]+$`), []string{"type", "account_jwt", "seed", "signing_seeds"}},
}

// mostAssumed is how many writes may be assumed: those of the operator and of one
// account, and room.
const mostAssumed = 10

func (b *backend) assume(ctx context.Context, req *logical.Request, s logical.Storage, d *framework.FieldData) error {
	text := ""
	if _, ok := d.Schema["assume"]; ok {
		text = d.Get("assume").(string)
	}
	if text == "" {
		return nil
	}
	var steps []struct {
		Path string         `json:"path"`
		Data map[string]any `json:"data"`
	}
	if err := json.Unmarshal([]byte(text), &steps); err != nil {
		return fault.In("assume", "is not a JSON list of objects with path and data: %s", err)
	}
	if len(steps) > mostAssumed {
		return fault.In("assume", "has %d writes: %d are the most", len(steps), mostAssumed)
	}
	for i, step := range steps {
		if err := checkAssumed(step.Path, step.Data); err != nil {
			return fault.In("assume", "[%d] %s", i, err)
		}
		resp, err := b.writeTo(ctx, req, s, logical.UpdateOperation, step.Path, step.Data)
		if err == nil && resp.IsError() {
			err = resp.Error()
		}
		if err != nil {
			return fault.In("assume", "[%d], the write of %s, would be refused: %s", i, step.Path, err)
		}
	}
	return nil
}

func checkAssumed(path string, data map[string]any) error {
	for _, allowed := range assumable {
		if !allowed.path.MatchString(path) {
			continue
		}
		for field := range data {
			if !slices.Contains(allowed.fields, field) {
				return fault.New("has the field %q, which is none of an import", field)
			}
		}
		return nil
	}
	return fault.New("has the path %q, which is none of an import", path)
}
