package delivery

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// Two operators, each with a server of its own, whose system accounts are linked
// over a leafnode.
type neighbours struct {
	ours, theirs           *world
	ourServer, theirServer *natsserver.Server
	theirOptions           *natsserver.Options
	ourDir, theirDir       string
	theirAccount           testAccount
	theirAccountJWT        string
}

// exchanging is a full resolver that exchanges accounts with others often.
func (w *world) exchanging(o *natsserver.Options, dir string) *natsserver.Options {
	resolver, err := natsserver.NewDirAccResolver(dir, 0, 200*time.Millisecond, natsserver.HardDelete)
	require.NoError(w.t, err)
	return w.preloaded(o, resolver)
}

func newNeighbours(t *testing.T, ours, theirs func(*world, *natsserver.Options, string)) *neighbours {
	t.Helper()
	n := &neighbours{ours: newWorld(t), theirs: newWorld(t), ourDir: t.TempDir(), theirDir: t.TempDir()}
	o := n.ours.serverOptions("n1")
	ours(n.ours, o, n.ourDir)
	o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", natsserver.RANDOM_PORT
	n.ourServer = n.ours.start(o)

	// Both call their server the same.
	n.theirOptions = n.theirs.serverOptions("n1")
	theirs(n.theirs, n.theirOptions, n.theirDir)
	n.theirAccount = n.theirs.addAccount("theirs")
	n.theirAccountJWT = n.theirs.wanted[n.theirAccount.id]
	require.NoError(t, n.theirOptions.AccountResolver.Store(n.theirs.systemID, n.theirs.systemJWT))
	require.NoError(t, n.theirOptions.AccountResolver.Store(n.theirAccount.id, n.theirAccountJWT))
	n.theirOptions.LeafNode.Remotes = []*natsserver.RemoteLeafOpts{{
		LocalAccount: n.theirs.systemID, URLs: []*url.URL{n.leafURL()}, Credentials: n.ours.credsFile(n.ours.system),
	}}
	n.theirServer = n.theirs.start(n.theirOptions)
	n.areLinked()
	return n
}

func fullResolver(w *world, o *natsserver.Options, dir string) { w.exchanging(o, dir) }

func (n *neighbours) leafURL() *url.URL {
	shown, err := n.ourServer.Varz(nil)
	require.NoError(n.ours.t, err)
	return &url.URL{Scheme: "nats-leaf", Host: fmt.Sprintf("127.0.0.1:%d", shown.LeafNode.Port)}
}

// credsFile is that of a user of an account.
func (w *world) credsFile(account nkeys.KeyPair) string {
	text, user := w.userJWT(account)
	seed, err := user.Seed()
	require.NoError(w.t, err)
	creds, err := jwt.FormatUserConfig(text, seed)
	require.NoError(w.t, err)
	file := filepath.Join(w.t.TempDir(), "leaf.creds")
	require.NoError(w.t, os.WriteFile(file, creds, 0o600))
	return file
}

// areLinked waits until what is asked on one side is answered on both.
func (n *neighbours) areLinked() {
	n.ours.t.Helper()
	client := n.ours.bareClient(n.ourServer)
	defer client.Close()
	n.ours.eventually(func() error {
		inbox := client.NewInbox()
		sub, err := client.SubscribeSync(inbox)
		if err != nil {
			return err
		}
		defer func() { _ = sub.Unsubscribe() }()
		if err := client.PublishRequest(pingSubject, inbox, nil); err != nil {
			return err
		}
		for range 2 {
			if _, err := sub.NextMsg(time.Second); err != nil {
				return fmt.Errorf("the servers are not linked: %w", err)
			}
		}
		return nil
	})
}

// reconciler makes no comparison of its own accord, and knows both servers.
func (n *neighbours) reconciler() *Reconciler {
	n.ours.t.Helper()
	r := n.ours.reconcilerThatWaits(n.ours.config(n.ourServer.ClientURL()), time.Hour)
	require.NoError(n.ours.t, r.link.ready(testContext(n.ours.t)))
	n.ours.eventually(func() error {
		if ours, theirs := len(r.fleet.present()), r.fleet.foreigners(); ours != 1 || theirs != 1 {
			return errors.Join(fmt.Errorf("%d servers and %d foreign ones are known", ours, theirs), r.rollCall())
		}
		return nil
	})
	return r
}

