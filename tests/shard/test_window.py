from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.shard import window as window_module
from silo.shard.window import Window


@pytest.fixture(autouse=True)
def _short_windows(monkeypatch):
    monkeypatch.setattr(window_module, "ROWS_MAX", 4)


def rows(*keys: int) -> list:
    return [((key,), b"%d" % key) for key in keys]


def loaded(*keys: int, horizon: int | None = None) -> Window:
    window = Window()
    window.extend(rows(*keys), (horizon,) if horizon is not None else None)
    return window


def test_a_new_window_knows_nothing():
    window = Window()

    assert window.horizon == ()
    assert window.first(1) is None
    assert not window.covers((-5,))


def test_a_window_that_reaches_the_end_knows_everything():
    window = loaded(1, 2)

    assert window.first(1) == rows(1)
    assert window.first(9) == rows(1, 2)


def test_a_window_that_does_not_reach_the_end_answers_as_far_as_it_can():
    window = loaded(1, 2, horizon=5)

    assert window.first(2) == rows(1, 2)
    assert window.first(3) is None
    window.extend(rows(5, 7), (9,))
    assert window.first(3) == rows(1, 2, 5)


def test_a_row_below_the_horizon_is_added_and_one_beyond_it_left_to_the_disk():
    window = loaded(1, 3, horizon=5)
    for key in (2, 5, 6):
        window.add((key,), b"%d" % key)

    assert window.first(3) == rows(1, 2, 3)
    assert window.first(4) is None


def test_a_row_that_is_taken_is_gone():
    window = loaded(1, 2)

    assert window.take((1,)) == b"1"
    assert window.take((1,), "none") == "none"
    assert window.first(9) == rows(2)


def test_a_window_that_has_grown_too_long_gives_its_tail_back():
    window = loaded()
    for key in range(100, 91, -1):
        window.add((key,), b"%d" % key)

    assert window.horizon == (96,)
    assert window.first(4) == rows(92, 93, 94, 95)
    assert window.first(5) is None


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "load"]), st.integers(0, 30)), max_size=60))
def test_every_row_below_the_horizon_is_here(steps):
    # A180, A181
    queue: dict = {}
    window = Window()
    for kind, number in steps:
        key = (number,)
        if kind == "add":
            queue[key] = b"%d" % number
            window.add(key, queue[key])
        elif kind == "take":
            queue.pop(key, None)
            window.take(key)
        elif window.horizon is not None:
            left = sorted(row for row in queue.items() if row[0] >= window.horizon)
            piece = left[: number % 4 + 1]
            window.extend(piece, left[len(piece)][0] if len(left) > len(piece) else None)

        below = sorted(row for row in queue.items() if window.horizon is None or row[0] < window.horizon)
        assert window.first(len(below)) == below
        if window.horizon is not None:
            assert window.first(len(below) + 1) is None
