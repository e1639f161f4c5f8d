"""Which open shard is meant, and may this tenant's call go there?

The order of the checks is part of the wire contract: shard id, then who serves it, then the tenant, then the tenant's place
on the hash line.  So a call that went to the wrong node is sent on before anybody looks at its tenant.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator

import attrs

from silo.cluster.ranges import HashRange
from silo.domain.ids import parse_shard_id
from silo.domain.tenants import DEFAULT_TENANT, tenant_hash
from silo.errors import Invalid, NotFound, ShardNotFound, ShardNotReady, WrongState
from silo.server.cluster_info import Cluster
from silo.shard.jobs import JobName
from silo.shard.shard import Shard, Stage

TENANT_CHARS_MAX = 64


@attrs.frozen
class OpenShard:
    """A shard that this node has open, and its part of the hash line."""

    shard: Shard
    range: HashRange

    @property
    def id(self) -> str:
        return self.shard.shard_id

    @property
    def is_serving(self) -> bool:
        return self.shard.stage is Stage.SERVING


class Cancellations:
    """Tells whoever has a job at work that it was cancelled, sooner than the next heartbeat would."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, JobName], Callable[[int], None]] = {}

    def listen(self, shard_id: str, job: JobName, tell: Callable[[int], None]) -> None:
        """Have `tell` called with the time in ms when the job is cancelled; whoever listened before no longer has it."""
        self._listeners[shard_id, job] = tell

    def forget(self, shard_id: str, job: JobName, tell: Callable[[int], None]) -> None:
        """No longer call this one."""
        if self._listeners.get((shard_id, job)) is tell:
            del self._listeners[shard_id, job]

    def tell(self, shard_id: str, job: JobName, cancelled_ms: int) -> None:
        if tell := self._listeners.get((shard_id, job)):
            tell(cancelled_ms)


class Shards:
    """The shards that this node has open.

    Args:
        tenancy: whether callers name tenants.
        chance: in which order shards are asked for work when the worker does not say.

    Attributes:
        cancellations: who wants to hear of them.
        leaving: set when callers are turned away.
    """

    def __init__(
        self, opened: Iterable[OpenShard], *, cluster: Cluster, tenancy: bool, chance: random.Random
    ) -> None:
        self._opened = {shard.id: shard for shard in opened}
        self._cluster = cluster
        self._tenancy = tenancy
        self._chance = chance
        self._default_hash = tenant_hash(DEFAULT_TENANT)
        self.cancellations = Cancellations()
        self.leaving = asyncio.Event()

    def __iter__(self) -> Iterator[OpenShard]:
        """All of them, in the order of their ids."""
        return iter(sorted(self._opened.values(), key=lambda shard: shard.id))

    def turn_away(self) -> None:
        """Tell every call that comes from now on to try again: this server stops."""
        self.leaving.set()

    def in_random_order(self) -> list[OpenShard]:
        """Those that are serving just now.  Raises ShardNotReady if callers are turned away."""
        self._admit()
        serving = [shard for shard in self._opened.values() if shard.is_serving]
        self._chance.shuffle(serving)
        return serving

    def open_here(self, text: str) -> Shard:
        """The shard for an operator's call, which is not sent on to another node.  Raises NotFound."""
        shard = self._opened.get(parse_shard_id(text))
        if shard is None:
            raise NotFound(f"shard {text} not found on this node")
        return shard.shard

    def resolve(self, text: str) -> OpenShard:
        """The shard with this id.

        Raises:
            Invalid: it is no shard id.
            ShardNotFound: it is not here; the error says where, if that is known.
            ShardNotReady: it is here, or about to be, but not serving yet, or callers are turned away.
        """
        self._admit()
        # Clients nearly always send the canonical form, which needs no parsing to be found.
        shard = self._opened.get(text) or self._opened.get(parse_shard_id(text))
        if shard is None:
            raise self._not_open(parse_shard_id(text))
        if shard.shard.stage in (Stage.CLOSED, Stage.OPENING, Stage.REPLAYING):
            raise _not_ready()
        return shard

    def _admit(self) -> None:
        if self.leaving.is_set():
            raise stopping()

    def _not_open(self, shard_id: str) -> ShardNotFound | ShardNotReady:
        owner = self._cluster.owner_of(shard_id)
        if owner is None:
            return ShardNotFound()
        # Sending the caller on to where he is would make him turn in a circle.
        if owner.id == self._cluster.this.id:
            return _not_ready()
        return ShardNotFound(owner_addr=owner.grpc_addr, owner_node=owner.id)

    def for_tenant(self, text: str, tenant: str) -> tuple[Shard, str]:
        """The shard for a call about a tenant's jobs, and the tenant under which they are stored.

        Raises what `resolve` raises; Invalid or WrongState if the tenant is missing, malformed or not wanted; WrongState if
        it belongs to another shard.
        """
        shard = self.resolve(text)
        if not self._tenancy:
            if tenant:
                raise WrongState("tenant must not be provided when tenancy is disabled on the server")
            _check_range(shard, DEFAULT_TENANT, self._default_hash)
            return shard.shard, DEFAULT_TENANT
        if not tenant:
            raise Invalid("tenant id required")
        if len(tenant) > TENANT_CHARS_MAX:
            raise Invalid("invalid tenant id")
        _check_range(shard, tenant, tenant_hash(tenant))
        return shard.shard, tenant

    def for_worker(self, text: str, tenant: str) -> Shard:
        """The shard for a call about a task.  Without tenancy the tenant is ignored, whatever it is."""
        shard = self.resolve(text)
        if self._tenancy:
            if not tenant:
                raise Invalid("tenant_id is required for worker operations when tenancy is enabled")
            _check_range(shard, tenant, tenant_hash(tenant))
        return shard.shard


def stopping() -> ShardNotReady:
    """What a caller is told who comes when the server is about to close."""
    return ShardNotReady("the server is stopping; try again")


def _not_ready() -> ShardNotReady:
    return ShardNotReady("shard not ready: acquisition in progress")


def _check_range(shard: OpenShard, tenant: str, place: str) -> None:
    if not shard.range.contains(place):
        raise WrongState(
            f"tenant '{tenant}' is not within shard {shard.id} range {shard.range}; refresh topology and retry"
        )
