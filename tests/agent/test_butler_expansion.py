"""Data IDs completed from what a batch brings are those that the Butler would have made itself."""

from __future__ import annotations

import pytest
from lsst.daf.butler import DataCoordinate, DatasetRef

from arriero.agent.ingest.butler_expansion import Expander
from arriero.agent.ingest.butler_repository import open_repository

NIGHT = {
    ("group", ("LSSTComCam", "g")): {"instrument": "LSSTComCam", "name": "g"},
    ("day_obs", ("LSSTComCam", 20241108)): {"instrument": "LSSTComCam", "id": 20241108},
    ("exposure", ("LSSTComCam", 1)): {
        "instrument": "LSSTComCam",
        "id": 1,
        "obs_id": "one",
        "group": "g",
        "day_obs": 20241108,
        "physical_filter": "r_03",
    },
}


@pytest.fixture
def butler(sqlite_repository):
    with open_repository(sqlite_repository, writeable=True) as butler:
        yield butler


@pytest.fixture
def brought(butler):
    return {key: butler.dimensions[key[0]].RecordClass(**columns) for key, columns in NIGHT.items()}


@pytest.fixture
def ref(butler) -> DatasetRef:
    dataset_type = butler.get_dataset_type("raw")
    data_id = DataCoordinate.from_required_values(dataset_type.dimensions, ("LSSTComCam", 4, 1))
    return DatasetRef(dataset_type, data_id, run="LSSTComCam/raw/all")


def test_as_the_butler_has_it(butler, brought, ref):
    expander = Expander(butler)
    ours = expander.expanded(ref, brought)
    for (element, _), record in brought.items():
        butler.registry.insertDimensionData(element, record)
    theirs = butler.registry.expandDataId(ref.dataId)
    assert ours.id == ref.id
    assert ours.dataId.hasRecords()
    assert dict(ours.dataId.mapping) == dict(theirs.mapping)
    assert {e: ours.dataId.records[e] for e in theirs.dimensions.elements} == dict(theirs.records)


@pytest.mark.parametrize("lacking", [key for key, _ in NIGHT])
def test_what_lacks_a_record_is_left_to_the_butler(butler, brought, ref, lacking):
    expander = Expander(butler)
    some = {key: record for key, record in brought.items() if key[0] != lacking}
    assert expander.expanded(ref, some) is ref


def test_a_filter_that_comes_later_is_known_when_it_is_read_again(butler, brought, ref):
    expander = Expander(butler)
    name = butler.dimensions["physical_filter"]
    butler.registry.insertDimensionData(name, {"instrument": "LSSTComCam", "name": "y_99", "band": "y"})
    key = ("exposure", ("LSSTComCam", 1))
    later = brought | {key: brought[key].definition.RecordClass(**NIGHT[key] | {"physical_filter": "y_99"})}
    assert expander.expanded(ref, later) is ref
    expander.refresh()
    assert expander.expanded(ref, later).dataId["band"] == "y"
