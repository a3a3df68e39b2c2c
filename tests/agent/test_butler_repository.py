from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lsst.daf.butler import Butler
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.resources import ResourcePath

from arriero.agent.ingest.butler_repository import create_repository, open_repository, register_instrument
from arriero.agent.ingest.errors import ButlerUnavailable, InstrumentMapError, UnsuitableRepository
from arriero.agent.ingest.instrument import load_instrument

COMCAM = load_instrument("LSSTComCam")


@pytest.fixture
def repository(tmp_path, registry_db):
    """Made anew: the others' is a copy."""
    return create_repository(str(tmp_path / "repo"), "LSSTComCam", registry_db=registry_db)


def test_what_a_new_repository_has(repository, registry_db):
    with open_repository(repository) as butler:
        assert butler.dimensions.version == 8
        (instrument,) = butler.query_dimension_records("instrument")
        assert (instrument.name, instrument.class_name) == ("LSSTComCam", "lsst.obs.lsst.LsstComCam")
        assert (instrument.visit_max, instrument.detector_max, instrument.visit_system) == (
            7050123199999,
            1000,
            2,
        )
        detectors = butler.query_dimension_records("detector", instrument="LSSTComCam")
        assert {d.id: d.full_name for d in detectors} == {d.id: d.full_name for d in COMCAM.detectors}
        filters = butler.query_dimension_records("physical_filter", instrument="LSSTComCam")
        assert {f.name: f.band for f in filters} == COMCAM.physical_filters
        assert butler.get_dataset_type("raw").storageClass_name == "FitsHDUList"
        assert list(butler.collections.query("*")) == ["LSSTComCam/raw/all"]
    text = Path(ResourcePath(repository).ospath).read_text()
    assert "password" not in text
    if registry_db is not None:
        assert yaml.safe_load(text)["registry"]["db"] == registry_db


def test_creating_again_changes_nothing(repository, tmp_path, registry_db):
    before = Path(ResourcePath(repository).ospath).read_text()
    assert create_repository(str(tmp_path / "repo"), COMCAM, registry_db=registry_db) == repository
    assert Path(ResourcePath(repository).ospath).read_text() == before


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_two_namespaces_in_one_database(tmp_path, registry_db):
    for namespace in ("one", "two"):
        uri = create_repository(
            str(tmp_path / namespace), "LSSTComCam", registry_db=registry_db, namespace=namespace
        )
        with open_repository(uri) as butler:
            assert len(butler.query_dimension_records("detector", instrument="LSSTComCam")) == 9


def test_stock_commands_work_on_it(sqlite_repository, tmp_path):
    program = Path(sys.executable).with_name("butler")
    done = subprocess.run(
        [program, "query-collections", tmp_path / "repo"], check=True, capture_output=True, text=True
    )
    assert "LSSTComCam/raw/all" in done.stdout


def test_a_failed_creation_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(Butler, "_make_repo_registry", staticmethod(fail))
        with pytest.raises(RuntimeError, match="disk full"):
            create_repository(str(tmp_path / "repo"), "LSSTComCam")
    assert not (tmp_path / "repo" / "butler.yaml").exists()
    create_repository(str(tmp_path / "repo"), "LSSTComCam")


@pytest.mark.parametrize("empty", [True, False])
def test_a_creation_that_was_killed_is_made_good(tmp_path, empty):
    uri = create_repository(str(tmp_path / "repo"), "LSSTComCam")
    database = tmp_path / "repo" / "gen3.sqlite3"
    database.unlink()
    if empty:
        database.touch()
    assert create_repository(str(tmp_path / "repo"), "LSSTComCam") == uri
    with open_repository(uri) as butler:
        assert len(butler.query_dimension_records("detector", instrument="LSSTComCam")) == 9


def test_an_existing_repository_keeps_what_it_has(tmp_path):
    Butler.makeRepo(tmp_path / "old")
    with open_repository(str(tmp_path / "old"), writeable=True) as butler:
        register_instrument(butler, COMCAM)
    changed = COMCAM.model_copy(
        update={"detectors": (COMCAM.detectors[0].model_copy(update={"full_name": "R99_S99"}),)}
    )
    with open_repository(str(tmp_path / "old"), writeable=True) as butler:
        with pytest.raises(ConflictingDefinitionError):
            register_instrument(butler, changed)
        assert (
            butler.query_dimension_records("detector", instrument="LSSTComCam", detector=0)[0].full_name
            == "R22_S00"
        )
    with pytest.raises(UnsuitableRepository):
        create_repository(str(tmp_path / "old"), changed)


def test_a_dot_in_the_name_is_refused_and_an_existing_one_opened(tmp_path):
    with pytest.raises(UnsuitableRepository, match="dot"):
        create_repository(str(tmp_path / "repo.1"), "LSSTComCam")
    create_repository(str(tmp_path / "repo"), "LSSTComCam")
    (tmp_path / "repo").rename(tmp_path / "repo.1")
    with open_repository(str(tmp_path / "repo.1")) as butler:
        assert butler.get_dataset_type("raw").name == "raw"


def test_a_database_that_is_away(tmp_path):
    with pytest.raises(ButlerUnavailable):
        create_repository(str(tmp_path / "repo"), "LSSTComCam", registry_db="postgresql://u@127.0.0.1:9/none")
    assert not (tmp_path / "repo" / "butler.yaml").exists()


def test_an_unknown_instrument(tmp_path):
    with pytest.raises(InstrumentMapError):
        create_repository(str(tmp_path / "repo"), "NoSuchCam")
    assert not (tmp_path / "repo").exists()
