"""Measures Silo: `python tools/bench --help`.

- `__main__.py`: the command: which rows, how large, how often
- `rows.py`: the rows, and the sizes at which they are measured
- `bench.py`: what a row has at hand: parts, directories, progress
- `part.py`: a part: a coroutine that runs in a process of its own
- `report.py`: the figures: medians, table, JSON
- `home.py`: a data directory, opened in process or served by `silo serve`
- `load.py`: who enqueues, leases and reports in process; `wire.py`: the same over gRPC
- `probes.py`: memory, stalls, objects written, reads
- the others: a file a row, first its figures, then its parts
"""
