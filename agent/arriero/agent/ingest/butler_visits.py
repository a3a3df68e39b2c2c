"""Visits, defined as exposures become complete.

Why it exists: `butler define-visits` is not on PyPI, looks at all exposures each time, and is run by hand. Here an
exposure whose detectors have all arrived becomes a visit in the call that brought the last of them. Records are
written as the universe defines them, by the public API; regions come from the nominal focal plane that the
instrument's declaration gives, not from a camera model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from lsst.daf.butler import Butler, Timespan
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from arriero.agent.ingest import butler_private as private
from arriero.agent.ingest.butler_records import RecordKey, RecordKeys, insert_records, made_records
from arriero.agent.ingest.butler_whole import whole_exposures
from arriero.agent.ingest.drafts import Columns
from arriero.agent.ingest.instrument import InstrumentMap, Visits
from arriero.agent.ingest.tai import TaiSpan
from arriero.registry.pages import pages_of

log = structlog.get_logger(__name__)

SYSTEMS = {"one-to-one": (0, "one-to-one"), "by-group": (1, "by-group-metadata")}
"""Ids and names of visit systems, as Rubin's packages number them."""

GROUP_PREFIX = "9"
"""Before the first exposure's number, in that of a visit of several: no exposure's own visit has such a number."""

QUERY_CHUNK = 1000

Grouped = list[tuple[int, str, list[int]]]
"""Visits: id, name, exposures."""


class Defined(NamedTuple):
    """Visits that were defined now, and those of each exposure that was looked at, whoever has defined them."""

    new: list[int]
    of_exposure: Mapping[int, list[int]]


class VisitDefiner:
    """Defines the visits of one instrument in one repository; remembers which it has defined.

    Parameters
    ----------
    butler
        Writeable.
    instrument
        Its `visits` and `complete_detectors` say what is wanted.
    """

    def __init__(self, butler: Butler, instrument: InstrumentMap) -> None:
        self._butler = butler
        self._instrument = instrument
        self._keys = RecordKeys(butler.dimensions)
        self._defined: set[int] = set()
        self._has_systems = False

    def define(self, whole: Iterable[int]) -> Defined:
        """Define the visits of exposures that have none yet.

        Parameters
        ----------
        whole
            Exposures of which the repository has all detectors (`arriero.agent.ingest.butler_whole`).

        Returns
        -------
        Defined
            Visits that were defined now, and by exposure those that it has.
        """
        wanted = self._instrument.visits
        universe = self._butler.dimensions
        complete = set(whole) - self._defined
        if wanted is None or not complete or "visit_definition" not in universe:
            return Defined([], {})
        exposures = self._science(complete, wanted)
        single = "one-to-one" in wanted.systems
        grouped = self._by_group(exposures) if "by-group" in wanted.systems else []
        visits: dict[int, tuple[str, list[int], set[str]]] = {}
        if single:
            visits = {id_: (row.obs_id, [id_], {"one-to-one"}) for id_, row in exposures.items()}
        for id_, name, members in grouped:
            if single and len(members) == 1:
                visits[id_][2].add("by-group")
            else:
                visits[id_] = (name, members, {"by-group"})
        new = self._without_defined(visits)
        if new:
            others = {e for _, ids, _ in new.values() for e in ids} - set(exposures)
            records = self._records(new, {**exposures, **self._exposures(others)}, wanted)
            with self._butler.transaction():
                insert_records(self._butler, made_records(self._butler.dimensions, records))
            self._has_systems = True
            log.info("visits defined", instrument=self._instrument.name, visits=len(new))
        if "by-group" not in wanted.systems:
            # With groups, an exposure may have to be looked at again when the others of its group are there.
            self._defined.update(complete)
        of_exposure: dict[int, list[int]] = {}
        for visit, (_, members, _) in visits.items():
            for exposure in members:
                of_exposure.setdefault(exposure, []).append(visit)
        return Defined(sorted(new), of_exposure)

    def _exposures(self, ids: Iterable[int], group: Sequence[str] = ()) -> dict[int, Any]:
        """Return records of exposures, by their ids or by their groups."""
        found: dict[int, Any] = {}
        column, values = ("group", sorted(group)) if group else ("exposure", sorted(ids))
        for page in pages_of(values, QUERY_CHUNK):
            rows = self._butler.query_dimension_records(
                "exposure",
                instrument=self._instrument.name,
                where=f"{column} IN (:values)",
                bind={"values": page},
                explain=False,
                limit=None,
            )
            found.update((row.id, row) for row in rows)
        return found

    def _science(self, ids: set[int], wanted: Visits) -> dict[int, Any]:
        """Return the records of those that look at the sky for science: only they have a place for a visit."""
        return {
            id_: row
            for id_, row in self._exposures(ids).items()
            if row.observation_type in wanted.observation_types
            and row.tracking_ra is not None
            and row.tracking_dec is not None
        }

    def _by_group(self, exposures: Mapping[int, Any]) -> Grouped:
        """Return the visits of the groups of which every exposure is complete."""
        groups = {row.group for row in exposures.values()}
        if not groups:
            return []
        members: dict[str, list[Any]] = {}
        for row in self._exposures((), tuple(groups)).values():
            members.setdefault(row.group, []).append(row)
        others = {row.id for rows in members.values() for row in rows} - set(exposures)
        complete = set(exposures) | set(
            whole_exposures(self._butler, self._instrument, {id_: set() for id_ in others})
        )
        grouped: Grouped = []
        for name, rows in members.items():
            rows.sort(key=lambda row: row.id)
            expected = max((row.seq_end or 0) - (row.seq_start or 0) + 1 for row in rows)
            if len(rows) >= expected and all(row.id in complete for row in rows):
                ids = [row.id for row in rows]
                if len(ids) == 1:
                    grouped.append((ids[0], rows[0].obs_id, ids))
                else:
                    grouped.append((int(f"{GROUP_PREFIX}{ids[0]}"), name, ids))
        return grouped

    def _without_defined(
        self, visits: Mapping[int, tuple[str, list[int], set[str]]]
    ) -> dict[int, tuple[str, list[int], set[str]]]:
        defined: set[int] = set()
        for page in pages_of(sorted(visits), QUERY_CHUNK):
            rows = self._butler.query_dimension_records(
                "visit",
                instrument=self._instrument.name,
                where="visit IN (:visits)",
                bind={"visits": page},
                explain=False,
                limit=None,
            )
            defined.update(row.id for row in rows)
        return {id_: visit for id_, visit in visits.items() if id_ not in defined}

    def _records(
        self,
        visits: Mapping[int, tuple[str, list[int], set[str]]],
        exposures: Mapping[int, Any],
        wanted: Visits,
    ) -> dict[RecordKey, Columns]:
        instrument = {"instrument": self._instrument.name}
        records: list[tuple[str, Columns]] = []
        if not self._has_systems:
            # Once: for each record of this kind the Butler forgets all detectors and filters that it keeps.
            records += [
                ("visit_system", {**instrument, "id": SYSTEMS[name][0], "name": SYSTEMS[name][1]})
                for name in wanted.systems
            ]
        for id_, (name, members, systems) in visits.items():
            rows = [exposures[member] for member in members]
            regions = _regions(rows[0], wanted)
            visit = {**instrument, **_visit_columns(rows), "id": id_, "name": name}
            if regions:
                corners = [v for region in regions.values() for v in region.getVertices()]
                visit["region"] = ConvexPolygon.convexHull(corners)
            records.append(("visit", visit))
            records += [
                ("visit_definition", {**instrument, "exposure": member, "visit": id_}) for member in members
            ]
            records += [
                (
                    "visit_system_membership",
                    {**instrument, "visit_system": SYSTEMS[system][0], "visit": id_},
                )
                for system in systems
            ]
            records += [
                (
                    "visit_detector_region",
                    {**instrument, "visit": id_, "detector": detector, "region": region},
                )
                for detector, region in regions.items()
            ]
        universe = self._butler.dimensions
        keyed: dict[RecordKey, Columns] = {}
        for element, record in records:
            if element in universe:
                known = set(universe[element].RecordClass.fields.names)
                columns = {column: value for column, value in record.items() if column in known}
                keyed[self._keys.own(element, columns)] = columns
        return keyed


