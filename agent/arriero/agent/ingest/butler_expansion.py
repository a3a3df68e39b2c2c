"""Attaches dimension records to data IDs, from what a batch brings and what every batch needs.

Why it exists: the Butler looks the records of each data ID up one by one, a quarter of the time that a large batch
takes, although the batch has just brought them. A data ID that cannot be completed here is left to the Butler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from lsst.daf.butler import Butler, DataCoordinate, DatasetRef, DimensionGroup, DimensionRecord

from arriero.agent.ingest.butler_records import RecordKey

_Values = Callable[[Mapping[str, Any]], tuple[Any, ...]]

_Plan = tuple[tuple[str, _Values, tuple[str, ...]], ...]
"""Elements in the order in which each is known by those before it, with what takes the values that it requires, and the dimensions that it implies."""


class Expander:
    """Knows the records that are few and seldom change: instruments, detectors, filters."""

    def __init__(self, butler: Butler) -> None:
        self._butler = butler
        self._plans: dict[DimensionGroup, _Plan] = {}
        self.fixed: dict[RecordKey, DimensionRecord] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read them again."""
        cached = [element.name for element in self._butler.dimensions.elements if element.is_cached]
        self.fixed = {
            (name, tuple(row.dataId.required_values)): row
            for name in cached
            for row in self._butler.query_dimension_records(name, limit=None, explain=False)
        }

    def expanded(self, ref: DatasetRef, brought: Mapping[RecordKey, DimensionRecord]) -> DatasetRef:
        """Return a reference whose data ID has its records, or the reference itself if one is not known here."""
        data_id: DataCoordinate = ref.dataId
        values = dict(data_id.required)
        records: dict[str, DimensionRecord] = {}
        for element, required, implied in self._plan(data_id.dimensions):
            key = element, required(values)
            record = brought.get(key) or self.fixed.get(key)
            if record is None:
                return ref
            records[element] = record
            for name in implied:
                values[name] = record.get(name)
        return ref.expanded(data_id.expanded(records))

    def _plan(self, dimensions: DimensionGroup) -> _Plan:
        plan = self._plans.get(dimensions)
        if plan is None:
            elements = (dimensions.universe[name] for name in dimensions.lookup_order)
            plan = self._plans[dimensions] = tuple(
                (e.name, _taken(tuple(e.minimal_group.required)), tuple(e.implied.names)) for e in elements
            )
        return plan


def _taken(names: tuple[str, ...]) -> _Values:
    """Return what takes the values of these names as a tuple, whatever their number."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)
