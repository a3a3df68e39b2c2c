"""The contract with the pinned lsst-daf-butler: fails first when an update moves what is private."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from uuid import UUID

import pytest
from lsst.daf.butler import DataCoordinate, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.datastore.constraints import Constraints, ConstraintsConfig
from lsst.daf.butler.datastores.fileDatastore import FileDatastore
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.resources import ResourcePath
from sqlalchemy import Engine, event

from arriero.agent.ingest import butler_private as private
from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.ingest.tai import TaiSpan

PINNED = "30.2026.4300"


@pytest.fixture
def butler(repository):
    butler = open_repository(repository, writeable=True)
    butler.registry.insertDimensionData("group", {"instrument": "LSSTComCam", "name": "g"})
    butler.registry.insertDimensionData("day_obs", {"instrument": "LSSTComCam", "id": 20241108})
    butler.registry.insertDimensionData(
        "exposure",
        {
            "instrument": "LSSTComCam",
            "id": 1,
            "obs_id": "one",
            "group": "g",
            "day_obs": 20241108,
            "physical_filter": "r_03",
        },
    )
    yield butler
    butler.close()


@pytest.fixture
def ref(butler) -> DatasetRef:
    data_id = butler.registry.expandDataId(instrument="LSSTComCam", exposure=1, detector=0)
    return DatasetRef(butler.get_dataset_type("raw"), data_id, run="LSSTComCam/raw/all")


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """What the Butler asks a storage about."""
    calls: list[str] = []
    for name in ("exists", "size", "read", "mexists"):

        def ask(self, *args, name=name, **kwargs):
            calls.append(f"{name} {self}")
            raise AssertionError(f"{name} of {self} within the transaction")

        monkeypatch.setattr(ResourcePath, name, ask)
        monkeypatch.setattr(type(ResourcePath("file:///x")), name, ask)
    return calls


def test_the_pinned_version_is_installed():
    assert version("lsst-daf-butler") == PINNED


def test_known_sizes_keep_the_storage_out_of_the_transaction(butler, ref, asked):
    private.trust(butler)
    path = ResourcePath("file:///nowhere/at%20all.fits")
    with private.known_sizes({str(path): 4711}):
        butler.ingest(FileDataset(path, [ref]), transfer="direct")
    assert not asked
    stored = private.stored_files(butler, [ref])
    assert stored == {ref.id: private.StoredFile("file:///nowhere/at%20all.fits", 4711)}
    assert isinstance(ref.id, UUID)


def test_without_a_known_size_the_storage_is_asked(butler, ref):
    private.trust(butler)
    with private.known_sizes({}), pytest.raises(FileNotFoundError):
        butler.ingest(FileDataset("file:///nowhere.fits", [ref]), transfer="direct")
    assert private.stored_files(butler, [ref]) == {}


def test_an_untrusted_butler_asks(butler, ref):
    with private.known_sizes({"file:///nowhere.fits": 1}), pytest.raises(FileNotFoundError):
        butler.ingest(FileDataset("file:///nowhere.fits", [ref]), transfer="direct")


def test_relative_paths_are_refused(butler, ref):
    private.trust(butler)
    with private.known_sizes({"here.fits": 1}), pytest.raises(ValueError, match="absolute"):
        butler.ingest(FileDataset("here.fits", [ref]), transfer="direct")


def test_trust_is_for_file_datastores_and_twice_is_once(butler):
    private.trust(butler)
    private.trust(butler)
    assert isinstance(butler._datastore, private.TrustingFileDatastore)
    butler._datastore.__class__ = type("Other", (FileDatastore,), {})
    with pytest.raises(TypeError, match="Other"):
        private.trust(butler)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What databases are told."""
    statements: list[str] = []

    def keep(_connection, _cursor, statement, *_rest):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", keep)
    yield statements
    event.remove(Engine, "before_cursor_execute", keep)


