"""What a statement asks for, and so which index to walk.

DataFusion's optimized plan has what is asked of each table as a list of conditions that all must hold.  Those that an index
can answer narrow what is read; all of them are checked again on what was read, so an index is never trusted to be exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from silo.domain.jobs import JobStatus

SPELLINGS: dict[str, tuple[JobStatus, ...]] = {
    "waiting": (JobStatus.SCHEDULED,),
    "scheduled": (JobStatus.SCHEDULED,),
    "running": (JobStatus.RUNNING,),
    "succeeded": (JobStatus.SUCCEEDED,),
    "failed": (JobStatus.FAILED,),
    "cancelled": (JobStatus.CANCELLED,),
}
"""The stored statuses that a displayed one comes from: one that is due shows as waiting."""


@attrs.frozen
class Wanted:
    """What is asked of a table, as far as an index can tell.

    Attributes:
        equal: columns that must have one of these values.
        least, most: columns that must be at least, or at most, this.
        metadata: a key and its value; with `is_prefix`, how its value begins.
        rows: so many are enough, whichever they are; None: it wants all that fit.
    """

    equal: dict[str, tuple[Any, ...]] = attrs.field(factory=dict)
    least: dict[str, int] = attrs.field(factory=dict)
    most: dict[str, int] = attrs.field(factory=dict)
    metadata: tuple[str, str] | None = None
    is_prefix: bool = False
    rows: int | None = None

    def one(self, column: str) -> Any:
        """The only value that a column may have; None if it may have several."""
        values = self.equal.get(column, ())
        return values[0] if len(values) == 1 else None

    @property
    def statuses(self) -> tuple[JobStatus, ...] | None:
        """The stored statuses of which jobs may be wanted; None: all."""
        kinds = self.equal.get("status_kind")
        if kinds is None:
            return None
        found = dict.fromkeys(status for kind in kinds for status in SPELLINGS.get(str(kind).lower(), ()))
        return tuple(found)


NOTHING_SAID = Wanted()


def wanted_of(plan: Any) -> dict[str, Wanted]:
    """What an optimized plan asks of each table.  A table that it reads twice is read whole."""
    found: defaultdict[str, list[Wanted]] = defaultdict(list)
    for scan, conditions in _scans(plan, ()):
        wanted = _wanted(conditions)
        if not conditions:
            wanted = attrs.evolve(wanted, rows=scan.fetch())
        found[scan.table_name()].append(wanted)
    return {table: each[0] if len(each) == 1 else NOTHING_SAID for table, each in found.items()}


def _scans(plan: Any, above: Sequence[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """The scans of tables, each with the conditions on it and right above it."""
    node = plan.to_variant()
    match type(node).__name__:
        case "TableScan":
            yield node, [*node.filters(), *above]
            return
        case "Filter":
            above = [*above, node.predicate()]
        case "Projection" | "SubqueryAlias" | "Limit" | "Sort" | "Explain" | "Analyze":
            # A condition on a limited list is none on the whole; but DataFusion never leaves one above a limit's input here.
            above = above if type(node).__name__ != "Limit" else ()
        case _:
            above = ()
    for each in plan.inputs():
        yield from _scans(each, above)


def _wanted(conditions: Sequence[Any]) -> Wanted:
    equal: dict[str, tuple[Any, ...]] = {}
    least: dict[str, int] = {}
    most: dict[str, int] = {}
    metadata: tuple[str, str] | None = None
    is_prefix = False
    for condition in (part for each in conditions for part in _conjuncts(each)):
        operator, operands = _call(condition)
        if (alternatives := _alternatives(condition)) is not None:
            column, values = alternatives
            known = equal.get(column)
            equal[column] = values if known is None else tuple(value for value in known if value in values)
        elif operator in ("<", "<=", ">", ">=") and (bound := _bound(operator, operands)) is not None:
            column, is_least, value = bound
            if is_least:
                least[column] = max(value, least.get(column, value))
            else:
                most[column] = min(value, most.get(column, value))
        elif metadata is None and (pair := _metadata(operator, operands)) is not None:
            metadata, is_prefix = pair
    return Wanted(equal, least, most, metadata, is_prefix)


# --- expressions ---------------------------------------------------------------------------------------------------------


def _call(expression: Any) -> tuple[str, Sequence[Any]]:
    """The operator or function of an expression, and what it is applied to; an empty name for anything else."""
    if "Call" not in str(expression.rex_type()):
        return "", ()
    try:
        return str(expression.rex_call_operator()).lower(), expression.rex_call_operands()
    except Exception:  # noqa: BLE001 - an expression that the binding cannot take apart narrows nothing
        return "", ()


def _conjuncts(expression: Any) -> Iterator[Any]:
    operator, operands = _call(expression)
    if operator == "and":
        for operand in operands:
            yield from _conjuncts(operand)
    else:
        yield expression


def _alternatives(expression: Any) -> tuple[str, tuple[Any, ...]] | None:
    """A column, and the values one of which it must have: an equation, a list, or several of these for one column."""
    operator, operands = _call(expression)
    if operator == "or":
        found = [_alternatives(operand) for operand in operands]
        columns = {each[0] for each in found if each is not None}
        if None in found or len(columns) != 1:
            return None
        values = tuple(dict.fromkeys(value for each in found if each is not None for value in each[1]))
        return columns.pop(), values
    if operator not in ("=", "in list") or not operands:
        return None
    if operator == "in list" and " NOT IN " in str(expression):
        return None
    column, rest = _column(operands[0]), list(operands[1:])
    if column is None and operator == "=":
        column, rest = _column(operands[1]), [operands[0]]
    literals = [_literal(each) for each in rest]
    if column is None or not literals or None in literals:
        return None
    return column, tuple(literals)


def _bound(operator: str, operands: Sequence[Any]) -> tuple[str, bool, int] | None:
    """A column, whether it has a lower bound, and the bound; the bound itself is always within."""
    column, value = _column(operands[0]), _literal(operands[1])
    is_least = operator.startswith(">")
    if column is None:
        column, value, is_least = _column(operands[1]), _literal(operands[0]), not is_least
    return (column, is_least, value) if column is not None and isinstance(value, int) else None


def _metadata(operator: str, operands: Sequence[Any]) -> tuple[tuple[str, str], bool] | None:
    """A key and its value, or how its value begins."""
    if operator in ("array_has", "array_contains", "list_contains", "list_has") and len(operands) == 2:
        key, value = _metadata_key(operands[0]), _literal(operands[1])
        return ((key, value), False) if key is not None and isinstance(value, str) else None
    if operator == "like" and len(operands) >= 2:
        inner, lists = _call(operands[0])
        key = _metadata_key(lists[0]) if inner in ("array_any_value", "list_any_value") and lists else None
        pattern = _literal(operands[1])
        if key is None or not isinstance(pattern, str) or not pattern.endswith("%"):
            return None
        prefix = pattern[:-1]
        return ((key, prefix), True) if not set(prefix) & set("%_\\") else None
    return None


def _metadata_key(expression: Any) -> str | None:
    operator, operands = _call(expression)
    if (
        operator not in ("map_extract", "element_at")
        or len(operands) != 2
        or _column(operands[0]) != "metadata"
    ):
        return None
    key = _literal(operands[1])
    return key if isinstance(key, str) else None


def _column(expression: Any) -> str | None:
    if "Reference" not in str(expression.rex_type()):
        return None
    return str(expression.to_variant().name())


def _literal(expression: Any) -> Any:
    """The value of a literal; None for anything else, and for null."""
    if "Literal" not in str(expression.rex_type()):
        return None
    value = expression.python_value()
    return value.as_py() if hasattr(value, "as_py") else value
