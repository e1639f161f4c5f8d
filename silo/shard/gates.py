"""Gates: how a chain passes the limits of its job, and who is let in when there is room.

A job's limits are gates in the client's order, and a chain (the way of one attempt) passes them one after the other:

    TIMER ── its time comes ──> GATE ── a slot ──────────────────> next GATE, or READY after the last
                                 ├───── no slot ──> WAITING ── settle ──────┘
                                 ├───── the rate allows it ─────────────────┘
                                 ├───── it does not, and the job is patient ──> THROTTLED ── the bucket's timer ──> GATE
                                 └───── it does not, or somebody else decides ──> CHECKING ── due, answered ──> GATE

What a chain has passed it keeps: it holds its slots while it waits further on, and until it ends.  It never goes back, and
its id stays the same.  A new attempt is a new chain, which begins at the first gate and holds nothing (I5).

Slots.  A chain asks when it comes to the gate.  It is let in if there is room by its own maximum and nobody else is to be
let in before it; otherwise it waits in line.  Room comes from chains that end, from a maximum that rises, and from an
operator who drops holders; in each case the fold notes that the queue is *unsettled*, and `settle`, which runs at the end of
every command, gives the room away in the same commit (I6).  Of all that could be let in the first by virtual start is; of
all queues with room each gets one in turn.  A command gives away a bounded number of slots, and the timers' next command
goes on.  A queue that is full costs nothing, however many wait for it: nobody looks at it.

Rates.  Buckets inside the shard are asked at once.  An outside service is asked by `broker/rate_checks.py`, and its answer
comes back as a command that names the chain, the gate and the try; one that comes late or twice finds the chain elsewhere
and changes nothing (I12).

A crash between any two commands leaves each chain in one of the places above, and none at a GATE: the events of a command
become durable together.
"""

from __future__ import annotations

from silo.domain.limits import RateLimit
from silo.projections.concurrency import UNSETTLED
from silo.projections.jobs import Place
from silo.shard.draft import Draft
from silo.shard.jobs import JobName, require_chains, the_job
from silo.shard.rates import Reply, ask_bucket, ask_limiter, note_reply
from silo.shard.slots import ask_for_slot, let_in, next_waiter, next_waiters

GRANTS_PER_COMMAND_MAX = 200


def walk(name: JobName, draft: Draft) -> None:
    """Lead a job's chain on from its gate until it is through, or something holds it up."""
    # SILO-CHAIN-3: one gate after the other, each by an event that the next look at the row has seen.
    while True:
        job = the_job(name, draft.view)
        chain = job.chain
        if chain is None or chain.place is not Place.GATE:
            return
        limit = job.spec.limits[chain.gate]
        if not isinstance(limit, RateLimit):
            ask_for_slot(name, job, chain, limit, draft)
        elif draft.rules.asks_limiter:
            ask_limiter(name, chain, draft)
        else:
            ask_bucket(name, chain, limit, draft)


def settle(draft: Draft) -> int:
    """Give away the room that there is beside waiters, in fair turns.  Returns how many slots it gave."""
    view = draft.view
    if not view.first(UNSETTLED, (), 1):
        return 0
    require_chains(next_waiters(GRANTS_PER_COMMAND_MAX, view), view)
    # SILO-SLOT-3: until no queue has room beside a waiter; beyond the bound the timers' next command goes on.
    for granted in range(GRANTS_PER_COMMAND_MAX):
        front = view.first(UNSETTLED, (), 1)
        if not front:
            return granted
        _, tenant, queue = front[0][0]
        name = next_waiter(str(tenant), str(queue), view)
        let_in(name, draft)
        walk(name, draft)
    return GRANTS_PER_COMMAND_MAX


def settle_rest(_: None, draft: Draft) -> int:
    """`settle` as a command of its own, for what one command left."""
    return settle(draft)


def take_reply(reply: Reply, draft: Draft) -> None:
    """Take what the outside service said of a rate limit, and lead the chain on if it may go on."""
    if note_reply(reply, draft):
        walk(reply.question.name, draft)
