"""Writes docs/api.md: what `silo.client` and `silo.testing` offer, from the docstrings.

python -m tools.gen_api_docs            write it
python -m tools.gen_api_docs --check    only say whether it is as it would be written
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs

import silo.client
import silo.testing
from silo.client import client, sync
from silo.client import worker as workers

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"

HEAD = """# The Python API

Made from the docstrings by `python -m tools.gen_api_docs`.
[client.md](client.md) tells how to use it.

"""

SECTIONS: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    (
        "Clients",
        "`Client` and its `Job` have the same methods as `AsyncClient` and `AsyncJob`, without `await`.",
        (silo.client.AsyncClient, silo.client.AsyncJob, sync.Client, sync.Job, silo.client.Tls),
    ),
    (
        "What a program says of a job",
        "",
        (
            silo.client.NewJob,
            silo.client.Retry,
            silo.client.Concurrency,
            silo.client.FloatingConcurrency,
            silo.client.RateLimit,
            silo.client.Bucket,
        ),
    ),
    (
        "What it learns of one",
        "",
        (
            silo.client.Status,
            silo.client.JobState,
            silo.client.Attempt,
            silo.client.AttemptStatus,
            silo.client.Explanation,
            silo.client.Standing,
            silo.client.Event,
            silo.client.Rows,
        ),
    ),
    (
        "Workers",
        "",
        (
            workers.Worker,
            workers.running,
            workers.Task,
            workers.current_task,
            workers.Cancelled,
            workers.Refresh,
            workers.Metrics,
            workers.Mode,
        ),
    ),
    (
        "Payloads",
        "",
        (silo.client.Codec, silo.client.MessagePack, silo.client.Json, silo.client.Raw),
    ),
    (
        "Errors",
        "One class a case; the text is the broker's.",
        tuple(
            value
            for value in vars(silo.client).values()
            if inspect.isclass(value) and issubclass(value, Exception) and value is not silo.client.Cancelled
        ),
    ),
    ("Tests", "", (silo.testing.broker,)),
)

NAMES = {client.Job: "AsyncJob", sync.Job: "Job", sync.Client: "Client"}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, about, things in SECTIONS:
        parts.append(f"## {title}\n\n")
        if about:
            parts.append(f"{about}\n\n")
        parts += [_entry(thing) for thing in things]
    return "".join(parts).rstrip() + "\n"


def _entry(thing: Any) -> str:
    name = NAMES.get(thing, thing.__name__)
    if not inspect.isclass(thing):
        return f"### `{name}{_signature(thing)}`\n\n{_text(thing.__doc__)}"
    made = f"### `{name}`\n\n{_text(thing.__doc__)}"
    if issubclass(thing, enum.Enum):
        return made + "".join(f"- `{member.name}`\n" for member in thing) + "\n"
    if issubclass(thing, Exception):
        bases = [base.__name__ for base in thing.__bases__]
        return made + f"A `{bases[0]}`.\n\n"
    if attrs.has(thing) and thing is not workers.Task:
        fields = [field for field in attrs.fields(thing) if field.init]
        made += "Fields: " + ", ".join(f"`{field.name}`" for field in fields) + ".\n\n"
    elif "__init__" in vars(thing) and not attrs.has(thing) and thing not in (client.Job, sync.Job):
        made += f"```python\n{name}{_signature(thing.__init__)}\n```\n\n"
    return made + "".join(_methods(thing))


def _methods(thing: type) -> Iterable[str]:
    for name, value in vars(thing).items():
        function = value.fget if isinstance(value, property) else value
        if (
            name.startswith("_")
            or not inspect.isfunction(function)
            or name in ("message", "when_over", "end")
        ):
            continue
        kind = "async " if inspect.iscoroutinefunction(function) else ""
        call = name if isinstance(value, property) else f"{kind}{name}{_signature(function)}"
        yield f"#### `{call}`\n\n{_text(function.__doc__)}"


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    text = str(signature.replace(parameters=parameters))
    # Annotations are texts, of which the quotes say nothing.
    return re.sub(r"'([^']*)'", r"\1", text).removesuffix(" -> None")


def _text(docstring: str | None) -> str:
    """A docstring as Markdown: its indented lists of arguments become lists."""
    lines: list[str] = []
    for line in inspect.cleandoc(docstring or "").splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises):", line):
            lines += [f"*{line.removesuffix(':')}*", ""]
        elif found := re.fullmatch(r"    ([\w, ]+): (.*)", line):
            lines.append(f"- `{found[1]}`: {found[2]}")
        elif line.startswith("        ") and lines[-1].startswith("- "):
            lines[-1] += " " + line.strip()
        elif line.startswith("    ") and lines[-2:-1] == ["*Returns*"]:
            lines.append(line.strip())
        else:
            lines.append(line)
    return "\n".join(lines) + "\n\n"


def main() -> None:
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE} is not what the docstrings say; run: python -m tools.gen_api_docs")


if __name__ == "__main__":
    main()
