"""The clock's part: chains that come due, leases that run out, rate limits and maxima that change with time, ended jobs that
are to be forgotten.

Each of these is a queue in the order of its times, so that one look at a few fronts tells when something must happen next.
A shard in which nothing waits for a time costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from silo.errors import Unavailable
from silo.projections.concurrency import REFRESHES_DUE, UNSETTLED
from silo.projections.leases import EXPIRIES
from silo.projections.rates import BUCKET_TIMERS, CHECKS
from silo.projections.tasks import FORGETTING, TIMERS
from silo.projections.view import Table
from silo.shard.delete import forget_expired
from silo.shard.draft import Draft
from silo.shard.due import wake_due
from silo.shard.expire import expire_leases
from silo.shard.gates import settle_rest
from silo.shard.refresh import schedule_due_refreshes
from silo.shard.shard import Shard
from silo.shard.throttle import check_due, open_buckets

COMMANDS: tuple[Callable[[None, Draft], int], ...] = (
    wake_due,
    expire_leases,
    check_due,
    open_buckets,
    schedule_due_refreshes,
    settle_rest,
    forget_expired,
)
"""What may be due.  Each says how much it did, and has done all when it says 0."""

QUEUES_OF_TIMES: tuple[Table[Any], ...] = (TIMERS, EXPIRIES, CHECKS, BUCKET_TIMERS, REFRESHES_DUE, FORGETTING)

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.02
"""Under load every commit may move a front; looking after each of them would cost more than it finds."""

WAIT_S_MIN = 0.005
"""After the wall clock stepped back, time stands still until it has caught up, and something due may stay due for long."""

RETRY_S = 0.2


async def run_timers(shard: Shard) -> None:
    """Give one shard the commands of its clock, until cancelled."""
    with shard.listening() as decided:
        while True:
            decided.clear()
            try:
                due_ms = await run_due(shard)
            except Unavailable:
                # The shard is opening again, or for good somebody else's; whoever supervises it knows.
                await asyncio.sleep(RETRY_S)
                continue
            wait_s = max((due_ms - shard.now_ms()) / 1000, WAIT_S_MIN) if due_ms is not None else None
            try:
                # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(wait_s):
                    await decided.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(LOOK_AGAIN_S)


async def run_due(shard: Shard) -> int | None:
    """Do everything that is due now.  Returns when something is due next, in ms; None: nothing waits for a time."""
    for command in COMMANDS:
        while await shard.execute(command, None):
            pass
    return await shard.execute(next_due_ms, None)


def next_due_ms(_: None, draft: Draft) -> int | None:
    """When the first of the queues has something due: now, if there is room that no command has given away yet."""
    if draft.view.first(UNSETTLED, (), 1):
        return draft.now_ms
    times: list[int] = []
    for table in QUEUES_OF_TIMES:
        # Those that an outside service decides are asked by rate_checks.py.
        if table is not CHECKS or not draft.rules.asks_limiter:
            times += [int(key[0]) for key, _ in draft.view.first(table, (), 1)]
    return min(times, default=None)
