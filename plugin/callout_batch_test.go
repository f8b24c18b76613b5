package plugin

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"
)

func (q question) asBatchInput() map[string]any {
	return map[string]any{"request": base64.StdEncoding.EncodeToString(q.raw), "server_xkey": q.header}
}

// answers are those of a batch, of which a machine with much to do leaves some to be asked
// for alone, which the responder does.
func (m *calloutMount) answers(input ...any) []map[string]any {
	m.t.Helper()
	results := m.batch(input...)
	for i, result := range results {
		if result["status"] == http.StatusServiceUnavailable {
			results[i] = m.batch(input[i])[0]
		}
	}
	return results
}

func (m *calloutMount) batch(input ...any) []map[string]any {
	m.t.Helper()
	resp, err := m.try(logical.UpdateOperation, "callout/edge/authorize", map[string]any{"batch_input": input})
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	results := resp.Data["batch_results"].([]map[string]any)
	require.Len(m.t, results, len(input))
	return results
}

func TestABatchHasAnAnswerForEachOfItsRequests(t *testing.T) {
	m := newCalloutMount(t, nil)
	stranger := m.client()
	stranger.Password += "x"
	var input []any
	var asked []question
	for range mostAsked / 4 {
		good, bad := m.question(m.client()), m.question(stranger)
		altered := m.question(m.client())
		altered.raw[len(altered.raw)-1] ^= 1
		asked = append(asked, good, bad)
		input = append(input, good.asBatchInput(), bad.asBatchInput(), altered.asBatchInput(), map[string]any{})
	}
	results := m.answers(input...)
	for i := range mostAsked / 4 {
		user, err := m.open(asked[2*i], results[4*i]["response"].(string))
		require.NoError(t, err)
		require.Equal(t, asked[2*i].user, user.Subject)
		require.Equal(t, true, results[4*i]["allowed"])
		require.Equal(t, "dev", results[4*i]["role"])

		_, err = m.open(asked[2*i+1], results[4*i+1]["response"].(string))
		require.ErrorContains(t, err, "error validating token")
		require.Equal(t, false, results[4*i+1]["allowed"])

		require.Equal(t, map[string]any{"status": 400, "error": "request is sealed for a key that the callout does not have, or not by the server of its header"}, results[4*i+2])
		require.Equal(t, map[string]any{"status": 400, "error": "request is not what a nats-server has sent, in standard base64"}, results[4*i+3])
	}
	one := m.question(m.client())
	_, err := m.open(one, m.batch(one.asBatchInput())[0]["response"].(string))
	require.NoError(t, err)
}

func TestABatchThatIsNoneIsRefused(t *testing.T) {
	m := newCalloutMount(t, nil)
	q := m.question(m.client()).asBatchInput()
	for fault, data := range map[string]map[string]any{
		"batch_input has 0 requests":                 {"batch_input": []any{}},
		"batch_input has 65 requests":                {"batch_input": make([]any, mostAsked+1)},
		"batch_input has in place 1 no object":       {"batch_input": []any{q, "x"}},
		"batch_input has in place 0 a request that":  {"batch_input": []any{map[string]any{"request": 3}}},
		"request is given beside batch_input":        {"batch_input": []any{q}, "request": q["request"]},
		"server_xkey is given beside batch_input":    {"batch_input": []any{q}, "server_xkey": "X"},
		"request is not what a nats-server has sent": {},
	} {
		m.refused(logical.UpdateOperation, "callout/edge/authorize", data, fault)
	}
}

// A client can have the mount ask its issuer, and an issuer can take its time.
func TestAClientWhoseIssuerIsSlowHoldsUpNoOther(t *testing.T) {
	m := newCalloutMount(t, map[string]any{"roles": "dev,slow"})
	asked, answers := make(chan struct{}, 8), make(chan struct{})
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answers
		_, _ = w.Write([]byte(`{"keys":[]}`))
	}))
	t.Cleanup(keys.Close)
	t.Cleanup(func() { close(answers) })
	m.write("issuer/slow", map[string]any{"jwks_url": keys.URL, "skip_jwks_validation": true})
	m.write("role/slow", map[string]any{"issuer": "slow", "account": "orders", "bound_audiences": "vault", "user_claim": "sub"})

	slow, quick := m.question(natsjwt.ConnectOptions{Username: "slow", Password: m.workload.token}), m.question(m.client())
	began := time.Now()
	results := m.batch(slow.asBatchInput(), quick.asBatchInput())
	require.Less(t, time.Since(began), 5*time.Second)
	require.Equal(t, 503, results[0]["status"])
	if results[1]["status"] == 503 { // on a machine with much to do
		results[1] = m.batch(quick.asBatchInput())[0]
	}
	_, err := m.open(quick, results[1]["response"].(string))
	require.NoError(t, err)
	<-asked
}

// A standby may not have yet what the leader has.
func TestAStandbyLeavesABatchToTheLeaderUnlessItAnswersAllOfIt(t *testing.T) {
	m := newCalloutMount(t, map[string]any{"roles": "*"})
	standby := standbyOn(t, m.storage)
	ask := func(input ...any) (*logical.Response, error) {
		return standby.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.UpdateOperation, Path: "callout/edge/authorize", Storage: m.storage, Data: map[string]any{"batch_input": input},
		})
	}
	known := m.question(m.client()).asBatchInput()
	resp, err := ask(known)
	require.NoError(t, err)
	require.Len(t, resp.Data["batch_results"], 1)
	_, err = ask(known, m.question(natsjwt.ConnectOptions{Username: "new", Password: m.workload.token}).asBatchInput())
	require.ErrorIs(t, err, logical.ErrReadOnly)
}
