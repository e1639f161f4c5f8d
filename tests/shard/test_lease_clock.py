from __future__ import annotations

from silo.shard.lease_clock import FORGET_AT, LeaseClock
from tests.builders import NOW


def test_without_a_heartbeat_the_log_is_right():
    assert LeaseClock().expires_ms("task-1", NOW) == NOW


def test_a_heartbeat_in_memory_delays_the_expiry_of_its_lease_only():
    clock = LeaseClock()
    clock.renew("task-1", NOW + 10, now_ms=NOW)

    assert clock.expires_ms("task-1", NOW) == NOW + 10
    assert clock.expires_ms("task-2", NOW) == NOW


def test_the_later_of_memory_and_log_counts():
    clock = LeaseClock()
    clock.renew("task-1", NOW + 10, now_ms=NOW)

    assert clock.expires_ms("task-1", NOW + 20) == NOW + 20


def test_a_heartbeat_never_shortens_a_lease():
    clock = LeaseClock()
    clock.renew("task-1", NOW + 10, now_ms=NOW)
    clock.renew("task-1", NOW + 5, now_ms=NOW - 5)

    assert clock.expires_ms("task-1", NOW) == NOW + 10


def test_no_lease_expires_before_the_shard_has_been_open_for_a_while():
    clock = LeaseClock(not_before_ms=NOW + 50)
    clock.renew("task-1", NOW + 10, now_ms=NOW)

    assert clock.expires_ms("task-1", NOW) == NOW + 50
    assert clock.expires_ms("task-2", NOW + 60) == NOW + 60


def test_live_heartbeats_are_kept_however_many_there_are():
    clock = LeaseClock()
    for number in range(FORGET_AT + 2):
        clock.renew(str(number), NOW + 10, now_ms=NOW)

    assert clock.expires_ms("0", NOW) == NOW + 10


def test_heartbeats_that_no_longer_delay_anything_make_room():
    clock = LeaseClock()
    for number in range(FORGET_AT):
        clock.renew(str(number), NOW + 10, now_ms=NOW)
    clock.renew("last", NOW + 30, now_ms=NOW + 20)

    assert clock.expires_ms("0", NOW) == NOW
    assert clock.expires_ms("last", NOW) == NOW + 30
