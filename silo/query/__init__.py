"""SQL over the rows of a shard, by DataFusion.

snapshot.py     the rows as they are at one moment: what is on disk, under what is only in memory
tables.py       the tables with their columns, and what of a row stands in each
jobs.py         rows of the tables that are about jobs
others.py       rows of the others
plan.py         what a statement asks for, and so which index to walk
provider.py     tables as DataFusion wants them: it pulls, and what it does not pull is not read
statement.py    one statement, from its text to its batches
encoding.py     batches as the rows and type names of the wire
"""
