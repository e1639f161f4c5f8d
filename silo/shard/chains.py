"""Chains: the way of one attempt from its start to its worker.

Every attempt, whatever made it necessary (an enqueue, a retry, a restart, an import), sets out here and nowhere else.  A
chain that starts ends the one that the job had before; what the old one occupied is given back by the fold, so that no
command has a list of things to release (I4).
"""

from __future__ import annotations

from silo.domain.jobs import JobSpec
from silo.events.catalogue import ChainStarted
from silo.shard.draft import Draft


def start_chain(
    draft: Draft,
    tenant: str,
    job_id: str,
    *,
    spec: JobSpec,
    attempt: int,
    relative_attempt: int,
    start_ms: int,
) -> None:
    """Send an attempt on its way, not to run before `start_ms`."""
    draft.emit(
        ChainStarted(
            tenant=tenant,
            job_id=job_id,
            task_id=draft.ids.uuid4(),
            attempt=attempt,
            relative_attempt=relative_attempt,
            start_ms=start_ms,
            virtual_start_ms=draft.rules.virtual_start_ms(start_ms, spec.priority),
        )
    )
