"""Silo: a durable background-job broker on object storage, in which the log is the truth.

    errors.py      all that Silo refuses or fails at
    domain/        values and pure rules: jobs, limits, retry policy, tenants, ids
    events/        what happened: the catalogue, its codec and upcasters, the log
    projections/   what follows from it: one module an index, and how events are folded into them
    storage/       ordered bytes: SlateDB behind a small interface, and the same in memory
    shard/         the single writer: decides commands, commits their events, writes checkpoints
    broker/        turns waiting and time into commands
    cluster/       who owns which shard
    pb/            messages and services of the wire, generated from proto/
    server/        gRPC: the only room that speaks it
    cli/           `silo` and `siloctl`

Each room may know those above it, except that storage serves events, projections and shard; nothing above server knows
gRPC.
"""

__version__ = "0.1.0"
