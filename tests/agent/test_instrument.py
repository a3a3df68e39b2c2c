from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from arriero.agent.ingest import instrument as module
from arriero.agent.ingest.errors import HeaderError, InstrumentMapError, MissingDimension
from arriero.agent.ingest.instrument import load_instrument, parse_instrument
from arriero.agent.ingest.tai import TaiSpan

SHIPPED = Path(module.__file__).parents[1] / "instruments"
COMCAM = load_instrument("LSSTComCam")


@pytest.fixture
def header(night) -> dict:
    index = json.loads((night[1][0].parent / "_index.json").read_text())
    return {**index["__COMMON__"], **index[night[1][0].name]}


@pytest.fixture
def content() -> dict:
    return yaml.safe_load((SHIPPED / "lsstcomcam.yaml").read_text())


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_maps_are_valid_and_found_by_name(path):
    assert load_instrument(path).name == load_instrument(path.stem).name
    # PFS has one map for each of its vocabularies.
    assert path.stem.startswith(load_instrument(path).name.lower())


def test_comcam_identity():
    assert COMCAM.instrument.exposure_max == 7050123199999
    assert {d.full_name: d.id for d in COMCAM.detectors} == {
        f"R22_S{row}{column}": 3 * row + column for row in range(3) for column in range(3)
    }
    assert COMCAM.complete_detectors == set(range(9))
    assert COMCAM.recognises("LSSTComCam/20241108/CC_O_20241108_000266/CC_O_20241108_000266_R22_S00.fits")
    for other in ("CC_O_20241108_000266_R22_S00.json", "_index.json", "CC_O_20241108_000266_R01_S00.fits"):
        assert not COMCAM.recognises(other)


def test_header_becomes_data_id_and_records(header):
    description = COMCAM.describe(header)
    assert description.data_id == {"instrument": "LSSTComCam", "exposure": 2024110800266, "detector": 0}
    assert list(description.records) == ["group", "day_obs", "exposure"]
    assert description.records["group"] == {"instrument": "LSSTComCam", "name": "2024-11-09T02:56:38.000"}
    noon = 1731067200_000_000_000
    assert description.records["day_obs"] == {
        "instrument": "LSSTComCam",
        "id": 20241108,
        "timespan": TaiSpan(noon, noon + 86_400_000_000_000),
    }
    assert description.records["exposure"] == {
        "instrument": "LSSTComCam",
        "id": 2024110800266,
        "obs_id": "CC_O_20241108_000266",
        "physical_filter": "i_06",
        "group": "2024-11-09T02:56:38.000",
        "day_obs": 20241108,
        "timespan": TaiSpan(1731121000_000_000_000, 1731121030_500_000_000),
        "exposure_time": 30.0,
        "dark_time": 30.45,
        "observation_type": "science",
        "observation_reason": "field_survey_science",
        "seq_num": 266,
        "seq_start": 266,
        "seq_end": 266,
        "target_name": "ECDFS",
        "science_program": "BLOCK-320",
        "tracking_ra": 55.6,
        "tracking_dec": -27.8,
        "sky_angle": 195.0,
        "azimuth": 154.0,
        "zenith_angle": 24.0,
        "has_simulated": False,
        "can_see_sky": True,
    }


def test_bias_has_no_place_on_the_sky(header):
    bias = header | {
        "IMGTYPE": "BIAS",
        "RA": None,
        "DEC": None,
        "ROTPA": None,
        "FILTER": None,
        "GROUPID": None,
    }
    record = COMCAM.describe(bias).records["exposure"]
    assert record["observation_type"] == "bias"
    assert record["tracking_ra"] is None
    assert record["can_see_sky"] is False
    assert record["physical_filter"] == "unknown"
    assert record["group"] == "CC_O_20241108_000266"


@pytest.mark.parametrize("key", ["DAYOBS", "SEQNUM", "OBSID", "DATE-BEG", "EXPTIME", "IMGTYPE", "RAFTBAY"])
def test_missing_keyword_is_named(header, key):
    header = {k: v for k, v in header.items() if k not in {key, key.replace("DATE", "MJD"), "OBSTYPE"}}
    with pytest.raises(HeaderError, match=key):
        COMCAM.describe(header)


def test_unknown_detector_is_waited_for(header):
    with pytest.raises(MissingDimension) as caught:
        COMCAM.describe(header | {"CCDSLOT": "S33"})
    assert caught.value.waits_for == "instrument=LSSTComCam,detector=R22_S33"


def test_a_header_never_gets_what_its_neighbour_says(header):
    one = COMCAM.describe(header)
    for key, value in (("OBJECT", "other"), ("EXPTIME", 31.0), ("SEQNUM", 267), ("CCDSLOT", "S11")):
        assert COMCAM.describe(header | {key: value}) != one
    assert COMCAM.describe(dict(header)) == one


simple = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
anything = st.recursive(simple, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


@settings(deadline=None)  # astropy is slow the first time
@given(st.dictionaries(st.sampled_from(COMCAM.header_keys), anything))
def test_any_header_gives_a_description_or_a_reason(changes):
    base = {
        "DAYOBS": "20241108", "SEQNUM": 1, "OBSID": "x", "IMGTYPE": "BIAS", "RAFTBAY": "R22", "CCDSLOT": "S00",
        "DATE-BEG": "2024-11-09T00:00:00", "DATE-END": "2024-11-09T00:00:01", "EXPTIME": 1,
    }  # fmt: skip
    with contextlib.suppress(HeaderError):
        description = COMCAM.describe(base | changes)
        assert description.data_id["exposure"] == description.records["exposure"]["id"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(extra=1), "extra"),
        (lambda c: c.pop("detectors"), "detectors"),
        (lambda c: c["fields"].update(bad={"as": "exec", "key": "A"}), "fields.bad"),
        (lambda c: c["fields"].update(bad={"as": "concat", "fields": ["later"]}), "later"),
        (lambda c: c["records"]["group"].update(name="nowhere"), "nowhere"),
        (lambda c: c.update(file_name="("), "regular expression"),
        (lambda c: c.update(complete_detectors=[99]), "99"),
        (lambda c: c["visits"].update(at="first"), "whole"),
        (lambda c: c["detectors"].append(c["detectors"][0]), "full_name"),
        (lambda c: c["dataset_type"].update(dimensions=["instrument", "visit", "detector"]), "dimensions"),
    ],
)
def test_a_wrong_map_is_refused_and_says_where(content, change, said):
    change(content)
    with pytest.raises(InstrumentMapError, match=said):
        parse_instrument(yaml.safe_dump(content, sort_keys=False), "a map")


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system [id]", "a: [", "- 1", ""])
def test_what_is_no_map_is_refused(text):
    with pytest.raises(InstrumentMapError):
        parse_instrument(text, "a map")


@pytest.mark.parametrize("name", ["nosuchcam", "../lsstcomcam", "/etc/none.yaml"])
def test_unknown_map(name):
    with pytest.raises(InstrumentMapError, match=name):
        load_instrument(name)
