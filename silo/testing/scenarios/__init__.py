"""The scenarios, a file each; `ALL` has them by name."""

from __future__ import annotations

from silo.testing.scenario import Scenario
from silo.testing.scenarios import mixed

ALL: dict[str, Scenario] = {scenario.name: scenario for scenario in (mixed.SCENARIO,)}
