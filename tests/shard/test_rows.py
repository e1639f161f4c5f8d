"""The overlay against a dictionary: whatever is put in, taken back, frozen, thawed, loaded and dropped."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from silo.projections.view import MissingFront, MissingRows, NotLoaded, Table
from silo.shard import disk as disk_module
from silo.shard import rows as rows_module
from silo.shard import window as window_module
from silo.shard.disk import load, row_key
from silo.shard.dry_run import nothing_there
from silo.shard.rows import Rows

PLAIN = Table("plain", tag=0x70, row=bytes)
QUEUES = Table("queues", tag=0x71, row=bytes, front=1)
QUEUE = Table("queue", tag=0x72, row=bytes, front=0)
LISTED = Table("listed", tag=0x73, row=bytes, index=True)
KNOWN = Table("known", tag=0x74, row=bytes, catalogue=1)
ELSEWHERE = Table("elsewhere", tag=0x75, row=bytes)
TABLES = (PLAIN, QUEUES, QUEUE, KNOWN)

KEYS = {
    PLAIN: [(name,) for name in "abc"],
    KNOWN: [(group, name) for group in "abc" for name in "xyz"],
    QUEUES: [(queue, at) for queue in "ab" for at in range(8)],
    QUEUE: [(at, "x") for at in range(10)],
}

places = st.sampled_from([(table, key) for table in TABLES for key in KEYS[table]])
# Rows of a queue come, go and are read in order; nobody replaces one or asks for one by its key.
plain_places = st.sampled_from([(table, key) for table in (PLAIN, KNOWN) for key in KEYS[table]])
fronts = st.sampled_from([(QUEUES, ("a",)), (QUEUES, ("b",)), (QUEUE, ())])


@coroutine
def pause() -> Generator[None, None, None]:
    """Until whoever drives the coroutine goes on with it."""
    yield


class Slow:
    """A reader that sees the disk as it is when it is asked, and tells it later."""

    def __init__(self, disk: dict[Any, bytes]) -> None:
        self.disk = disk

    def _raw(self) -> dict[bytes, bytes]:
        return {row_key(table, key): row for (table, key), row in self.disk.items()}

    async def get(self, key: bytes) -> bytes | None:
        found = self._raw().get(key)
        await pause()
        return found

    async def scan(self, first: bytes, end: bytes, *, limit: int) -> list[tuple[bytes, bytes]]:
        found = sorted((key, row) for key, row in self._raw().items() if first <= key < end)
        await pause()
        return found[:limit]


class Overlay(RuleBasedStateMachine):
    """`disk` is what a checkpoint wrote; `kept` is what commands have made of it; `draft` is what one more is making.

    `loads` are those that are under way: anything may happen between two of their reads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows = Rows()
        self.disk: dict[Any, bytes] = {}
        self.kept: dict[Any, bytes] = {}
        self.draft: dict[Any, bytes] = {}
        self.counter = 0
        self.loads: list[Coroutine[None, None, None]] = []
        self.changed = self.what_changed()

    def teardown(self) -> None:
        for under_way in self.loads:
            under_way.close()

    def what_changed(self) -> dict[str, list[Any]]:
        return {table.name: sorted(self.rows.changed(table), key=repr) for table in TABLES}

    def a_row(self) -> bytes:
        self.counter += 1
        return str(self.counter).encode()

    # --- a command at work

    @rule(place=places)
    def insert(self, place):
        if place not in self.draft:
            self.draft[place] = self.a_row()
            self.rows.insert(*place, self.draft[place])

    @rule(front=fronts)
    def begin(self, front):
        """A command knows that nobody stands in a queue, as it is new or has just been emptied."""
        if not self.front(self.draft, front):
            self.rows.begin(*front)

    @rule(place=plain_places)
    def put(self, place):
        self.draft[place] = self.a_row()
        self.rows.put(*place, self.draft[place])

    @rule(place=places)
    def delete(self, place):
        if place in self.draft:
            del self.draft[place]
            self.rows.delete(*place)

    @rule()
    def keep(self):
        self.rows.keep()
        self.kept = dict(self.draft)
        self.changed = self.what_changed()

    @rule()
    def undo(self):
        self.rows.undo()
        self.draft = dict(self.kept)
        assert self.what_changed() == self.changed

    # --- reading, and loading what is missing

    @rule(place=plain_places)
    def get(self, place):
        while True:
            try:
                found = self.rows.get(*place)
            except NotLoaded as absent:
                self.undo()
                self.finish(self.begun(absent.missing))
            else:
                assert found == self.draft.get(place)
                return

    @rule(front=fronts, count=st.integers(0, 6))
    def first(self, front, count):
        while True:
            try:
                found = self.rows.first(*front, count)
            except NotLoaded as absent:
                self.undo()
                self.finish(self.begun(absent.missing))
            else:
                assert list(found) == self.front(self.draft, front)[:count]
                return

    def front(self, rows: dict[Any, bytes], front: Any) -> list[Any]:
        table, queue = front
        return sorted(
            (key, row) for (owner, key), row in rows.items() if owner is table and table.queue(key) == queue
        )

    def begun(self, missing: MissingRows | MissingFront) -> Coroutine[None, None, None]:
        return load(Slow(self.disk), self.rows, missing)  # type: ignore[arg-type]

    def goes_on(self, under_way: Coroutine[None, None, None]) -> bool:
        """Let a load go on up to the end of its next read.  Returns whether there is more to come."""
        try:
            under_way.send(None)
        except StopIteration:
            return False
        return True

    def finish(self, under_way: Coroutine[None, None, None]) -> None:
        while self.goes_on(under_way):
            pass

    @rule(place=plain_places)
    def begin_to_load_a_row(self, place):
        self.loads.append(self.begun(MissingRows(place[0], (place[1],))))

    @rule(front=fronts)
    def begin_to_load_a_front(self, front):
        self.loads.append(self.begun(MissingFront(*front, 3)))

    @precondition(lambda self: self.loads)
    @rule(data=st.data())
    def go_on_with_a_load(self, data):
        under_way = data.draw(st.sampled_from(self.loads))
        if not self.goes_on(under_way):
            self.loads.remove(under_way)

    @precondition(lambda self: self.loads)
    @rule()
    def finish_all_loads(self):
        while self.loads:
            self.finish(self.loads.pop(0))

    # --- checkpoints

    @precondition(lambda self: self.rows.frozen is None)
    @rule()
    def freeze(self):
        self.undo()
        generation = self.rows.freeze()
        assert generation is self.rows.frozen
        self.changed = self.what_changed()

    @precondition(lambda self: self.rows.frozen is not None)
    @rule()
    def thaw(self):
        self.undo()
        self.write()
        self.rows.thaw()
        self.changed = self.what_changed()

    @precondition(lambda self: self.rows.frozen is not None)
    @rule()
    def write(self):
        """What is frozen reaches the disk, which a load may see before anybody is told."""
        for table, changes in self.rows.frozen.rows.items():
            for key, row in changes.items():
                if row is None:
                    self.disk.pop((table, key), None)
                else:
                    self.disk[(table, key)] = row

    @precondition(lambda self: self.rows.frozen is None)
    @rule()
    def write_everything(self):
        self.keep()
        self.freeze()
        self.thaw()

    @precondition(lambda self: self.rows.frozen is None)
    @rule(front=fronts)
    def write_everything_and_load_a_front(self, front):
        self.write_everything()
        self.first(front, 3)

    @precondition(lambda self: self.rows.frozen is None)
    @rule(group=st.sampled_from("abc"))
    def fill_a_group_key_by_key(self, group):
        """It grows beyond what a catalogue may have; and the catalogues of the others go when they are too many."""
        for key in KEYS[KNOWN]:
            if key[0] == group:
                self.get((KNOWN, key))
                self.put((KNOWN, key))
                self.write_everything()
        self.load_much_else()
        for key in KEYS[KNOWN]:
            self.get((KNOWN, key))

    @rule()
    def load_much_else(self):
        """More than there is room for: nothing stays in memory that is on disk."""
        for number in range(2):
            self.rows.install(ELSEWHERE, [((number,), b"x" * 2_000)])

    @precondition(lambda self: self.rows.frozen is None)
    @rule(place=plain_places, gone=st.booleans())
    def change_a_row_and_write_it_while_it_is_loaded(self, place, gone):
        """The load saw the disk as it was before."""
        under_way = self.begun(MissingRows(place[0], (place[1],)))
        self.goes_on(under_way)
        self.get(place)
        if gone:
            self.delete(place)
        else:
            self.put(place)
        self.write_everything()
        self.finish(under_way)

    # --- what always holds

    @invariant()
    def what_is_in_memory_is_right(self):
        for table in (PLAIN, KNOWN):
            for key in KEYS[table]:
                try:
                    found = self.rows.get(table, key)
                except NotLoaded:
                    continue
                assert found == self.draft.get((table, key)), (table, key)

    @invariant()
    def every_front_that_is_in_memory_is_right(self):
        for front in ((QUEUES, ("a",)), (QUEUES, ("b",)), (QUEUE, ())):
            for count in (1, 4, 20):
                try:
                    found = list(self.rows.first(*front, count))
                except NotLoaded:
                    continue
                assert found == self.front(self.draft, front)[:count]

    @invariant()
    def disk_and_changes_together_are_everything(self):
        rows = dict(self.disk)
        for table in TABLES:
            for key, row in self.rows.changed(table):
                if row is None:
                    rows.pop((table, key), None)
                else:
                    rows[(table, key)] = row
        assert rows == self.draft


