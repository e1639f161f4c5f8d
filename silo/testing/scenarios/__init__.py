"""The scenarios, a file each; `ALL` has them by name."""

from __future__ import annotations

from silo.testing.scenario import Scenario
from silo.testing.scenarios import (
    backlog,
    cancelled_holders,
    clock_jumps,
    concurrency_limits,
    crash_anywhere,
    dropped_holders,
    expedite,
    floating_limits,
    floods,
    grant_race,
    imports,
    late_reports,
    long_pauses,
    lossy_network,
    lost_workers,
    many_shards,
    mixed,
    neighbours,
    old_events,
    outside_limiter,
    rate_limits,
    retry_frees_slot,
    store_down,
    takeovers,
    torn_checkpoints,
    updates,
)

_MODULES = (
    backlog,
    cancelled_holders,
    clock_jumps,
    concurrency_limits,
    crash_anywhere,
    dropped_holders,
    expedite,
    floating_limits,
    floods,
    grant_race,
    imports,
    late_reports,
    long_pauses,
    lossy_network,
    lost_workers,
    many_shards,
    mixed,
    neighbours,
    old_events,
    outside_limiter,
    rate_limits,
    retry_frees_slot,
    store_down,
    takeovers,
    torn_checkpoints,
    updates,
)

ALL: dict[str, Scenario] = {module.SCENARIO.name: module.SCENARIO for module in _MODULES}
