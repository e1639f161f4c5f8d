"""`siloctl profile`, `heap-profile` and `dump-tasks`: what goes on inside the connected node."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import click

from silo.cli.ctl.connection import Failed, Target, global_flags, pass_target
from silo.pb import silo_pb2 as pb


@click.command()
@click.option(
    "-d", "--duration", type=click.IntRange(1, 300), default=30, help="Seconds; default 30.", metavar="S"
)
@click.option(
    "-f", "--frequency", type=click.IntRange(1, 1000), default=100, help="Looks a second; default 100."
)
@click.option("-o", "--output", help="File to write; default profile-<time>.pb.gz.")
@global_flags
@pass_target
def profile(target: Target, duration: int, frequency: int, output: str | None) -> None:
    """Record where the connected node spends its CPU time, in the form of pprof.

    \b
    Example:
      siloctl profile -d 10 -o busy.pb.gz
    """
    path = _writable(_with_suffix(output or f"profile-{int(time.time())}.pb.gz"))
    connection = target.connect()
    if not target.json:
        click.echo(f"Profiling {connection.address} for {duration} s at {frequency} Hz...")
    request = pb.CpuProfileRequest(duration_seconds=duration, frequency=frequency)
    reply: pb.CpuProfileResponse = connection.call("CpuProfile", request)
    _write(path, gzip.compress(reply.profile_data) if path.suffix == ".gz" else reply.profile_data)
    size = len(reply.profile_data)
    target.show(
        {
            "status": "completed",
            "output_file": str(path),
            "duration_seconds": reply.duration_seconds,
            "samples": reply.samples,
            "profile_bytes": size,
        },
        f"Profile saved to: {path}\n"
        f"Duration: {reply.duration_seconds}s, Samples: {reply.samples}, Size: {size} bytes\n\n"
        f"Look at it with:\n"
        f"  go tool pprof -top {path}\n"
        f"  go tool pprof -http=: {path}",
    )


@click.command("heap-profile")
@click.option(
    "-d", "--duration", type=click.IntRange(1, 300), default=30, help="Seconds; default 30.", metavar="S"
)
@click.option("-o", "--output", help="File to write; default heap-profile-<time>.heap.")
@global_flags
@pass_target
def heap_profile(target: Target, duration: int, output: str | None) -> None:
    """Record what the connected node has in memory, if its allocator can tell; Silo's own server cannot."""
    path = _writable(Path(output or f"heap-profile-{int(time.time())}.heap"))
    connection = target.connect()
    if not target.json:
        click.echo(f"Profiling the memory of {connection.address} for {duration} s...")
    reply: pb.HeapProfileResponse = connection.call(
        "HeapProfile", pb.HeapProfileRequest(duration_seconds=duration)
    )
    _write(path, reply.profile_data)
    size = len(reply.profile_data)
    target.show(
        {
            "status": "completed",
            "output_file": str(path),
            "duration_seconds": reply.duration_seconds,
            "profile_bytes": size,
        },
        f"Heap profile saved to: {path}\nDuration: {reply.duration_seconds}s, Size: {size} bytes",
    )


@click.command("dump-tasks")
@global_flags
@pass_target
def dump_tasks(target: Target) -> None:
    """Show what every asyncio task of the connected node is waiting for."""
    reply = target.connect().call("DumpTasks", pb.DumpTasksRequest())
    target.show(
        {"task_count": reply.task_count, "dump": reply.dump},
        f"Async Task Dump ({reply.task_count} tasks)\n\n{reply.dump}",
    )


def _with_suffix(name: str) -> Path:
    return Path(name if name.endswith((".pb", ".pb.gz")) else f"{name}.pb.gz")


def _writable(path: Path) -> Path:
    """The path, if there is a directory for it: better now than when the profile has been made."""
    if not path.absolute().parent.is_dir():
        raise Failed(f"{path}: there is no directory {path.parent}")
    return path


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from error
