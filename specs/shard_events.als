module shard_events
/*
 * Events, each with its folds: which rows it changes.  The names are those of silo/events/catalogue.py.
 *
 * An event says nothing of when it may happen; that is for commands to decide (shard_commands.als).
 *
 * Of the other events some change none of the rows that are modelled:
 *   LeaseExpired, LeaseRenewed, RefreshScheduled, RefreshLeased, RefreshRenewed, RefreshFailed, RefreshExpired,
 *   LimitCreated (a queue has its maximum from the beginning here), AttemptImported, ShardCreated,
 *   BucketWaited, BucketForgotten, JobErased (there are no payloads here), ErasureRequested, ErasureFinished,
 *   CursorMoved, CursorDeleted, LogCut;
 * and JobImported is JobEnqueued followed by what JobReimported does.
 */
open shard_rows

-- --- what several folds have in common ---

-- Whatever ended these chains: they are in no order any more, and their slots are free.
pred chains_over[over: set Chain] {
  Timers' = Timers - over
  ReadyQueue' = ReadyQueue - over
  Checks' = Checks - over
  released[over]
}

pred released[over: set Chain] {
  holders' = holders - Queue -> over
  waiters' = waiters - Queue -> over
}

-- The rows of these chains go.
pred chain_rows_gone[over: set Chain] {
  place' = place - over -> Place
  gate' = gate - over -> Limit
  held' = held - over -> Queue
}

pred same_tasks { Timers' = Timers and ReadyQueue' = ReadyQueue and Checks' = Checks }
pred same_queues { holders' = holders and waiters' = waiters }
pred same_chains { place' = place and gate' = gate and held' = held and Started' = Started and chain' = chain }

fun place_before[l: set Limit]: one Place { no l => Ready else Gate }

-- A chain that waited for nothing but this goes on before `l`, or is ready if that is none.
pred goes_on[c: Chain, l: set Limit] {
  place' = place ++ c -> place_before[l]
  gate' = gate - c -> Limit + c -> l
  ReadyQueue' = (no l => ReadyQueue + c else ReadyQueue)
}

-- --- the job ---

pred job_enqueued[j: Job] {
  status' = status + j -> Scheduled
  same_chains and same_tasks and same_queues
  Requested' = Requested and Leases' = Leases and floating' = floating
}

pred cancellation_requested[j: Job] {
  Requested' = Requested + j
  status' = status
  same_chains and same_tasks and same_queues
  Leases' = Leases and floating' = floating
}

-- JobFailed and JobCancelled.
pred job_ended[j: Job, s: Status] {
  status' = status ++ j -> s
  chain' = chain - j -> Chain
  chain_rows_gone[j.chain]
  chains_over[j.chain]
  Requested' = Requested and Started' = Started and Leases' = Leases and floating' = floating
}

pred job_restarted[j: Job] {
  Requested' = Requested - j
  status' = status
  same_chains and same_tasks and same_queues
  Leases' = Leases and floating' = floating
}

pred job_reimported[j: Job, s: Status] {
  status' = status ++ j -> s
  chain' = chain - j -> Chain
  chain_rows_gone[j.chain]
  chains_over[j.chain]
  Requested' = Requested - j
  Started' = Started and Leases' = Leases and floating' = floating
}

-- JobDeleted and JobForgotten.
pred job_deleted[j: Job] {
  status' = status - j -> Status
  Requested' = Requested - j
  same_chains and same_tasks and same_queues
  Leases' = Leases and floating' = floating
}

-- --- the chain and its gates ---

-- The chain that the job had before, if there is one, is over.
pred chain_started[j: Job, c: Chain, l: set Limit, p: Place] {
  let old = j.chain {
    status' = status ++ j -> Scheduled
    chain' = chain ++ j -> c
    place' = place - old -> Place + c -> p
    gate' = gate - old -> Limit + c -> l
    held' = held - old -> Queue
    Timers' = Timers - old + (p = Timer => c else none)
    ReadyQueue' = ReadyQueue - old + (p = Ready => c else none)
    Checks' = Checks - old
    released[old]
  }
  Started' = Started + c
  Requested' = Requested and Leases' = Leases and floating' = floating
}

-- ChainDue and JobExpedited: it need not wait for its time any longer, nor for the next check of a rate limit.
pred chain_due[j: Job] {
  goes_on[j.chain, j.chain.gate]
  Timers' = Timers - j.chain
  Checks' = Checks - j.chain
  held' = held and Started' = Started and chain' = chain and status' = status
  same_queues
  Requested' = Requested and Leases' = Leases and floating' = floating
}

pred slot_granted[j: Job] {
  let c = j.chain, l = c.gate {
    goes_on[c, next_limit[j, l]]
    held' = held + c -> l.queue
    holders' = holders + l.queue -> c
    waiters' = waiters - Queue -> c
  }
  Timers' = Timers and Checks' = Checks
  Started' = Started and chain' = chain and status' = status
  Requested' = Requested and Leases' = Leases and floating' = floating
}

pred slot_waited[j: Job] {
  let c = j.chain {
    place' = place ++ c -> Waiting
    waiters' = waiters + c.gate.queue -> c
  }
  gate' = gate and held' = held and Started' = Started and chain' = chain and status' = status
  holders' = holders
  same_tasks
  Requested' = Requested and Leases' = Leases and floating' = floating
}

-- RateChecked that allows it.
pred rate_allowed[j: Job] {
  goes_on[j.chain, next_limit[j, j.chain.gate]]
  Checks' = Checks - j.chain
  Timers' = Timers and held' = held and Started' = Started and chain' = chain and status' = status
  same_queues
  Requested' = Requested and Leases' = Leases and floating' = floating
}

-- RateCheckDue, RateWaited, and RateChecked that does not allow it now.
pred rate_waited[j: Job] {
  place' = place ++ j.chain -> Checking
  Checks' = Checks + j.chain
  Timers' = Timers and ReadyQueue' = ReadyQueue
  gate' = gate and held' = held and Started' = Started and chain' = chain and status' = status
  same_queues
  Requested' = Requested and Leases' = Leases and floating' = floating
}

pred holders_dropped[j: Job] {
  held' = held - j.chain -> Queue
  holders' = holders - Queue -> j.chain
  waiters' = waiters
  place' = place and gate' = gate and Started' = Started and chain' = chain and status' = status
  same_tasks
  Requested' = Requested and Leases' = Leases and floating' = floating
}

-- --- the lease and its attempt ---

pred task_leased[j: Job] {
  let c = j.chain {
    status' = status ++ j -> Running
    place' = place ++ c -> Leased
    ReadyQueue' = ReadyQueue - c
    Leases' = Leases + c
  }
  gate' = gate and held' = held and Started' = Started and chain' = chain
  Timers' = Timers and Checks' = Checks
  same_queues
  Requested' = Requested and floating' = floating
}

-- AttemptSucceeded, with Succeeded; AttemptFailed and AttemptCancelled leave the job Running until the next event.
pred attempt_ended[j: Job, s: Status] {
  let c = j.chain {
    status' = status ++ j -> s
    chain' = chain - j -> c
    chain_rows_gone[c]
    released[c]
    Leases' = Leases - c
  }
  same_tasks
  Requested' = Requested and Started' = Started and floating' = floating
}

-- --- the floating maximum ---

pred refresh_succeeded[q: Queue, n: Int] {
  floating' = floating ++ q -> n
  status' = status and Requested' = Requested and Leases' = Leases
  same_chains and same_tasks and same_queues
}
