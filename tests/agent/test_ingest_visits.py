"""Visits: defined in the call that completes their exposures, once, one by one and by group."""

from __future__ import annotations

import pytest
from lsst.sphgeom import LonLat, UnitVector3d

from arriero.agent.ingest.butler_repository import open_repository
from support.butler import DAY, arrivals, codes
from support.exposures import write_exposure


def visits(repository: str) -> dict[int, dict]:
    with open_repository(repository) as butler:
        rows = butler.query_dimension_records("visit", instrument="LSSTComCam", explain=False)
        return {row.id: row.toDict() for row in rows}


def test_a_visit_when_the_last_detector_is_there(repository, new_writer, tmp_path):
    files = arrivals(tmp_path, write_exposure(tmp_path, DAY, 266))
    bias = arrivals(
        tmp_path,
        write_exposure(tmp_path, DAY, 267, header={"IMGTYPE": "BIAS", "OBSTYPE": "BIAS"}),
        first_id=50,
    )
    writer = new_writer(repository)
    assert codes(writer.ingest(files[:8])) == {"ingested": 8}
    assert visits(repository) == {}
    # The other agent of this Butler brings the last one.
    outcomes = new_writer(repository).ingest([*bias, files[8]])
    assert codes(outcomes) == {"ingested": 10}
    assert "instrument=LSSTComCam,visit=2024110800266" in outcomes[0].provides
    found = visits(repository)
    assert list(found) == [2024110800266], "a bias is no visit"
    visit = found[2024110800266]
    assert (visit["name"], visit["physical_filter"], visit["day_obs"], visit["exposure_time"]) == (
        "CC_O_20241108_000266",
        "i_06",
        20241108,
        30.0,
    )
    assert visit["timespan"].begin.isot == "2024-11-09T02:56:40.000000"
    boresight = UnitVector3d(LonLat.fromDegrees(55.6, -27.8))
    assert visit["region"].contains(boresight)
    with open_repository(repository) as butler:
        regions = butler.query_dimension_records("visit_detector_region", instrument="LSSTComCam")
        assert len(regions) == 9
        (centre,) = [r.region for r in regions if r.detector == 4]
        assert centre.contains(boresight)
        members = butler.query_dimension_records("visit_system_membership", instrument="LSSTComCam")
        assert {(m.visit_system, m.visit) for m in members} == {(0, 2024110800266), (1, 2024110800266)}
        here = butler.query_dimension_records(
            "visit_detector_region",
            instrument="LSSTComCam",
            where="visit_detector_region.region OVERLAPS POINT(55.6, -27.8)",
        )
        assert [(r.visit, r.detector) for r in here] == [(2024110800266, 4)]
        data_ids = {"instrument": "LSSTComCam", "visit": 2024110800266}
        (definition,) = butler.query_dimension_records("visit_definition", **data_ids)
        assert definition.exposure == 2024110800266
    assert codes(new_writer(repository).ingest(files)) == {"ingested": 9}, (
        "again, and nothing is defined twice"
    )
    assert len(visits(repository)) == 1


def test_a_group_is_a_visit_when_all_its_exposures_are_there(sqlite_repository, new_writer, tmp_path):
    snaps = [
        write_exposure(
            tmp_path,
            DAY,
            300 + n,
            header={"GROUPID": "G1", "CURINDEX": n + 1, "MAXINDEX": 2, "FILTER": "r_03"},
        )
        for n in range(2)
    ]
    writer = new_writer(sqlite_repository)
    assert codes(writer.ingest(arrivals(tmp_path, snaps[0]))) == {"ingested": 9}
    assert set(visits(sqlite_repository)) == {2024110800300}
    writer.ingest(arrivals(tmp_path, snaps[1], first_id=50))
    found = visits(sqlite_repository)
    assert set(found) == {2024110800300, 2024110800301, 92024110800300}
    assert (found[92024110800300]["name"], found[92024110800300]["exposure_time"]) == ("G1", 60.0)
    with open_repository(sqlite_repository) as butler:
        rows = butler.query_dimension_records(
            "visit_definition", instrument="LSSTComCam", visit=92024110800300
        )
        assert {row.exposure for row in rows} == {2024110800300, 2024110800301}


def test_what_a_crash_left_undefined_is_made_good(sqlite_repository, new_writer, tmp_path, monkeypatch):
    """The agent dies between its write and the visits: its arrivals are claimed again."""
    files = arrivals(tmp_path, write_exposure(tmp_path, DAY, 266))
    writer = new_writer(sqlite_repository)
    with monkeypatch.context() as patch:
        patch.setattr(writer._completion, "look", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer.ingest(files)
    assert visits(sqlite_repository) == {}
    assert codes(new_writer(sqlite_repository).ingest(files)) == {"ingested": 9}
    assert set(visits(sqlite_repository)) == {2024110800266}
