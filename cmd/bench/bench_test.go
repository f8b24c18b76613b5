package main

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPercentilesAreByTheNearestRank(t *testing.T) {
	ten := []float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}
	for name, c := range map[string]struct {
		values []float64
		p      int
		want   float64
	}{
		"of nothing it is zero":                       {nil, 99, 0},
		"the median of an even number is between two": {ten, 50, 5.5},
		"the median of an odd number is the middle":   {ten[:9], 50, 6},
		"the 99th of ten is the largest":              {ten, 99, 10},
		"the 90th of ten is the ninth":                {ten, 90, 9},
		"the lowest is the smallest":                  {ten, 0, 1},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, percentile(c.values, c.p)) })
	}
	require.Equal(t, 10.0, ten[0], "the figures were reordered")
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	require.Equal(t, []float64{0.5, 2}, ratios([]float64{1, 4, 5}, []float64{2, 2}))
}

func TestAGoalIsMetAtItsBound(t *testing.T) {
	for name, c := range map[string]struct {
		goal goal
		want bool
	}{
		"at least, and it is":     {goal{Want: 2, Got: 2}, true},
		"at least, and it is not": {goal{Want: 2, Got: 1.9}, false},
		"at most, and it is":      {goal{Most: true, Want: 2, Got: 2}, true},
		"at most, and it is not":  {goal{Most: true, Want: 2, Got: 2.1}, false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, c.goal.met()) })
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for value, want := range map[float64]string{0: "0", 0.01234: "0.0123", 0.9: "0.900", 1.234: "1.23", 12.34: "12.3", 1234: "1234", -0.5: "-0.500"} {
		require.Equal(t, want, number(value))
	}
}

func TestGoBenchmarksAreRead(t *testing.T) {
	figures := aloneFigures{map[string][]float64{}, map[string][]float64{}, map[string][]float64{}}
	require.NoError(t, figures.parse("goos: linux\nBenchmarkLogin/RS256 \t   10000\t    136454 ns/op\t   18062 B/op\t     133 allocs/op\nPASS\n"))
	require.Equal(t, []float64{136454}, figures.nanoseconds["BenchmarkLogin/RS256"])
	require.Equal(t, []float64{18062}, figures.bytes["BenchmarkLogin/RS256"])
	require.Equal(t, []float64{133}, figures.allocations["BenchmarkLogin/RS256"])
}

func TestTokenReviewsAreCountedWhateverTheirAnswer(t *testing.T) {
	count, err := countReviews(strings.NewReader(`# TYPE apiserver_request_total counter
apiserver_request_total{code="201",resource="serviceaccounts",subresource="token",verb="POST",version="v1"} 64
apiserver_request_total{code="201",resource="tokenreviews",subresource="",verb="POST",version="v1"} 7
apiserver_request_total{code="403",resource="tokenreviews",subresource="",verb="POST",version="v1"} 1e+06
apiserver_request_duration_seconds_count{resource="tokenreviews",verb="POST"} 9
`))
	require.NoError(t, err)
	require.Equal(t, 1000007.0, count)
	_, err = countReviews(strings.NewReader(`apiserver_request_total{resource="tokenreviews"} many`))
	require.ErrorContains(t, err, "many")
}

func TestAContestTakesTheMedianOfTheRounds(t *testing.T) {
	c := newContest("creds", "a read", []string{ours, noop}, []int{8})
	c.figures[entrant{ours, 8}].rates = []float64{90, 50, 70}
	c.figures[entrant{noop, 8}].rates = []float64{100, 100, 100}
	require.Equal(t, 0.7, c.ratio(ours, noop, 8))
	shown := c.table(&bench{report: &report{}}, "Reads")
	require.Len(t, shown.Rows, 2)
	require.Equal(t, []string{"8", noop, "100", "0.700"}, shown.Rows[1][:4])
	require.Len(t, shown.Rows[0], len(shown.Columns))
}

func TestAProcessWithSpacesInItsNameIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stat")
	line := "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100 1000 3 18446744073709551615\n"
	require.NoError(t, os.WriteFile(path, []byte(line), 0o600))
	cpu, resident, err := readStat(path)
	require.NoError(t, err)
	require.Equal(t, 3.0, cpu)
	require.Equal(t, 3*float64(os.Getpagesize()), resident)
}

func TestTheLoadGeneratorCountsWhatItDoes(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") != "secret" {
			http.Error(w, "no token", http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte(`{"auth":{"client_token":"hvs.1","policies":[]}}`))
	}))
	t.Cleanup(server.Close)
	login := func(token string) task {
		text, err := request("PUT", "auth/nats/login", token, map[string]any{"role": "dev"})
		require.NoError(t, err)
		return func(c *conn) error {
			body, err := c.do(text)
			if err != nil {
				return err
			}
			_, err = clientToken(body)
			return err
		}
	}
	burst, err := hammer(context.Background(), target{addr: server.URL}, []task{login("secret"), login("secret")}, 50*time.Millisecond)
	require.NoError(t, err)
	require.NotEmpty(t, burst.latencies)
	require.GreaterOrEqual(t, burst.done, len(burst.latencies))
	require.Positive(t, burst.rate)

	_, err = hammer(context.Background(), target{addr: server.URL}, []task{login("secret"), login("wrong")}, 50*time.Millisecond)
	require.ErrorContains(t, err, "403 Forbidden")
}

func TestARequestIsValidHTTP(t *testing.T) {
	text, err := request("PUT", "auth/nats/login", "", map[string]any{"role": "dev"})
	require.NoError(t, err)
	read, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(text))))
	require.NoError(t, err)
	require.Equal(t, "/v1/auth/nats/login", read.URL.Path)
	require.Empty(t, read.Header.Values("X-Vault-Token"))
	require.Equal(t, int64(len(`{"role":"dev"}`)), read.ContentLength)
}

func TestOnlyKnownSectionsAreSelected(t *testing.T) {
	all, err := selected("")
	require.NoError(t, err)
	require.Len(t, all, len(sections))
	some, err := selected("growth,login")
	require.NoError(t, err)
	require.Equal(t, []string{"growth", "login"}, some)
	_, err = selected("speed")
	require.ErrorContains(t, err, `no section "speed"`)
}
