"""A killed process loses nothing that it acknowledged."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import time

import pytest

from silo.storage.stores import StoreSpec, open_database

WRITER = """
import asyncio, sys
from silo.storage.stores import StoreSpec, open_database

async def write(path, fsync, start):
    database = await open_database(StoreSpec(backend="fs", path=path, fsync=fsync), "s1")
    number = start
    while True:
        batch = database.batch()
        batch.put(b"k%08d" % number, b"v" * 200)
        await database.write(batch)
        print(number, flush=True)
        number += 1
        if number % 50 == 0:
            await database.flush()

asyncio.run(write(sys.argv[1], sys.argv[2] == "True", int(sys.argv[3])))
"""


def killed_after(writes: int, path: str, fsync: bool, start: int) -> int:
    """The last number that a writer acknowledged; it is killed while it goes on writing."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, path, str(fsync), str(start)], stdout=subprocess.PIPE, env=os.environ
    )
    assert child.stdout is not None
    with child, child.stdout as output:
        seen = b""
        deadline = time.monotonic() + 60
        while seen.count(b"\n") < writes and time.monotonic() < deadline:
            if select.select([output], [], [], 1)[0]:
                more = os.read(output.fileno(), 65536)
                assert more, "the writer ended by itself"
                seen += more
        child.kill()
        seen += output.read()
    return int(seen[: seen.rindex(b"\n")].split()[-1])


@pytest.mark.parametrize("fsync", [True, False])
def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path, monkeypatch, fsync):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    path = f"{tmp_path}/%shard%"

    async def stored() -> list[bytes]:
        database = await open_database(StoreSpec(backend="fs", path=path, fsync=fsync), "s1")
        rows = await database.scan(b"k", b"l", limit=1_000_000)
        await database.close()
        return [key for key, _ in rows]

    start = 0
    for writes in (1, 40, 170):
        last = killed_after(writes, path, fsync, start)
        found = asyncio.run(asyncio.wait_for(stored(), 30))
        # One more may have become durable without having been acknowledged.
        assert found[: last + 1] == [b"k%08d" % number for number in range(last + 1)]
        assert len(found) <= last + 2
        start = len(found)
