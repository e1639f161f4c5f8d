module splits
/*
 * How a shard is split in two by replay: its log is read to its end, and each event goes to the child that has its tenant.
 *
 *   1. requested   the map names two new shards beside the parent; nothing else changes
 *   2. sealed      the parent takes no commands any more, so that its log has an end
 *   3. copied      each child's log is written from the parent's, event by event
 *   4. committed   one atomic change of the map puts the children in the parent's place
 *
 * Until 4 the split can be abandoned: the parent is unsealed, and the children's ids are never used again.  A crash in any
 * phase leaves the map in one of these; whoever owns the parent goes on from there, or abandons.
 *
 * That an event is accepted is one step here; what it takes to be durable is told in ownership.als.  Checks are steps of an
 * induction, as in job_shard.als.
 */
open util/ordering[Position] as positions

sig Tenant {}
sig Position {}                       -- places in a log
sig Event { tenant: one Tenant }

sig Shard {
  range: some Tenant,                 -- its part of the hash line
  var log: Position -> lone Event,
  var children: set Shard             -- the split that is under way
}
var sig Mapped in Shard {}            -- the shards of the map
var sig Sealed in Shard {}
var sig Spent in Shard {}             -- ids that were used

-- What clients know, not the shards: what was accepted, and in which order.
var sig Accepted in Event {}
one sig Clients { var earlier: Event -> Event }

fun events[s: Shard]: set Event { s.log[Position] }

fun next_place[s: Shard]: lone Position {
  no s.log => positions/first else positions/max[s.log.Event].next
}

-- The order in which a log has its events.
fun order[s: Shard]: Event -> Event {
  { e, f: Event | some p, q: Position | p -> e in s.log and q -> f in s.log and p in positions/prevs[q] }
}

-- What of this shard's log belongs to that one.
fun share[s, c: Shard]: set Event { { e: events[s] | e.tenant in c.range } }

fun order_within[s: Shard, es: set Event]: Event -> Event { order[s] & (es -> es) }

-- The whole of a child's share is there.
pred copied[p, c: Shard] { events[c] = share[p, c] }

pred init {
  one Mapped
  Mapped.range = Tenant
  Spent = Mapped
  no log and no children and no Sealed and no Accepted and no earlier
}

-- --- what happens ---

pred accept[s: Shard, e: Event] {
  s in Mapped - Sealed
  e.tenant in s.range
  e not in Accepted
  some next_place[s]
  log' = log + (s -> next_place[s] -> e)
  Accepted' = Accepted + e
  earlier' = earlier + Clients -> Accepted -> e
  same_map and children' = children and Sealed' = Sealed
}

pred request[p: Shard, l, r: Shard] {
  p in Mapped and no p.children
  l != r and no (l + r) & Spent
  l.range + r.range = p.range and no l.range & r.range
  children' = children + (p -> (l + r))
  Spent' = Spent + l + r
  Mapped' = Mapped and Sealed' = Sealed
  same_logs
}

pred seal[p: Shard] {
  some p.children
  Sealed' = Sealed + p
  children' = children
  same_map and same_logs
}

-- The next event of the parent's log that the child does not have.
pred copy[p, c: Shard] {
  c in p.children and p in Sealed
  some e: share[p, c] - events[c] {
    no order[p].e & (share[p, c] - events[c])
    some next_place[c]
    log' = log + (c -> next_place[c] -> e)
  }
  Accepted' = Accepted and earlier' = earlier and children' = children and Sealed' = Sealed
  same_map
}

pred commit[p: Shard] {
  some p.children and p in Sealed
  all c: p.children | copied[p, c]
  Mapped' = Mapped - p + p.children
  children' = children - p -> Shard
  Spent' = Spent and Sealed' = Sealed
  same_logs
}

pred abandon[p: Shard] {
  some p.children
  children' = children - p -> Shard
  Sealed' = Sealed - p
  same_map and same_logs
}

