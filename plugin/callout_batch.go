package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

const (
	// mostAsked is how many requests a batch may have.
	mostAsked = 64

	// batchWait is how long those of a batch that are answered wait for the rest. What
	// takes longer waits for an issuer, and is to be asked for alone: clients whose
	// tokens take long hold up no others.
	batchWait = 100 * time.Millisecond
)

// authorizeBatch answers many requests at once. What a request costs in Vault and on
// the way to the plugin is more than what the plugin does for it.
func (b *backend) authorizeBatch(ctx context.Context, s logical.Storage, open *answering, d *framework.FieldData, batch []any) (*logical.Response, error) {
	asked, err := readBatch(d, batch)
	if err != nil {
		return answer(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type reply struct {
		at   int
		data map[string]any
		err  error
	}
	replies := make(chan reply, len(asked))
	for i, what := range asked {
		go func() {
			data, err := b.reply(ctx, s, open, what)
			replies <- reply{i, data, err}
		}()
	}
	var late <-chan time.Time // never, for one alone
	if len(asked) > 1 {
		timer := time.NewTimer(batchWait)
		defer timer.Stop()
		late = timer.C
	}
	results := make([]map[string]any, len(asked))
	for range asked {
		select {
		case r := <-replies:
			if r.err != nil && b.onStandby() {
				return nil, logical.ErrReadOnly
			}
			results[r.at] = r.data
			if r.err != nil {
				results[r.at] = failure(r.err)
			}
			continue
		case <-late:
		}
		break
	}
	for i := range results {
		if results[i] == nil {
			results[i] = failure(errTakesLong)
		}
	}
	return &logical.Response{Data: map[string]any{"batch_results": results}}, nil
}

var errTakesLong = logical.CodedError(http.StatusServiceUnavailable, fmt.Sprintf("it takes longer than the %s that a batch may: ask for it alone", batchWait))

// failure is what stands in a batch for a request that has no answer.
func failure(err error) map[string]any {
	status := http.StatusInternalServerError
	var theirs *fault.Error
	var coded logical.HTTPCodedError
	switch {
	case errors.As(err, &theirs):
		status = http.StatusBadRequest
	case errors.As(err, &coded):
		status = coded.Code()
	}
	return map[string]any{"error": err.Error(), "status": status}
}

func readBatch(d *framework.FieldData, batch []any) ([]asking, error) {
	for _, field := range []string{"request", "server_xkey"} {
		if _, ok := d.GetOk(field); ok {
			return nil, fault.In(field, "is given beside batch_input")
		}
	}
	if len(batch) == 0 || len(batch) > mostAsked {
		return nil, fault.In("batch_input", "has %d requests: it takes 1 to %d", len(batch), mostAsked)
	}
	asked := make([]asking, len(batch))
	for i, item := range batch {
		object, ok := item.(map[string]any)
		if !ok {
			return nil, fault.In("batch_input", "has in place %d no object", i)
		}
		for name, to := range map[string]*string{"request": &asked[i].request, "server_xkey": &asked[i].xkey} {
			if value, given := object[name]; given {
				if *to, ok = value.(string); !ok {
					return nil, fault.In("batch_input", "has in place %d a %s that is not text", i, name)
				}
			}
		}
	}
	return asked, nil
}
