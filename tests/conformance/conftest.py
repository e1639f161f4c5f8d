"""The nodes that the tests of the wire contract share, one of each kind for a file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.conformance.client import Nodes, Silo


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    running = Nodes()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def plain_node(nodes: Nodes) -> Silo:
    return nodes.start(shards=8)


@pytest.fixture(scope="module")
def tenant_node(nodes: Nodes) -> Silo:
    return nodes.start(shards=2, tenancy=True)


@pytest.fixture
def silo(plain_node: Silo) -> Silo:
    """A client of a node with eight shards and no tenants."""
    return Silo(plain_node.nodes, plain_node.node)


@pytest.fixture
def tenants(tenant_node: Silo) -> Silo:
    """A client of a node with tenants, and two shards that meet at 8000000000000000."""
    return Silo(tenant_node.nodes, tenant_node.node)


_tenants = count(1)


@pytest.fixture
def limited(tenant_node: Silo) -> Silo:
    """A client of a tenant that nobody else has: its limits are its own, and its holders can be counted."""
    return Silo(tenant_node.nodes, tenant_node.node, tenant=f"tenant-{next(_tenants)}")
