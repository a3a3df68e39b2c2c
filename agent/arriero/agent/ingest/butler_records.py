"""Dimension records by their keys: what a data ID and a record need, what a repository has, and how the two differ.

Why it exists: the Butler says `LookupError` or a foreign key's name when a record is missing, after the batch is
lost, and an insert that skips what is there hides what differs. So both are asked before. Any universe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lsst.daf.butler import Butler, DimensionElement, DimensionRecord, DimensionUniverse, Timespan
from lsst.sphgeom import Region

from arriero.agent.ingest import butler_private as private
from arriero.agent.ingest.drafts import Columns
from arriero.agent.ingest.tai import TaiSpan
from arriero.registry.pages import pages_of

QUERY_CHUNK = 1000
"""Keys per query; each is a bound parameter or a literal, of which databases take tens of thousands."""

RecordKey = tuple[str, tuple[str | int, ...]]
"""Element, and the values of the dimensions that it requires."""


_Plan = tuple[tuple[str, tuple[str, ...]], ...]
"""Elements, each with the columns that make its key."""


class RecordKeys:
    """Keys of records in one universe."""

    def __init__(self, universe: DimensionUniverse) -> None:
        self._universe = universe
        self._own: dict[str, tuple[str, ...]] = {}
        self._needs: dict[str, _Plan] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def has_table(self, element: str) -> bool:
        """Return whether an element has records of its own: a band or a pixel of the sky has none."""
        if element in self._universe.skypix_dimensions.names:
            return False
        return bool(self._universe[element].has_own_table)

    def own(self, element: str, record: Columns) -> RecordKey:
        """Return a record's own key."""
        columns = self._own.get(element)
        if columns is None:
            known = self._universe[element]
            own = known.primary_key.name if element in self._universe.dimensions.names else None
            columns = tuple(own if name == element and own else name for name in known.required.names)
            self._own[element] = columns
        return element, tuple(record[column] for column in columns)

    def needs(self, element: str, record: Columns) -> list[RecordKey]:
        """Return the keys of the records that a record refers to, parents first."""
        wanted = self._needs.get(element)
        if wanted is None:
            known = self._universe[element]
            wanted = tuple(
                (name, tuple(self._universe[name].required.names))
                for name in known.dimensions.names
                if name != element and self.has_table(name)
            )
            self._needs[element] = wanted
        own = self._universe[element]
        names = {element: record.get(own.primary_key.name)} if element in own.dimensions.names else {}
        keys: list[RecordKey] = []
        for name, columns in wanted:
            values: tuple[Any, ...] = tuple(names.get(column, record.get(column)) for column in columns)
            if None not in values:
                keys.append((name, values))
        return keys

    def of_data_id(self, dimensions: tuple[str, ...], data_id: Columns) -> list[RecordKey]:
        """Return the keys of the records that a data ID refers to, parents first.

        Raises
        ------
        LookupError
            If it lacks a value, or names a dimension that the universe does not have.
        """
        plan = self._plans.get(dimensions)
        if plan is None:
            group = self._universe.conform(dimensions)
            plan = self._plans[dimensions] = tuple(
                (name, tuple(self._universe[name].required.names))
                for name in group.required
                if self.has_table(name)
            )
        return [(name, tuple(data_id[column] for column in columns)) for name, columns in plan]

    def named(self, key: RecordKey) -> str:
        """Return a key as ``instrument=HSC,exposure=904010``, as a parked arrival names what it waits for."""
        element, values = key
        names = self._universe[element].required.names
        if element not in names:
            return f"{element}," + ",".join(f"{n}={v}" for n, v in zip(names, values, strict=True))
        return ",".join(f"{n}={v}" for n, v in zip(names, values, strict=True))


def found_records(butler: Butler, keys: Iterable[RecordKey]) -> dict[RecordKey, Any]:
    """Return those of the records that a repository has, in one query for each element and thousand keys."""
    grouped: dict[tuple[str, object], list[RecordKey]] = {}
    for key in keys:
        grouped.setdefault((key[0], key[1][0] if key[1] else None), []).append(key)
    found: dict[RecordKey, Any] = {}
    for (element, _), group in grouped.items():
        definition = butler.dimensions[element]
        wanted = sorted(set(group), key=lambda key: str(key[1]))
        for page in pages_of(wanted, QUERY_CHUNK):
            found.update(_query(butler, definition, page))
    return found


