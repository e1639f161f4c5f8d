"""Given these facts, when that is asked, then these facts follow: a shard without a disk, a log or a loop.

story = Story().given(fact(JobEnqueued), fact(ChainStarted))
story.when(lease_tasks, for_worker())
assert kinds(story.events) == [TaskLeased]
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from silo.domain.ids import Ids
from silo.events.catalogue import Event
from silo.projections.fold import TABLES
from silo.projections.jobs import JOBS, JobRow
from silo.projections.view import Key, Table
from silo.shard.draft import Caller, Draft, Rules
from silo.shard.dry_run import DryRun
from silo.shard.jobs import Attempt, JobName
from silo.shard.lease_clock import LeaseClock
from silo.shard.reading import GetJob, get_job
from silo.shard.rows import Rows
from tests.builders import NAME, NOW

RULES = Rules()
CALLER = Caller(actor="client", method="Method")


class Story:
    """Real rows over an empty disk.

    Attributes:
        now_ms: the time of the next command.
        reply: of the last command.
        events: the facts of the last command.
        history: all facts, given ones included.
    """

    def __init__(self, *, now_ms: int = NOW, rules: Rules = RULES, leases: LeaseClock | None = None) -> None:
        self.now_ms = now_ms
        self.rules = rules
        self.caller = CALLER
        self.reply: Any = None
        self.events: list[Event] = []
        self.history: list[Event] = []
        self._dry = DryRun(
            now_ms=now_ms,
            rules=rules,
            ids=Ids(random.Random(1).randbytes),
            leases=leases or LeaseClock(),
        )

    def at(self, now_ms: int) -> Story:
        """What follows happens at this time."""
        self.now_ms = now_ms
        return self

    def given(self, *facts: Event) -> Story:
        """These facts are in the log."""
        return self.when(_tell, facts)

    def when(self, decide: Callable[[Any, Draft], Any], command: Any = None) -> Story:
        """Somebody asks this.  A refusal is raised, and leaves the story as it was."""
        self.reply, self.events = self._run(decide, command)
        self.history += self.events
        return self

    def _run(self, decide: Callable[[Any, Draft], Any], command: Any) -> tuple[Any, list[Event]]:
        self._dry.now_ms, self._dry.caller, self._dry.rules = self.now_ms, self.caller, self.rules
        return self._dry.execute(decide, command, settled=decide is not _tell)

    @property
    def rows(self) -> Rows:
        return self._dry.rows

    @property
    def leases(self) -> LeaseClock:
        return self._dry.leases

    # --- looking at it --------------------------------------------------------------------------------------

    def row(self, table: Table[Any], *key: str | int) -> Any:
        """The row under a key, or None."""
        return self.table(table).get(key)

    def table(self, table: Table[Any]) -> dict[Key, Any]:
        """All rows of a table, in the order of their keys."""
        return dict(sorted((key, row) for key, row in self.rows.changed(table) if row is not None))

    def listed(self, index: Table[bytes]) -> list[Key]:
        """Where the rows stand in an order that checkpoints write."""
        entries = {
            entry
            for table in TABLES
            if table.entries is not None
            for key, row in self.table(table).items()
            for entry in table.entries(key, row)
        }
        return sorted(key for table, key in entries if table is index)

    def job(self, name: JobName = NAME) -> JobRow:
        """The row of a job that exists."""
        return self.row(JOBS, name.tenant, name.job_id)

    def places(self) -> dict[str, str]:
        """Where the chain of each job is that has one."""
        jobs = self.table(JOBS).items()
        return {str(key[1]): row.chain.place.name.lower() for key, row in jobs if row.chain is not None}

    def attempts(self, name: JobName = NAME) -> list[Attempt]:
        """All attempts of a job, as GetJob shows them."""
        seen, _ = self._run(get_job, GetJob(name=name, include_attempts=True))
        return seen.attempts

    def everything(self) -> dict[str, dict[Key, bytes]]:
        """All rows of all tables, as bytes: what must not change if nothing happens."""
        return {
            table.name: {key: table.encode(row) for key, row in self.table(table).items()} for table in TABLES
        }


def kinds(events: Sequence[Event]) -> list[type[Event]]:
    """The types of facts: what happened, in a line."""
    return [type(event) for event in events]


def _tell(facts: Sequence[Event], draft: Draft) -> None:
    for event in facts:
        draft.emit(event)
