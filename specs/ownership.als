module ownership
/*
 * Who owns a shard, how it goes from one node to another, and why nothing that was acknowledged is lost on the way.
 *
 * Two mechanisms work together.  A *lease object* says who should own the shard: the next generation is only ever created,
 * by whoever comes first, once the one before has been given up or has expired.  That keeps order, but is no safety: clocks
 * differ, and a node that was stopped for a minute still believes.  *Fencing* is the safety: whoever opens the database
 * makes a new writer's epoch, and from then on writes of older epochs fail.
 *
 * One shard; the others are no different.  A commit is one event here.  A write whose outcome nobody learns is one that
 * took effect or did not, followed by a crash.  Checks are steps of an induction, as in job_shard.als.
 */
open util/ordering[Generation] as generations
open util/ordering[Epoch] as epochs
open util/ordering[Position] as positions

sig Generation {
  var owner: lone Node            -- what the lease object says; none: there is no such object yet
}
var sig Expired in Generation {}  -- its time is over, whether or not its owner knows
var sig Released in Generation {} -- its owner has given it up

sig Epoch {}
var lone sig Newest in Epoch {}   -- the writer's epoch in the database's manifest

sig Position {}                   -- places in the log
sig Event {}

one sig Store { var log: Position -> lone Event }
var sig Acknowledged in Event {}

sig Node {
  var claim: lone Generation,     -- the generation that it believes to hold
  var epoch: lone Epoch,          -- the database as it has it open
  var memory: Position -> lone Event  -- the log as far as it has read it, and what it has decided since
}
var sig Serving in Node {}        -- has read the log, and decides

fun newest_generation: lone Generation { owner.Node - owner.Node.^(~generations/next) }

fun written: set Event { Store.log[Position] }

-- What a node has read and decided.
fun known[n: set Node]: set Event { n.memory[Position] }

-- Where the next event goes.
fun next_place[taken: set Position]: lone Position {
  no taken => positions/first else positions/max[taken].next
}

pred init {
  no owner and no Expired and no Released and no Newest
  no log and no Acknowledged
  no claim and no epoch and no memory and no Serving
}

-- --- the lease object ---

-- The next generation, created only if nobody else has: the loser of a race is told so, and has claimed nothing.
pred take[n: Node, g: Generation] {
  no n.claim
  no g.owner
  some newest_generation implies newest_generation in Expired + Released and g = newest_generation.next
    else g = generations/first
  owner' = owner + g -> n
  claim' = claim + n -> g
  Expired' = Expired and Released' = Released
  same_store and same_work
}

-- Nothing was heard of its owner, or not in time; or a clock was wrong.
pred expire[g: Generation] {
  some g.owner
  Expired' = Expired + g
  owner' = owner and Released' = Released and claim' = claim
  same_store and same_work
}

-- Handed over: first the database is closed, with everything durable that was decided, then the claim is given up.
pred release[n: Node] {
  some n.claim and no n.epoch
  Released' = Released + n.claim
  claim' = claim - n -> Generation
  owner' = owner and Expired' = Expired
  same_store and same_work
}

-- --- the database ---

-- Open it, which fences whoever has it open.
pred fence[n: Node] {
  some n.claim and no n.epoch
  let e = (no Newest => epochs/first else Newest.next) {
    some e
    epoch' = epoch + n -> e
    Newest' = e
  }
  memory' = memory and Serving' = Serving
  log' = log and Acknowledged' = Acknowledged
  same_leases
}

-- Then read the log, and serve.
pred replay[n: Node] {
  some n.epoch and n not in Serving
  n.epoch = Newest
  memory' = memory ++ n -> Store.log
  Serving' = Serving + n
  epoch' = epoch
  same_store and same_leases
}

pred decide[n: Node, e: Event] {
  n in Serving
  e not in known[Node] + written
  let place = next_place[n.memory.Event] | some place and memory' = memory + n -> place -> e
  epoch' = epoch and Serving' = Serving
  same_store and same_leases
}

-- The first event that is not written yet is put in its place in the log; only the newest epoch may.
pred commit[n: Node] {
  n in Serving and n.epoch = Newest
  let place = next_place[Store.log.Event], e = n.memory[place] {
    some e
    log' = log + (Store -> place -> e)
  }
  Acknowledged' = Acknowledged and Newest' = Newest
  same_work and same_leases
}

-- The reply leaves when the write has succeeded: also if somebody else has opened the database since.
pred acknowledge[n: Node, e: Event] {
  n in Serving
  some p: Position | p -> e in n.memory & Store.log
  Acknowledged' = Acknowledged + e
  log' = log and Newest' = Newest
  same_work and same_leases
}

-- All that was decided is durable, and the database is closed.
pred close[n: Node] {
  some n.epoch
  n.memory in Store.log
  lets_go[n]
  claim' = claim and owner' = owner and Expired' = Expired and Released' = Released
}

-- A write has failed because of a newer epoch: it forgets everything, and answers nobody any more.
pred stop[n: Node] {
  some n.epoch and n.epoch != Newest
  lets_go[n]
  claim' = claim - n -> Generation
  owner' = owner and Expired' = Expired and Released' = Released
}

-- The node dies, in the midst of whatever it was doing.
pred crash[n: Node] {
  lets_go[n]
  claim' = claim - n -> Generation
  owner' = owner and Expired' = Expired and Released' = Released
}

