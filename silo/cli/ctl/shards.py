"""`siloctl shard`: one shard, split, placed, compacted or flushed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from silo.cli.ctl.connection import HISTORY, Connection, Failed, Target, find_shard, global_flags, pass_target
from silo.cli.ctl.texts import moment
from silo.cli.events import line
from silo.cluster.ranges import HashRange
from silo.domain.tenants import tenant_hash
from silo.pb import silo_ext_pb2 as ext
from silo.pb import silo_pb2 as pb

POLL_S = 1.0

INSPECTION = ext.DESCRIPTOR.services_by_name["Inspection"]


@click.group()
def shard() -> None:
    """Look after one shard."""


def _argument(command: Any) -> Any:
    return click.argument("shard_id")(global_flags(pass_target(command)))


# --- splitting ---------------------------------------------------------------------------------------------------------


@shard.command("split")
@click.option("--at", "at_tenant", metavar="TENANT", help="Split at the place of this tenant.")
@click.option("--at-hash", metavar="HASH", help="Split at this place, 16 hex digits.")
@click.option("--auto", is_flag=True, help="Split in the middle.")
@click.option("--wait", is_flag=True, help="Wait until it is done.")
@_argument
def split(
    target: Target, shard_id: str, at_tenant: str | None, at_hash: str | None, auto: bool, wait: bool
) -> None:
    """Split a shard in two."""
    _check_selectors(at_tenant, at_hash, auto)
    connection = target.connect()
    point, where = _split_point(connection, shard_id, at_tenant, at_hash)
    owner = connection.owner_of(shard_id)
    if not target.json:
        click.echo(f"Requesting split of shard {shard_id} {where}...")
    reply = owner.call("RequestSplit", pb.RequestSplitRequest(shard_id=shard_id, split_point=point))
    target.show(
        {
            "status": "split_requested",
            "parent_shard_id": shard_id,
            "split_point": point,
            "left_child_id": reply.left_child_id,
            "right_child_id": reply.right_child_id,
            "phase": reply.phase,
        },
        f"Split requested successfully\n"
        f"  Parent:        {shard_id}\n"
        f"  Split point:   {point}\n"
        f"  Left child:    {reply.left_child_id}\n"
        f"  Right child:   {reply.right_child_id}\n"
        f"  Initial phase: {reply.phase}",
    )
    if wait:
        _wait(owner, target, shard_id, reply)


def _check_selectors(at_tenant: str | None, at_hash: str | None, auto: bool) -> None:
    chosen = sum((at_tenant is not None, at_hash is not None, auto))
    if chosen == 0:
        raise Failed("one of --at <tenant-id>, --at-hash <hash>, or --auto must be specified")
    if chosen > 1:
        raise Failed("--at, --at-hash, and --auto are mutually exclusive")


def _split_point(
    connection: Connection, shard_id: str, at_tenant: str | None, at_hash: str | None
) -> tuple[str, str]:
    """The place of the cut, and words for it."""
    if at_tenant is not None:
        point = tenant_hash(at_tenant)
        return point, f"at tenant '{at_tenant}' (hash {point})"
    if at_hash is not None:
        if not re.fullmatch(r"[0-9a-fA-F]{16}", at_hash):
            raise Failed(
                f"invalid --at-hash '{at_hash}': expected a 16-character hex hash (from `siloctl tenant hash`)"
            )
        return at_hash.lower(), f"at hash {at_hash.lower()}"
    found = find_shard(connection.cluster(), shard_id)
    middle = HashRange(found.range_start, found.range_end).midpoint()
    if middle is None:
        raise Failed(f"cannot compute midpoint for range [{found.range_start}, {found.range_end})")
    return middle, f"at the middle of its range (hash {middle})"


def _wait(owner: Connection, target: Target, shard_id: str, asked: pb.RequestSplitResponse) -> None:
    """Say each phase once.  Raises Failed if the split was given up: then its children never came to be."""
    phase = asked.phase
    while True:
        status = owner.call("GetSplitStatus", pb.GetSplitStatusRequest(shard_id=shard_id))
        if not status.in_progress:
            break
        if status.phase != phase and not target.json:
            click.echo(f"Phase: {status.phase}")
        phase = status.phase
        time.sleep(POLL_S)
    ids = {known.shard_id for known in target.connect().cluster().shard_owners}
    if not {asked.left_child_id, asked.right_child_id} <= ids:
        raise Failed(f"the split of shard {shard_id} was given up; the shard is as it was")
    if not target.json:
        click.echo("Split completed!")


@shard.command("split-status")
@_argument
def split_status(target: Target, shard_id: str) -> None:
    """Show how far a split is."""
    request = pb.GetSplitStatusRequest(shard_id=shard_id)
    status = target.connect().owner_of(shard_id).call("GetSplitStatus", request)
    values = {
        "shard_id": shard_id,
        "in_progress": status.in_progress,
        "phase": status.phase,
        "left_child_id": status.left_child_id,
        "right_child_id": status.right_child_id,
        "split_point": status.split_point,
        "initiator_node_id": status.initiator_node_id,
        "requested_at_ms": status.requested_at_ms,
    }
    if not status.in_progress:
        target.show(values, f"No split in progress for shard {shard_id}")
        return
    target.show(
        values,
        f"Split Status for Shard {shard_id}\n"
        f"  Phase:        {status.phase}\n"
        f"  Split point:  {status.split_point}\n"
        f"  Left child:   {status.left_child_id}\n"
        f"  Right child:  {status.right_child_id}\n"
        f"  Initiator:    {status.initiator_node_id}\n"
        f"  Requested at: {moment(status.requested_at_ms)}",
    )


# --- placing -----------------------------------------------------------------------------------------------------------


@shard.command("configure")
@click.option("--ring", help="Ring whose nodes may have the shard; without it the default ring.")
@click.option("--allow-unpopulated-ring", is_flag=True, help="Also a ring that no node is in yet.")
@_argument
def configure(target: Target, shard_id: str, ring: str | None, allow_unpopulated_ring: bool) -> None:
    """Choose the placement ring of a shard."""
    if allow_unpopulated_ring and ring is None:
        raise click.UsageError("--allow-unpopulated-ring needs --ring")
    # A shard that nobody has is configured through any node: that is how it gets an owner again.
    reply = (
        target.connect()
        .owner_of(shard_id, or_this=True)
        .call(
            "ConfigureShard",
            pb.ConfigureShardRequest(
                shard=shard_id, placement_ring=ring, allow_unpopulated_ring=allow_unpopulated_ring
            ),
        )
    )
    target.show(
        {"shard_id": shard_id, "previous_ring": reply.previous_ring, "current_ring": reply.current_ring},
        f"Shard {shard_id} configured\n"
        f"  Previous ring: {reply.previous_ring or '(default)'}\n"
        f"  Current ring:  {reply.current_ring or '(default)'}",
    )


@shard.command("force-release")
@_argument
def force_release(target: Target, shard_id: str) -> None:
    """Take a shard's lease from a node that cannot give it back."""
    request = pb.ForceReleaseShardRequest(shard=shard_id)
    reply = target.connect().owner_of(shard_id).call("ForceReleaseShard", request)
    target.show(
        {"shard_id": shard_id, "released": reply.released}, f"Force-released shard lease for {shard_id}"
    )