pred same_map { Mapped' = Mapped and Spent' = Spent }
pred same_logs { log' = log and Accepted' = Accepted and earlier' = earlier }
pred rest { same_map and same_logs and children' = children and Sealed' = Sealed }

pred step {
  (some s: Shard, e: Event | accept[s, e])
    or (some p, l, r: Shard | request[p, l, r])
    or (some p: Shard | seal[p] or commit[p] or abandon[p])
    or (some p, c: Shard | copy[p, c])
}

-- --- what holds ---

-- SILO-SPLIT-1: each tenant has one shard at every moment.
pred map_tiles { all t: Tenant | one s: Mapped | t in s.range }

-- SILO-SPLIT-2: a shard that is not in the map takes no commands: its log holds nothing but what was copied.
pred outsiders_only_copy {
  all p: Shard, c: p.children {
    events[c] in share[p, c]
    p not in Sealed implies no events[c]
    order[c] = order_within[p, events[c]]
    all e: events[c] | order[p].e & share[p, c] in events[c]
  }
  all s: Shard - Spent | no s.log
}

-- SILO-SPLIT-3: what was accepted is in the log of its tenant's shard, once.
pred nothing_lost {
  all s: Mapped | events[s] = { e: Accepted | e.tenant in s.range }
  all e: Accepted | one s: Mapped | e in events[s]
  all s: Shard, e: Event | lone s.log.e
}

-- SILO-SPLIT-4: a shard's log has its events in the order in which they were accepted.
pred order_kept {
  all s: Mapped | order[s] in Clients.earlier
  all disj e, f: Accepted | e -> f in Clients.earlier iff f -> e not in Clients.earlier
  Clients.earlier in Accepted -> Accepted
  no iden & Clients.earlier
}

-- SILO-SPLIT-5: a shard is sealed only while its split is under way; then its place is taken, or it takes commands again.
pred sealed_for_a_split { all s: Mapped & Sealed | some s.children }

pred splits_are_apart {
  all s: Shard | some s.children implies s in Mapped
  all p: Shard | some p.children implies {
    #(p.children) = 2
    p.children.range = p.range
    all disj l, r: p.children | no l.range & r.range
  }
  all c: Shard | lone children.c
  no Shard.children & Mapped
  Mapped + Shard.children in Spent
  Sealed in Spent - Shard.children
  all s: Shard, p: s.log.Event | positions/prevs[p] in s.log.Event
}

pred consistent {
  map_tiles
  outsiders_only_copy
  nothing_lost
  order_kept
  sealed_for_a_split
  splits_are_apart
}

assert Base { init implies consistent }

assert Work { consistent and step implies after splits_are_apart }

assert SILO_SPLIT_1 { consistent and step implies after map_tiles }

-- ... and a sealed one takes none either.
assert SILO_SPLIT_2 {
  consistent and step implies {
    after outsiders_only_copy
    all s: Sealed | s.log' = s.log
    all s: Spent - Mapped - Shard.children | s.log' = s.log
  }
}

assert SILO_SPLIT_3 {
  consistent and step implies {
    after nothing_lost
    Accepted in Accepted'
  }
}

assert SILO_SPLIT_4 { consistent and step implies after order_kept }

assert SILO_SPLIT_5 { consistent and step implies after sealed_for_a_split }

-- SILO-SPLIT-6: only the children of a split come into the map; a parent, or a child that was given up, never comes back.
assert SILO_SPLIT_6 {
  consistent and step implies {
    Mapped' - Mapped in Shard.children
    all s: Spent - Mapped - Shard.children | s not in Mapped' + Shard.children'
  }
}

check Base for 4 but 1 steps expect 0
check Work for 4 but 4 Int, 2 steps expect 0
check SILO_SPLIT_1 for 4 but 4 Int, 2 steps expect 0
check SILO_SPLIT_2 for 4 but 3 Event, 3 Position, 3 Tenant, 4 Int, 2 steps expect 0
check SILO_SPLIT_3 for 4 but 4 Int, 2 steps expect 0
check SILO_SPLIT_4 for 4 but 4 Int, 2 steps expect 0
check SILO_SPLIT_5 for 4 but 4 Int, 2 steps expect 0
check SILO_SPLIT_6 for 4 but 4 Int, 2 steps expect 0

-- --- histories that there are ---

pred history {
  init
  always (step or rest)
}

run AShardIsSplit {
  history
  eventually (#Mapped = 2 and all s: Mapped | some s.log)
} for 3 but 4 Int, 9 steps expect 1

run ASplitIsAbandonedAndTheParentGoesOn {
  history
  some p: Shard, e: Event | eventually (p in Sealed and some p.children.log and eventually (abandon[p] and eventually accept[p, e]))
} for 3 but 4 Int, 9 steps expect 1

run AChildIsSplitAgain {
  history
  eventually #Mapped = 3
} for 5 but 1 Event, 1 Position, 3 Tenant, 4 Int, 9 steps expect 1

run ACommandComesWhileASplitIsRequested {
  history
  some p: Shard, e: Event | eventually (some p.children and accept[p, e] and eventually commit[p])
} for 3 but 4 Int, 9 steps expect 1
