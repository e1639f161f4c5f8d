"""The shortest plan that still fails in the same way.

A plan that fails is cut into pieces, and each piece is left out for once: if what is left fails at the same check, the piece
was not needed.  The pieces become smaller until they are single steps (delta debugging, after Zeller).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from silo.testing.plan import Step
from silo.testing.run import History, run
from silo.testing.scenario import Scenario

RUNS_MAX = 400


def shrink(
    scenario: Scenario, failed: History, *, progress: Callable[[int, int], None] = lambda _, __: None
) -> tuple[History, Sequence[int]]:
    """Find a shorter history that fails at the same check.

    Args:
        progress: told how many runs there were, and how many steps are left.

    Returns:
        The history, and which steps of the whole plan it has, by their places.
    """
    assert failed.failure is not None
    check, whole = failed.failure.check, scenario.plan(failed.seed)
    kept, shortest, runs = list(range(len(whole))), failed, 0
    pieces = 2
    while len(kept) > 1 and runs < RUNS_MAX:
        size = -(-len(kept) // pieces)
        for at in range(0, len(kept), size):
            fewer = kept[:at] + kept[at + size :]
            history = run(scenario, failed.seed, plan=chosen(whole, fewer))
            runs += 1
            progress(runs, len(fewer))
            if history.failure is not None and history.failure.check == check:
                kept, shortest = fewer, history
                pieces = max(pieces - 1, 2)
                break
        else:
            if size == 1:
                break
            pieces = min(pieces * 2, len(kept))
    return shortest, kept


def chosen(plan: Sequence[Step], places: Sequence[int]) -> list[Step]:
    """The steps at these places."""
    return [plan[place] for place in places]
