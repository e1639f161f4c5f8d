"""How often may something happen?

`buckets.py` answers inside a shard, from rows and the time of a command; `gubernator.py` asks an outside service.
Knows: errors, domain.  Does not know: storage, gRPC, the clock.
"""
