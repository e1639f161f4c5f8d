module shard_scenarios
/*
 * Histories that lead from an empty log to what job_shard.als is about: so its checks are not true for want of anything to
 * check.  Each is found by the solver, event by event; the analyzer's window shows them as pictures.
 */
open shard_commands

pred history {
  init
  always (step or rest)
}

-- A command that begins here, in the words of the scenarios.
pred asks_to_cancel[j: Job] { quiet and cancel[j] }
pred reports[j: Job] { quiet and some c: Chain | end_attempt[j, c] }

run AJobSucceeds {
  history
  some j: Job | eventually is[j, Succeeded]
} for 2 but 4 Int, 6 steps expect 1

run AJobIsTriedAgain {
  history
  some j: Job, disj c, d: Chain | eventually (j.chain = c and c in Leases and eventually (j.chain = d and d in Leases))
} for 2 but 4 Int, 9 steps expect 1

run AJobFails {
  history
  some j: Job | eventually is[j, Failed]
} for 2 but 4 Int, 7 steps expect 1

run TheNextInLineGetsTheSlot {
  history
  some q: Queue, disj j, k: Job {
    eventually (j.chain in q.holders and k.chain in q.waiters and reports[j] and eventually (quiet and k.chain in q.holders))
    q in j.first.queue & k.first.queue
  }
} for 2 but 4 Int, 11 steps expect 1

run ACancelledJobLeavesItsSlot {
  history
  some disj j, k: Job, q: Queue |
    eventually (quiet and j.chain in q.holders and k.chain in q.waiters and asks_to_cancel[j]
      and eventually (quiet and is[j, Cancelled] and k.chain in q.holders))
} for 2 but 4 Int, 11 steps expect 1

run ACancelledWaiterLeavesTheLine {
  history
  some j: Job | eventually (quiet and j.chain.place = Waiting and asks_to_cancel[j] and eventually is[j, Cancelled])
} for 2 but 4 Int, 8 steps expect 1

run ARunningJobIsCancelledByItsWorker {
  history
  some j: Job | eventually (j.chain in Leases and asks_to_cancel[j] and eventually is[j, Cancelled])
} for 2 but 4 Int, 8 steps expect 1

run ARunningJobSucceedsAlthoughCancelled {
  history
  some j: Job | eventually (j in Requested and is[j, Succeeded])
} for 2 but 4 Int, 8 steps expect 1

run ARestartedJobWaitsInLine {
  history
  some j: Job | eventually (is[j, Cancelled] and eventually (quiet and j.chain.place = Waiting))
} for 2 but 4 Int, 10 steps expect 1

run AnExpeditedJobRuns {
  history
  some j: Job | eventually (quiet and j.chain.place = Timer and expedite[j] and eventually j.chain in Leases)
} for 2 but 4 Int, 7 steps expect 1

run AJobPassesTwoLimits {
  history
  some j: Job | eventually (some j.second and j.chain in Leases and j.chain.held = j.first.queue + j.second.queue)
} for 2 but 4 Int, 8 steps expect 1

run AJobHoldsOneSlotAndWaitsForAnother {
  history
  some j: Job | eventually (quiet and j.chain.place = Waiting and some j.chain.held)
} for 2 but 4 Int, 8 steps expect 1

run AJobHoldsASlotAndWaitsForARate {
  history
  some j: Job | eventually (quiet and j.chain in Checks and some j.chain.held and eventually j.chain in Leases)
} for 2 but 4 Int, 8 steps expect 1

run ARateLimitIsUsedUp {
  history
  some j: Job | eventually (quiet and j.chain in Checks and some j.chain.held and eventually is[j, Failed])
} for 2 but 4 Int, 8 steps expect 1

run AnExpeditedJobIsCheckedAgain {
  history
  some j: Job | eventually (quiet and j.chain in Checks and expedite[j] and eventually j.chain in Leases)
} for 2 but 4 Int, 8 steps expect 1

run ALeasedOneGivesBackWhatItHeld {
  history
  some j: Job, c: Chain | eventually (quiet and some j.chain.held and lease_task[j, c] and eventually c in Leases)
} for 2 but 4 Int, 8 steps expect 1

run AHigherMaximumLetsIn {
  history
  some q: Queue, n: Int, j: Job |
    eventually (quiet and j.chain in q.waiters and refresh[q, n] and after (quiet or j.chain in q.waiters)
      and eventually (quiet and j.chain in q.holders))
} for 2 but 4 Int, 8 steps expect 1

run ALowerMaximumTakesNothingAway {
  history
  some q: Queue | eventually (quiet and q.floating < #(q.holders))
} for 2 but 4 Int, 8 steps expect 1

run AnOperatorDropsHolders {
  history
  some j: Job | eventually (quiet and drop_holders[j] and j.chain in Leases)
} for 2 but 4 Int, 8 steps expect 1

run AnImportedHistoryEndsAWaitingJob {
  history
  some j: Job | eventually (quiet and j.chain.place = Waiting and reimport[j, Succeeded])
} for 2 but 4 Int, 7 steps expect 1

run ARemovedJobsIdIsFreeAgain {
  history
  some j: Job | eventually (quiet and delete[j] and eventually (quiet and enqueue[j]))
} for 2 but 4 Int, 9 steps expect 1

-- What must not be possible, said as a history that there is not.

run AnEndedJobIsNeverLeased {
  history
  some j: Job | eventually (is[j, terminal] and some j.chain)
} for 2 but 4 Int, 8 steps expect 0
