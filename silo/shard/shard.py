"""One shard: the single writer of its log and rows.

    execute     decide a command against the rows, keep its facts, reply when they are durable
    open        find the newest checkpoint, fold the log from there
    supervise   commit and checkpoint as long as the store answers; when it fails, forget everything and open again

Nothing here takes a lock.  Between the first line of a decision and the append of its facts nothing else runs, so a decision
never sees half of another; two processes are kept apart by the database, which fences the older one.

A command is decided against facts that may not be durable yet, its own neighbours' among them.  That is safe because no
reply leaves before everything that it can have seen is durable: if a commit fails, all that was decided on top of it is
forgotten together, and nobody was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from typing import TypeVar

import attrs

from silo.domain.ids import Ids
from silo.domain.jobs import LEASE_MS
from silo.errors import (
    Busy,
    Corrupt,
    Fenced,
    Refused,
    ShardNotReady,
    SiloError,
    StoreFailed,
    Unavailable,
    again,
)
from silo.events.catalogue import ShardCreated
from silo.events.log import Log, require_event
from silo.projections.view import NotLoaded
from silo.shard.checkpoint import Note, find_rows, read_note, write_rows
from silo.shard.disk import Loader
from silo.shard.draft import SYSTEM, Caller, Draft, Rules
from silo.shard.gates import settle
from silo.shard.lease_clock import LeaseClock
from silo.shard.replay import replay
from silo.shard.rows import Rows
from silo.storage.database import Database, Snapshot

logger = logging.getLogger(__name__)

Command = TypeVar("Command")
Reply = TypeVar("Reply")
Decide = Callable[[Command, Draft], Reply]

REOPEN_AFTER_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""How long to wait before each try to open a shard again; the last holds for all further ones."""

WATCH_EVERY_S = 1.0
"""How often an idle shard asks whether its database is still its own."""

CLOSE_WITHIN_S = 5.0
"""How long closing waits for what is on its way to the store."""

LOOK_AFTER_EVENTS = 256
"""How often to ask whether it is time for a checkpoint."""

FULLNESS_MAX = 3
"""Commands wait while this many checkpoints' worth of changes are in memory: the store is slower than the callers."""


class Stage(Enum):
    """Where a shard is in its life."""

    CLOSED = "closed"
    OPENING = "opening"
    REPLAYING = "replaying"
    SERVING = "serving"
    STOPPED = "stopped"


@attrs.frozen(kw_only=True)
class ShardOptions:
    """How a shard works; all of it may change from one opening to the next.

    Attributes:
        commit_interval_ms: least time between two commits; 0: as fast as the store answers.
        checkpoint_interval_ms: greatest age of a changed row that is not on disk.
        checkpoint_rows, checkpoint_bytes: a checkpoint starts earlier when so much has changed.
        checkpoint_events: the same by the events that opening would have to replay.
        pending_commands_max, pending_bytes_max: what may wait for durability before callers are turned away.
    """

    rules: Rules = Rules()
    commit_interval_ms: int = 0
    checkpoint_interval_ms: int = 2000
    checkpoint_rows: int = 30_000
    checkpoint_bytes: int = 12 << 20
    checkpoint_events: int = 50_000
    pending_commands_max: int = 50_000
    pending_bytes_max: int = 256 << 20


def wall_clock_ms() -> int:
    """Now, in epoch ms."""
    return time.time_ns() // 1_000_000


