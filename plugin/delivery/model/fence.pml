/*
 * Two nodes, of which one leads at a time, push the versions of one account to two NATS
 * servers. What keeps the one that led from undoing what the other has pushed is told in
 * ../hold.go and ../others.go; this is the protocol of it, for spin:
 *
 *	make model
 *
 * checks it, and that it breaks once one of its rules is left out.
 *
 * A node can be frozen between any two steps that are not atomic, for as long as spin
 * likes. A message takes as long as it likes, on each of its ways; those of one sender
 * to one server keep their order.
 *
 * There is no clock but for what it is compared with. A proof is over once the other
 * node leads: another leader is looked for only when the former one was not heard of for
 * longer than LeadTime. Messages that were sent before have arrived by then.
 *
 *	-DFREEZE	neither is sure: a node is frozen between its last look at the
 *			clock and the network, and a message takes longer
 *	-DNO_PROOF	who has read an account pushes it
 *	-DNO_REREAD	who has to prove its lead anew pushes what was in hand
 *	-DNO_EARS	nobody hears what others push
 *	-DNO_CONFIRM	who hears something pushes at once, and not once more later
 *
 * What has to hold:
 *	never back	no server is given an older version than the one that it has.
 *			FREEZE excepted, against which nothing helps.
 *	in the end	when nothing moves any more, each server has what is stored.
 */

#define VERSIONS 3	/* the newest that is stored */
#define CHANGES  2	/* so often the other node comes to lead */

byte leader;		/* the node that storage takes writes from */
byte stored = 1;	/* the version in storage */
byte changes;
bool proven[2];		/* by node: its proof holds */
bool need[2];		/* by node: the account is to be pushed */
bool confirm[2];	/* by node: and once more, when what was under way has arrived */
byte held[2];		/* by server: the version that it has */

/* What is under way, by server and sender: to0from1 is to server 0 from node 1. */
chan to0from0 = [2] of { byte };
chan to0from1 = [2] of { byte };
chan to1from0 = [2] of { byte };
chan to1from1 = [2] of { byte };

#define ARRIVED(node) ((node == 0 && empty(to0from0) && empty(to1from0)) || (node == 1 && empty(to0from1) && empty(to1from1)))

/* One message goes to both servers, and to the other node. */
inline push(me, version) {
	if
	:: me == 0 -> to0from0!version; to1from0!version
	:: else    -> to0from1!version; to1from1!version
	fi;
#ifndef NO_EARS
	need[1 - me] = true;
#ifndef NO_CONFIRM
	confirm[1 - me] = true;
#endif
#endif
}

#define ROOM(node) ((node == 0 && nfull(to0from0) && nfull(to1from0)) || (node == 1 && nfull(to0from1) && nfull(to1from1)))

proctype node(byte me)
{
	byte hand;
end:
	do
	:: atomic { need[me] -> need[me] = false };
prove:
		/* The write that proves it. One that storage does not take is the end. */
#ifndef NO_PROOF
		if
		:: atomic { me == leader -> proven[me] = true }
		:: atomic { me != leader -> hand = 0; goto end }
		fi;
#endif
#ifdef NO_REREAD
		if
		:: atomic { hand == 0 -> hand = stored }
		:: hand != 0
		fi;
#else
		hand = stored;
#endif
#if defined(NO_PROOF)
		atomic { ROOM(me) -> push(me, hand); hand = 0 }
#elif defined(FREEZE)
		if
		:: proven[me]
		:: !proven[me] -> goto prove
		fi;
		atomic { ROOM(me) -> push(me, hand); hand = 0 }
#else
		if
		:: atomic { proven[me] && ROOM(me) -> push(me, hand); hand = 0 }
		:: !proven[me] -> goto prove
		fi
#endif
	:: atomic { confirm[me] && !need[me] && ARRIVED(1 - me) -> confirm[me] = false; need[me] = true }
	od
}

/* A server takes whatever is newer or older. */
inline take(version) {
#ifndef FREEZE
	assert(version >= held[me]);
#endif
	held[me] = version
}

proctype server(byte me)
{
	byte v;
end:
	do
	:: atomic { me == 0 && nempty(to0from0) -> to0from0?v; take(v); v = 0 }
	:: atomic { me == 0 && nempty(to0from1) -> to0from1?v; take(v); v = 0 }
	:: atomic { me == 1 && nempty(to1from0) -> to1from0?v; take(v); v = 0 }
	:: atomic { me == 1 && nempty(to1from1) -> to1from1?v; take(v); v = 0 }
	od
}

/* Whoever leads stores the next version, which is to be pushed. */
proctype writer()
{
	do
	:: atomic { stored < VERSIONS -> stored++; need[leader] = true }
	:: break
	od
}

/* The other node comes to lead. It pushes everything that it finds. */
proctype election()
{
	do
	:: atomic {
#ifdef FREEZE
		changes < CHANGES ->
#else
		changes < CHANGES && ARRIVED(leader) ->
#endif
			proven[leader] = false;
			leader = 1 - leader;
			need[leader] = true;
			changes++
	   }
	:: break
	od
}

init {
	atomic {
		need[leader] = true;
		run node(0); run node(1);
		run server(0); run server(1);
		run writer(); run election()
	};
	timeout;
	assert(held[0] == stored && held[1] == stored)
}
