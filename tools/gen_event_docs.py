"""Writes docs/events.md from the docstrings and fields of silo/events/catalogue.py.

python -m tools.gen_event_docs            writes the page
python -m tools.gen_event_docs --check    exits with 1 if the page is not what would be written
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

import attrs

from silo.domain.jobs import JobSpec
from silo.events.catalogue import EVENTS, Event, JobEvent
from silo.projections.fold import PROJECTIONS

PAGE = Path(__file__).parent.parent / "docs" / "events.md"

INTRODUCTION = """\
# Events

<!-- Written by tools/gen_event_docs.py from silo/events/catalogue.py; change it there. -->

The log of a shard is a sequence of events, each a fact in the past tense.
It is the truth: whatever else a shard knows (status, queues, leases, counters) follows from these facts alone.
Read one job's events in order and you have read its life.

## What every event has

| field | meaning |
|---|---|
| `seq` | Its place in the shard's log: 1, 2, 3 and so on, without gaps. |
| `time_ms` | When it was decided, in milliseconds since 1970 (UTC). Along the log it never runs backward. |
| `actor` | Who caused it: a worker's id, the name that a client gives itself (`x-silo-actor` metadata), or `system`. |
| `method` | The RPC that asked for it; empty for what the clock caused. |

An event about a job, a queue or a bucket also has the `tenant`, and one about a job:

| field | meaning |
|---|---|
| `job_id` | Which job. |
| `prev` | The `seq` of the event before it in the same job's life; 0 for its first. |

So the history of a job is a walk back along `prev` from its newest event, which the job's row names.

## In which order they come

A job begins with `JobEnqueued`, or with `JobImported` if it has a past elsewhere.
Each attempt sets out as a *chain* and ends before the next one starts:

```
JobEnqueued
  ChainStarted            the attempt sets out
  ChainDue                its time came; missing if it could start at once
  SlotWaited              a concurrency limit had no room for it
  SlotGranted             now it has
  RateChecked             a rate limit allowed it, or did not
  TaskLeased              a worker has it
  LeaseRenewed            the worker is still alive; about one for every half lease
  AttemptFailed           that went wrong
  ChainStarted            the retry sets out
  ChainDue
  TaskLeased
  AttemptSucceeded        and with it the job
```

Events that one command decides lie side by side and become durable together, or not at all:

| what happens | events |
|---|---|
| a job is enqueued | `JobEnqueued`, `ChainStarted`, then the events of its limits |
| it comes to a concurrency limit | `SlotGranted`, or `SlotWaited` if there is no room |
| it is the first with this floating limit | `LimitCreated` before that |
| an attempt ends that held slots | what is listed below, then `SlotGranted` for the next in line and what follows for it |
| it comes to a rate limit that the shard decides | `RateChecked`; after a refusal `RateWaited` if it stands in line |
| it comes to one that an outside service decides | `RateCheckDue`, and `RateChecked` when the answer is there |
| a rate limit is used up at the last try | `RateChecked`, `JobFailed` |
| a floating maximum is old and somebody waits | `RefreshScheduled` |
| a worker takes it on, then reports or not | `RefreshLeased`, then `RefreshSucceeded`, `RefreshFailed` or `RefreshExpired` |
| an operator takes slots away | `HoldersDropped` for each job that held some |
| a worker leases it | `TaskLeased`; before it `ChainDue`, if nobody had noticed yet that its time has come |
| it succeeds | `AttemptSucceeded` |
| it fails and is tried again | `AttemptFailed`, `ChainStarted` |
| it fails for good | `AttemptFailed`, `JobFailed` |
| it fails after its cancellation was requested | `AttemptFailed`, `JobCancelled` |
| its worker stops because it was cancelled | `AttemptCancelled`, `JobCancelled` |
| its worker falls silent | `LeaseExpired`, then as for a failure with the code `WORKER_CRASHED` |
| the worker of a cancelled job falls silent | `LeaseExpired`, `AttemptCancelled`, `JobCancelled` |
| a pending job is cancelled | `CancellationRequested`, `JobCancelled` |
| a running job is cancelled | `CancellationRequested` |
| it is given another run | `JobRestarted`, `ChainStarted` |
| it may start before its time | `JobExpedited` |
| somebody leases that one job, due or not | `ChainStarted`, `TaskLeased` |
| it is imported | `JobImported`, `AttemptImported` for each attempt, `ChainStarted` if there is work left |
| it is imported again with more attempts | `JobReimported`, then the same for what is new |
| it is removed | `JobDeleted`, or `JobForgotten` when its time of retention is over |

`ShardCreated` is the first event of every log.

## What never changes

