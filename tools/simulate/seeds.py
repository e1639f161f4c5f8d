"""Many seeds, each twice, in processes that do not hash alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import attrs

from silo.testing.run import run
from silo.testing.scenarios import ALL

HASH_SEEDS = ("1", "2")


@attrs.define
class Outcome:
    """What came of one seed.

    Attributes:
        check: what found the failure; empty if there is none.
        failure: what was found.
    """

    scenario: str
    seed: int
    check: str
    failure: str
    digest: str
    seconds: float
    events: int
    faults: Counter[str]


def run_seeds(names: Sequence[str], seeds: range, *, jobs: int, at_once: int) -> Iterator[Outcome]:
    """Run all seeds of these scenarios, with so many processes, in no order.

    A seed whose two runs differ has failed, too.

    Args:
        at_once: how many seeds a process is given at a time; it ends with the last of them.
    """
    pools = [_pool(hash_seed, max(jobs // 2, 1)) for hash_seed in HASH_SEEDS]
    try:
        lots = [(name, seeds[at : at + at_once]) for name in names for at in range(0, len(seeds), at_once)]
        waiting: dict[Future[list[Outcome]], tuple[str, range]] = {
            pool.submit(_run_lot, name, lot): (name, lot) for name, lot in lots for pool in pools
        }
        first: dict[tuple[str, int], Outcome] = {}
        for future in as_completed(waiting):
            for outcome in future.result():
                other = first.pop((outcome.scenario, outcome.seed), None)
                if other is None:
                    first[outcome.scenario, outcome.seed] = outcome
                else:
                    yield _compared(outcome, other)
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _pool(hash_seed: str, size: int) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(size, mp_context=get_context("spawn"))
    before = os.environ.get("PYTHONHASHSEED")
    # Read by Python when a process starts; so start them all now.
    os.environ["PYTHONHASHSEED"] = hash_seed
    try:
        for started in [pool.submit(os.getpid) for _ in range(size)]:
            started.result()
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before
    return pool


def _run_lot(name: str, seeds: range) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for seed in seeds:
        history = run(ALL[name], seed)
        outcomes.append(
            Outcome(
                scenario=name,
                seed=seed,
                check=history.failure.check if history.failure else "",
                failure=str(history.failure or ""),
                digest=history.digest,
                seconds=history.seconds,
                events=history.events,
                faults=history.faults,
            )
        )
    return outcomes


def _compared(one: Outcome, other: Outcome) -> Outcome:
    if one.digest == other.digest and one.failure == other.failure:
        return one
    if one.failure or other.failure:
        return one if one.failure else other
    text = f"two runs gave different events: {one.digest[:16]} and {other.digest[:16]}"
    return attrs.evolve(one, check="same seed, same events", failure=text)
