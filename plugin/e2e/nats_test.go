package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// workload is a client of nats-server.
type workload struct {
	*nats.Conn
	t *testing.T
}

// tryConnect connects to the test's nats-server with the text of a creds file.
// Without options the client does not reconnect, so that being cut off is seen.
func (e *env) tryConnect(creds string, opts ...nats.Option) (*workload, error) {
	e.t.Helper()
	path := filepath.Join(e.t.TempDir(), "user.creds")
	require.NoError(e.t, os.WriteFile(path, []byte(creds), 0o600))
	return e.dial(append([]nats.Option{nats.UserCredentials(path)}, opts...)...)
}

// dial connects to the test's nats-server.
func (e *env) dial(opts ...nats.Option) (*workload, error) {
	conn, err := nats.Connect(e.nats.URL, append([]nats.Option{
		nats.NoReconnect(), nats.Timeout(patience),
		// A test looks at the errors that it expects; nats.go prints them otherwise.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, opts...)...)
	if err != nil {
		return nil, err
	}
	e.t.Cleanup(conn.Close)
	return &workload{Conn: conn, t: e.t}, nil
}

// connect connects to the test's nats-server with the text of a creds file.
func (e *env) connect(creds string, opts ...nats.Option) *workload {
	e.t.Helper()
	w, err := e.tryConnect(creds, opts...)
	require.NoError(e.t, err)
	return w
}

// connectRefused connects with creds that the server must refuse.
func (e *env) connectRefused(creds string) {
	e.t.Helper()
	_, err := e.tryConnect(creds)
	require.Error(e.t, err)
	// nats-server's reasons to refuse a user: a violation, expired or revoked.
	require.Regexp(e.t, "(?i)authorization violation|authentication (expired|revoked)", err.Error())
}

// verdict does something and returns the error that the server answered it with.
func (w *workload) verdict(do func() error) error {
	w.t.Helper()
	before := w.LastError()
	require.NoError(w.t, do())
	// The server answers in order: its error is here before the answer to the flush.
	require.NoError(w.t, w.FlushTimeout(patience))
	if after := w.LastError(); after != before { //nolint:errorlint // another error, not another kind of error
		return after
	}
	return nil
}

func (w *workload) tryPublish(subject string) error {
	w.t.Helper()
	return w.verdict(func() error { return w.Publish(subject, []byte("hello")) })
}

// publishes publishes a message that the server must take.
func (w *workload) publishes(subject string) {
	w.t.Helper()
	require.NoError(w.t, w.tryPublish(subject), "publish to %s", subject)
}

// mayNotPublish publishes a message that the server must refuse.
func (w *workload) mayNotPublish(subject string) {
	w.t.Helper()
	err := w.tryPublish(subject)
	require.ErrorIs(w.t, err, nats.ErrPermissionViolation)
	require.ErrorContains(w.t, err, fmt.Sprintf("Publish to %q", subject))
}

func (w *workload) trySubscribe(subject string) (*nats.Subscription, error) {
	w.t.Helper()
	var subscription *nats.Subscription
	err := w.verdict(func() (err error) {
		subscription, err = w.SubscribeSync(subject)
		return err
	})
	return subscription, err
}

// subscribes subscribes to a subject that the server must allow.
func (w *workload) subscribes(subject string) *nats.Subscription {
	w.t.Helper()
	subscription, err := w.trySubscribe(subject)
	require.NoError(w.t, err, "subscribe to %s", subject)
	return subscription
}

// mayNotSubscribe subscribes to a subject that the server must refuse.
func (w *workload) mayNotSubscribe(subject string) {
	w.t.Helper()
	_, err := w.trySubscribe(subject)
	require.ErrorIs(w.t, err, nats.ErrPermissionViolation)
	require.ErrorContains(w.t, err, fmt.Sprintf("Subscription to %q", subject))
}

// receives returns the next message of a subscription.
func (w *workload) receives(subscription *nats.Subscription) *nats.Msg {
	w.t.Helper()
	message, err := subscription.NextMsg(patience)
	require.NoError(w.t, err)
	return message
}

// isCutOff waits until the server has ended the connection.
func (e *env) isCutOff(w *workload) {
	e.t.Helper()
	e.waitFor("the server to end the connection", func() error {
		if !w.IsClosed() {
			return errors.New("the client is connected")
		}
		return nil
	})
}
