// Package client connects a service to NATS with credentials that it gets from a
// Vault mount of vault-plugin-auth-nats, and keeps the connection alive over any
// number of them.
//
//	workload := client.Workload{Role: "dev", Token: client.TokenEnv("CI_JOB_JWT")}
//	credentials, err := client.New(ctx, vault, workload)
//	if err != nil {
//		return err
//	}
//	defer credentials.Close()
//	conn, err := nats.Connect(credentials.URL(), credentials.Option())
//
// # Where credentials come from
//
// [New] logs in with the JWT that the workload's platform gave it, such as a CI job's
// token or a projected service account token. [NewFromVaultToken] is for a service that
// holds a Vault token already: it reads creds/:role, so that the credentials are a lease
// of that token and end with it. [Workload] is also an api.AuthMethod, for a plain
// login to Vault.
//
// # Keys
//
// Each set of credentials is for a user key that is made in this process and never
// leaves it: Vault sees the public half, and a signature that proves possession of the
// other. The signature is for one mount, role and token or Vault entity, and for five
// minutes: where the mount demands it, this machine's clock has to be as near to Vault's.
// A nonce of a nats-server that looks like the text of such a proof is not signed. A key
// is wiped once it was replaced twice, and by [Client.Close].
//
// # Renewal
//
// A connection whose NATS user JWT has lived 70 to 90 percent of its life, at random so
// that a fleet spreads out, gets a new one, flushes and reconnects with it at once. What
// an administrator changed in the role holds from then on. A connection that is lost
// earlier, for whatever reason, also comes back with a new JWT; when Vault does not
// answer in a second it comes back with the one at hand, as long as that is valid. While
// Vault is down nothing happens to a connection until its JWT has ended; from then on it
// is tried again, until Vault and NATS are both there.
//
// A reconnect is what it always is in NATS: messages that are published meanwhile are
// buffered, subscriptions are restored, but a request that waits for its answer fails,
// and a core subscription does not get what others published in that moment. A publish
// to JetStream whose acknowledgement did not come is repeated by its sender, with a
// Nats-Msg-Id, and is then stored once.
//
// Failed renewals are reported to the connection's error handler
// (nats.ErrorHandler). No error of this package holds a token, a JWT or a seed.
package client
