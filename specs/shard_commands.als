module shard_commands
/*
 * Commands: when which event may happen.  The names are those of silo/shard/.
 *
 * A command is several events, and each is a step here.  It begins when the shard is quiet, and no other begins before it
 * is quiet again: that is the single writer.  What a command still has to do shows in the rows, and is done in this order:
 *
 *   1. say what follows for the job that it is about         decide_rest
 *   2. lead a chain that is at a gate through it or not      walk
 *   3. give away the room beside waiters                     settle
 *
 * Some commands are about many jobs, such as all whose leases have run out.  These are decided one after the other before
 * any room is given away, so the next of them may come where settle could (`next_of_a_batch`).
 *
 * All events of a command become durable together, so a crash leaves a quiet state.
 */
open shard_events

-- --- beginnings ---

pred enqueue[j: Job] {
  no j.status
  job_enqueued[j]
  Undecided' = j
}

pred cancel[j: Job] {
  j not in Requested
  is[j, Scheduled + Running]
  cancellation_requested[j]
  Undecided' = (is[j, Scheduled] => j else none)
}

pred restart[j: Job] {
  is[j, Failed + Cancelled]
  job_restarted[j]
  Undecided' = j
}

pred expedite[j: Job] {
  is[j, Scheduled] and j not in Requested
  some j.chain.place & (Timer + Checking)
  chain_due[j]
  no Undecided'
}

pred wake_due[j: Job] {
  some j.chain & Timers
  chain_due[j]
  no Undecided'
}

pred lease_tasks[j: Job] {
  some j.chain & ReadyQueue
  task_leased[j]
  no Undecided'
}

-- LeaseTask: the job's attempt under a new id, whatever its limits say.
pred lease_task[j: Job, c: Chain] {
  is[j, Scheduled] and j not in Requested
  some j.chain and j.chain.place != Waiting
  c not in Started
  chain_started[j, c, none, Ready]
  Undecided' = j
}

-- A worker reports for the task `c`, or the lease of `c` runs out.
pred end_attempt[j: Job, c: Chain] {
  c in Leases and c = j.chain
  attempt_ended[j, Succeeded] and no Undecided'
    or attempt_ended[j, Running] and Undecided' = j
}

pred reimport[j: Job, s: Status] {
  is[j, Scheduled + Failed + Cancelled]
  s in terminal + Scheduled
  job_reimported[j, s]
  Undecided' = (s = Scheduled => j else none)
}

pred delete[j: Job] {
  is[j, terminal]
  job_deleted[j]
  no Undecided'
}

pred drop_holders[j: Job] {
  some j.chain.held
  holders_dropped[j]
  no Undecided'
}

-- A rate limiter has answered what was asked for the chain `c` at `l`, or its bucket has: yes, no, or no for the last time.
pred take_reply[j: Job, c: Chain, l: Limit] {
  c = j.chain and c in Checks and c.gate = l
  answered[j]
}

pred answered[j: Job] {
  rate_allowed[j] or rate_waited[j] or job_ended[j, Failed]
  no Undecided'
}

pred refresh[q: Queue, n: Int] {
  n >= 0
  refresh_succeeded[q, n]
  no Undecided'
}

pred begin {
  quiet
  (some j: Job | enqueue[j] or cancel[j] or restart[j] or expedite[j] or wake_due[j] or lease_tasks[j]
      or delete[j] or drop_holders[j])
    or (some j: Job, c: Chain | lease_task[j, c] or end_attempt[j, c])
    or (some j: Job, s: Status | reimport[j, s])
    or (some j: Job, c: Chain, l: Limit | take_reply[j, c, l])
    or (some q: Queue, n: Int | refresh[q, n])
}

-- --- what follows ---

-- A new attempt sets out: at once, or at a later time.
pred start_chain[j: Job, c: Chain] {
  c not in Started
  chain_started[j, c, j.first, Timer] or chain_started[j, c, j.first, place_before[j.first]]
  no Undecided'
}

pred decide_rest[j: Job] {
  j in Undecided
  -- LeaseTask has made a chain that is through; now it is leased
  (j.chain.place = Ready and j not in Requested) => (task_leased[j] and no Undecided')
  -- a pending job ends when its cancellation is asked for, a running one with its attempt
  else (j in Requested => (job_ended[j, Cancelled] and no Undecided')
  -- the attempt has failed or its worker has given up: no more, or another try
  else (is[j, Running] => (no_more[j] or another_try[j])
  -- enqueued, restarted, imported
  else another_try[j]))
}

pred no_more[j: Job] {
  job_ended[j, Failed] or job_ended[j, Cancelled]
  no Undecided'
}

pred another_try[j: Job] {
  some c: Chain | start_chain[j, c]
}

pred grant[j: Job] {
  has_room[j.chain.gate]
  slot_granted[j]
  no Undecided'
}

pred walk[j: Job] {
  no Undecided
  j.chain.place = Gate
  some j.chain.gate.queue => ask_for_slot[j] else answered[j]
}

-- In, if there is room and nobody else is to be let in before it.
pred ask_for_slot[j: Job] {
  let l = j.chain.gate |
    has_room[l] and not unsettled[l.queue] implies grant[j] else (slot_waited[j] and no Undecided')
}

pred settle[j: Job] {
  no Undecided and no place.Gate
  j.chain.place = Waiting
  grant[j]
}

pred next_of_a_batch {
  no Undecided and no place.Gate
  (some j: Job | enqueue[j] or wake_due[j] or lease_tasks[j] or delete[j] or drop_holders[j])
    or (some j: Job, c: Chain | end_attempt[j, c])
    or (some j: Job, s: Status | reimport[j, s])
    or (some j: Job, c: Chain, l: Limit | take_reply[j, c, l])
}

pred go_on {
  next_of_a_batch or some j: Job | decide_rest[j] or walk[j] or settle[j]
}

pred step { begin or go_on }

-- The shard does nothing.
pred rest {
  quiet
  job_rows_same and no Undecided'
}

pred job_rows_same {
  status' = status and Requested' = Requested and Leases' = Leases and floating' = floating
  same_chains and same_tasks and same_queues
}
