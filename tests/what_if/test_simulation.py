"""A window that is played again: as it was, and with changes."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.domain.ids import Ids
from silo.domain.jobs import JobSpec
from silo.events.catalogue import (
    AttemptFailed,
    Event,
    JobCancelled,
    JobEnqueued,
    JobFailed,
    SlotGranted,
    TaskLeased,
)
from silo.shard.draft import Rules
from silo.shard.jobs import JobName
from silo.what_if.changes import Changes
from silo.what_if.recording import USED, Act, Action, Ending, Life, Recording, Run
from silo.what_if.simulation import Simulation
from silo.what_if.waits import Measured, Waits
from tests.builders import NOW, a_floating_limit, a_limit, a_policy, a_rate_limit, a_spec

MINUTE = 60_000


def a_life(number: int, *runs: Run, **spec) -> Life:
    return Life(JobName("acme", f"j{number}"), a_spec(**{"priority": 0, **spec}), list(runs))


def took(duration_ms: int) -> Run:
    return Run(duration_ms, Ending.SUCCEEDED)


def failed(duration_ms: int) -> Run:
    return Run(duration_ms, Ending.FAILED, "E")


def a_recording(*actions: Action, length_ms: int = MINUTE, **peaks: int) -> Recording:
    recording = Recording(NOW)
    recording.actions = sorted(actions, key=lambda action: action.time_ms)
    recording.end(NOW + length_ms)
    for group, peak in peaks.items():
        recording.peak_running[group] = peak
    return recording


def arrives(life: Life, after_ms: int = 0) -> Action:
    return Action(NOW + after_ms, Act.ARRIVE, life)


def play(recording: Recording, **changes) -> list[Event]:
    ids = Ids(random.Random(1).randbytes)
    return list(Simulation(recording, Changes(**changes), Rules(), ids).events())


def waits(events: Iterable[Event], recording: Recording) -> list[int]:
    found = Waits(recording.from_ms)
    for event in events:
        found.add(event)
    return [wait for group in found.measured(recording.to_ms).values() for wait in group.waits_ms]


def recorded(events: Iterable[Event], from_ms: int, to_ms: int) -> Recording:
    recording = Recording(from_ms)
    for event in events:
        if isinstance(event, USED):
            recording.add(event)
    recording.end(to_ms)
    return recording


def leases(events: Iterable[Event]) -> list[tuple[str, int]]:
    return [(event.job_id, event.time_ms - NOW) for event in events if isinstance(event, TaskLeased)]


# --- what is decided anew ------------------------------------------------------------------------------------------------


def test_workers_take_what_is_there_as_soon_as_they_are_free():
    three = [arrives(a_life(number, took(1_000))) for number in range(3)]
    assert leases(play(a_recording(*three), workers=[("group", 1)])) == [
        ("j0", 0),
        ("j1", 1_000),
        ("j2", 2_000),
    ]
    assert leases(play(a_recording(*three), workers=[("*", 2)])) == [("j0", 0), ("j1", 0), ("j2", 1_000)]


def test_without_a_number_there_are_as_many_workers_as_were_seen_if_they_were_too_few():
    recording = a_recording(*(arrives(a_life(number, took(1_000))) for number in range(3)))
    assert leases(play(recording)) == [("j0", 0), ("j1", 0), ("j2", 0)]
    events = play(recording, workers=[("group", 1)])
    again = recorded(events, NOW, NOW + MINUTE)
    assert (again.peak_running["group"], again.workers("group")) == (1, 1)
    assert leases(play(again)) == leases(events)


def test_a_limit_that_is_raised_lets_more_in():
    jobs = [arrives(a_life(number, took(1_000), limits=(a_limit(1, "smtp"),))) for number in range(3)]
    events = play(a_recording(*jobs))
    assert leases(events) == [("j0", 0), ("j1", 1_000), ("j2", 2_000)]
    assert leases(play(a_recording(*jobs), limits=[("sm*", 3)])) == [("j0", 0), ("j1", 0), ("j2", 0)]
    assert {event.maximum for event in events if isinstance(event, SlotGranted)} == {1}


def test_a_rate_limit_that_is_raised_lets_more_in():
    jobs = [arrives(a_life(number, took(10), limits=(a_rate_limit(1, name="api"),))) for number in range(3)]
    slow = [after for _, after in leases(play(a_recording(*jobs)))]
    assert slow[0] == 0
    assert slow[1] > 0
    assert slow[2] > slow[1]
    fast = play(a_recording(*jobs), rates=[("api", 10)])
    assert [after for _, after in leases(fast)] == [0, 0, 0]


def test_priorities_decide_who_is_next():
    jobs = [arrives(a_life(0, took(1_000)))]
    jobs += [
        arrives(a_life(number, took(1_000), task_group=group), 1)
        for number, group in ((1, "a"), (2, "group"))
    ]
    both = [arrives(a_life(number, took(1_000), priority=number), number) for number in range(3)]
    assert [job for job, _ in leases(play(a_recording(*both), workers=[("*", 1)]))] == ["j0", "j1", "j2"]
    backward = [arrives(a_life(number, took(1_000), priority=9 - number), number) for number in range(3)]
    order = [job for job, _ in leases(play(a_recording(*backward), workers=[("*", 1)]))]
    assert order == ["j0", "j2", "j1"]
    flat = play(a_recording(*backward), workers=[("*", 1)], priorities=[("group", 5)])
    assert [job for job, _ in leases(flat)] == ["j0", "j1", "j2"]
    assert {event.spec.priority for event in flat if isinstance(event, JobEnqueued)} == {5}
    of_tenant = play(a_recording(*jobs), priorities=[("*", 5)], tenant_priorities=[("acme", 7)])
    assert {event.spec.priority for event in of_tenant if isinstance(event, JobEnqueued)} == {7}


def test_failures_are_retried_as_the_policy_says():
    life = a_life(
        0, failed(10), failed(10), took(10), retry_policy=a_policy(retry_count=1, initial_interval_ms=500)
    )
    events = play(a_recording(arrives(life)))
    assert leases(events) == [("j0", 0), ("j0", 1_010)]
    assert [type(event) for event in events if isinstance(event, AttemptFailed | JobFailed)] == [
        AttemptFailed,
        AttemptFailed,
        JobFailed,
    ]


def test_a_job_is_cancelled_when_it_was():
    late = a_life(1, took(10))
    events = play(
        a_recording(arrives(a_life(0, took(5_000))), arrives(late), Action(NOW + 100, Act.CANCEL, late)),
        workers=[("*", 1)],
    )
    assert leases(events) == [("j0", 0)]
    assert [(event.job_id, event.time_ms - NOW) for event in events if isinstance(event, JobCancelled)] == [
        ("j1", 100)
    ]


def test_what_cannot_be_done_again_is_counted():
    life = a_life(0, took(10))
    recording = a_recording(arrives(life), Action(NOW + 100, Act.CANCEL, life))
    simulation = Simulation(recording, Changes(), Rules(), Ids(random.Random(1).randbytes))
    list(simulation.events())
    assert simulation.refused == {"cancel": 1}


def test_a_floating_limit_has_the_maximum_that_was_found_out_at_that_time():
    limit = a_floating_limit(1, "f", refresh_interval_ms=1_000)
    jobs = [arrives(a_life(number, took(5_000), limits=(limit,)), number) for number in range(4)]
    recording = a_recording(*jobs)
    recording.maxima["acme", "f"] = [(NOW, 1), (NOW + 2_000, 2)]
    later = leases(play(recording))
    assert [job for job, after in later if after < 1_000] == ["j0"]
    assert len([job for job, after in later if after < 5_000]) >= 1
    assert [job for job, after in leases(play(recording, limits=[("f", 4)])) if after < 100] == [
        "j0",
        "j1",
        "j2",
        "j3",
    ]


def test_what_took_nobody_knows_how_long_takes_as_long_as_others():
    recording = a_recording(arrives(a_life(0, took(700))), arrives(a_life(1)), arrives(a_life(2)))
    assert leases(play(recording, workers=[("*", 1)])) == [("j0", 0), ("j1", 700), ("j2", 1_400)]


def test_the_window_ends_when_it_ended():
    recording = a_recording(*(arrives(a_life(number, took(1_000))) for number in range(9)), length_ms=2_500)
    events = play(recording, workers=[("*", 1)])
    assert [after for _, after in leases(events)] == [0, 1_000, 2_000]
    assert waits(events, recording) == sorted([0, 1_000, 2_000, *[2_500] * 6])


def test_an_id_may_come_again():
    recording = a_recording(arrives(a_life(0, took(10))), arrives(a_life(0, took(10)), 100))
    assert [job for job, _ in leases(play(recording))] == ["j0", "j0'"]


# --- what a recording takes along ------------------------------------------------------------------------------------------


def test_what_was_pending_or_running_when_the_window_began_is_there():
    jobs = [arrives(a_life(number, took(4_000))) for number in range(3)]
    before = play(a_recording(*jobs, arrives(a_life(9, took(10)), 5_000)), workers=[("*", 1)])
    window = recorded(before, NOW + 1_000, NOW + MINUTE)
    assert [life.name.job_id for life in window.carried_in] == ["j0", "j1", "j2"]
    assert [(run.duration_ms, run.ending) for run in window.carried_in[0].runs] == [(3_000, Ending.SUCCEEDED)]
    assert leases(play(window, workers=[("*", 1)])) == [
        ("j0", 1_000),
        ("j1", 4_000),
        ("j2", 8_000),
        ("j9", 12_000),
    ]


def test_a_job_that_failed_before_the_window_has_so_many_tries_less():
    policy = a_policy(retry_count=2, initial_interval_ms=1_000, max_interval_ms=1_000)
    life = a_life(0, failed(10), failed(10), failed(10), retry_policy=policy)
    before = play(a_recording(arrives(life), length_ms=20_000))
    second_ms = leases(before)[1][1]
    window = recorded(before, NOW + second_ms - 1, NOW + MINUTE)
    [carried] = window.carried_in
    assert (carried.failures, len(carried.runs)) == (1, 2)
    events = play(window)
    assert len(leases(events)) == 2
    assert isinstance(events[-1], JobFailed)


def test_a_restart_of_what_had_ended_before_the_window_is_counted():
    life = a_life(0, failed(10), took(10), retry_policy=None)
    before = play(a_recording(arrives(life), Action(NOW + 5_000, Act.RESTART, life)))
    window = recorded(before, NOW + 1_000, NOW + MINUTE)
    assert window.carried_in == []
    assert window.left_out == {"JobRestarted of jobs that had ended before": 1}


RUNS = st.builds(
    Run, st.integers(0, 3_000), st.sampled_from([Ending.SUCCEEDED, Ending.SUCCEEDED, Ending.FAILED])
)
SPECS = st.fixed_dictionaries(
    {
        "priority": st.sampled_from([0, 1, 2]),
        "task_group": st.sampled_from(["group", "other"]),
        "retry_policy": st.sampled_from([None, a_policy(retry_count=2)]),
        "limits": st.sampled_from(
            [(), (a_limit(1, "a"),), (a_limit(2, "b"), a_limit(1, "a")), (a_rate_limit(2),)]
        ),
    }
)


@st.composite
def recordings(draw) -> Recording:
    """Jobs arrive at any time, some are cancelled; there are enough outcomes for as many attempts as there may be."""
    actions = []
    for number in range(draw(st.integers(1, 12))):
        life = a_life(number, *draw(st.lists(RUNS, min_size=3, max_size=3)), **draw(SPECS))
        after_ms = draw(st.integers(0, 5_000))
        actions.append(arrives(life, after_ms))
        if draw(st.booleans()):
            actions.append(Action(NOW + after_ms + draw(st.integers(0, 4_000)), Act.CANCEL, life))
    return a_recording(*actions, length_ms=600_000)


@settings(deadline=None)
@given(recordings(), st.sampled_from([1, 2, 50]))
def test_a_recording_of_what_was_played_plays_the_same(recording, count):
    workers = [("*", count)]
    events = play(recording, workers=workers)
    again = recorded(events, recording.from_ms, recording.to_ms)
    assert leases(play(again, workers=workers)) == leases(events)
    assert waits(play(again, workers=workers), again) == waits(events, recording)


# --- changes ---------------------------------------------------------------------------------------------------------------


def test_a_change_that_concerns_nobody_is_told():
    jobs: list[tuple[JobName, JobSpec]] = [
        (life.name, life.spec) for life in (a_life(0, limits=(a_limit(1, "smtp"),)),)
    ]
    assert Changes(limits=[("smtp", 2)], workers=[("*", 1)]).unmatched(jobs) == ""
    assert Changes(limits=[("smpt", 2)]).unmatched(jobs) == (
        "no job has a concurrency limit that 'smpt' stands for; there are: smtp"
    )
    assert (
        Changes(rates=[("x", 2)]).unmatched(jobs)
        == "no job has a rate limit that 'x' stands for; there are: none"
    )


@pytest.mark.parametrize("percent", [0, 1, 50, 90, 99, 100])
def test_percentiles_are_values_that_there_were(percent):
    assert Measured(range(1, 101), 0).percentile(percent) == max(percent, 1)
    assert Measured((7,), 0).percentile(percent) == 7
    assert Measured((), 0).percentile(percent) is None