def test_the_overlay_answers_as_a_dictionary_would(monkeypatch):
    monkeypatch.setattr(rows_module, "LOADED_BYTES_MAX", 1_000)
    monkeypatch.setattr(rows_module, "WINDOWS_MAX", 2)
    monkeypatch.setattr(rows_module, "CATALOGUES_MAX", 2)
    monkeypatch.setattr(rows_module, "CATALOGUE_KEYS_MAX", 2)
    monkeypatch.setattr(disk_module, "CATALOGUE_KEYS_MAX", 2)
    monkeypatch.setattr(window_module, "ROWS_MAX", 2)
    monkeypatch.setattr(disk_module, "ROWS_MAX", 4)
    run_state_machine_as_test(
        Overlay, settings=settings(max_examples=200, stateful_step_count=40, deadline=None)
    )


def test_a_queue_that_a_dropped_draft_emptied_and_began_anew_is_as_full_as_before():
    rows = Rows()
    for at in range(2):
        rows.insert(QUEUES, ("a", at), b"")
    rows.keep()

    rows.delete(QUEUES, ("a", 0))
    rows.delete(QUEUES, ("a", 1))
    rows.begin(QUEUES, ("a",))
    rows.undo()

    assert answered(rows, lambda: rows.first(QUEUES, ("a",), 5)) == [(("a", 0), b""), (("a", 1), b"")]