# --- looking ---------------------------------------------------------------------------------------------------------------


@shard.command("check")
@_argument
def check(target: Target, shard_id: str) -> None:
    """Check that everything in a shard adds up: jobs, slots, lines, leases, counters.  The shard goes on meanwhile.

    Exits with 1 if something does not.
    """
    owner = target.connect().owner_of(shard_id)
    reports = owner.stream("CheckShard", ext.CheckShardRequest(shard=shard_id), service=INSPECTION)
    last = _watched(reports, target, "jobs", ext.CheckShardReport())
    violations = list(last.violations)
    words = "\n".join(f"  {violation}" for violation in violations)
    target.show(
        {"shard_id": shard_id, "jobs": last.jobs, "violations": violations},
        f"{last.jobs:,} jobs of shard {shard_id} looked at: "
        + (f"this does not add up\n{words}" if violations else "everything adds up"),
    )
    if violations:
        raise Failed(
            "the shard's rows contradict each other",
            hint=f"keep a copy of the data; `siloctl shard rebuild {shard_id}` makes all rows anew from the log",
        )


@shard.command("verify")
@_argument
def verify(target: Target, shard_id: str) -> None:
    """Make all rows of a shard anew from its log, beside those that serve, and compare.  The shard goes on meanwhile.

    Exits with 1 if they differ; `siloctl shard rebuild` puts that right.
    """
    owner = target.connect().owner_of(shard_id)
    reports = owner.stream("VerifyProjections", ext.VerifyProjectionsRequest(shard=shard_id), service=HISTORY)
    last = _watched(reports, target, "events", ext.VerifyReport())
    events = [line(event) for event in last.events]
    target.show(
        {
            "shard_id": shard_id,
            "events": last.seq,
            "difference": last.difference or None,
            "events_there": events,
        },
        f"{last.seq:,} events of shard {shard_id} folded: "
        + ("\n  ".join(["a difference", last.difference, *events]) if last.difference else "all is well"),
    )
    if last.difference:
        raise Failed(
            "the rows are not those that the log gives",
            hint=f"`siloctl shard rebuild {shard_id}` puts that right",
        )


