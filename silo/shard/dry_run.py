"""A shard without a disk, a log or a loop: commands run on rows in memory, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from silo.domain.ids import Ids
from silo.events.catalogue import Event
from silo.projections.view import MissingRows, NotLoaded
from silo.shard.draft import SYSTEM, Caller, Draft, Rules
from silo.shard.gates import settle
from silo.shard.lease_clock import LeaseClock
from silo.shard.rows import Rows

Command = TypeVar("Command")
Reply = TypeVar("Reply")


class DryRun:
    """Rows over an empty disk, and a clock that stands where it is put.

    Attributes:
        now_ms: the time of the next command.
        rows: as all commands so far have left them.
        last_seq: how many events there have been.
    """

    def __init__(
        self, *, now_ms: int, rules: Rules, ids: Ids, leases: LeaseClock, caller: Caller = SYSTEM
    ) -> None:
        self.now_ms = now_ms
        self.rules = rules
        self.leases = leases
        self.caller = caller
        self.rows = Rows()
        self.last_seq = 0
        self._ids = ids

    def execute(
        self, decide: Callable[[Command, Draft], Reply], command: Command, *, settled: bool = True
    ) -> tuple[Reply, list[Event]]:
        """Run one command.  A refusal is raised, and changes nothing.

        Args:
            settled: give room that came free to the next in line, as a shard does after each command.

        Returns:
            The reply, and what has happened.
        """
        while True:
            draft = Draft(
                view=self.rows,
                now_ms=self.now_ms,
                caller=self.caller,
                rules=self.rules,
                ids=self._ids,
                leases=self.leases,
                next_seq=self.last_seq + 1,
                events=[],
            )
            try:
                reply = decide(command, draft)
                if draft.events and settled:
                    settle(draft)
            except NotLoaded as absent:
                self.rows.undo()
                nothing_there(self.rows, absent)
            except BaseException:
                self.rows.undo()
                raise
            else:
                self.rows.keep()
                self.last_seq += len(draft.events)
                return reply, draft.events


def nothing_there(rows: Rows, absent: NotLoaded) -> None:
    """Answer for a disk that is empty."""
    missing = absent.missing
    if isinstance(missing, MissingRows):
        rows.install(missing.table, [(key, None) for key in missing.keys])
    else:
        since = rows.horizon(missing.table, missing.queue)
        rows.extend(missing.table, missing.queue, [], since=since, horizon=None)
