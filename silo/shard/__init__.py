"""The single writer of one shard.

`shard.py` runs commands; `draft.py`, `rows.py` and `checkpoint.py` are what it runs them with; every other module decides
one family of commands.  A decide-module is a plain function of a command and a draft: no I/O, no clock, no chance.

Knows: domain, events, projections; the engine's files also know storage.  Does not know: gRPC, settings files.
"""
