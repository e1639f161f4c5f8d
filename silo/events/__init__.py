"""What happened: the catalogue of facts, their encoding, and the log that keeps them.

Knows: domain, and the port to storage.  Does not know: rows, commands, gRPC, SlateDB itself.
"""
