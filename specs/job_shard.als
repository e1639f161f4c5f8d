module job_shard
/*
 * What must hold of a job shard, and that it does.
 *
 * Each check is one step of an induction: from *any* state in which all of `consistent` holds, whatever happens next keeps
 * the invariant.  As the empty log is consistent too (Base), it holds after every history of any length.  What is bounded is
 * the number of jobs, ids, queues and limits, not the number of steps.  That real histories lead through these states, and
 * not only imagined ones, is what shard_scenarios.als shows.
 *
 * specs/invariants.md has the names in words, with the code that keeps each.
 */
open shard_commands

-- --- SILO-JOB: jobs ---

-- SILO-JOB-1: an ended job has no chain, a running one is leased, a scheduled one is on its way.
pred status_and_chain_agree {
  all j: Job - Undecided | is[j, Scheduled + Running] iff some j.chain
  all j: Job | is[j, terminal] implies no j.chain
  all j: Job | no j.status implies no j.chain and j not in Requested + Undecided
  all j: Job | some j.chain implies (is[j, Running] iff j.chain.place = Leased)
  all j: Undecided | is[j, Running] implies no j.chain
}

-- SILO-JOB-3: the cancellation of a pending job ends it in the same command.
pred cancellation_is_heeded {
  all j: Requested - Undecided | not is[j, Scheduled]
}

-- What a command may have left to say, and of how many jobs.
pred one_command_at_work {
  lone Undecided
  lone place.Gate
  some Undecided implies no place.Gate
  all j: Undecided | some j.chain implies j in Requested or j.chain.place = Ready
  all j: Undecided & Requested | is[j, Scheduled + Running]
  all j: Undecided | not is[j, Succeeded]
}

-- --- SILO-CHAIN: chains ---

-- SILO-CHAIN-1: a job has one live chain at most, a chain belongs to one job, and its id was never used before.
pred one_live_chain {
  all c: Chain | lone job_of[c]
  live in Started
  place.Place + gate.Limit + held.Queue in live
}

-- SILO-CHAIN-2: a live chain is in just the one order that its row says, and any other chain is in none.
pred conserved {
  all c: live | one c.place
  Timers = place.Timer
  ReadyQueue = place.Ready
  Checks = place.Checking
  Leases = place.Leased
  all q: Queue | q.waiters = { c: place.Waiting | c.gate.queue = q }
}

-- SILO-CHAIN-3: a chain stands before a limit of its own job, and holds slots only of those that it has passed.
pred gates_in_order {
  all j: Job, c: j.chain {
    c.gate in limits[j]
    c.held in passed[j, c.gate].queue
    c.place in Gate + Waiting + Checking implies some c.gate
    c.place in Waiting implies some c.gate.queue
    c.place in Checking implies no c.gate.queue
  }
}

-- --- SILO-SLOT: slots ---

-- SILO-SLOT-2: a slot is held by a live chain that knows of it, and by nobody else.
pred slots_belong_to_chains {
  all q: Queue | q.holders = held.q
}

-- Whenever there is room beside a waiter, there is a job that it can be given to.
pred room_can_be_given_away {
  all q: Queue | unsettled[q] implies some j: Job {
    j.chain in q.waiters
    j.chain.place = Waiting
    has_room[j.chain.gate]
  }
}

-- --- SILO-READY, SILO-LEASE ---

-- SILO-READY-1: who is ready or leased has passed every limit.
pred ready_means_runnable {
  all c: ReadyQueue + Leases | no c.gate and some job_of[c]
}

-- SILO-LEASE-2: a job has one live lease at most, and that is its live chain's.
pred one_live_lease {
  all j: Job | lone j.chain & Leases
  Leases in live
}

pred consistent {
  status_and_chain_agree
  cancellation_is_heeded
  one_command_at_work
  one_live_chain
  conserved
  gates_in_order
  slots_belong_to_chains
  room_can_be_given_away
  ready_means_runnable
  one_live_lease
  all q: Queue | q.floating >= 0
}

assert Base { init implies consistent and quiet }

assert Work { consistent and step implies after (one_command_at_work and all q: Queue | q.floating >= 0) }

assert SILO_JOB_1 { consistent and step implies after status_and_chain_agree }

-- SILO-JOB-2: an ended job stays as it ended, unless it is restarted, imported again or removed; one that succeeded can only
-- be removed.
assert SILO_JOB_2 {
  consistent and step implies all j: Job | is[j, terminal] and j.status' != j.status implies {
    no j.status' and delete[j]
      or is[j, Failed + Cancelled] and (j in Undecided or some s: Status | reimport[j, s])
  }
}

