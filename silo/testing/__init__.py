"""For tests: a broker in the same process, and the simulator.

    from silo.testing import broker

    with broker() as silo, silo.client() as client:
        client.enqueue("emails", {"to": "a@example.com"})

That is in_process.py.  All else is the simulator: production code in a world whose every accident comes from one seed.

A world has brokers, clients and workers as processes of one event loop with virtual time, a network that delays, loses and
repeats what they say to each other, and stores that fail.  Brokers are the ones of `silo.server.broker`, with the Python
handlers of all calls; only transport, storage, clock and chance are others, through the parameters that production has for
them (`Outside`).

    loop.py       virtual time; processes that crash and pause
    store.py      databases with the contract of SlateDB, and the faults of a store
    network.py    calls between processes, and the faults of a network
    brokers.py    brokers that are started, crash, and are started again
    people.py     clients and workers
    plan.py       what a history is made of: who does what when, and what goes wrong when
    oracle.py     what the events of a queue mean, once more and naively; checks each as it becomes durable
    audit.py      what must hold at the end
    run.py        one seed of one scenario, from its plan to its digest
    shrink.py     the shortest plan that still fails
    scenarios/    a file each
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from silo.testing.in_process import TestBroker


def broker(
    *, shards: int = 1, tenancy: bool = False, auth_token: str | None = None, **sections: Any
) -> TestBroker:
    """A real broker in this process, in memory and on a free port, for `with` and `async with`.

    Args:
        shards: how many it has.
        tenancy: whether callers name tenants.
        auth_token: what callers must bring.
        sections: whole sections of `silo.settings.Settings`.
    """
    # Only here, as the simulator does without SlateDB.
    from silo.testing.in_process import TestBroker, memory_settings  # noqa: PLC0415

    return TestBroker(memory_settings(shards=shards, tenancy=tenancy, auth_token=auth_token, **sections))
