"""Many items in one message: each is decided as in a call of its own, and answered by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message

from silo.errors import Refused, SiloError
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb
from silo.server.statuses import details_of, status_of
from silo.shard.batches import ITEMS_PER_COMMAND_MAX
from silo.shard.draft import Caller, Draft
from silo.shard.shard import Shard

Decide = Callable[[Sequence[Any], Draft], list[Any]]


async def decide_each(
    shard: Shard,
    decide: Decide,
    command_of: Callable[[Any], Any],
    items: Sequence[Message],
    caller: Caller,
) -> list[Any]:
    """Decide all items that are well-formed, in order; the replies, or refusals, in the order of the items.

    Pieces are decided one right after the other, so that they become durable together.
    """
    replies: list[Any] = []
    places: list[int] = []
    commands: list[Any] = []
    for place, item in enumerate(items):
        try:
            command = command_of(item)
        except Refused as refused:
            replies.append(refused)
        else:
            replies.append(None)
            places.append(place)
            commands.append(command)
    pieces = [
        commands[at : at + ITEMS_PER_COMMAND_MAX] for at in range(0, len(commands), ITEMS_PER_COMMAND_MAX)
    ]
    size = sum(item.ByteSize() for item in items) // max(len(pieces), 1)
    decided = await asyncio.gather(
        *(shard.execute(decide, piece, caller=caller, size=size) for piece in pieces)
    )
    for place, reply in zip(places, (reply for piece in decided for reply in piece), strict=True):
        replies[place] = reply
    return replies


def refusal(error: SiloError) -> ext.Refusal:
    """The status that a call of its own would have had."""
    return ext.Refusal(code=status_of(error).value[0], message=details_of(error))


def heartbeat_response(cancelled_ms: int | None) -> pb.HeartbeatResponse:
    return pb.HeartbeatResponse(cancelled=cancelled_ms is not None, cancelled_at_ms=cancelled_ms)
