"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No test is timed: the machine may be busy with something else.
settings.register_profile("silo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("silo")
