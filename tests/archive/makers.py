"""What makes the files of an archive in this process, for tests that make many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from silo.archive.archive import Archive
from silo.archive.files import Image, Stretch
from silo.events.erasing import Targets
from silo.shard.beside import Progress
from silo.shard.elsewhere import Home
from silo.shard.seal import make_image, write_stretch
from silo.storage.database import Row


class Here:
    async def events(
        self, archive: Archive, stretch: Stretch, pages: AsyncIterator[list[Row]], file: Path
    ) -> None:
        await asyncio.to_thread(write_stretch, stretch, Home().pulled(pages), file)

    async def image(self, archive: Archive, image: Image, directory: Path, progress: Progress) -> None:
        await make_image(archive, image, directory, progress)

    async def erase(self, archive: Archive, targets: Targets, directory: Path) -> int:
        return await asyncio.to_thread(archive.erase, targets)
