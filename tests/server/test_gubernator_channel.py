"""Meeting the service at the start, and the node that does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from silo.errors import ConfigError, LimiterFailed
from silo.server.gubernator_channel import GubernatorChannel, Wellbeing, connect_limiter
from silo.server.node import Node
from silo.settings import Database, Gubernator
from tests.builders import a_rate_limit
from tests.gubernator import running_gubernator
from tests.server.running import memory_settings, running_node
from tests.serving import run


@contextmanager
def silence() -> Iterator[str]:
    """The address of somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def nobody() -> str:
    """An address at which nobody listens."""
    with silence() as address:
        return address


def test_the_service_says_how_it_is():
    # A150
    async def ask():
        async with running_gubernator() as service:
            service.status, service.message = "unhealthy", "a peer is away"
            channel = GubernatorChannel(service.address)
            assert await channel.health_check() == Wellbeing("unhealthy", "a peer is away", 1)
            await channel.close()

    run(ask())


def test_without_an_address_there_is_no_limiter():
    # A150
    assert run(connect_limiter(Gubernator())) is None
    assert run(connect_limiter(Gubernator(address=""))) is None


def test_a_limiter_works_as_the_settings_say():
    async def ask():
        async with running_gubernator() as service:
            settings = Gubernator(
                address=service.address, coalesce_interval_ms=600_000, max_batch_size=2, request_timeout_ms=30
            )
            limiter = await connect_limiter(settings)
            answers = await asyncio.gather(*(limiter.check(a_rate_limit()) for _ in range(2)))
            assert [answer.allowed for answer in answers] == [True, True]
            service.gate.clear()
            checks = (limiter.check(a_rate_limit()) for _ in range(2))
            failures = await asyncio.gather(*checks, return_exceptions=True)
            assert [str(failure) for failure in failures] == [
                "the rate limiter did not answer within 30 ms"
            ] * 2
            await limiter.close()

    run(ask())


def test_a_service_that_is_not_well_is_used_and_reported(caplog):
    async def ask():
        async with running_gubernator() as service:
            service.status, service.message = "unhealthy", "a peer is away"
            limiter = await connect_limiter(Gubernator(address=service.address))
            assert f"the rate limiter at {service.address} is unhealthy: a peer is away" in caplog.text
            assert (await limiter.check(a_rate_limit())).allowed
            await limiter.close()

    run(ask())


def test_nobody_at_the_address_is_a_clear_error():
    address = nobody()
    with pytest.raises(ConfigError) as refused:
        run(connect_limiter(Gubernator(address=address, connect_timeout_ms=50)))

    assert str(refused.value) == (
        f'[gubernator] address = "{address}": '
        "no Gubernator has answered there within 50 ms (connect_timeout_ms): nobody listens"
    )


def test_somebody_who_says_nothing_is_a_clear_error():
    with silence() as address, pytest.raises(ConfigError, match="no Gubernator has answered there"):
        run(connect_limiter(Gubernator(address=address, connect_timeout_ms=50)))


def test_an_address_that_is_none_is_a_clear_error():
    with pytest.raises(ConfigError, match="no Gubernator has answered there"):
        run(connect_limiter(Gubernator(address="not an address", connect_timeout_ms=50)))


def test_another_service_at_the_address_is_a_clear_error():
    async def meet():
        async with running_node() as other:
            with pytest.raises(
                ConfigError, match="what answers there is no Gubernator: status: Unimplemented"
            ):
                await connect_limiter(Gubernator(address=other.address))

    run(meet())


def test_a_service_that_appears_within_the_time_is_met():
    async def meet():
        async with running_gubernator() as service:
            await service.stop()
            meeting = asyncio.create_task(connect_limiter(Gubernator(address=service.address)))
            # Long enough for a first try to fail; if it is not, the meeting succeeds at once, and so does the test.
            await asyncio.wait([meeting], timeout=0.1)
            await service.start()
            limiter = await meeting
            assert (await limiter.check(a_rate_limit())).allowed
            await limiter.close()

    run(meet())


def test_a_service_that_starts_itself_is_given_the_time():
    async def meet():
        async with running_gubernator() as service:
            service.status = ""
            meeting = asyncio.create_task(connect_limiter(Gubernator(address=service.address)))
            await service.looked_at.wait()
            assert not meeting.done()
            service.status = "healthy"
            await (await meeting).close()

    run(meet())


# --- the node ------------------------------------------------------------------------------------------------------------


def test_a_node_has_the_limiter_that_its_settings_name():
    async def live():
        async with running_gubernator() as service:
            async with running_node(gubernator=Gubernator(address=service.address)) as node:
                limiter = node.node.limiter
                assert (await limiter.check(a_rate_limit())).allowed
            with pytest.raises(LimiterFailed, match="the broker stops"):
                await limiter.check(a_rate_limit())
            assert service.calls == 1

    run(live())


def test_a_node_without_an_address_has_none():
    async def live():
        async with running_node() as node:
            assert node.node.limiter is None

    run(live())


def test_a_node_that_cannot_reach_its_limiter_does_not_start_and_touches_no_shard(tmp_path):
    # A150
    async def start():
        data = tmp_path / "data"
        node = Node(
            memory_settings(
                gubernator=Gubernator(address=nobody(), connect_timeout_ms=50),
                database=Database(backend="fs", path=f"{data}/%shard%"),
            )
        )
        with pytest.raises(ConfigError, match="no Gubernator has answered there"):
            await node.start()
        assert not data.exists()

    run(start())
