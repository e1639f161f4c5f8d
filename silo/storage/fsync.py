"""Durability against power cuts."""
from __future__ import annotations


class Syncing:
    """Does nothing: for stores that are durable by themselves, or when durability is not wanted."""

    async def wal(self) -> None:
        pass

    async def rest(self) -> None:
        pass

    async def stop(self) -> None:
        pass