def _query(butler: Butler, element: DimensionElement, keys: Sequence[RecordKey]) -> dict[RecordKey, Any]:
    names = tuple(element.required.names)
    conditions, bound = [], {}
    data_id: dict[str, Any] = {}
    for place, name in enumerate(names):
        values = sorted({key[1][place] for key in keys}, key=str)
        if len(values) == 1:
            data_id[name] = values[0]
        else:
            conditions.append(f"{name} IN (:v{place})")
            bound[f"v{place}"] = values
    rows = butler.query_dimension_records(
        element.name, data_id=data_id, where=" AND ".join(conditions), bind=bound, explain=False, limit=None
    )
    wanted = set(keys)
    found = {(element.name, tuple(row.dataId.required_values)): row for row in rows}
    return {key: row for key, row in found.items() if key in wanted}


def made_records(
    universe: DimensionUniverse, records: Mapping[RecordKey, Columns]
) -> dict[RecordKey, DimensionRecord]:
    """Return records as the Butler has them, in an order in which two writers never wait for each other."""
    return {
        key: universe[key[0]].RecordClass(**_values(records[key]))
        for key in sorted(records, key=lambda key: (key[0], str(key[1])))
    }


def insert_records(butler: Butler, records: Mapping[RecordKey, DimensionRecord]) -> set[str]:
    """Insert what the repository lacks, in the order of `made_records`; return the elements of which it had some."""
    by_element: dict[str, list[DimensionRecord]] = {}
    for (element, _), record in records.items():
        by_element.setdefault(element, []).append(record)
    return {
        element.name
        for element in butler.dimensions.sorted(by_element)
        if not private.insert_lacking(butler, element, by_element[element.name])
    }


def different_records(butler: Butler, records: Mapping[RecordKey, Columns]) -> dict[RecordKey, str]:
    """Return the records of which the repository has others, with the difference as a sentence."""
    told = {key: record for key, record in records.items() if len(record) > len(key[1])}
    found = found_records(butler, told)
    differences = {key: difference(told[key], row) for key, row in found.items()}
    return {key: said for key, said in differences.items() if said is not None}


def _values(record: Columns) -> dict[str, Any]:
    return {
        column: private.timespan(value) if isinstance(value, TaiSpan) else value
        for column, value in record.items()
    }


def difference(record: Columns, found: Any) -> str | None:
    """Return the columns in which a repository's record is another, as a sentence; None if in none."""
    different = []
    for column, wanted in record.items():
        has: Any = getattr(found, column)
        if isinstance(has, Timespan) and isinstance(wanted, TaiSpan):
            has = private.tai_span(has)
        if not _same(wanted, has):
            different.append(f"{column} is {has!r}, the file says {wanted!r}")
    return "; ".join(different) or None


def _same(wanted: Any, has: Any) -> bool:
    if isinstance(wanted, float) and isinstance(has, float | int):
        return math.isclose(wanted, has, rel_tol=1e-9, abs_tol=1e-12)
    return bool(wanted == has)


def columns_of(record: DimensionRecord) -> dict[str, Any]:
    """Return a record of a Butler as all others have it here: in one batch it may meet the same one from a header."""
    return {
        column: private.tai_span(value) if isinstance(value, Timespan) else value
        for column, value in record.toDict().items()
    }


def decoded(universe: DimensionUniverse, element: str, columns: Columns) -> dict[str, Any]:
    """Return a record as the repository's universe has it, from JSON or from values: what it does not know is left out.

    Raises
    ------
    LookupError, TypeError, ValueError
        If the universe has no such element, or a value cannot be read.
    """
    known = set(universe[element].RecordClass.fields.names)
    values = {column: value for column, value in columns.items() if column in known}
    span, region = values.get("timespan"), values.get("region")
    if isinstance(span, list | tuple):
        begin, end = span
        values["timespan"] = TaiSpan(int(begin), int(end))
    if isinstance(region, str):
        values["region"] = Region.decode(bytes.fromhex(region))
    for column, value in values.items():
        if isinstance(value, dict | list):
            raise TypeError(f"{element}.{column} is {value!r}")
    return values