# --- what a checkpoint writes --------------------------------------------------------------------------------


def answered(rows: Rows, ask: Any) -> Any:
    """What the rows say over an empty disk."""
    while True:
        try:
            return ask()
        except NotLoaded as absent:
            rows.undo()
            nothing_there(rows, absent)


@pytest.mark.parametrize("table", [*TABLES, LISTED])
def test_a_row_that_came_and_went_between_two_checkpoints_leaves_nothing(table):
    key = KEYS.get(table, [("k",)])[0]
    rows = Rows()
    rows.insert(table, key, b"row")
    rows.keep()
    rows.delete(table, key)
    rows.keep()

    assert list(rows.changed(table)) == []
    assert len(rows.changes) == 0


def test_a_row_that_a_checkpoint_has_written_leaves_a_tombstone():
    rows = Rows()
    rows.insert(PLAIN, ("k",), b"row")
    rows.keep()
    rows.freeze()
    rows.delete(PLAIN, ("k",))
    rows.keep()
    assert list(rows.changed(PLAIN)) == [(("k",), b"row"), (("k",), None)]

    rows.thaw()
    assert list(rows.changed(PLAIN)) == [(("k",), None)]
    assert rows.get(PLAIN, ("k",)) is None


def test_a_row_that_changed_ten_times_is_written_once():
    rows = Rows()
    for number in range(10):
        rows.put(PLAIN, ("k",), b"%d" % number)
        rows.keep()

    assert list(rows.changed(PLAIN)) == [(("k",), b"9")]


def test_an_undone_deletion_of_a_fresh_row_leaves_it_fresh():
    rows = Rows()
    rows.insert(PLAIN, ("k",), b"row")
    rows.keep()
    rows.delete(PLAIN, ("k",))
    rows.undo()
    assert rows.get(PLAIN, ("k",)) == b"row"

    rows.delete(PLAIN, ("k",))
    assert list(rows.changed(PLAIN)) == []


def test_a_row_that_was_replaced_and_inserted_again_stays_on_record():
    rows = Rows()
    rows.install(PLAIN, [(("k",), b"old")])
    rows.delete(PLAIN, ("k",))
    rows.insert(PLAIN, ("k",), b"new")
    rows.delete(PLAIN, ("k",))
    rows.keep()

    # The disk has the old one still.
    assert list(rows.changed(PLAIN)) == [(("k",), None)]


def test_all_that_is_missing_is_named_at_once():
    rows = Rows()
    rows.install(PLAIN, [(("b",), None)])
    rows.insert(PLAIN, ("d",), b"row")

    with pytest.raises(NotLoaded) as absent:
        rows.require(PLAIN, [("a",), ("b",), ("c",), ("d",)])
    assert absent.value.missing == MissingRows(PLAIN, (("a",), ("c",)))


def test_a_payload_counts_by_its_length_for_the_bound_on_a_checkpoint():
    rows = Rows()
    rows.insert(PLAIN, ("small",), b"")
    small = rows.changes.size
    rows.insert(PLAIN, ("large",), b"x" * 1_000_000)

    assert rows.changes.size >= small + 1_000_000


def test_a_draft_that_is_dropped_does_not_count_for_the_bound_on_a_checkpoint():
    rows = Rows()
    rows.insert(PLAIN, ("k",), b"x" * 1_000_000)
    rows.undo()

    assert rows.changes.size == 0


def test_one_checkpoint_at_a_time():
    rows = Rows()
    rows.freeze()
    with pytest.raises(AssertionError, match="a checkpoint is under way"):
        rows.freeze()


def test_windows_are_dropped_when_there_are_too_many_and_loaded_again(monkeypatch):
    monkeypatch.setattr(rows_module, "WINDOWS_MAX", 3)
    rows = Rows()
    for number in range(10):
        rows.insert(QUEUES, (str(number), 1), b"row")
        rows.keep()
        assert answered(rows, lambda queue=(str(number),): rows.first(QUEUES, queue, 2)) == [
            ((str(number), 1), b"row")
        ]

    assert answered(rows, lambda: rows.first(QUEUES, ("0",), 2)) == [(("0", 1), b"row")]
