"""The only room that speaks gRPC: silo.v1 for clients, workers and operators, and the node that serves it.

node.py names what is real; broker.py keeps shards going; service.py lists the calls; statuses.py says which error is
which status.
Knows: everything below it.  Does not know: the command line.
"""
