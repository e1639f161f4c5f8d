"""The commands of `siloctl`, one module a family; `silo/cli/siloctl.py` joins them.

connection.py has what they share: the global flags, the way to a shard's owner, and how an answer is shown; hints.py says
what can be done about an error, texts.py how values look to people.
"""