-- The store failed, or nobody knows whether it did: the node keeps its claim, and opens again.
pred reopen[n: Node] {
  some n.epoch
  lets_go[n]
  same_leases
}

pred lets_go[n: Node] {
  epoch' = epoch - n -> Epoch
  memory' = memory - n -> Position -> Event
  Serving' = Serving - n
  same_store
}

pred same_store { log' = log and Acknowledged' = Acknowledged and Newest' = Newest }
pred same_leases { owner' = owner and Expired' = Expired and Released' = Released and claim' = claim }
pred same_work { epoch' = epoch and memory' = memory and Serving' = Serving }

pred rest { same_store and same_leases and same_work }

pred step {
  (some n: Node | release[n] or fence[n] or replay[n] or commit[n] or close[n] or stop[n] or crash[n] or reopen[n])
    or (some n: Node, g: Generation | take[n, g])
    or (some g: Generation | expire[g])
    or (some n: Node, e: Event | decide[n, e] or acknowledge[n, e])
}

-- --- what holds ---

-- SILO-OWN-1: a generation has one owner, for ever; who believes to hold it was its owner; a newer one comes only after it is over.
pred one_owner_a_generation {
  all n: Node | some n.claim implies n.claim.owner = n
  all g: owner.Node | g.prevs in owner.Node
  all g: owner.Node - newest_generation | g in Expired + Released
  no Released & Node.claim
  Expired + Released in owner.Node
}

-- SILO-OWN-2: an epoch is one node's, and none is newer than the manifest's.
pred one_writer_an_epoch {
  all e: Epoch | lone epoch.e
  all e: Node.epoch | some Newest and e in Newest + Newest.prevs
  all n: Node | some n.epoch implies some n.claim
  Serving in epoch.Epoch
}

-- SILO-OWN-3: what was acknowledged is in the log.
pred acknowledged_is_durable { Acknowledged in written }

-- SILO-OWN-4: who may write knows the whole log, and agrees with it.
pred writer_knows_the_log {
  all n: Serving | n.epoch = Newest implies Store.log in n.memory
  all n: Node | n not in Serving implies no n.memory
  all n: Node | no_gap[n.memory]
}

-- SILO-OWN-5: the log has no gap.
pred no_gap[log: Position -> Event] {
  all p: log.Event | p.prevs in log.Event
  all e: Event | lone log.e
}

-- SILO-OWN-6: unless a lease has expired, nobody is fenced: a handover disturbs no one.
pred handover_fences_nobody {
  no Expired implies all n: Node {
    some n.epoch implies n.epoch = Newest
    some n.claim implies n.claim = newest_generation
    lone claim.Generation
  }
}

pred consistent {
  one_owner_a_generation
  one_writer_an_epoch
  acknowledged_is_durable
  writer_knows_the_log
  no_gap[Store.log]
  handover_fences_nobody
}

assert Base { init implies consistent }

assert SILO_OWN_1 {
  consistent and step implies {
    after one_owner_a_generation
    owner in owner'
  }
}

-- ... and only the newest epoch writes.
assert SILO_OWN_2 {
  consistent and step implies {
    after one_writer_an_epoch
    log' != log implies some n: Node | n.epoch = Newest and commit[n]
  }
}

-- ... and stays there.
assert SILO_OWN_3 {
  consistent and step implies {
    after acknowledged_is_durable
    Acknowledged in Acknowledged'
  }
}

assert SILO_OWN_4 { consistent and step implies after writer_knows_the_log }

-- ... and what is written is never written over.
assert SILO_OWN_5 {
  consistent and step implies {
    after no_gap[Store.log]
    log in log'
  }
}

assert SILO_OWN_6 { consistent and step implies after handover_fences_nobody }

check Base for 4 but 1 steps expect 0
check SILO_OWN_1 for 4 but 3 Node, 2 steps expect 0
check SILO_OWN_2 for 4 but 3 Node, 2 steps expect 0
check SILO_OWN_3 for 4 but 3 Node, 2 steps expect 0
check SILO_OWN_4 for 4 but 3 Node, 2 steps expect 0
check SILO_OWN_5 for 4 but 3 Node, 2 steps expect 0
check SILO_OWN_6 for 4 but 3 Node, 2 steps expect 0

-- --- histories that there are ---

pred history {
  init
  always (step or rest)
}

run AnEventIsAcknowledged {
  history
  eventually some Acknowledged
} for 2 but 8 steps expect 1

run AHandoverLosesNothing {
  history
  always no Expired
  some disj m, n: Node, disj e, f: Event |
    eventually (acknowledge[m, e] and eventually (acknowledge[n, f] and e in known[n]))
} for 2 but 15 steps expect 1

run AStaleOwnerIsFenced {
  history
  some disj m, n: Node | eventually (m in Serving and n in Serving and m.epoch != Newest and eventually stop[m])
} for 2 but 11 steps expect 1

run AFencedNodesDecisionIsLost {
  history
  some n: Node, e: Event | eventually (n in Serving and e in known[n] and n.epoch != Newest
    and eventually (no epoch.Newest.claim & Expired and e not in written and commit[epoch.Newest]))
} for 2 but 13 steps expect 1

run ANodeDiesAfterItsWrite {
  history
  some n: Node, e: Event | eventually (commit[n] and e in known[n] and after (crash[n] and e in written - Acknowledged
    and eventually e in Acknowledged))
} for 2 but 14 steps expect 1