class Shard:
    """One shard.  `open` it, `execute` commands, `close` it.

    Args:
        shard_id: its canonical id.
        open_database: opens the shard's database, fencing whoever had it open.
        now_ms: the wall clock.
        ids: where new ids come from.
    """

    def __init__(
        self,
        shard_id: str,
        open_database: Callable[[], Awaitable[Database]],
        *,
        options: ShardOptions = ShardOptions(),
        now_ms: Callable[[], int] = wall_clock_ms,
        ids: Ids,
    ) -> None:
        self.shard_id = shard_id
        self.stage = Stage.CLOSED
        self.rows = Rows()
        self.leases = LeaseClock()
        self.failure: SiloError | None = None
        self._listeners: list[asyncio.Event] = []
        self.stopped = asyncio.Event()
        self.checkpoints = Counter()
        self._open_database = open_database
        self._options = options
        self._wall_clock_ms = now_ms
        self._ids = ids
        self._time_ms = 0
        self._look_at_seq = 0
        self._frozen_seq = 0
        self._changed = asyncio.Event()
        self._checkpoint_wanted = asyncio.Event()
        self._checkpointing = asyncio.Lock()
        # Of whoever writes to the archive, across all openings: who began in an earlier one may not be done.
        self.archive_lock = asyncio.Lock()
        self._failed = _Failure()
        self._room = asyncio.Event()
        self._commands = 0
        self._quiet: asyncio.Event | None = None
        self._bytes = 0
        self._life: asyncio.Task[None] | None = None
        self._db: Database | None = None
        self._log: Log | None = None
        self._loader: Loader | None = None

    # --- commands --------------------------------------------------------------------------------------------------------

    async def execute(
        self,
        decide: Decide[Command, Reply],
        command: Command,
        *,
        caller: Caller = SYSTEM,
        size: int = 0,
    ) -> Reply:
        """Run one command and return its reply once everything that the reply rests on is durable.

        A caller that is cancelled changes nothing: what was decided is written all the same.

        Args:
            size: of the command's payload in bytes, for the bound on what is pending.

        Raises:
            Refused: by the command; nothing was written.
            Unavailable: the shard is not serving, is full, or its store failed; the command may be tried again.
            Corrupt: the shard has stopped, as its log cannot be understood.
        """
        log = self._admit()
        self._refuse_if_full(log)
        self._commands += 1
        self._bytes += size
        try:
            while not self._room.is_set():
                await self._room.wait()
                log = self._admit()
            while True:
                draft = self._draft(log, caller)
                try:
                    # What it emits is folded at once, see draft.py.
                    reply = decide(command, draft)
                    # SILO-SLOT-3: in the same commit, whatever the command was.
                    if draft.events:
                        settle(draft)
                    break
                except NotLoaded as absent:
                    self.rows.undo()
                    await self._load(absent)
                    log = self._admit()
                except Refused:
                    self.rows.undo()
                    # A refusal, too, tells what it has seen.
                    await log.durable()
                    raise
                except BaseException as error:
                    self.rows.undo()
                    if isinstance(error, Corrupt):
                        self._failed.set(error)
                    raise
            self.rows.keep()
            # Nothing was awaited since the decision, so the log has the order of the decisions.
            if draft.events:
                durable = log.append(draft.events, size)
                self._note(draft)
                # SILO-OWN-3: no reply leaves before this.
                await durable
            else:
                await log.durable()
            return reply
        finally:
            self._commands -= 1
            self._bytes -= size
            if not self._commands and self._quiet is not None:
                self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no command is under way."""
        while self._commands:
            self._quiet = asyncio.Event()
            await self._quiet.wait()

    def _admit(self) -> Log:
        """The log to append to.  Raises Unavailable or Corrupt if there is none."""
        if self.failure is not None:
            raise again(self.failure)
        log = self._log
        if self.stage is not Stage.SERVING or log is None:
            raise ShardNotReady(f"shard {self.shard_id} is {self.stage.value}; try again")
        return log

    def _refuse_if_full(self, log: Log) -> None:
        """Raise Busy if too much is under way: being decided, or not durable yet though its caller may be gone."""
        commands_max, bytes_max = self._options.pending_commands_max, self._options.pending_bytes_max
        if (
            self._commands >= commands_max
            or log.pending_commands >= commands_max
            or self._bytes >= bytes_max
            or log.pending_bytes >= bytes_max
        ):
            raise Busy("too many commands are waiting to become durable; try again")

    def _draft(self, log: Log, caller: Caller) -> Draft:
        return Draft(
            view=self.rows,
            now_ms=self.now_ms(),
            caller=caller,
            rules=self._options.rules,
            ids=self._ids,
            leases=self.leases,
            next_seq=log.next_seq,
            events=[],
        )

    def _note(self, draft: Draft) -> None:
        """Tell those whom it concerns that something was decided."""
        self._time_ms = draft.now_ms
        for decided in self._listeners:
            decided.set()
        self._changed.set()
        if draft.next_seq >= self._look_at_seq:
            self._look_at_seq = draft.next_seq + LOOK_AFTER_EVENTS
            self._look_at_size()

    def _look_at_size(self) -> None:
        """Ask for a checkpoint when much has changed, and let commands wait when too much has."""
        fullness = self._fullness()
        if fullness >= 1:
            self._checkpoint_wanted.set()
        if fullness >= FULLNESS_MAX:
            self._room.clear()

    def _fullness(self) -> float:
        """How much of a checkpoint has gathered since the last one; at 1 the next is due."""
        options, changes = self._options, self.rows.changes
        return max(
            len(changes) / options.checkpoint_rows,
            changes.size / options.checkpoint_bytes,
            (self._look_at_seq - self._frozen_seq) / options.checkpoint_events,
        )

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever a command has decided something, and when the shard has opened; whoever listens
        clears it."""
        decided = asyncio.Event()
        decided.set()
        self._listeners.append(decided)
        try:
            yield decided
        finally:
            self._listeners.remove(decided)

    async def _load(self, absent: NotLoaded) -> None:
        # Both belong to the same opening of the shard, also if it opens again during the read.
        loader, failed = self._loader, self._failed
        assert loader is not None
        try:
            await loader.load(absent.missing)
        except SiloError as error:
            failed.set(error)
            raise

    def now_ms(self) -> int:
        """The time for the next event: the wall clock, but never before the last event."""
        return max(self._wall_clock_ms(), self._time_ms)

    @property
    def log(self) -> Log:
        """The log, for reading.  Raises as `execute` does if the shard is not serving."""
        return self._admit()

    @property
    def database(self) -> Database:
        """The database, for operators' commands.  Raises as `execute` does if the shard is not serving."""
        self._admit()
        assert self._db is not None
        return self._db

    # --- life ------------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the database, replay the log, and serve until `close`.

        Raises what opening raised; afterwards failures of the store are met by opening again.
        """
        self.failure = None
        self.stopped.clear()
        await self._open()
        self._life = asyncio.create_task(self._live(), name=f"shard {self.shard_id}")

    async def close(self) -> None:
        """Let what was decided become durable, and let go.  Safe to call twice."""
        life, self._life = self._life, None
        if life is not None:
            await self._drain()
            life.cancel()
            await asyncio.wait([life])
        if self.stage is not Stage.STOPPED:
            self.stage = Stage.CLOSED
        db = self._detach(ShardNotReady(f"shard {self.shard_id} is closed"))
        if db is not None:
            await db.close()

    async def _drain(self) -> None:
        if self._log is not None and self.stage is Stage.SERVING:
            self.stage = Stage.CLOSED
            with contextlib.suppress(SiloError, TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await self._log.durable()

    def _detach(self, error: SiloError) -> Database | None:
        """Part from log and database; whoever still waits for the log gets the error."""
        log, self._log = self._log, None
        db, self._db = self._db, None
        if log is not None:
            log.fail(error)
        self._room.set()
        return db

    async def _live(self) -> None:
        """Serve; when the store fails, open again; when that is of no use, stop."""
        while True:
            error = await self._serve()
            logger.error("shard %s lets go: %s", self.shard_id, error)
            await self._let_go()
            # SILO-OWN-2: who was fenced lets go for good, instead of fencing the newer one in turn.
            if not isinstance(error, Unavailable) or isinstance(error, Fenced):
                self.stop(error)
                return
            if not await self._reopen():
                return

    async def _serve(self) -> SiloError:
        """Commit and checkpoint until one of them fails; returns the failure."""
        assert self._log is not None
        works = [
            asyncio.create_task(self._log.run(), name=f"log {self.shard_id}"),
            asyncio.create_task(self._checkpoint_when_due(), name=f"checkpoints {self.shard_id}"),
            asyncio.create_task(self._watch(), name=f"watch {self.shard_id}"),
            asyncio.create_task(self._failed.wait(), name=f"failure {self.shard_id}"),
        ]
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for work in works:
                work.cancel()
            await asyncio.wait(works)
        errors = [work.exception() for work in works if not work.cancelled()]
        error = self._failed.error or next((found for found in errors if found is not None), None)
        if isinstance(error, SiloError):
            return error
        logger.error("shard %s met a bug", self.shard_id, exc_info=error)
        return StoreFailed(f"shard {self.shard_id} failed: {type(error).__name__}: {error}")

    async def _watch(self) -> None:
        """Notice that the database was taken over or has failed even if nobody writes: reads would go stale unseen."""
        assert self._db is not None
        while True:
            self._db.check()
            await asyncio.sleep(WATCH_EVERY_S)

    async def _let_go(self) -> None:
        """Forget everything that is not durable, and tell those who wait."""
        self.stage = Stage.OPENING
        db = self._detach(ShardNotReady(f"shard {self.shard_id} is opening again; try again"))
        if db is not None:
            await db.abandon()

    async def _reopen(self) -> bool:
        """Open again, as often as it takes.  Returns False if it stopped instead."""
        tries = 0
        while True:
            await asyncio.sleep(REOPEN_AFTER_S[min(tries, len(REOPEN_AFTER_S) - 1)])
            tries += 1
            try:
                await self._open()
            except Unavailable as error:
                logger.warning("shard %s cannot be opened yet (try %d): %s", self.shard_id, tries, error)
            except SiloError as error:
                self.stop(error)
                return False
            except Exception:
                logger.exception("shard %s met a bug when it was opened (try %d)", self.shard_id, tries)
            else:
                logger.info("shard %s serves again after %d tries", self.shard_id, tries)
                return True

    def stop(self, error: SiloError) -> None:
        """Serve no more: the error is everybody's answer from now on."""
        logger.error("shard %s has stopped: %s", self.shard_id, error)
        self.stage = Stage.STOPPED
        if isinstance(error, Corrupt):
            self.failure = Corrupt(f"shard {self.shard_id} has stopped: {error}")
        else:
            self.failure = error
        self.stopped.set()

    # --- opening ---------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self.stage = Stage.OPENING
        self._failed = _Failure()
        # Whoever is stuck in a checkpoint of the last opening has that one's turn.
        self._checkpointing = asyncio.Lock()
        # SILO-OWN-4: first fence, then read: what is read is all there will be but for what this shard adds.
        db = await self._open_database()
        try:
            note = await find_rows(db)
            await require_event(db, note.seq)
            self.stage = Stage.REPLAYING
            self.rows = Rows()
            last = await replay(db, self.rows, db, after=note, rows_max=self._options.checkpoint_rows)
        except BaseException:
            await db.abandon()
            raise
        self._db = db
        self._loader = Loader(db, self.rows)
        self._log = Log(db, next_seq=last.seq + 1, commit_interval_ms=self._options.commit_interval_ms)
        self._time_ms = last.time_ms
        self._look_at_seq = self._frozen_seq = last.seq
        self.leases = LeaseClock(not_before_ms=self.now_ms() + LEASE_MS)
        self._checkpoint_wanted.clear()
        self._changed.set()
        self._room.set()
        self.stage = Stage.SERVING
        if last.seq == 0:
            self._begin_log(self._log)
        for decided in self._listeners:
            decided.set()

    def _begin_log(self, log: Log) -> None:
        draft = self._draft(log, SYSTEM)
        draft.emit(ShardCreated(shard_id=self.shard_id))
        # Nobody waits for this event by itself; the first command's reply does.
        log.append(draft.events, 0)
        self.rows.keep()
        self._time_ms = draft.now_ms

    # --- standing still --------------------------------------------------------------------------------------------------

    async def stand_still(self) -> StandingStill:
        """Write a checkpoint and serve nobody until the end of that; callers are told to try again.

        Raises what `execute` raises if the shard is not serving, and what the store raised.
        """
        self._admit()
        db = self._db
        assert db is not None
        self.stage = Stage.REPLAYING
        try:
            await self.checkpoint()
            # Of events that changed no row no checkpoint is written.
            assert self._log is not None
            await self._log.durable()
            snapshot = await db.snapshot()
            return StandingStill(await read_note(snapshot), snapshot, db, lambda: self._go_on(db))
        except BaseException:
            self._go_on(db)
            raise

    def _go_on(self, db: Database) -> None:
        """Serve again, with nothing in memory that was read before; unless the shard has opened anew, or closed."""
        if self._db is not db or self.stage is not Stage.REPLAYING:
            return
        if not self.rows.changes and self.rows.frozen is None:
            self.rows = Rows()
            self._loader = Loader(db, self.rows)
        self.stage = Stage.SERVING
        self._changed.set()
        for decided in self._listeners:
            decided.set()

    # --- checkpoints -----------------------------------------------------------------------------------------------------

    async def _checkpoint_when_due(self) -> None:
        """Write a checkpoint when much has changed, or something a while ago.  A shard without work writes nothing."""
        interval_s = self._options.checkpoint_interval_ms / 1000
        while True:
            await self._changed.wait()
            self._changed.clear()
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._checkpoint_wanted.wait()
            await self._checkpoint()

    async def checkpoint(self) -> None:
        """Write a checkpoint now; see checkpoint.py for the steps.  Raises what the store raised; the shard opens again."""
        # In a task of its own: half a checkpoint must not be left behind by a caller that goes away.
        work = asyncio.create_task(self._checkpoint(), name=f"checkpoint {self.shard_id}")
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(work)

    async def _checkpoint(self) -> None:
        # All of one opening of the shard, also if it opens again while this waits for its turn.
        db, log, rows, failed = self._db, self._log, self.rows, self._failed
        if db is None or log is None:
            raise ShardNotReady(f"shard {self.shard_id} is {self.stage.value}; try again")
        async with self._checkpointing:
            if failed.error is not None:
                # The one before has failed; what it froze is never written.
                raise again(failed.error)
            if self._db is not db:
                raise ShardNotReady(f"shard {self.shard_id} has opened again; try again")
            self._checkpoint_wanted.clear()
            if not rows.changes:
                return
            note = Note(log.next_seq - 1, self._time_ms)
            generation = rows.freeze()
            self._frozen_seq = note.seq
            self._room.set()
            try:
                await log.durable()
                await write_rows(db, generation, note, asyncio.get_running_loop().time, self._fullness)
            except SiloError as error:
                failed.set(error)
                raise
            except Exception as error:
                failed.set(StoreFailed(f"a checkpoint failed: {type(error).__name__}: {error}"))
                raise
            rows.thaw()
            self.checkpoints.add()


class StandingStill:
    """A shard that serves nobody: all its rows are on disk, and none will be in memory when it serves again.

    Attributes:
        note: what the rows stand for, which is all there is.
        snapshot: the rows.
    """

    def __init__(self, note: Note, snapshot: Snapshot, db: Database, end: Callable[[], None]) -> None:
        self.note = note
        self.snapshot = snapshot
        self._db = db
        self._end = end

    async def put(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Change rows, behind the back of the log."""
        batch = self._db.batch()
        batch.change(changes)
        await self._db.write(batch)

    async def end(self) -> None:
        """Serve again."""
        self.snapshot.release()
        self._end()


class Counter:
    """Counts something that happens now and then, and lets others wait for the next time."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        self._next.set()
        self._next = asyncio.Event()

    async def next(self) -> None:
        """Wait until it happens again."""
        await self._next.wait()


class _Failure:
    """The first error that ends serving."""

    def __init__(self) -> None:
        self.error: SiloError | None = None
        self._happened = asyncio.Event()

    def set(self, error: SiloError) -> None:
        if self.error is None:
            self.error = error
        self._happened.set()

    async def wait(self) -> None:
        await self._happened.wait()
