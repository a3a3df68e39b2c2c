"""`arriero butler create`: what it makes opens with the stock `butler` command, on files and on WebDAV."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lsst.daf.butler import CollectionType

from arriero.agent.ingest.butler_repository import open_repository
from support.butler import DAY, RUN, arrivals, codes
from support.cli import cli  # noqa: F401
from support.exposures import write_exposure


def stock(*arguments: str) -> str:
    program = Path(sys.executable).with_name("butler")
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize(("storage", "scheme"), [("apache", "dav"), ("xrootd_slac", "http")])
def test_a_repository_on_webdav_as_in_rtn_103(
    cli,  # noqa: F811
    services,
    registry_db,
    new_writer,
    tmp_path,
    storage,
    scheme,
):
    """Configuration and datastore on WebDAV, registry in PostgreSQL, raws read in place from the storage."""
    server = services.webdav(storage)
    server.write_file(f"{tmp_path.name}/raw/made", b"x")
    folder = server.data_dir / tmp_path.name
    for path in (folder, folder / "raw"):
        path.chmod(0o777)
    url = f"{scheme}://127.0.0.1:{server.port}{server.prefix}/{tmp_path.name}"
    seed = tmp_path / "butler-seed_ccms1.yaml"
    seed.write_text(
        f'datastore:\n  name: "ccms1"\n  root: "{url}/butler/ccms1"\n'
        f"registry:\n  db: {registry_db}\n  namespace: ccms1\n"
    )
    repository = f"{url}/butler/ccms1"
    for _ in range(2):
        cli("butler", "create", repository, "--instrument", "LSSTComCam", "--seed-config", str(seed))
    written = write_exposure(tmp_path / "out", DAY, 266, shape=(2, 2))
    for path in written:
        server.write_file(f"{tmp_path.name}/raw/{path.name}", path.read_bytes())
    files = [
        file.model_copy(update={"uri": f"{url}/raw/{path.name}", "name": path.name})
        for file, path in zip(arrivals(tmp_path / "out", written), written, strict=True)
    ]
    writer = new_writer(repository)
    assert codes(outcomes := writer.ingest(files)) == {"ingested": 9}, outcomes
    with open_repository(repository, writeable=True) as butler:
        got = butler.get("raw", instrument="LSSTComCam", exposure=2024110800266, detector=4, collections=RUN)
        assert got[0].header["CCDSLOT"] == "S11"
        ref = butler.put({"a": 1}, _products(butler), instrument="LSSTComCam", run="u/test")
        assert str(butler.getURI(ref)).startswith(repository)
        butler.collections.register("LSSTComCam/raw/DP1", CollectionType.TAGGED)
        butler.collections.register("LSSTComCam/DP1/defaults", CollectionType.CHAINED)
        butler.collections.redefine_chain("LSSTComCam/DP1/defaults", ["LSSTComCam/raw/DP1", RUN])
    tree = stock("query-collections", "--chains=tree", repository, "LSSTComCam/DP1/defaults")
    rows = [line for line in tree.splitlines() if "LSSTComCam" in line]
    assert [row.split() for row in rows] == [
        ["LSSTComCam/DP1/defaults", "CHAINED"],
        ["LSSTComCam/raw/DP1", "TAGGED"],
        [RUN, "RUN"],
    ]
    assert [len(row) - len(row.lstrip()) for row in rows] == [0, 2, 2]
    listed = stock("query-datasets", repository, "raw", "--collections", RUN, "--limit", "0")
    assert len([line for line in listed.splitlines() if RUN in line]) == 9


def _products(butler):
    from lsst.daf.butler import DatasetType

    made = DatasetType("notes", ("instrument",), "StructuredDataDict", universe=butler.dimensions)
    butler.registry.registerDatasetType(made)
    butler.collections.register("u/test")
    return made


def test_several_instruments_and_a_datastore_elsewhere(cli, new_writer, tmp_path):  # noqa: F811
    """The configuration in one place, what is copied in another; a declaration of one's own by its path."""
    own = tmp_path / "mycam.yaml"
    shipped = Path(__file__).parents[2] / "agent/arriero/agent/instruments/lsstcomcam.yaml"
    own.write_text(shipped.read_text().replace("LSSTComCam", "MyCam").replace("[A-Z]{2}_", "MY_"))
    store = tmp_path / "store"
    words = (
        "butler",
        "create",
        str(tmp_path / "repo"),
        "--instrument",
        "LSSTComCam",
        "--instrument",
        str(own),
    )
    made = cli("-o", "json", *words, "--datastore", store.as_uri()).json
    (path,) = write_exposure(tmp_path / "out", DAY, 266, detectors=[3], index=False)
    files = arrivals(tmp_path / "out", [path])
    writer = new_writer(made["uri"], "LSSTComCam", str(own), transfer="hardlink")
    assert codes(outcomes := writer.ingest(files)) == {"ingested": 1}, outcomes
    with open_repository(made["uri"]) as butler:
        assert {r.name for r in butler.query_dimension_records("instrument")} == {"LSSTComCam", "MyCam"}
        (ref,) = butler.query_datasets("raw", collections=RUN)
        kept = Path(butler.getURI(ref).ospath)
        assert kept.is_relative_to(store)
        assert kept.samefile(path)
    assert "MyCam/raw/all" in stock("query-collections", str(tmp_path / "repo"))


@pytest.mark.parametrize("transfer", ["direct", "link", "symlink", "relsymlink", "hardlink", "copy"])
def test_transfer_modes(sqlite_repository, new_writer, tmp_path, transfer):
    paths = write_exposure(tmp_path / "in", DAY, 266, detectors=[0, 1])
    writer = new_writer(sqlite_repository, transfer=transfer)
    files = arrivals(tmp_path / "in", paths)
    for _ in range(2):
        assert codes(outcomes := writer.ingest(files)) == {"ingested": 2}, outcomes
    with open_repository(sqlite_repository) as butler:
        for ref in butler.query_datasets("raw", collections=RUN):
            kept = Path(butler.getURI(ref).ospath)
            source = paths[ref.dataId["detector"]]
            assert kept.read_bytes() == source.read_bytes()
            assert (kept == source) is (transfer == "direct")
            assert kept.is_symlink() is (transfer in {"symlink", "relsymlink"})
            assert kept.samefile(source) is (transfer != "copy")
    assert all(path.exists() for path in paths)
