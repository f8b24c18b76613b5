// Package responder answers what nats-servers ask an auth callout (ADR-26), by
// having the mount do so: it brings each request to callout/:name/authorize in Vault,
// and the answer back. It has no key of NATS's, and where the callout has an xkey it
// sees no client's token.
//
// It connects to NATS as the callout's named user, whose key stays in the mount too.
// Several responders share the requests, as a queue group.
//
//	nats-server --request--> Responder --queue--> carry --authorize--> Vault
//	nats-server <-----------answer---------------       <-------------
//
// Requests that come while others are with Vault go there together: see headway.
//
// A request is answered before the nats-server has stopped waiting, or not at all.
// One that cannot be brought to Vault in time, or finds the queue full, is answered
// with nothing, by which the server turns the client away at once and not after its
// timeout: so that it soon tries again.
package responder