def ingest(butler, ref, *, new: bool) -> None:
    path = ResourcePath("file:///somewhere.fits")
    with private.known_sizes({str(path): 6}), private.all_new(new):
        butler.ingest(FileDataset(path, [ref]), transfer="direct")


@pytest.mark.parametrize("new", [True, False])
def test_what_is_new_needs_no_temporary_table(butler, ref, said, new):
    private.trust(butler)
    ingest(butler, ref, new=new)
    assert any("CREATE TEMPORARY TABLE" in statement for statement in said) is not new
    assert butler.get_dataset(ref.id).dataId == ref.dataId
    assert butler.collections.get_info("LSSTComCam/raw/all", include_summary=True).dataset_types == {"raw"}


def test_what_is_not_new_after_all_is_in_conflict(butler, ref):
    private.trust(butler)
    ingest(butler, ref, new=True)
    butler.pruneDatasets([ref], disassociate=False, unstore=True)
    with pytest.raises(ConflictingDefinitionError):
        ingest(butler, ref, new=True)
    ingest(butler, ref, new=False)
    assert private.stored_files(butler, [ref])[ref.id].bytes == 6


def test_a_data_id_without_its_records_is_refused_although_it_is_new(butler, ref):
    private.trust(butler)
    data_id = DataCoordinate.standardize(ref.dataId, exposure=2, universe=butler.dimensions)
    alien = DatasetRef(ref.datasetType, data_id, run=ref.run)
    with pytest.raises((ConflictingDefinitionError, LookupError)):
        ingest(butler, alien, new=True)


def test_inserting_tells_whether_the_repository_had_some(butler):
    element = butler.dimensions["group"]
    made = [element.RecordClass(instrument="LSSTComCam", name=name) for name in ("a", "b", "c")]
    assert private.insert_lacking(butler, element, made[:2])
    assert not private.insert_lacking(butler, element, made)
    assert not private.insert_lacking(butler, element, made)
    assert len(butler.query_dimension_records("group", instrument="LSSTComCam", explain=False)) == 4


def test_constraints_are_the_same_when_they_are_remembered(butler, ref):
    universe = butler.dimensions
    other = DatasetType("flat", ref.datasetType.dimensions, "StructuredDataDict", universe=universe)
    refs = [ref, DatasetRef(other, ref.dataId, run=ref.run)]
    for rules in (
        {},
        {"accept": ["raw"]},
        {"reject": ["raw"]},
        {"reject": [{"instrument<LSSTComCam>": ["flat"]}]},
    ):
        config = ConstraintsConfig({"constraints": rules})
        plain, remembered = (
            kind(config, universe=universe) for kind in (Constraints, private.RememberedConstraints)
        )
        expected = [plain.isAcceptable(one) for one in refs]
        for _ in range(2):
            assert [remembered.isAcceptable(one) for one in refs] == expected
        assert remembered.isAcceptable(other) == plain.isAcceptable(other)


def test_path_length_is_the_tables(butler):
    specification = butler._datastore.makeTableSpec()
    assert specification.fields["path"].length == private.PATH_LENGTH


def test_spans_go_there_and_back():
    span = TaiSpan(1_731_121_000_123_456_789, 1_731_121_030_500_000_000)
    made = private.timespan(span)
    assert private.tai_span(made) == span
    assert abs(made.begin.unix_tai - 1_731_121_000.123456789) < 1e-6


def test_a_purge_leaves_the_replica(butler, ref, tmp_path):
    private.trust(butler)
    replica = tmp_path / "replica.fits"
    replica.write_bytes(b"SIMPLE")
    path = ResourcePath(replica.as_uri())
    with private.known_sizes({str(path): 6}):
        butler.ingest(FileDataset(path, [ref]), transfer="direct")
    butler.pruneDatasets([ref], disassociate=True, unstore=True, purge=True)
    assert replica.read_bytes() == b"SIMPLE"
