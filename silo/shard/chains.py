"""Chains: the way of one attempt from its start to its worker.

Every attempt, whatever made it necessary (an enqueue, a retry, a restart, an import), sets out here and nowhere else.  A
chain that starts ends the one that the job had before; what the old one occupied is given back by the fold, so that no
command has a list of things to release (I4).
"""

from __future__ import annotations

from silo.domain.jobs import JobSpec
from silo.events.catalogue import ChainStarted
from silo.shard.draft import Draft
from silo.shard.gates import walk
from silo.shard.jobs import JobName


def start_chain(
    draft: Draft,
    tenant: str,
    job_id: str,
    *,
    spec: JobSpec,
    attempt: int,
    relative_attempt: int,
    start_ms: int,
    gate: int = 0,
) -> None:
    """Send an attempt on its way, not to run before `start_ms`, and lead it to its first gate that does not let it pass.

    Args:
        gate: where it begins; the number of its limits, to pass by all of them.
    """
    # SILO-CHAIN-1: a fresh id, also for an attempt that takes another's place.
    # SILO-CHAIN-4: so nothing that was said of an old chain is ever true of this one.
    draft.emit(
        ChainStarted(
            tenant=tenant,
            job_id=job_id,
            task_id=draft.ids.uuid4(),
            attempt=attempt,
            relative_attempt=relative_attempt,
            start_ms=start_ms,
            virtual_start_ms=draft.rules.virtual_start_ms(start_ms, spec.priority),
            gate=gate,
        )
    )
    if spec.limits:
        walk(JobName(tenant, job_id), draft)