@shard.command("rebuild")
@click.option(
    "--projection", "projections", multiple=True, metavar="NAME", help="Only this one; may be given often."
)
@_argument
def rebuild(target: Target, shard_id: str, projections: tuple[str, ...]) -> None:
    """Make all rows of a shard anew from its log, and put right what differs.

    The shard serves while the rows are made.  It stands still while they are compared; callers try again by themselves.
    """
    owner = target.connect().owner_of(shard_id)
    request = ext.RebuildProjectionsRequest(shard=shard_id, projections=projections)
    reports = owner.stream("RebuildProjections", request, service=HISTORY)
    last = _watched(reports, target, "events", ext.RebuildReport())
    said = (
        f"{last.rows_changed:,} rows put right; the first:\n  {last.difference}"
        if last.rows_changed
        else "all is well"
    )
    target.show(
        {
            "shard_id": shard_id,
            "events": last.seq,
            "rows_changed": last.rows_changed,
            "difference": last.difference or None,
        },
        f"{last.seq:,} events of shard {shard_id} folded: {said}",
    )


@shard.command("archive")
@click.option("--only-events", is_flag=True, help="Make no image of the rows, which takes longest.")
@_argument
def archive(target: Target, shard_id: str, only_events: bool) -> None:
    """Archive now what would be archived within a day, and cut the log where it is older than `history.retention_days`.

    The files, Parquet, are beside the shard's database; see docs/history.md.
    """
    owner = target.connect().owner_of(shard_id)
    request = ext.ArchiveShardRequest(shard=shard_id, only_events=only_events)
    reports = owner.stream("ArchiveShard", request, service=HISTORY)
    last = _watched(reports, target, "events", ext.ArchiveReport())
    target.show(
        {
            "shard_id": shard_id,
            "archived_seq": last.archived_seq,
            "image_seq": last.image_seq or None,
            "log_begin_seq": last.log_begin_seq,
        },
        f"{last.archived_seq:,} events of shard {shard_id} are in the archive; "
        + (f"the newest image is of event {last.image_seq:,}; " if last.image_seq else "there is no image; ")
        + f"the log begins with event {last.log_begin_seq:,}",
    )


WAITING = "rows are being made anew already, for a call or the archive; waiting for that"
Report = TypeVar("Report", ext.CheckShardReport, ext.VerifyReport, ext.RebuildReport, ext.ArchiveReport)


def _watched(reports: Iterator[Report], target: Target, what: str, report: Report) -> Report:
    """The last report; the others are shown as a bar, if somebody looks on."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=target.json or not console.is_terminal,
    ) as progress:
        shown, was_waiting = progress.add_task("checking", total=None), False
        for report in reports:
            if isinstance(report, ext.CheckShardReport):
                progress.update(shown, completed=report.jobs, total=report.jobs_total)
                continue
            progress.update(
                shown,
                description="waiting for its turn" if report.waiting else "checking",
                completed=report.seq,
                total=report.seq_total,
            )
            if report.waiting and not was_waiting and not target.json:
                console.print(WAITING)
            was_waiting = report.waiting
    return report


# --- storage -----------------------------------------------------------------------------------------------------------


@shard.command("compact")
@_argument
def compact(target: Target, shard_id: str) -> None:
    """Ask for all files of a shard to be merged; does not wait for it."""
    owner = target.connect().owner_of(shard_id)
    if not target.json:
        click.echo(f"Submitting full compaction for shard {shard_id}...")
    reply = owner.call("CompactShard", pb.CompactShardRequest(shard=shard_id))
    target.show({"shard_id": shard_id, "status": reply.status}, reply.status)


@shard.command("flush")
@_argument
def flush(target: Target, shard_id: str) -> None:
    """Write what a shard has in memory to its store."""
    owner = target.connect().owner_of(shard_id)
    if not target.json:
        click.echo(f"Flushing shard {shard_id}...")
    reply = owner.call("FlushShard", pb.FlushShardRequest(shard=shard_id))
    target.show({"shard_id": shard_id, "status": reply.status}, reply.status)