def _visit_columns(rows: Sequence[Any]) -> dict[str, Any]:
    """Return what the exposures of a visit have in common, their times together; what differs is not said."""
    spans = [private.tai_span(row.timespan) for row in rows if isinstance(row.timespan, Timespan)]
    columns: dict[str, Any] = {
        column: getattr(rows[0], column)
        for column in ("physical_filter", "day_obs", "seq_num", "azimuth", "zenith_angle")
    }
    for column in ("target_name", "observation_reason", "science_program"):
        said = {getattr(row, column) for row in rows}
        columns[column] = said.pop() if len(said) == 1 else "various"
    times = [row.exposure_time for row in rows]
    columns["exposure_time"] = None if None in times else math.fsum(times)
    if spans:
        columns["timespan"] = TaiSpan(min(s.begin_ns for s in spans), max(s.end_ns for s in spans))
    return columns


def _regions(row: Any, wanted: Visits) -> dict[int, ConvexPolygon]:
    """Return the nominal regions of the detectors on the sky, by detector; none without a declared focal plane."""
    if wanted.detector_size_deg is None:
        return {}
    boresight = UnitVector3d(LonLat.fromDegrees(row.tracking_ra, row.tracking_dec))
    east = UnitVector3d.orthogonalTo(UnitVector3d.Z(), boresight)
    north = UnitVector3d.orthogonalTo(boresight, east)
    angle = math.radians(row.sky_angle or 0.0)
    half_width, half_height = (size / 2 for size in wanted.detector_size_deg)
    regions = {}
    for detector, (x, y) in wanted.detector_centres_deg.items():
        corners = []
        for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            u, v = math.radians(x + dx * half_width), math.radians(y + dy * half_height)
            to_east = u * math.cos(angle) + v * math.sin(angle)
            to_north = v * math.cos(angle) - u * math.sin(angle)
            corners.append(
                UnitVector3d(
                    boresight.x() + to_east * east.x() + to_north * north.x(),
                    boresight.y() + to_east * east.y() + to_north * north.y(),
                    boresight.z() + to_east * east.z() + to_north * north.z(),
                )
            )
        regions[detector] = ConvexPolygon.convexHull(corners)
    return regions
