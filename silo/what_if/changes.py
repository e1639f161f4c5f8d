"""What is to be different: workers, limits, priorities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import attrs

from silo.domain.jobs import PRIORITY_MAX, JobSpec
from silo.domain.limits import ConcurrencyLimit, FloatingLimit, Limit, RateLimit
from silo.errors import Invalid
from silo.shard.jobs import JobName

NAMES_TOLD_MAX = 20

Assignment = tuple[str, int]
"""A pattern with `*` and `?`, and the number for what it matches."""


@attrs.frozen(kw_only=True)
class Changes:
    """Each is a list of assignments, of which the last that matches counts.

    Attributes:
        workers: how many attempts of a task group may run at the same time.
        limits: the maximum of concurrency limits, fixed or floating, by their keys.
        rates: the limit of rate limits, by their names.
        priorities: of jobs, by their task groups.
        tenant_priorities: of jobs, by their tenants.
    """

    workers: Sequence[Assignment] = ()
    limits: Sequence[Assignment] = ()
    rates: Sequence[Assignment] = ()
    priorities: Sequence[Assignment] = ()
    tenant_priorities: Sequence[Assignment] = ()

    def __bool__(self) -> bool:
        return any(attrs.astuple(self, recurse=False))

    def unmatched(self, jobs: Iterable[tuple[JobName, JobSpec]]) -> str:
        """Which assignment concerns none of these jobs, in words; empty if all concern some."""
        groups, tenants, keys, rates = set[str](), set[str](), set[str](), set[str]()
        for name, spec in jobs:
            groups.add(spec.task_group)
            tenants.add(name.tenant)
            for limit in spec.limits:
                if isinstance(limit, RateLimit):
                    rates.add(limit.name)
                else:
                    keys.add(limit.key)
        for what, assignments, names in (
            ("task group", (*self.workers, *self.priorities), groups),
            ("concurrency limit", self.limits, keys),
            ("rate limit", self.rates, rates),
            ("tenant", self.tenant_priorities, tenants),
        ):
            for pattern, _ in assignments:
                if not any(fnmatchcase(name, pattern) for name in names):
                    some = ", ".join(sorted(names)[:NAMES_TOLD_MAX]) or "none"
                    return f"no job has a {what} that '{pattern}' stands for; there are: {some}"
        return ""

    def of(self, name: JobName, spec: JobSpec) -> JobSpec:
        """What a client states about a job, with these changes."""
        priority = chosen(self.priorities, spec.task_group)
        if (of_tenant := chosen(self.tenant_priorities, name.tenant)) is not None:
            priority = of_tenant
        limits = tuple(map(self._limit, spec.limits))
        return attrs.evolve(spec, priority=spec.priority if priority is None else priority, limits=limits)

    def _limit(self, limit: Limit) -> Limit:
        if isinstance(limit, RateLimit):
            rate = chosen(self.rates, limit.name)
            return attrs.evolve(limit, limit=rate) if rate is not None else limit
        maximum = chosen(self.limits, limit.key)
        if maximum is None:
            return limit
        if isinstance(limit, FloatingLimit):
            return attrs.evolve(limit, default_max_concurrency=maximum)
        return ConcurrencyLimit(key=limit.key, max_concurrency=maximum)


def chosen(assignments: Sequence[Assignment], name: str) -> int | None:
    """The number for a name, if one is assigned."""
    found = None
    for pattern, number in assignments:
        if fnmatchcase(name, pattern):
            found = number
    return found


def assignment(text: str) -> Assignment:
    """`pattern=number`.  Raises Invalid for anything else."""
    pattern, separator, number = text.rpartition("=")
    if not separator or not pattern or not number.isdecimal():
        raise Invalid(f"'{text}': write it as NAME=NUMBER, such as mail=8; * in the name stands for anything")
    return pattern, int(number)


def priority(text: str) -> Assignment:
    """The same, for priorities.  Raises Invalid."""
    pattern, number = assignment(text)
    if number > PRIORITY_MAX:
        raise Invalid(f"'{text}': a priority is 0 (first) to {PRIORITY_MAX}")
    return pattern, number
