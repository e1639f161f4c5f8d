"""What holds for every test."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from silo.server.process import leave

EXIT_STATUS = pytest.StashKey[int]()

# No test is timed: the machine may be busy with something else.
settings.register_profile("silo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("silo")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End as `silo serve` does: DataFusion and SlateDB have threads that go on, and one that calls into an interpreter
    which is just ending crashes it, whatever the tests have found."""
    if EXIT_STATUS in config.stash:
        leave(config.stash[EXIT_STATUS])
