"""What goes wrong between a program and a broker, one class a case.  The text is the broker's own.

ClientError
  InvalidRequest        a field is missing, malformed or out of range
  JobNotFound           no job of this tenant has the id
  LeaseLost             the task is not this worker's (any more)
  JobExists             the tenant has a job with this id already
  WrongState            the job's state rules the call out
    NotFinished           the job has no result yet
    AlreadyCancelled      somebody has asked for the job's end before
    JobInProgress         a job that has not ended cannot be deleted
  NotAuthenticated      the token is missing or wrong
  Forbidden             the broker's configuration forbids the call
  NotSupported          the broker does not know the call, or does not offer it
  TooLarge              a message, a result or the number of statements is over a bound of the broker
  BrokerUnavailable     no broker could be reached, or none could say, for as long as the call had time
    TimedOut              there was no answer in time
  BrokerFailed          the broker met an error of its own
JobFailed             what `wait` and `result` raise for a job that has failed for good
JobCancelled          the same for one that was cancelled
"""

from __future__ import annotations

from typing import Any

import grpc

Code = grpc.StatusCode


class ClientError(Exception):
    """The root of what a call to a broker raises.

    Attributes:
        text: what the broker said.
        code: the status that it said it with.
    """

    def __init__(self, text: str, code: grpc.StatusCode) -> None:
        super().__init__(text)
        self.text = text
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.text, self.code)


class InvalidRequest(ClientError):
    """A field is missing, malformed or out of range."""


class JobNotFound(ClientError):
    """No job of this tenant has the id."""


class LeaseLost(ClientError):
    """The task is not this worker's (any more): its lease ran out, or its end was reported before."""


class JobExists(ClientError):
    """The tenant has a job with this id already, in whatever state."""


class WrongState(ClientError):
    """The job's state rules the call out."""


class NotFinished(WrongState):
    """The job has not ended, so it has no result yet."""


class AlreadyCancelled(WrongState):
    """Somebody has asked for the job's end before."""


class JobInProgress(WrongState):
    """A job that has not ended cannot be deleted."""


class NotAuthenticated(ClientError):
    """The token is missing or wrong."""


class Forbidden(ClientError):
    """The broker's configuration forbids the call."""


class NotSupported(ClientError):
    """The broker does not know the call, or does not offer it."""


class TooLarge(ClientError):
    """A message, a result or the number of statements is over a bound of the broker.  Sending it again is of no use."""


class BrokerUnavailable(ClientError):
    """No broker could be reached, or none could say, for as long as the call had time.

    Nobody knows whether the call took effect.  It may be made again: with a job id of the caller's own choice, an enqueue
    that is made twice makes one job.
    """


class TimedOut(BrokerUnavailable):
    """There was no answer in time."""


class BrokerFailed(ClientError):
    """The broker met an error of its own; its log says more."""


class JobFailed(Exception):
    """A job has failed for good.

    Attributes:
        job_id: which one.
        error_code: the code that its last attempt failed with.
        data: what that attempt said of it, decoded.
    """

    def __init__(self, job_id: str, error_code: str, data: Any) -> None:
        # Silo's own workers give the text and the trace of the error.
        text = data["message"] if isinstance(data, dict) and "message" in data else data
        super().__init__(f"job {job_id} failed: {error_code}: {text}")
        self.job_id = job_id
        self.error_code = error_code
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.job_id, self.error_code, self.data)


class JobCancelled(Exception):
    """A job was cancelled before it could end by itself."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was cancelled")
        self.job_id = job_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.job_id,)


BY_CODE: dict[grpc.StatusCode, type[ClientError]] = {
    Code.INVALID_ARGUMENT: InvalidRequest,
    Code.NOT_FOUND: JobNotFound,
    Code.ALREADY_EXISTS: JobExists,
    Code.FAILED_PRECONDITION: WrongState,
    Code.UNAUTHENTICATED: NotAuthenticated,
    Code.PERMISSION_DENIED: Forbidden,
    Code.UNIMPLEMENTED: NotSupported,
    Code.RESOURCE_EXHAUSTED: TooLarge,
    Code.UNAVAILABLE: BrokerUnavailable,
    Code.DEADLINE_EXCEEDED: TimedOut,
}
"""Every other code is BrokerFailed."""

BY_TEXT: tuple[tuple[grpc.StatusCode, str, type[ClientError]], ...] = (
    (Code.NOT_FOUND, "lease not found", LeaseLost),
    (Code.FAILED_PRECONDITION, "lease owner mismatch", LeaseLost),
    (Code.FAILED_PRECONDITION, "job is not complete", NotFinished),
    (Code.FAILED_PRECONDITION, "job is already cancelled", AlreadyCancelled),
    (Code.INTERNAL, "cannot delete job", JobInProgress),
)
"""One code stands for several cases, which the text tells apart."""


CODES = {code.value[0]: code for code in grpc.StatusCode}
"""The codes by the numbers that the items of a batch or stream are refused with."""


def error_for(code: grpc.StatusCode, text: str) -> ClientError:
    """The error for a status, with the broker's text."""
    for its_code, part, kind in BY_TEXT:
        if code is its_code and part in text:
            return kind(text, code)
    return BY_CODE.get(code, BrokerFailed)(text, code)