A type has a tag and a version, which are what the log holds; neither is ever used for anything else.
A type that changes its shape gets a new version and an *upcaster*, which brings old events into the new shape.
The log itself is never rewritten, with one exception: [erasure](history.md#erasing) puts `null` where a payload, a result or
error data was.
An event that a program cannot read stops the shard with an error that names the event; it is never skipped.
"""

GROUPS = {
    "The shard": range(10),
    "The job": range(10, 30),
    "The chain and its gates": range(30, 40),
    "The lease and its attempt": range(40, 60),
    "Floating limits": range(60, 70),
    "Buckets of rate limits": range(70, 80),
    "The log itself": range(80, 90),
}
"""The headings, and the tags of the events below each."""

FIELDS = {
    "shard_id": "The shard.",
    "spec": "What the client stated, see [below](#the-jobs-spec).",
    "payload": "The client's bytes, passed through as they are.",
    "status": "The status that follows from the history.",
    "changed_ms": "Since when it has that status.",
    "forget_ms": "When retention removes the ended job; none: never.",
    "retry_policy": "The policy that holds from now on; none: no retries.",
    "virtual_start_ms": "Its place in every line: start time plus priority times the configured weight.",
    "task_id": "The chain's identity, which lease and attempt share.",
    "attempt": "The attempt's number over the job's life, from 1.",
    "worker_id": "The worker.",
    "expires_ms": "When the lease ends if nothing is heard.",
    "expired_ms": "When the lease ended.",
    "result": "The worker's bytes, passed through as they are.",
    "error_code": "The worker's word for what went wrong, or `WORKER_CRASHED`.",
    "error_data": "The worker's bytes, passed through as they are.",
    "started_ms": "When it started.",
    "finished_ms": "When it ended.",
    "data": "Its result, or its error data.",
    "gate": "Which limit, by its place in the job's list, from 0.",
    "queue": "The concurrency key.",
    "queues": "The concurrency keys.",
    "maximum": "How many slots there were for this job when it was decided.",
    "allowed": "Whether the hits may pass.",
    "upto_seq": "The last event that leaves.",
    "requested_seq": "The event that asked for it.",
    "CursorMoved.name": "The cursor's name.",
    "CursorDeleted.name": "The cursor's name.",
    "done_seq": "The last event that is done with.",
    "passes_ms": "When the first in the line may pass at the latest.",
    "default_max_concurrency": "The maximum to begin with.",
    "refresh_interval_ms": "How long a maximum is good.",
    "metadata": "What the worker is told that finds it out.",
    "task_group": "Whose workers are asked.",
    "new_max_concurrency": "The maximum from now on.",
    "message": "The worker's words for what went wrong.",
    "retry_ms": "Not before this time again.",
    "name": "The rate limit's name.",
    "unique_key": "What it is counted for.",
    "until_ms": "When it is looked at again.",
    "JobFailed.error_code": "Why, if it was not the last attempt: `RATE_LIMIT_EXHAUSTED`; else empty.",
    "AttemptImported.status": "How it ended.",
    "AttemptImported.error_code": "What went wrong; empty unless it failed.",
}
"""Fields that the events themselves do not describe."""

SPEC = {
    "priority": "0, the most urgent, to 99.",
    "task_group": "Which workers lease it.",
    "enqueue_time_ms": "The start that was asked for, verbatim: 0 or less means at once.",
    "retry_policy": "How often and how patiently it is tried again; none: not at all.",
    "metadata": "Names and values in the client's order.",
    "limits": "What each attempt has to pass, in the client's order: see [limits.md](limits.md).",
}

TYPES = {
    int: "integer",
    str: "text",
    bytes: "bytes",
    bool: "yes or no",
    tuple: "list",
}


def page() -> str:
    """The whole page."""
    groups = "".join(f"\n## {heading}\n{_events(tags)}" for heading, tags in GROUPS.items())
    return INTRODUCTION + groups + _spec()


def _events(tags: range) -> str:
    return "".join(_event(kind) for kind in sorted(EVENTS, key=lambda kind: kind.TAG) if kind.TAG in tags)


def _event(kind: type[Event]) -> str:
    text, told = _docstring(kind)
    # What the page says once of all events.
    common = {field.name for field in attrs.fields(JobEvent)}
    fields = [field for field in attrs.fields(kind) if field.name not in common]
    hearers = [_name(projection) for projection in PROJECTIONS if kind in _folds(projection)]
    lines = [f"\n### {kind.__name__}\n", text, ""]
    lines += [f"Tag {kind.TAG}, version {kind.VERSION}." + _heard(hearers), ""]
    if fields:
        lines += ["| field | type | meaning |", "|---|---|---|"]
        hints = typing.get_type_hints(kind)
        for field in fields:
            own = FIELDS.get(f"{kind.__name__}.{field.name}")
            meaning = told.get(field.name) or own or FIELDS[field.name]
            lines.append(f"| `{field.name}` | {_type(hints[field.name])} | {meaning} |")
    return "\n".join(lines).rstrip() + "\n"


def _folds(projection: types.ModuleType) -> dict[Any, Any]:
    folds: dict[Any, Any] = projection.FOLDS
    return folds


def _name(projection: types.ModuleType) -> str:
    return projection.__name__.rpartition(".")[2]


def _heard(hearers: list[str]) -> str:
    return f" Folded by {', '.join(f'`{name}`' for name in hearers)}." if hearers else ""


def _docstring(kind: type[Event]) -> tuple[str, dict[str, str]]:
    """The words of an event, a sentence a line, and those of the fields that it describes itself."""
    text, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    told = {
        name: _sentence(words)
        for name, words in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE)
    }
    one_line = " ".join(text.split())
    return re.sub(r"(?<=[.!?]) (?=[A-Z`])", "\n", one_line), told


def _sentence(words: str) -> str:
    joined = " ".join(words.split())
    return joined[0].upper() + joined[1:]


def _type(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        inner = next(part for part in typing.get_args(hint) if part is not types.NoneType)
        return f"{_type(inner)}, or none"
    hint = typing.get_origin(hint) or hint
    return TYPES.get(hint) or f"`{hint.__name__}`"


def _spec() -> str:
    rows = "".join(
        f"| `{field.name}` | {_type(typing.get_type_hints(JobSpec)[field.name])} | {SPEC[field.name]} |\n"
        for field in attrs.fields(JobSpec)
    )
    heading = "\n## The job's spec\n\nWhat a client states about a job, and what never changes but for an import.\n\n"
    return heading + "| field | type | meaning |\n|---|---|---|\n" + rows


def main() -> int:
    written = page()
    if sys.argv[1:] == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == written:
            return 0
        print(f"{PAGE} is out of date: run python -m tools.gen_event_docs", file=sys.stderr)
        return 1

    PAGE.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
