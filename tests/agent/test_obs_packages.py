"""An obs package that is installed: its translator and its class are asked, and not the declaration."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from pathlib import Path

import pytest
from astro_metadata_translator import MetadataTranslator

from arriero.agent.ingest.butler_repository import create_repository, open_repository
from arriero.agent.ingest.butler_writer import ButlerWriter
from support.butler import arrivals, codes
from support.headers import write_fits

PACKAGE = '''
import astropy.units as u
from astro_metadata_translator import StubTranslator
from astropy.coordinates import Angle, SkyCoord
from astropy.time import Time, TimeDelta


class FakeTranslator(StubTranslator):
    """Headers that no declaration reads."""

    name = "FakeCam"
    supported_instrument = "FakeCam"
    _const_map = {
        "boresight_rotation_coord": "sky",
        "observation_reason": "survey",
        "has_simulated_content": False,
        "can_see_sky": True,
        "altaz_begin": None,
        "dark_time": None,
        "exposure_time": 30 * u.s,
        "boresight_rotation_angle": Angle(10 * u.deg),
        "observing_day_offset": TimeDelta(43200, format="sec"),
    }
    _trivial_map = {
        "exposure_id": "EXPO",
        "detector_num": "CHIP",
        "physical_filter": "GLASS",
        "observation_id": "TITLE",
        "exposure_group": "TITLE",
        "observation_type": "SORT",
        "observation_counter": "COUNT",
        "group_counter_start": "COUNT",
        "group_counter_end": "COUNT",
        "object": "TARGET",
        "science_program": "PROPOSAL",
        "observing_day": "NIGHT",
    }

    @classmethod
    def can_translate(cls, header, filename=None):
        return header.get("CAMERA") == "FAKE"

    def to_datetime_begin(self):
        return Time(self._header["BEGIN"], scale="tai")

    def to_datetime_end(self):
        return Time(self._header["BEGIN"], scale="tai") + TimeDelta(30, format="sec")

    def to_tracking_radec(self):
        return SkyCoord(self._header["LON"] * u.deg, self._header["LAT"] * u.deg)


def register_translators():
    return ["fake_obs.FakeTranslator"]


class FakeCam:
    """Has one filter and two detectors of which the declaration knows nothing."""

    def register(self, registry, *, update=False):
        record = {"name": "FakeCam", "detector_max": 2, "class_name": "fake_obs.FakeCam", "exposure_max": 10**9}
        registry.syncDimensionData("instrument", {**record, "visit_max": 10**9})
        for id_ in (70, 71):
            names = {"full_name": f"chip{id_}", "raft": "R", "name_in_raft": str(id_), "purpose": "SCIENCE"}
            registry.syncDimensionData("detector", {"instrument": "FakeCam", "id": id_, **names})
        glass = {"instrument": "FakeCam", "name": "glass", "band": "r"}
        registry.syncDimensionData("physical_filter", glass)
'''

HEADER = {
    "CAMERA": "FAKE",
    "EXPO": 42,
    "GLASS": "glass",
    "TITLE": "fake-42",
    "SORT": "science",
    "COUNT": 7,
    "TARGET": "M31",
    "PROPOSAL": "o1",
    "NIGHT": 20241108,
    "BEGIN": "2024-11-09T02:00:00",
    "LON": 10.5,
    "LAT": 41.25,
}

SHIPPED = Path(importlib.import_module("arriero.agent").__path__[0]) / "instruments" / "lsstcomcam.yaml"


@pytest.fixture
def declaration(tmp_path: Path) -> str:
    """LSSTComCam under another name: its fields fit none of these headers."""
    text = SHIPPED.read_text()
    text = text.replace("name: LSSTComCam", "name: FakeCam").replace(
        "lsst.obs.lsst.LsstComCam\n", "fake_obs.FakeCam\n"
    )
    lines = text.splitlines()
    lines = [r"file_name: 'fake_\d+_\d+\.fits'" if line.startswith("file_name:") else line for line in lines]
    path = tmp_path / "fakecam.yaml"
    path.write_text("\n".join(lines).replace("LSSTComCam/raw/all", "FakeCam/raw/all"))
    return str(path)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the package, for this test."""
    site = tmp_path / "site"
    metadata = site / "fake_obs-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "fake_obs.py").write_text(textwrap.dedent(PACKAGE))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-obs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[astro_metadata_translators]\nfake_obs = fake_obs:register_translators\n"
        "broken = fake_obs:no_such_function\n"
    )
    known = dict(MetadataTranslator.translators)
    monkeypatch.syspath_prepend(str(site))
    yield
    MetadataTranslator.translators.clear()
    MetadataTranslator.translators.update(known)
    sys.modules.pop("fake_obs", None)


def raws(root: Path) -> list[Path]:
    return [write_fits(root / "night" / f"fake_42_{chip}.fits", HEADER | {"CHIP": chip}) for chip in (70, 71)]


@pytest.mark.usefixtures("package")
def test_what_is_installed_says_what_a_raw_is(declaration, tmp_path, new_writer):
    repository = create_repository(str(tmp_path / "repo"), declaration)
    files = arrivals(tmp_path / "files", raws(tmp_path / "files"))
    # of one of them the header stands in an index
    index = {"__CONTENT__": "metadata", "__COMMON__": HEADER, "fake_42_70.fits": {"CHIP": 70}}
    (tmp_path / "files" / "night" / "_index.json").write_text(json.dumps(index))
    writer = new_writer(repository, declaration)
    assert codes(outcomes := writer.ingest(files)) == {"ingested": 2}, outcomes
    with open_repository(repository) as butler:
        detectors = butler.query_dimension_records("detector", instrument="FakeCam")
        assert {one.full_name for one in detectors} == {"chip70", "chip71"}, "as its class registers them"
        [exposure] = butler.query_dimension_records("exposure", instrument="FakeCam")
        assert (exposure.id, exposure.obs_id, exposure.day_obs, exposure.group) == (
            42,
            "fake-42",
            20241108,
            "fake-42",
        )
        assert (exposure.target_name, exposure.science_program, exposure.seq_num) == ("M31", "o1", 7)
        assert (exposure.tracking_ra, exposure.tracking_dec, exposure.sky_angle) == (10.5, 41.25, 10.0)
        assert exposure.timespan.begin.isot.startswith("2024-11-09T02:00:00.000")
        assert exposure.exposure_time == 30.0
        [day] = butler.query_dimension_records("day_obs", instrument="FakeCam")
        assert day.timespan.begin.isot.startswith("2024-11-08T12:00:00")
        got = butler.get("raw", instrument="FakeCam", exposure=42, detector=71, collections="FakeCam/raw/all")
        assert got[0].header["TARGET"] == "M31"
    (strange,) = arrivals(
        tmp_path, [write_fits(tmp_path / "fake_43_70.fits", {"CAMERA": "FAKE", "CHIP": 70})]
    )
    (refused,) = writer.ingest([strange])
    assert (refused.code, "FakeTranslator" in (refused.reason or "")) == ("bad_header", True)


def test_without_it_the_declaration_counts(declaration, tmp_path):
    repository = create_repository(str(tmp_path / "repo"), declaration)
    writer = ButlerWriter(repository, [declaration])
    outcomes = writer.ingest(arrivals(tmp_path / "files", raws(tmp_path / "files")))
    writer.close()
    assert codes(outcomes) == {"bad_header": 2}, "it reads other keywords"
    with open_repository(repository) as butler:
        assert len(butler.query_dimension_records("detector", instrument="FakeCam")) == 9
