package plugin

import (
	"bytes"
	"context"
	"errors"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/common/expfmt"
)

func (b *backend) pathsMetrics() []*framework.Path {
	return []*framework.Path{{
		Pattern:      "metrics$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "metrics"},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:  b.readMetrics,
				Summary:   "Read the metrics of the mount on this node, for Prometheus.",
				Responses: responds(http.StatusOK, "The metrics, in Prometheus's text format.", nil),
			},
		},
		HelpSynopsis:    "Show the mount's metrics to Prometheus.",
		HelpDescription: metricsHelp,
	}}
}

func (b *backend) readMetrics(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	if err := errors.Join(b.metrics.logins.dropDeleted(ctx, req.Storage), b.metrics.issuers.dropDeleted(ctx, req.Storage)); err != nil {
		return nil, err
	}
	families, err := b.metrics.registry().Gather()
	if err != nil {
		return nil, err
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return nil, err
		}
	}
	return rawResponse(http.StatusOK, string(format), text.Bytes()), nil
}

const metricsHelp = `
Answers with Prometheus's text format, whatever is asked for, so that Prometheus
scrapes /v1/auth/nats/metrics with a Vault token whose policy lets it read this
path, as it does Vault's own sys/metrics.

The numbers are of this mount on the node that answers; those whose names begin
with go_ and process_ are of the plugin's process, which mounts share.
`
