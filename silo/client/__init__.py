"""Silo for programs: hand over jobs, look at them, have them done.

    from silo.client import Client, Worker

    with Client("127.0.0.1:7450") as silo:
        job = silo.enqueue("greetings", {"name": "world"})
        print(job.wait())

    worker = Worker("127.0.0.1:7450")

    @worker.task("greetings")
    async def greet(payload):
        return f"Hello, {payload['name']}!"

    worker.main()

`AsyncClient` is the same for programs with an event loop.  docs/client.md tells the rest.
"""

from silo.client.client import AsyncClient
from silo.client.client import Job as AsyncJob
from silo.client.connection import Tls
from silo.client.errors import (
    AlreadyCancelled,
    BrokerFailed,
    BrokerUnavailable,
    ClientError,
    Forbidden,
    InvalidRequest,
    JobCancelled,
    JobExists,
    JobFailed,
    JobInProgress,
    JobNotFound,
    LeaseLost,
    NotAuthenticated,
    NotFinished,
    NotSupported,
    TimedOut,
    TooLarge,
    WrongState,
)
from silo.client.payloads import Codec, Json, MessagePack, Raw
from silo.client.sync import Client, Job
from silo.client.values import (
    Attempt,
    AttemptStatus,
    Bucket,
    Concurrency,
    Event,
    Explanation,
    FloatingConcurrency,
    JobState,
    NewJob,
    RateLimit,
    Retry,
    Rows,
    Standing,
    Status,
)
from silo.client.worker import Cancelled, Refresh, Task, Worker, current_task

__all__ = [
    "AlreadyCancelled",
    "AsyncClient",
    "AsyncJob",
    "Attempt",
    "AttemptStatus",
    "BrokerFailed",
    "BrokerUnavailable",
    "Bucket",
    "Cancelled",
    "Client",
    "ClientError",
    "Codec",
    "Concurrency",
    "Event",
    "Explanation",
    "FloatingConcurrency",
    "Forbidden",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobExists",
    "JobFailed",
    "JobInProgress",
    "JobNotFound",
    "JobState",
    "Json",
    "LeaseLost",
    "MessagePack",
    "NewJob",
    "NotAuthenticated",
    "NotFinished",
    "NotSupported",
    "RateLimit",
    "Raw",
    "Refresh",
    "Retry",
    "Rows",
    "Standing",
    "Status",
    "Task",
    "TimedOut",
    "Tls",
    "TooLarge",
    "Worker",
    "WrongState",
    "current_task",
]
