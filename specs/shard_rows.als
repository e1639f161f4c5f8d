module shard_rows
/*
 * The rows of one job shard, as its projections keep them: what is true between one event and the next.
 *
 * The same fact lies in several tables, each written by a fold of its own.  A chain that holds a slot says so in its job's
 * row (`held`), and the queue counts it (`holders`).  That these never disagree is what job_shard.als is about, so the
 * model keeps them apart, table by table, just as silo/projections/ does.
 *
 * Left out: payloads, attempts' results, retention, buckets, refreshes under way, and all times.  What a clock or
 * a rate limiter would decide may happen at any moment here.
 */

enum Status { Scheduled, Running, Succeeded, Failed, Cancelled }

enum Place { Timer, Gate, Waiting, Checking, Ready, Leased }

-- A concurrency key of one tenant.
sig Queue {
  var floating: one Int,        -- the maximum that workers find out
  var holders: set Chain,       -- who has a slot               silo/projections/concurrency.py
  var waiters: set Chain        -- who stands in one of its lines
}

-- One limit of one job.  Without a queue it is a rate limit; with `fixed` it goes by its own maximum, else by the queue's
-- floating one.
sig Limit {
  queue: lone Queue,
  fixed: lone Int
}

-- A chain: the way of one attempt from its start to its outcome.  An atom is an id (the task id).
sig Chain {
  var place: lone Place,        -- the chain in its job's row   silo/projections/jobs.py
  var gate: lone Limit,         -- the limit that it comes to next; none: it is through
  var held: set Queue
}

sig Job {
  first, second: lone Limit,    -- what an attempt has to pass, in this order
  var status: lone Status,      -- none: there is no such job
  var chain: lone Chain
}

var sig Requested in Job {}     -- a client has asked to cancel it
var sig Timers in Chain {}      --                              silo/projections/tasks.py
var sig ReadyQueue in Chain {}
var sig Checks in Chain {}      -- who waits to be asked for again, or in a bucket's line: silo/projections/rates.py
var sig Leases in Chain {}      --                              silo/projections/leases.py
var sig Started in Chain {}     -- every id that was ever used

-- Not a row but the command at work: the job of which it has yet to say what follows.
var sig Undecided in Job {}

fact ALimitBelongsToOneJob {
  all j: Job | some j.second implies some j.first and no j.first.queue & j.second.queue
  all l: Limit | one j: Job | l in j.first + j.second
  all j: Job | no j.first & j.second
  all l: Limit | some l.fixed implies some l.queue and l.fixed >= 0
}

fun terminal: set Status { Succeeded + Failed + Cancelled }

-- A job that does not exist has no status, so `j.status in ...` would be true of it.
pred is[j: Job, s: set Status] { some j.status & s }

fun live: set Chain { Job.chain }

fun limits[j: Job]: set Limit { j.first + j.second }

fun job_of[c: Chain]: set Job { chain.c }

-- The limit after this one.
fun next_limit[j: Job, l: Limit]: lone Limit { l = j.first => j.second else none }

-- The limits that a chain has passed when it stands before `l`; all of them when it is through.
fun passed[j: Job, l: set Limit]: set Limit {
  no l => limits[j] else (l = j.second => j.first else none)
}

fun maximum[l: Limit]: lone Int { some l.fixed => l.fixed else l.queue.floating }

pred has_room[l: Limit] { #(l.queue.holders) < maximum[l] }

-- There is room beside somebody who waits.
pred unsettled[q: Queue] { some w: q.waiters | has_room[w.gate] }

-- Between two commands: nothing is left to be decided.
pred quiet {
  no Undecided
  no place.Gate
  no q: Queue | unsettled[q]
}

-- An empty log.
pred init {
  no status and no chain and no Requested and no Started and no Undecided
  no place and no gate and no held
  no Timers and no ReadyQueue and no Checks and no Leases
  no holders and no waiters
  all q: Queue | q.floating >= 0
}
