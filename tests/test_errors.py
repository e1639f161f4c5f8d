from __future__ import annotations

import asyncio

import pytest

from silo.errors import Fenced, StoreFailed, first_of


async def together(*errors: Exception) -> None:
    async def fail(error: Exception) -> None:
        raise error

    try:
        async with asyncio.TaskGroup() as group:
            for error in errors:
                group.create_task(fail(error))
    except ExceptionGroup as failed:
        raise first_of(failed) from None


def test_of_what_went_wrong_together_the_first_error_is_raised_by_itself():
    with pytest.raises(StoreFailed, match="on fire"):
        asyncio.run(together(StoreFailed("on fire"), Fenced("lost")))


def test_a_bug_among_the_errors_is_not_hidden():
    with pytest.raises(ExceptionGroup) as found:
        asyncio.run(together(StoreFailed("on fire"), ZeroDivisionError("a bug")))
    assert found.group_contains(ZeroDivisionError)
