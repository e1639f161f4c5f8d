"""Workers: functions that do jobs.

worker.py      Worker: handlers of task groups, and what runs them
handlers.py    how a handler is called: on the event loop, in a thread, in a process
task.py        what a handler knows of its work
link.py        the wire: tasks come, heartbeats and reports go, in a thread of its own
mailbox.py     from one thread's loop to the other's
metrics.py     counts
"""

from silo.client.worker.handlers import Middleware, Mode
from silo.client.worker.metrics import Metrics
from silo.client.worker.task import Cancelled, Refresh, Task, current_task
from silo.client.worker.worker import Worker, running

__all__ = [
    "Cancelled",
    "Metrics",
    "Middleware",
    "Mode",
    "Refresh",
    "Task",
    "Worker",
    "current_task",
    "running",
]
