"""The overlay against a dictionary: whatever is put in, taken back, frozen, thawed, loaded and dropped."""

from __future__ import annotations

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
from silo.shard import rows as rows_module
from silo.shard import window as window_module
from silo.shard.rows import Rows
from tests.story import nothing_there

PLAIN = Table("plain", tag=0x70, row=bytes)
QUEUES = Table("queues", tag=0x71, row=bytes, front=1)
QUEUE = Table("queue", tag=0x72, row=bytes, front=0)
LISTED = Table("listed", tag=0x73, row=bytes, index=True)
TABLES = (PLAIN, QUEUES, QUEUE)

KEYS = {
    PLAIN: [(name,) for name in "abcdef"],
    QUEUES: [(queue, at) for queue in "ab" for at in range(8)],
    QUEUE: [(at, "x") for at in range(10)],
}

places = st.sampled_from([(table, key) for table in TABLES for key in KEYS[table]])
# Rows of a queue come, go and are read in order; nobody replaces one or asks for one by its key.
plain_places = st.sampled_from([(PLAIN, key) for key in KEYS[PLAIN]])
fronts = st.sampled_from([(QUEUES, ("a",)), (QUEUES, ("b",)), (QUEUE, ())])


class Overlay(RuleBasedStateMachine):
    """`disk` is what a checkpoint wrote; `kept` is what commands have made of it; `draft` is what one more is making."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = Rows()
        self.disk: dict[Any, bytes] = {}
        self.kept: dict[Any, bytes] = {}
        self.draft: dict[Any, bytes] = {}
        self.counter = 0
        self.loads: list[Any] = []
        self.changed = self.what_changed()

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
                self.finish(self.started(absent.missing))
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
                self.finish(self.started(absent.missing))
            else:
                assert list(found) == self.front(self.draft, front)[:count]
                return

    def front(self, rows: dict[Any, bytes], front: Any) -> list[Any]:
        table, queue = front
        return sorted(
            (key, row) for (owner, key), row in rows.items() if owner is table and table.queue(key) == queue
        )

    def started(self, missing: MissingRows | MissingFront) -> Any:
        """A read of the disk as it is now, which arrives later."""
        if isinstance(missing, MissingRows):
            found = [(key, self.disk.get((missing.table, key))) for key in missing.keys]
            return (self.rows.epoch, missing, found, None, None)
        since = self.rows.horizon(missing.table, missing.queue)
        if since is None:
            return (self.rows.epoch, missing, [], None, None)
        left = [row for row in self.front(self.disk, (missing.table, missing.queue)) if row[0] >= since]
        piece, rest = left[:2], left[2:]
        return (self.rows.epoch, missing, piece, since, rest[0][0] if rest else None)

    def finish(self, load: Any) -> None:
        epoch, missing, found, since, horizon = load
        if epoch != self.rows.epoch:
            return
        if isinstance(missing, MissingRows):
            self.rows.install(missing.table, found)
        elif since is not None:
            self.rows.extend(missing.table, missing.queue, found, since=since, horizon=horizon)

    @rule(place=plain_places)
    def begin_to_load_a_row(self, place):
        self.loads.append(self.started(MissingRows(place[0], (place[1],))))

    @rule(front=fronts)
    def begin_to_load_a_front(self, front):
        self.loads.append(self.started(MissingFront(*front, 3)))

    @precondition(lambda self: self.loads)
    @rule(data=st.data())
    def end_a_load(self, data):
        self.finish(self.loads.pop(data.draw(st.integers(0, len(self.loads) - 1))))

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
        for table, changes in self.rows.frozen.rows.items():
            for key, row in changes.items():
                if row is None:
                    self.disk.pop((table, key), None)
                else:
                    self.disk[(table, key)] = row
        self.rows.thaw()
        self.changed = self.what_changed()

    @precondition(lambda self: self.rows.frozen is None)
    @rule(front=fronts)
    def write_everything_and_load_a_front(self, front):
        self.keep()
        self.freeze()
        self.thaw()
        self.first(front, 3)

    # --- what always holds

    @invariant()
    def what_is_in_memory_is_right(self):
        for key in KEYS[PLAIN]:
            try:
                found = self.rows.get(PLAIN, key)
            except NotLoaded:
                continue
            assert found == self.draft.get((PLAIN, key)), key

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
    monkeypatch.setattr(window_module, "ROWS_MAX", 2)
    run_state_machine_as_test(
        Overlay, settings=settings(max_examples=250, stateful_step_count=40, deadline=None)
    )


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
