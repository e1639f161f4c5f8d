"""Everything that Silo refuses or fails at, as one tree.

    SiloError
      Refused                the command was understood and declined; no event was written
        Invalid                a field is missing, malformed or out of range
        NotFound               no such job, lease or shard
          JobNotFound
          LeaseNotFound
          ShardNotFound          not served here; carries the owner's address where it is known
        AlreadyExists          the job id is taken
        WrongState             the state of the job or lease rules the command out
        JobInProgress          a job that has not ended cannot be deleted
        Unauthenticated        the call carries no valid token
        Denied                 the server's configuration forbids the call
        NotSupported           the server knows the call and does not offer it
        Exhausted              a statement asks for more than the server's bounds allow
      TimedOut               a statement took longer than the server lets one take
      Unavailable            try again, perhaps elsewhere; nothing says that the work was lost
        ShardNotReady          the shard is opening, moving or being replayed
        Busy                   more work is waiting for durability than the server admits
        StoreFailed            the object store failed or did not answer in time
        Fenced                 another process has opened the shard; this one must stop serving it
        LimiterFailed          the outside rate limiter failed or did not answer in time; nothing may pass
      Corrupt                stored bytes cannot be read or folded; the shard stops
      CallFailed             an operator's call was tried and failed; the shard goes on
      ConfigError            the configuration cannot be used

`Refused` is the client's affair and is answered.  `Unavailable` is the world's: the shard lets go of its memory, reopens
and replays.  `Corrupt` is nobody's to guess at: the shard stops and says where.

The sentences are part of the wire contract: existing clients match on some of them.
"""

from __future__ import annotations


class SiloError(Exception):
    """The root of everything that Silo raises on purpose."""


def again(error: SiloError) -> SiloError:
    """The same error for one more caller.  One object raised over and over would gather the traceback of each time."""
    copy = type(error).__new__(type(error), *error.args)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    return copy


def first_of(group: ExceptionGroup[Exception]) -> Exception:
    """What to raise for a group of tasks that failed: the first SiloError, or the group itself if one of them met a bug.

    Not for `except*`: what is raised there comes out as a group again, up to Python 3.11.3.
    """
    if all(isinstance(error, SiloError) for error in group.exceptions):
        return group.exceptions[0]
    return group


class Refused(SiloError):
    """The command was understood and declined; no event was written."""


class Invalid(Refused):
    """A field is missing, malformed or out of range."""


class NotFound(Refused):
    """What the call names does not exist."""


class JobNotFound(NotFound):
    """No job of this tenant has the id."""

    def __init__(self) -> None:
        super().__init__("job not found")


class LeaseNotFound(NotFound):
    """The task is not leased (any more): reported already, expired or never leased."""

    def __init__(self) -> None:
        super().__init__("lease not found")


class ShardNotFound(NotFound):
    """The shard is not served by this node; `owner_addr` and `owner_node` say who serves it, where that is known."""

    def __init__(self, *, owner_addr: str = "", owner_node: str = "") -> None:
        super().__init__("shard not found")
        self.owner_addr = owner_addr
        self.owner_node = owner_node


class AlreadyExists(Refused):
    """The tenant already has a job with this id, in whatever state."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job already exists with id {job_id}")


class WrongState(Refused):
    """The state of the job or lease rules the command out."""


class JobInProgress(Refused):
    """A job that has not ended cannot be deleted."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"cannot delete job {job_id}: job is currently running or has pending requests")


class Unauthenticated(Refused):
    """The call carries no valid token."""


class Denied(Refused):
    """The server's configuration forbids the call."""


class NotSupported(Refused):
    """The server knows the call and does not offer it."""


class Exhausted(Refused):
    """A statement asks for more than the server's bounds allow: too many at once, or too large a result."""


class TimedOut(SiloError):
    """A statement took longer than the server lets one take."""


class Unavailable(SiloError):
    """Try again, perhaps elsewhere."""


class ShardNotReady(Unavailable):
    """The shard is opening, moving or being replayed."""


class Busy(Unavailable):
    """More commands are waiting for durability than the server admits."""


class StoreFailed(Unavailable):
    """The object store failed or did not answer in time; what was being written may or may not be there."""


class Fenced(Unavailable):
    """Another process has opened the shard's database; this one must stop serving it."""

    def __init__(
        self, text: str = "another process has opened this shard; this one stops serving it"
    ) -> None:
        super().__init__(text)


class LimiterFailed(Unavailable):
    """The outside rate limiter failed or did not answer in time.  Hits may have been counted there; nothing may pass."""


class Corrupt(SiloError):
    """Stored bytes cannot be read or folded."""


class CallFailed(SiloError):
    """What an operator asked for was tried and failed; the shard goes on."""


class ConfigError(SiloError):
    """The configuration cannot be used."""
