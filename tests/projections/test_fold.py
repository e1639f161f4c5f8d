from __future__ import annotations

import copy
import re
from collections import Counter
from pathlib import Path

import pytest

from silo.errors import Corrupt
from silo.events.catalogue import (
    EVENTS,
    AttemptSucceeded,
    ChainDue,
    JobEvent,
    JobExpedited,
    LeaseRenewed,
    RateCheckDue,
    RateChecked,
    RateWaited,
    ShardCreated,
    TaskLeased,
)
from silo.projections.fold import PROJECTIONS, TABLES
from tests.builders import (
    a_limit,
    a_rate_limit,
    cancelled_by_client,
    fact,
    failed,
    pending,
    running,
    succeeded,
    waiting_for_retry,
)
from tests.story import Story


def test_every_fact_about_a_job_is_folded():
    heard_of = {kind for projection in PROJECTIONS for kind in projection.FOLDS}

    assert set(EVENTS) - heard_of == {ShardCreated}
    assert heard_of <= set(EVENTS)


def test_every_table_belongs_to_one_projection():
    """No two projections write one table: each writes those that it declares."""
    owners: Counter[str] = Counter()
    for projection in PROJECTIONS:
        source = Path(projection.__file__).read_text()
        owners.update(table.name for table in TABLES if f'Table("{table.name}"' in source)
        written = set(re.findall(r"view\.(?:insert|put|delete)\(\s*([A-Z_]+)", source))
        declared = set(re.findall(r"^([A-Z_]+)(?:: [^=]+)? = Table\(", source, re.MULTILINE))
        assert written <= declared
    assert owners == Counter(table.name for table in TABLES)


@pytest.mark.parametrize(
    "life", [pending, running, succeeded, failed, cancelled_by_client, waiting_for_retry]
)
def test_the_same_facts_give_the_same_rows(life):
    facts = life(metadata=(("a", "b"),))

    assert Story().given(*facts).everything() == Story().given(*copy.deepcopy(facts)).everything()


@pytest.mark.parametrize(
    "kind", [kind for kind in EVENTS if issubclass(kind, JobEvent)], ids=lambda kind: kind.__name__
)
def test_a_fact_that_is_dropped_leaves_every_row_as_it_was(kind):
    """Rows are shared between a draft and its shard, so none may be changed in place."""
    is_about_a_rate = issubclass(kind, RateCheckDue | RateChecked | RateWaited)
    limits = (a_rate_limit() if is_about_a_rate else a_limit(),)
    story = Story().given(*running(metadata=(("a", "b"),), limits=limits))
    before = story.everything()

    def tell_and_fail(event, draft):
        draft.emit(event)
        raise ZeroDivisionError

    name = {"tenant": "new"} if kind.BEGINS_JOB else {}
    with pytest.raises((ZeroDivisionError, Corrupt)):
        story.when(tell_and_fail, fact(kind, **name))
    assert story.everything() == before


@pytest.mark.parametrize(
    ("life", "event", "text"),
    [
        pytest.param([], fact(TaskLeased), "needs jobs", id="a lease of no job"),
        pytest.param(
            succeeded(), fact(TaskLeased), "needs a chain of job j1, which has none", id="of an ended one"
        ),
        pytest.param(succeeded(), fact(ChainDue), "needs a chain", id="an ended job comes due"),
        pytest.param(succeeded(), fact(JobExpedited), "needs a chain", id="an ended job is expedited"),
        pytest.param(pending(), fact(LeaseRenewed), "needs leases", id="a renewal of no lease"),
        pytest.param(pending(), fact(AttemptSucceeded), "needs leases", id="an outcome of no lease"),
    ],
)
def test_a_fact_that_contradicts_the_rows_is_not_guessed_at(life, event, text):
    story = Story().given(*life)

    with pytest.raises(
        Corrupt, match=rf"^event {len(life) + 1} \({type(event).__name__}\) .*{text}"
    ) as error:
        story.given(event)
    assert "jobs" in str(error.value) or text in str(error.value)
