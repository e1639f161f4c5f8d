"""The state of a shard as it was: at an instant, or after an event.

The log is folded from its beginning, by the same folds that serve, into rows in memory; in a thread with a loop of its own,
so that nobody waits for it.  How many events that may be is bounded, as all rows of that moment are in memory at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import attrs

from silo.errors import Exhausted, Invalid
from silo.events.log import read
from silo.projections.fold import TABLES
from silo.query.snapshot import ShardSnapshot, take
from silo.shard.base import newest_base
from silo.shard.checkpoint import Note
from silo.shard.replay import replay
from silo.shard.rows import Rows
from silo.shard.shard import Shard
from silo.storage.database import Row
from silo.storage.memory import MemoryDatabase

EVENTS_MAX = 2_000_000
ROWS_MAX = 2_000_000
NEVER = 1 << 62


@attrs.frozen
class Moment:
    """When a state is looked at: at an instant, in epoch ms, or right after an event."""

    time_ms: int | None = None
    seq: int | None = None


def moment_of(value: Any) -> Moment:
    """What a statement says of a moment: text for an instant (UTC, unless it says otherwise), a number for an event.

    Raises Invalid for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Invalid("say when: an instant such as '2026-11-03 14:05', or the sequence number of an event")
    if isinstance(value, int):
        return Moment(seq=value)
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise Invalid(
            f"'{value}' is no instant; write it as in '2026-11-03 14:05:30.250' or '2026-11-03T14:05+01:00'"
        ) from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return Moment(time_ms=round(instant.timestamp() * 1000))


async def state_at(shard: Shard, moment: Moment) -> ShardSnapshot:
    """The state of a shard at a moment.  Raises Exhausted if more events lead there than one statement may fold."""
    live = await take(shard, ())
    try:
        return await asyncio.to_thread(_fold, live, moment)
    finally:
        live.release()


def _fold(live: ShardSnapshot, moment: Moment) -> ShardSnapshot:
    """In a thread of its own."""
    last_seq = _last_seq(live, moment)
    rows, disk = Rows(), MemoryDatabase()
    note = asyncio.run(_rows_at(live, last_seq, rows, disk))
    return ShardSnapshot(
        shard_id=live.shard_id,
        now_ms=moment.time_ms if moment.time_ms is not None else note.time_ms,
        seq=note.seq,
        changed={table: dict(rows.changed(table)) for table in TABLES},
        disk=disk,
        loop=live.loop,
    )


async def _rows_at(live: ShardSnapshot, last_seq: int, rows: Rows, disk: MemoryDatabase) -> Note:
    """From the newest image before, or from the first event."""
    archive = live.archive
    base = await newest_base(archive, last_seq) if archive is not None else None
    events = last_seq - (base.note.seq if base is not None else 0)
    if events > EVENTS_MAX:
        later = (
            next((image.seq for image in archive.images if image.seq > last_seq), None) if archive else None
        )
        hint = f", or one from event {later} on, of which there is an image" if later is not None else ""
        raise Exhausted(
            f"{events} events lead to that moment, and a statement folds {EVENTS_MAX} at most; ask for an earlier one{hint}"
        )
    if base is not None and (count := base.archive.count(base.image)) > ROWS_MAX:
        raise Exhausted(f"there were {count} rows at that moment, and a statement holds {ROWS_MAX} at most")
    after = await base.load(disk, go_on=live.go_on) if base is not None else Note(0, 0)
    # What changes is not written: it stays in memory, over what the image has.
    return await replay(
        _Log(live),  # type: ignore[arg-type]
        rows,
        disk,
        after=after,
        upto=last_seq,
        rows_max=NEVER,
        progress=lambda _: live.go_on(),
    )


def _last_seq(live: ShardSnapshot, moment: Moment) -> int:
    """The last event that had happened by then."""
    if moment.seq is not None:
        return max(0, min(moment.seq, live.seq))
    assert moment.time_ms is not None
    # Times never run backward along the log, so the place can be found by halving.
    before, after = 0, live.seq + 1
    while after - before > 1:
        middle = (before + after) // 2
        if live.wait(_time_ms(live, middle)) <= moment.time_ms:
            before = middle
        else:
            after = middle
    return before


async def _time_ms(live: ShardSnapshot, seq: int) -> int:
    async for events in read(live.disk, seq, end=seq + 1):
        return events[0].time_ms
    raise AssertionError(f"event {seq} is known, and not there")


class _Log:
    """The log of a snapshot, read from the loop of another thread."""

    def __init__(self, live: ShardSnapshot) -> None:
        self._live = live

    async def scan(self, first: bytes, end: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        return self._live.wait(self._live.disk.scan(first, end, limit=limit, reverse=reverse))

    async def pages(self, first: bytes, end: bytes, *, rows: int = 500) -> AsyncIterator[list[Row]]:
        for page in self._live.pull(self._live.disk.pages(first, end, rows=rows)):
            yield page
