"""A broker for the tests of others, in one line."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from silo.client import BrokerUnavailable, NotAuthenticated
from silo.testing import broker


def test_a_broker_is_there_for_a_block_and_gone_after_it():
    with broker() as silo, silo.client(timeout_s=0.2) as client:
        assert client.enqueue("g", id="a").get().task_group == "g"
        silo.stop()
        with pytest.raises(BrokerUnavailable):
            client.job("a").get()


def test_it_serves_tests_with_an_event_loop_alike():
    async def main():
        async with broker(tenancy=True, shards=3) as silo, silo.async_client(tenant="acme") as client:
            assert len(await client.shards()) == 3
            assert (await client.enqueue("g", id="a")).tenant == "acme"

    asyncio.run(main())


def test_two_brokers_have_nothing_to_do_with_each_other():
    with broker() as one, broker(auth_token="secret") as other, one.client() as client:
        client.enqueue("g", id="a")
        with other.client(token="secret") as second:
            assert second.query("select count(*) as n from jobs").rows == ({"n": 0},)
        with other.client() as third, pytest.raises(NotAuthenticated):
            third.job("a").get()


def test_a_program_that_forgets_to_stop_it_ends_all_the_same():
    program = (
        "from silo.testing import broker; b = broker(); b.start(); print(b.client().enqueue('g', id='a').id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "a\n"
