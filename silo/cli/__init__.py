"""The commands: `silo` runs a server, `siloctl` looks after one.

They read arguments, call what does the work, and say what went wrong and what to do about it.
"""
