"""A walk through all jobs, by columns: those of the newest image, but for jobs of which the log has told more since."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

import pyarrow as pa
import pyarrow.compute as pc

from silo.archive.archive import Archive
from silo.archive.files import Image
from silo.events import codec
from silo.projections.fold import ROWS_FORMAT
from silo.projections.jobs import JOBS
from silo.query.snapshot import ShardSnapshot

EVENTS_SINCE_MAX = 500_000
"""If more have happened since the image, the jobs themselves are read."""

WAITING, SCHEDULED = "Waiting", "Scheduled"


class JobsOfImage:
    """What an image has of the jobs of a snapshot.

    Attributes:
        touched: jobs of which there are events since, so that the image may be wrong about them.
    """

    def __init__(self, archive: Archive, image: Image, touched: AbstractSet[tuple[str, str]]) -> None:
        self._archive = archive
        self._image = image
        self.touched = touched
        self._ids = pa.array(list({job_id for _, job_id in touched}), pa.utf8())

    def batches(self, snapshot: ShardSnapshot, columns: frozenset[str]) -> Iterator[pa.RecordBatch]:
        """The jobs that are as they were then, by some of the columns of the table `jobs`."""
        names = [name for name in columns if name not in ("shard_id", "status_kind")]
        if "status_kind" in columns:
            names += ["status", "starts_ms"]
        for batch in self._archive.jobs(self._image, list(dict.fromkeys(("tenant", "id", *names)))):
            snapshot.go_on()
            kept = self._untouched(batch)
            if kept.num_rows:
                yield _shown(snapshot, kept, columns)

    def _untouched(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not self.touched:
            return batch
        perhaps = pc.is_in(batch.column("id"), value_set=self._ids)
        if not pc.any(perhaps).as_py():
            return batch
        # The same id may be that of another tenant's job.
        names = zip(batch.column("tenant").to_pylist(), batch.column("id").to_pylist(), strict=True)
        return batch.filter(pa.array([name not in self.touched for name in names], pa.bool_()))


def _shown(snapshot: ShardSnapshot, batch: pa.RecordBatch, columns: frozenset[str]) -> pa.RecordBatch:
    arrays = {name: batch.column(name) for name in columns if name not in ("shard_id", "status_kind")}
    if "shard_id" in columns:
        arrays["shard_id"] = pa.repeat(snapshot.shard_id, batch.num_rows)
    if "status_kind" in columns:
        status, starts_ms = batch.column("status"), batch.column("starts_ms")
        has_begun = pc.fill_null(pc.less_equal(starts_ms, snapshot.now_ms), True)
        arrays["status_kind"] = pc.if_else(pc.and_(pc.equal(status, SCHEDULED), has_begun), WAITING, status)
    # Without a column a batch would have no rows.
    arrays = arrays or {"id": batch.column("id")}
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def jobs_of_image(snapshot: ShardSnapshot) -> JobsOfImage | None:
    """From the newest image of a snapshot's shard, unless too much has happened since."""
    archive = snapshot.archive
    if archive is None:
        return None
    image = archive.newest_with_jobs(snapshot.seq, rows_format=ROWS_FORMAT)
    if image is None or snapshot.seq - image.seq > EVENTS_SINCE_MAX:
        return None
    told: set[tuple[str | None, str | None]] = set()
    for batch in archive.batches(image.seq + 1, snapshot.archived_seq + 1, ["tenant", "job_id"]):
        snapshot.go_on()
        told.update(zip(batch.column("tenant").to_pylist(), batch.column("job_id").to_pylist(), strict=True))
    live_from = max(image.seq, snapshot.archived_seq) + 1
    for page in snapshot.records(live_from):
        for first_seq, record in page:
            told.update(
                (tenant, job_id)
                for seq, tenant, job_id in codec.job_names(first_seq, record)
                if live_from <= seq <= snapshot.seq
            )
    touched = {(tenant, job_id) for tenant, job_id in told if tenant is not None and job_id is not None}
    # What was decided, and was not in the log yet when the snapshot was taken, is still in memory.
    touched |= {(str(tenant), str(job_id)) for tenant, job_id in snapshot.changed.get(JOBS, ())}
    return JobsOfImage(archive, image, touched)