// fileOf is what a directory has of an account.
func fileOf(dir, id string) string {
	text, err := os.ReadFile(filepath.Join(dir, id+".jwt"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func TestAPruneLeavesTheAccountsOfALinkedOperatorAlone(t *testing.T) {
	n := newNeighbours(t, fullResolver, fullResolver)
	r, ctx := n.reconciler(), testContext(t)
	// The servers give each other what they have.
	n.ours.eventually(func() error {
		if fileOf(n.ourDir, n.theirAccount.id) == "" || fileOf(n.ourDir, n.theirs.systemID) == "" {
			return errors.New("our server was not given their accounts")
		}
		return nil
	})
	client, err := n.theirs.connectAs(n.theirServer, n.theirAccount)
	require.NoError(t, err)
	defer client.Close()
	stray := n.ours.addAccount("stray")
	require.NoError(t, r.Deliver(ctx, stray.id))
	n.ours.mu.Lock()
	delete(n.ours.wanted, stray.id)
	n.ours.mu.Unlock()

	report, err := r.Sync(ctx, Options{Unknown: true})
	require.NoError(t, err)
	require.Equal(t, []Unknown{{Account: stray.id}}, report.Unknown)
	require.Equal(t, 2, report.Foreign)
	report, err = r.Sync(ctx, Options{Prune: true})
	require.NoError(t, err)
	require.Equal(t, []Unknown{{Account: stray.id, Pruned: true}}, report.Unknown)
	require.Zero(t, report.Failed, "%+v", report.Failures)

	require.Equal(t, n.theirAccountJWT, fileOf(n.theirDir, n.theirAccount.id))
	require.Equal(t, n.theirs.systemJWT, fileOf(n.theirDir, n.theirs.systemID))
	require.True(t, client.IsConnected())
	stop(n.theirServer)
	again := n.theirs.start(n.theirs.exchanging(n.theirOptions, n.theirDir))
	client, err = n.theirs.connectAs(again, n.theirAccount)
	require.NoError(t, err)
	client.Close()
}

// What a linked server answers depends on its resolver: it takes account JWTs that
// it does not trust, passes over them or says that it has not asked for them, and
// it refuses deletions for one reason or another.
func TestAServerOfALinkedOperatorIsListedAndNothingDependsOnIt(t *testing.T) {
	for name, resolver := range map[string]func(*world, *natsserver.Options, string){
		"full":                      fullResolver,
		"full that does not delete": func(w *world, o *natsserver.Options, dir string) { w.full(o, dir, false) },
		"cache": func(w *world, o *natsserver.Options, dir string) {
			resolver, err := natsserver.NewCacheDirAccResolver(dir, 100, 0)
			require.NoError(w.t, err)
			o.AccountResolver = resolver
		},
		"memory": func(_ *world, o *natsserver.Options, _ string) { o.AccountResolver = &natsserver.MemAccResolver{} },
		"full that has no room": func(w *world, o *natsserver.Options, dir string) {
			resolver, err := natsserver.NewDirAccResolver(dir, 2, time.Hour, natsserver.HardDelete)
			require.NoError(w.t, err)
			o.AccountResolver = resolver
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNeighbours(t, fullResolver, resolver)
			r, ctx := n.reconciler(), testContext(t)

			servers := r.State().Servers
			require.Len(t, servers, 2)
			operators := []string{servers[0].ForeignOperator, servers[1].ForeignOperator}
			require.ElementsMatch(t, []string{"", public(t, n.theirs.operator)}, operators)

			a := n.ours.addAccount("orders")
			client := n.ours.eventuallyDelivered(r, n.ourServer, a)
			defer client.Close()
			state, err := r.Status(ctx, a.id)
			require.NoError(t, err)
			require.Equal(t, 1, state.Servers)
			report, err := r.Sync(ctx, Options{})
			require.NoError(t, err)
			require.Equal(t, 2, report.Delivered)
			arrivals := r.fleet.arrivals()
			report, err = r.Sync(ctx, Options{})
			require.NoError(t, err)
			require.False(t, report.Rewritten, "everything is written anew for the sake of a server that is not ours")
			require.Equal(t, arrivals, r.fleet.arrivals(), "servers of one name are taken for one that restarts")

			n.ours.remove(a.id)
			require.NoError(t, r.Deliver(ctx, a.id))
			require.Zero(t, n.ours.stillPending())
			n.ours.eventually(func() error {
				if client.IsConnected() {
					return errors.New("a client of the removed account stays connected")
				}
				return nil
			})
			for _, server := range r.State().Servers {
				require.Empty(t, server.DeleteRefused)
			}

			// Nobody misses it.
			stop(n.theirServer)
			require.NoError(t, r.rollCall())
			b := n.ours.addAccount("billing")
			require.NoError(t, r.Deliver(ctx, b.id))
			n.ours.remove(b.id)
			require.NoError(t, r.Deliver(ctx, b.id))
			require.Empty(t, r.fleet.missing())
		})
	}
}

// eventuallyDelivered delivers an account and connects as a user of it.
func (w *world) eventuallyDelivered(r *Reconciler, s *natsserver.Server, a testAccount) *nats.Conn {
	w.t.Helper()
	require.NoError(w.t, r.Deliver(testContext(w.t), a.id))
	client, err := w.connectAs(s, a)
	require.NoError(w.t, err)
	return client
}

// Servers give each other what they hold over a leafnode as in a cluster, so that
// those of another operator have our accounts too, and give them back.
func TestARemovedAccountDoesNotComeBackFromALinkedOperatorsServer(t *testing.T) {
	n := newNeighbours(t, fullResolver, fullResolver)
	r, ctx := n.reconciler(), testContext(t)
	a := n.ours.addAccount("orders")
	n.ours.eventuallyDelivered(r, n.ourServer, a).Close()
	was := n.ours.wanted[a.id]
	n.theyHold(a.id, was)

	// Of two that were issued in one second servers may take either; a mount issues
	// the last one later.
	claims, err := jwt.DecodeAccountClaims(was)
	require.NoError(t, err)
	n.ours.eventually(func() error {
		if time.Now().Unix() <= claims.IssuedAt {
			return errors.New("it is the same second still")
		}
		return nil
	})
	n.ours.remove(a.id)
	require.NoError(t, r.Deliver(ctx, a.id))
	require.Zero(t, n.ours.stillPending())
	n.ours.eventually(func() error { // which nobody waited for
		if fileOf(n.theirDir, a.id) == was {
			return errors.New("their server has the account still")
		}
		return nil
	})
	for range 20 { // while they exchange what they have
		for _, dir := range []string{n.ourDir, n.theirDir} {
			require.NotEqual(t, was, fileOf(dir, a.id))
		}
		n.areLinked()
	}
	_, err = n.ours.connectAs(n.ourServer, a)
	require.Error(t, err)
	report, err := r.Sync(ctx, Options{Prune: true})
	require.NoError(t, err)
	require.Empty(t, report.Unknown)
	require.Equal(t, n.theirAccountJWT, fileOf(n.theirDir, n.theirAccount.id))
}

// theyHold waits until the other operator's server has an account of ours.
func (n *neighbours) theyHold(id, accountJWT string) {
	n.ours.t.Helper()
	n.ours.eventually(func() error {
		if fileOf(n.theirDir, id) != accountJWT {
			return errors.New("their server was not given the account")
		}
		return nil
	})
}

// An account may move to another operator with its key.
func TestAnAccountThatALinkedOperatorHasTakenOverIsNotOverwrittenWhenItIsRemoved(t *testing.T) {
	// The servers exchange nothing in a test's time.
	alone := func(w *world, o *natsserver.Options, dir string) { w.full(o, dir, true) }
	n := newNeighbours(t, alone, alone)
	r, ctx := n.reconciler(), testContext(t)
	a := n.ours.addAccount("orders")
	require.NoError(t, r.Deliver(ctx, a.id))
	was := n.ours.wanted[a.id]
	n.theyHold(a.id, was)
	taken := n.theirs.accountJWT(a.id, "orders", nil)
	require.NoError(t, os.WriteFile(filepath.Join(n.theirDir, a.id+".jwt"), []byte(taken), 0o600))

	n.ours.remove(a.id)
	require.NoError(t, r.Deliver(ctx, a.id))
	require.Equal(t, taken, fileOf(n.theirDir, a.id))

	// Not even where a last JWT would be the only way to take it off a server of ours.
	require.NoError(t, os.WriteFile(filepath.Join(n.ourDir, a.id+".jwt"), []byte(was), 0o600))
	_, err := r.lookAtForeigners(ctx, a.id)
	require.ErrorContains(t, err, "a linked server of another operator has one of theirs with the same key")
}

// A server that was started before the operator's key was rotated refuses our keys
// too, and is ours all the same.
func TestAServerOfOursThatDoesNotKnowOurKeyYetIsNotTakenForForeign(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	cfg := w.config(s.ClientURL())
	next := newKey(t, nkeys.CreateOperator)
	cfg.DeleteToken = func(id string) (string, error) {
		claims := jwt.NewGenericClaims(public(t, next))
		claims.Data["accounts"] = []string{id}
		return claims.Encode(next)
	}
	r := w.reconcilerThatWaits(cfg, time.Hour)
	ctx := testContext(t)
	a := w.addAccount("orders")
	require.NoError(t, r.Deliver(ctx, a.id))
	w.remove(a.id)
	require.NoError(t, r.Deliver(ctx, a.id))
	require.Contains(t, r.State().Servers[0].DeleteRefused, "not trusted")
	require.Empty(t, r.State().Servers[0].ForeignOperator)
	require.Contains(t, fileOf(dir, a.id), "eyJ", "it was given a last JWT")
}

func TestAForeignServerThatIsNotHeardIsForgotten(t *testing.T) {
	f := newFleet()
	require.True(t, f.heardForeign(serverInfo{ID: "F", Name: "n1"}, "O"))
	require.False(t, f.heardForeign(serverInfo{ID: "F", Name: "n1"}, "O"))
	require.True(t, f.heard(serverInfo{ID: "A", Name: "n1"}), "ours has the same name")
	require.True(t, f.isForeign("F"))
	require.Equal(t, 1, f.foreigners())
	require.Equal(t, map[string]string{"A": "n1"}, f.present())
	require.Len(t, f.state(), 2)

	f.foreign["F"].heard = time.Now().Add(-2 * forgetForeign)
	require.Empty(t, f.missing())
	require.Zero(t, f.foreigners())
	require.EqualValues(t, 2, f.arrivals(), "it may hold what was removed, so that its arrival counts too")

	for i := range maxForeign + 10 {
		f.heardForeign(serverInfo{ID: fmt.Sprint(i)}, "O")
	}
	require.Equal(t, maxForeign, f.foreigners())
}

// Something in the system account may say that it is a server, as often as it likes.
func TestWhoCannotBeAskedIsNotTakenForAServer(t *testing.T) {
	w := newWorld(t)
	s, _ := w.fullServer()
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	require.NoError(t, r.Deliver(testContext(t), w.systemID))
	client := w.bareClient(s)
	defer client.Close()
	for i := range 100 {
		require.NoError(t, client.Publish(fmt.Sprintf("$SYS.SERVER.X%d.STATSZ", i), fmt.Appendf(nil, `{"server":{"name":"x","id":"X%d"}}`, i)))
	}
	require.NoError(t, client.Flush())
	a := w.addAccount("orders")
	require.NoError(t, r.Deliver(testContext(t), a.id))
	require.NoError(t, r.rollCall())
	require.Len(t, r.fleet.present(), 1)
	require.Empty(t, r.fleet.missing())
}
