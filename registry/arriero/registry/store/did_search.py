"""Finding DIDs by their names, columns and metadata: one query, whatever is asked for.

The order is that of the names, by code points: the last name of a page is where the next one begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Double,
    Select,
    and_,
    case,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)

from arriero.registry.dialect import is_postgresql
from arriero.registry.schema.base import UtcDateTime
from arriero.registry.schema.tables import accounts, contents, did_meta, dids, scopes
from arriero.registry.states import DidType
from arriero.registry.store import json_filters as meta


class Operator(StrEnum):
    """How a value is compared; Rucio's words."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"


Value = bool | int | float | datetime | str


@dataclass(frozen=True, slots=True)
class Condition:
    """What is asked of one column or key of the metadata."""

    key: str
    operator: Operator
    value: Value
    """As what it is to be compared."""
    spelt: str
    """As it was sent."""

    @property
    def is_pattern(self) -> bool:
        return isinstance(self.value, str) and ("*" in self.value or "?" in self.value)


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions that all have to hold, and the types that are wanted."""

    types: tuple[DidType, ...]
    conditions: tuple[Condition, ...] = ()


_TEXTS = {"name": dids.c.name, "adler32": dids.c.adler32, "md5": dids.c.md5, "account": accounts.c.name}
_NUMBERS = {"bytes": dids.c.bytes, "length": None}
_FLAGS = {"is_open": dids.c.is_open, "open": dids.c.is_open, "monotonic": dids.c.monotonic}
_INSTANTS = {
    name: dids.c[name] for name in ("created_at", "updated_at", "closed_at", "expired_at", "accessed_at")
}
TEXTS = frozenset(_TEXTS)
NUMBERS = frozenset(_NUMBERS)
FLAGS = frozenset(_FLAGS)
INSTANTS = frozenset(_INSTANTS)
"""Keys that are columns, by what they hold."""


def _compared(left: ColumnElement[Any], operator: Operator, right: ColumnElement[Any]) -> ColumnElement[bool]:
    match operator:
        case Operator.EQ:
            return left == right
        case Operator.NE:
            return left != right
        case Operator.GT:
            return left > right
        case Operator.GTE:
            return left >= right
        case Operator.LT:
            return left < right
        case Operator.LTE:
            return left <= right


def like(connection: Connection, text: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """Whether a text fits a pattern: ``*`` is any text, ``?`` any character; letters are told apart by their case.

    ``LIKE`` of SQLite does not tell them apart, so it is ``GLOB`` there.
    """
    if is_postgresql(connection):
        escaped = "".join(f"\\{c}" if c in "\\%_" else c for c in pattern)
        return text.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
    return text.op("GLOB", is_comparison=True)(literal(pattern.replace("[", "[[]")))


def after_prefix(prefix: str) -> str | None:
    """Give the first text, by code points, behind all those that begin with a prefix; None when there is none."""
    while prefix:
        last = ord(prefix[-1]) + 1
        if last == 0xD800:
            last = 0xE000
        if last <= 0x10FFFF:
            return prefix[:-1] + chr(last)
        prefix = prefix[:-1]
    return None


def _named_like(connection: Connection, pattern: str) -> ColumnElement[bool]:
    """Condition on the name, with the range of its prefix: the index serves it whatever the planner knows of it."""
    first = min(position for position in map(pattern.find, "*?") if position >= 0)
    prefix = pattern[:first]
    conditions = []
    if prefix:
        conditions.append(dids.c.name >= prefix)
        behind = after_prefix(prefix)
        if behind is not None:
            conditions.append(dids.c.name < behind)
    if pattern != f"{prefix}*":
        conditions.append(like(connection, dids.c.name, pattern))
    return and_(true(), *conditions)


def _of_types(types: Sequence[DidType]) -> ColumnElement[bool]:
    """Condition on the type, written out: a partial index is considered for constants only.

    Collections are said as what they are not, as `ix_dids_collections` does, also those of one type: so it serves on both
    databases, and the index of their ids, which has no names, never does.
    """
    if set(types) == set(DidType):
        return true()
    if DidType.FILE not in types:
        return and_(*(dids.c.type != literal_column(f"'{one}'") for one in DidType if one not in types))
    return or_(*(dids.c.type == literal_column(f"'{one}'") for one in types))


def _length() -> ColumnElement[Any]:
    """What a DID holds directly; 1 for a file."""
    held = select(func.count()).where(contents.c.parent_id == dids.c.id).scalar_subquery()
    return case((dids.c.type == literal_column("'FILE'"), 1), else_=held)


def _on_column(connection: Connection, one: Condition) -> ColumnElement[bool]:
    left: ColumnElement[Any]
    right: ColumnElement[Any]
    if one.key in _TEXTS:
        left, right = _TEXTS[one.key], literal(one.spelt)
        if one.is_pattern:
            fits = (
                _named_like(connection, one.spelt) if one.key == "name" else like(connection, left, one.spelt)
            )
            return fits if one.operator is Operator.EQ else meta.otherwise(fits)
    elif one.key in _NUMBERS:
        left = _length() if one.key == "length" else _NUMBERS[one.key]  # type: ignore[assignment]
        right = literal(one.value, BigInteger if isinstance(one.value, int) else Double)
    elif one.key in _FLAGS:
        left, right = _FLAGS[one.key], literal(one.value, Boolean)
    else:
        left, right = _INSTANTS[one.key], literal(one.value, UtcDateTime)
    condition = _compared(left, one.operator, right)
    return or_(condition, left.is_(None)) if one.operator is Operator.NE else condition


def _equal_values(one: Condition) -> list[meta.Scalar]:
    """Give what equals a value: also the text that spells it, since the official command line sends texts only."""
    if isinstance(one.value, datetime):
        iso = one.value.replace(tzinfo=None).isoformat()
        return list(dict.fromkeys((one.spelt, iso, iso.replace("T", " "))))
    if isinstance(one.value, str):
        return [one.value]
    return [one.value, one.spelt]


def _on_meta(connection: Connection, one: Condition) -> ColumnElement[bool]:
    if one.is_pattern:
        if set(one.spelt) == {"*"}:
            return true()
        fits = like(connection, meta.spelling_of(one.key), one.spelt)
    elif one.operator in (Operator.EQ, Operator.NE):
        fits = meta.is_one_of(connection, one.key, _equal_values(one))
    else:
        return _compared(*_ordered(connection, one))
    if one.operator is Operator.EQ:
        return fits
    return and_(meta.is_there(one.key), meta.otherwise(fits))


def _ordered(
    connection: Connection, one: Condition
) -> tuple[ColumnElement[Any], Operator, ColumnElement[Any]]:
    if isinstance(one.value, datetime):
        spelt = meta.instant_of(one.value.replace(tzinfo=None).isoformat())
        left, right = meta.ordered_instant(one.key, spelt or one.spelt)
    elif isinstance(one.value, str):
        left, right = meta.ordered_text(one.key, one.value)
    else:
        left, right = meta.ordered_number(connection, one.key, one.value)
    return left, one.operator, right


def _is_column(one: Condition) -> bool:
    return one.key in TEXTS | NUMBERS | FLAGS | INSTANTS


def _fits(connection: Connection, group: Group, types: frozenset[DidType]) -> ColumnElement[bool]:
    conditions = [
        _on_column(connection, one) if _is_column(one) else _on_meta(connection, one)
        for one in group.conditions
    ]
    if set(group.types) != types:
        conditions.append(_of_types(group.types))
    return and_(true(), *conditions)


def _chosen(connection: Connection, groups: Sequence[Group], query: Select[Any]) -> Select[Any]:
    wanted = frozenset(one for group in groups for one in group.types)
    query = query.where(_of_types(sorted(wanted)))
    keys = {one.key for group in groups for one in group.conditions}
    if "account" in keys:
        query = query.join(accounts, accounts.c.id == dids.c.account_id)
    if any(not _is_column(one) for group in groups for one in group.conditions):
        query = query.outerjoin(did_meta, did_meta.c.did_id == dids.c.id)
    return query.where(or_(false(), *(_fits(connection, group, wanted) for group in groups)))


def is_served_by_index(groups: Sequence[Group]) -> bool:
    """Whether each group has a condition that an index answers: a name, the prefix of one, or an equal value."""
    return all(any(_has_index(one) for one in group.conditions) for group in groups)


def _has_index(one: Condition) -> bool:
    if one.operator is not Operator.EQ:
        return False
    if one.key == "name":
        return one.spelt[:1] not in ("*", "?")
    return not (_is_column(one) or one.is_pattern)


def search(
    connection: Connection,
    scope_id: int,
    groups: Sequence[Group],
    *,
    recursive: bool = False,
    behind: str | None = None,
    limit: int | None = None,
) -> Select[Any]:
    """Query for the DIDs of a scope that one of several groups of conditions fits, in the order of their names.

    Parameters
    ----------
    groups
        At least one.
    recursive
        Also what lies below the collections that fit, at any depth and of any scope, as far as it is of a wanted type
        and the conditions other than those on the name hold of it too.
    behind
        Only names behind this one.
    limit
        At most so many.

    Returns
    -------
    Select
        Columns ``scope``, ``name``, ``type``, ``bytes``.
    """
    columns = (scopes.c.name.label("scope"), dids.c.name, dids.c.type, dids.c.bytes)
    query: Select[Any] = select(*columns).join(scopes, scopes.c.id == dids.c.scope_id)
    if recursive:
        query = _below(connection, query, scope_id, groups).order_by(scopes.c.name, dids.c.name)
    else:
        query = _chosen(connection, groups, query.where(dids.c.scope_id == scope_id)).order_by(dids.c.name)
    if behind is not None:
        query = query.where(dids.c.name > behind)
    return query if limit is None else query.limit(limit)


def _below(connection: Connection, query: Select[Any], scope_id: int, groups: Sequence[Group]) -> Select[Any]:
    anything = [Group(tuple(DidType), group.conditions) for group in groups]
    start = select(dids.c.id).where(dids.c.scope_id == scope_id)
    down = _chosen(connection, anything, start).cte("down", recursive=True)
    below = select(contents.c.child_id).join(down, contents.c.parent_id == down.c.id)
    if not any(DidType.FILE in group.types for group in groups):
        child = dids.alias("child")
        below = below.join(child, child.c.id == contents.c.child_id).where(child.c.type != DidType.FILE)
    down = down.union(below)
    elsewhere = [
        Group(group.types, tuple(one for one in group.conditions if one.key != "name")) for group in groups
    ]
    return _chosen(connection, elsewhere, query.where(dids.c.id.in_(select(down.c.id))))
