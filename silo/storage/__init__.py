"""Where the bytes are: ordered keys, and databases that keep them through crashes.

database.py is the port, all that Silo asks of storage.  slate.py is that port over SlateDB, memory.py the
same in a dictionary.  stores.py turns configuration into an open database, template.py reads where
that is to be.  keys.py makes tuples into keys.
Knows: silo.errors, slatedb.  Does not know: jobs, events, shards' ranges, gRPC.
"""
