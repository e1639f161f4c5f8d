"""What turns waiting and the clock into commands.

Knows: everything below it down to the shard.  Does not know: gRPC.
"""