assert SILO_JOB_3 { consistent and step implies after cancellation_is_heeded }

-- SILO-JOB-4: once its cancellation is asked for, a job is not tried again, and not leased.
assert SILO_JOB_4 {
  consistent and step implies all j: Requested & Requested' | {
    j.chain' in j.chain
    j.chain' & Leases' in Leases
  }
}

assert SILO_CHAIN_1 { consistent and step implies after one_live_chain }

assert SILO_CHAIN_2 { consistent and step implies after conserved }

assert SILO_CHAIN_3 { consistent and step implies after gates_in_order }

-- SILO-CHAIN-4: a chain never goes back: the limits that it has passed stay passed, and one that is over never comes again.
assert SILO_CHAIN_4 {
  consistent and step implies {
    all j: Job, c: j.chain & j.chain' | passed[j, c.gate] in passed[j, c.gate']
    no (Started - live) & live'
    Started in Started'
  }
}

-- SILO-SLOT-1: a slot is granted only while fewer are held than the maximum by which the job goes.
assert SILO_SLOT_1 {
  consistent and step implies all q: Queue, c: q.holders' - q.holders |
    #(q.holders) < maximum[c.gate] and c.gate.queue = q
}

assert SILO_SLOT_2 { consistent and step implies after slots_belong_to_chains }

-- SILO-SLOT-3: no command begins while there is room beside a waiter; the one before gives it away, and always can.
assert SILO_SLOT_3 {
  consistent and begin implies no q: Queue | unsettled[q]
  consistent and step implies after room_can_be_given_away
}

-- SILO-SLOT-4: nobody who just comes is let in while somebody who waits could be.
assert SILO_SLOT_4 {
  consistent and step implies all q: Queue, c: q.holders' - q.holders | unsettled[q] implies c in q.waiters
}

-- SILO-SLOT-5: slots come free with the event that ends the chain, or by the operator's; by nothing else.
assert SILO_SLOT_5 {
  consistent and step implies all q: Queue, c: q.holders - q.holders' |
    c not in live' or some j: Job | j.chain = c and drop_holders[j]
}

-- SILO-RATE-1: a chain passes a rate limit only by an answer to what was asked for it there; any other answer changes nothing.
assert SILO_RATE_1 {
  consistent and step implies all j: Job, c: j.chain & j.chain' | c.gate' != c.gate and no c.gate.queue implies
    (c in Checks and take_reply[j, c, c.gate]) or (c.place = Gate and walk[j])
}

assert SILO_READY_1 { consistent and step implies after ready_means_runnable }

-- SILO-LEASE-1: a chain is leased only from the ready queue, which it leaves in the same event, and only once.
assert SILO_LEASE_1 {
  consistent and step implies {
    Leases' - Leases in ReadyQueue
    no Leases' & ReadyQueue'
    no (Leases - Leases') & live'
  }
}

assert SILO_LEASE_2 { consistent and step implies after one_live_lease }

-- SILO-LEASE-3: an attempt ends only by its live lease, and a job succeeds by nothing else (or elsewhere, before an import);
-- whoever comes late changes nothing.
assert SILO_LEASE_3 {
  consistent and step implies all j: Job {
    is[j, Running] and j.chain' != j.chain implies j.chain in Leases or j in Undecided
    j.status' = Succeeded and j.status != Succeeded implies some j.chain & Leases or reimport[j, Succeeded]
  }
}

check Base for 3 but 4 Chain, 4 Limit, 4 Int, 1 steps expect 0
check Work for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_JOB_1 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_JOB_2 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_JOB_3 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_JOB_4 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_CHAIN_1 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_CHAIN_2 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_CHAIN_3 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_CHAIN_4 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_SLOT_1 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_SLOT_2 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_SLOT_3 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_SLOT_4 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_SLOT_5 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_RATE_1 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_READY_1 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_LEASE_1 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_LEASE_2 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0
check SILO_LEASE_3 for 3 but 4 Chain, 4 Limit, 4 Int, 2 steps expect 0

-- A batch, from a state in the midst of a history: the histories that lead to two running jobs and a third that waits are too
-- long for shard_scenarios.als.
run TwoLeasesRunOutTogether {
  consistent and quiet
  some disj j, k, w: Job, c: k.chain, q: Queue {
    w.chain in q.waiters and c in q.holders
    end_attempt[j, j.chain] and j.chain in q.holders
    after (decide_rest[j])
    after after (unsettled[q] and end_attempt[k, c] and k in Undecided')
  }
} for 3 but 4 Int, 4 steps expect 1
