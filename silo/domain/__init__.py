"""Values and pure rules: what a tenant, an id, a limit or a retry means, before anything is stored.

Everything here is computed from its arguments.  Clock and randomness are handed in by the caller.
Knows: silo.errors.  Does not know: storage, asyncio, gRPC, the clock.
"""
