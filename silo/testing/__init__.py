"""The simulator: production code in a world whose every accident comes from one seed.

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
