"""Who owns which shard, and which shard owns which tenant.

ranges.py and shard_map.py are values and pure rules; the other modules find and keep the map that a node
serves. Knows: silo.errors, silo.settings, silo.domain, and the store that keeps the map.  Does not know:
shards' contents, gRPC.
"""
