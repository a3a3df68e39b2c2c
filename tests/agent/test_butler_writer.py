"""The writer against real repositories: what goes in comes out, and what is wrong harms nothing else."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler, DatasetType
from lsst.resources import ResourcePath
from lsst.resources.file import FileResourcePath

from arriero.agent.ingest.butler_repository import create_repository, open_repository, register_instrument
from arriero.agent.ingest.butler_writer import ButlerWriter
from arriero.agent.ingest.errors import UnsuitableRepository
from arriero.agent.ingest.instrument import load_instrument
from arriero.agent.ingest.models import ArrivalFile, OutcomeState
from support.butler import COMCAM_FIRST, DAY, RUN, arrivals, codes, datasets, exposures
from support.exposures import write_exposure, write_night
from support.proxy import Proxy


def test_round_trip(repository, new_writer, night):
    files = arrivals(*night)
    writer = new_writer(repository)
    outcomes = writer.ingest(files)
    assert [(o.id, o.fence, o.state) for o in outcomes] == [(f.id, 1, OutcomeState.INGESTED) for f in files]
    assert writer.transactions == 1, "all exposures in one"
    with open_repository(repository) as butler:
        for path, outcome in zip(night[1], outcomes, strict=True):
            ref = butler.get_dataset(outcome.dataset_id)
            assert ResourcePath(butler.getURI(ref)).ospath == str(path)
            with fits.open(path) as written:
                got = butler.get(ref)
                assert repr(got[0].header) == repr(written[0].header)
                assert np.array_equal(got[1].data, written[1].data)
        data_id = {"instrument": "LSSTComCam", "exposure": 2024110800267, "detector": 4}
        assert butler.get("raw", data_id, collections=RUN)[0].header["CCDSLOT"] == "S11"
        where = "exposure.day_obs = 20241108 AND detector.full_name = 'R22_S22' AND band = 'r'"
        assert len(butler.query_datasets("raw", collections=RUN, where=where, instrument="LSSTComCam")) == 1
    record = exposures(repository)[2024110800266]
    assert record["timespan"].begin.isot == "2024-11-09T02:56:40.000000"
    assert (record["tracking_ra"], record["zenith_angle"], record["can_see_sky"]) == (55.6, 24.0, True)


def test_stock_commands_see_it(sqlite_repository, new_writer, night):
    new_writer(sqlite_repository).ingest(arrivals(*night))
    directory = str(Path(ResourcePath(sqlite_repository).ospath).parent)

    def run(*arguments: str) -> str:
        program = Path(sys.executable).with_name("butler")
        return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout

    rows = [
        line
        for line in run("query-datasets", directory, "raw", "--collections", RUN).splitlines()
        if RUN in line
    ]
    assert len(rows) == 36
    assert RUN in run("query-collections", directory)
    assert "2024110800269" in run(
        "query-dimension-records", directory, "exposure", "--where", "instrument='LSSTComCam'"
    )


def test_headers_say_the_same_as_the_index(tmp_path, new_writer):
    found = []
    for index in (True, False):
        root = tmp_path / f"files{index}"
        repository = create_repository(str(tmp_path / f"repo{index}"), "LSSTComCam")
        outcomes = new_writer(repository).ingest(arrivals(root, write_night(root, DAY, index=index)))
        found.append((exposures(repository), [outcome.dataset_id for outcome in outcomes]))
    assert found[0] == found[1]
    assert len(found[0][0]) == 4


def test_ingesting_again_is_a_no_op(repository, new_writer, night):
    files = arrivals(*night)
    first = new_writer(repository).ingest(files[:20])
    writer = new_writer(repository)
    second = writer.ingest([file.model_copy(update={"fence": 2, "attempt": 2}) for file in files])
    assert {o.fence for o in second} == {2}
    assert [o.dataset_id for o in second[:20]] == [o.dataset_id for o in first]
    assert codes(second) == {"ingested": 36}
    assert codes(writer.ingest(files)) == {"ingested": 36}
    assert writer.transactions == 1, "what is there needs none"


def test_what_is_there_although_it_comes_for_the_first_time_is_found_out_once(repository, new_writer, night):
    """A ledger that is new to a Butler which has everything."""
    files = arrivals(*night)
    new_writer(repository).ingest(files[:27])
    writer = new_writer(repository)
    for start in (0, 9, 18, 27):
        assert codes(writer.ingest(files[start : start + 9])) == {"ingested": 9}
    assert writer.transactions == 2, "the first in vain, and the last"
    assert len(datasets(repository)) == 36


def test_no_files_no_work(sqlite_repository, new_writer):
    writer = new_writer(sqlite_repository)
    assert writer.ingest([]) == []
    assert writer.transactions == 0


def poisoned(root: Path, poison: int) -> list[ArrivalFile]:
    """Return 200 files, one detector of one exposure each, of which one has a number that no database holds."""
    paths = [
        write_exposure(
            root, DAY, n + 1, detectors=[0], shape=(2, 2), header={"MAXINDEX": 2**70} if n == poison else None
        )[0]
        for n in range(200)
    ]
    return arrivals(root, paths)


@pytest.mark.parametrize("poison", [0, 137, 199])
def test_one_poison_of_200_is_isolated(repository, new_writer, tmp_path, poison):
    files = poisoned(tmp_path / "files", poison)
    writer = new_writer(repository)
    outcomes = writer.ingest(files)
    assert [o.id for o in outcomes if o.state is not OutcomeState.INGESTED] == [files[poison].id]
    assert outcomes[poison].code == "butler_refused"
    assert outcomes[poison].reason
    assert not outcomes[poison].retryable
    # A refused batch costs two halves per level, and each level halves it.
    assert writer.transactions <= 1 + 2 * math.ceil(math.log2(200)) + 1
    assert len(datasets(repository)) == 199


def test_what_is_wrong_with_the_repository_is_not_blamed_on_200_files(
    sqlite_repository, new_writer, tmp_path
):
    files = poisoned(tmp_path / "files", 0)
    writer = new_writer(sqlite_repository)
    assert codes(writer.ingest(files[1:2])) == {"ingested": 1}
    database = Path(ResourcePath(sqlite_repository).ospath).with_name("gen3.sqlite3")
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON dataset BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    before = writer.transactions
    outcomes = writer.ingest(files[2:])
    assert codes(outcomes).keys() == {"butler_refused", "butler_refuses_all"}
    assert codes(outcomes)["butler_refuses_all"] > 150
    assert all(o.retryable for o in outcomes if o.code == "butler_refuses_all")
    assert writer.transactions - before < 40


def test_malformed_and_vanished_files_leave_their_neighbours_alone(repository, new_writer, tmp_path):
    paths = write_night(tmp_path, DAY)
    files = arrivals(tmp_path, paths)
    paths[3].write_bytes(b"\0" * files[3].bytes)
    paths[4].unlink()
    os.truncate(paths[5], 2880)
    outcomes = new_writer(repository).ingest(files)
    assert [(o.code, o.retryable) for o in outcomes[3:6]] == [
        ("malformed_fits", False),
        ("file_missing", True),
        ("size_differs", False),
    ]
    assert all(paths[n].name in outcomes[n].reason for n in (3, 4, 5))
    assert codes(outcomes)["ingested"] == 33
    assert len(datasets(repository)) == 33


def test_strange_files_are_refused_with_a_reason(sqlite_repository, new_writer, tmp_path):
    paths = write_night(tmp_path, DAY, seq_nums=[266])
    index = paths[0].parent / "_index.json"
    bad_header = write_exposure(tmp_path, DAY, 267, detectors=[0], header={"EXPTIME": "long"})
    deep = write_exposure(tmp_path / ("d" * 120) / ("e" * 120), DAY, 268, detectors=[0])
    outcomes = new_writer(sqlite_repository).ingest(arrivals(tmp_path, [*paths, index, *bad_header, *deep]))
    assert [o.code for o in outcomes[9:]] == ["unrecognised_file", "bad_header", "uri_too_long"]
    assert "EXPTIME" in outcomes[10].reason
    assert codes(outcomes)["ingested"] == 9


def test_a_butler_without_instruments_says_so(sqlite_repository, night):
    with contextlib.closing(ButlerWriter(sqlite_repository, ())) as writer:
        (outcome,) = writer.ingest(arrivals(*night)[:1])
    assert outcome.code == "unrecognised_file"
    assert "no instrument" in outcome.reason


def test_missing_dimensions_park(repository, new_writer, tmp_path, night):
    strange = write_exposure(tmp_path, DAY, 270, detectors=[0], header={"FILTER": "n921"})
    raft = write_exposure(tmp_path, DAY, 271, detectors=[0], index=False)
    with fits.open(raft[0], mode="update") as hdus:
        hdus[0].header["CCDSLOT"] = "S33"
    files = arrivals(*night) + arrivals(tmp_path, strange + raft, first_id=100)
    writer = new_writer(repository)
    outcomes = writer.ingest(files)
    assert codes(outcomes) == {"ingested": 36, "missing_dimension": 2}
    assert [(o.state, o.waits_for) for o in outcomes[36:]] == [
        (OutcomeState.PARKED, "instrument=LSSTComCam,physical_filter=n921"),
        (OutcomeState.PARKED, "instrument=LSSTComCam,detector=R22_S33"),
    ]
    with open_repository(repository, writeable=True) as butler:
        butler.registry.insertDimensionData(
            "physical_filter", {"instrument": "LSSTComCam", "name": "n921", "band": "n"}
        )
    assert codes(writer.ingest(files[36:37])) == {"ingested": 1}, "a warm writer sees what was registered"


def test_an_instrument_that_is_not_registered_parks(tmp_path, new_writer, night):
    Butler.makeRepo(tmp_path / "bare")
    writer = new_writer(str(tmp_path / "bare"))
    outcomes = writer.ingest(arrivals(*night))
    assert {(o.state, o.waits_for) for o in outcomes} == {(OutcomeState.PARKED, "instrument=LSSTComCam")}
    assert writer.transactions == 0


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_a_database_that_is_away_says_nothing_about_the_files(
    tmp_path, registry_db, new_writer, night, monkeypatch
):
    with Proxy.to(registry_db) as proxy:
        Path(os.environ["LSST_DB_AUTH"]).write_text(
            Path(os.environ["LSST_DB_AUTH"]).read_text().replace(f":{proxy.target_port}/", f":{proxy.port}/")
        )
        url = registry_db.replace(f":{proxy.target_port}/", f":{proxy.port}/")
        repository = create_repository(str(tmp_path / "repo"), "LSSTComCam", registry_db=url)
        files = arrivals(*night)
        writer = new_writer(repository)
        assert codes(writer.ingest(files[:9])) == {"ingested": 9}
        proxy.cut()
        for _ in range(2):  # a warm Butler, and one that has to be opened
            outcomes = writer.ingest(files)
            assert codes(outcomes) == {"butler_unavailable": 36}
            assert all(o.retryable and o.state is OutcomeState.FAILED for o in outcomes)
        proxy.restore()
        assert codes(writer.ingest(files)) == {"ingested": 36}
        writer.close()


def test_a_repository_that_is_not_there(tmp_path, new_writer, night):
    outcomes = new_writer(str(tmp_path / "nowhere")).ingest(arrivals(*night))
    assert codes(outcomes) == {"butler_unavailable": 36}


def test_a_storage_class_without_its_formatter_needs_a_hand(tmp_path, new_writer, night):
    Butler.makeRepo(tmp_path / "rubin")
    with open_repository(str(tmp_path / "rubin"), writeable=True) as butler:
        register_instrument(butler, load_instrument("LSSTComCam"))
        dimensions = ("instrument", "exposure", "detector")
        butler.registry.registerDatasetType(
            DatasetType("raw", dimensions, "Exposure", universe=butler.dimensions)
        )
    with pytest.raises(UnsuitableRepository, match=r"lsst\.obs\.lsst"):
        new_writer(str(tmp_path / "rubin")).ingest(arrivals(*night))


@pytest.mark.parametrize("transfer", ["auto", "split", "None", ""])
def test_transfers_that_would_give_the_replica_away_are_refused(sqlite_repository, transfer):
    with pytest.raises(ValueError, match="transfer"):
        ButlerWriter(sqlite_repository, ["LSSTComCam"], transfer=transfer)


def test_copying_instead(sqlite_repository, new_writer, night):
    writer = new_writer(sqlite_repository, transfer="copy")
    files = arrivals(*night)[:9]
    assert codes(writer.ingest(files)) == {"ingested": 9}
    assert codes(writer.ingest(files)) == {"ingested": 9}
    with open_repository(sqlite_repository) as butler:
        copy = butler.getURI("raw", collections=RUN, **COMCAM_FIRST)
        assert copy.ospath != str(night[1][0])
        assert copy.read() == night[1][0].read_bytes()


def test_what_the_repository_holds(sqlite_repository, new_writer, night):
    writer = new_writer(sqlite_repository)
    outcomes = writer.ingest(arrivals(*night)[:2])
    stranger = outcomes[0].model_copy(update={"dataset_id": UUID("00000000-0000-5000-8000-000000000000")})
    assert writer.holds([*outcomes, stranger]) == {o.dataset_id for o in outcomes}


def test_the_storage_is_not_asked_within_the_transaction(sqlite_repository, new_writer, night, monkeypatch):
    files = arrivals(*night)
    asked: list[str] = []
    for name in ("exists", "size", "mexists", "read"):
        monkeypatch.setattr(
            FileResourcePath, name, lambda self, *_, name=name, **__: asked.append(f"{name} {self}")
        )
    writer = new_writer(sqlite_repository)
    session = writer._open()
    monkeypatch.setattr(session, "write", functools.partial(_noting, session.write, asked))
    assert codes(writer.ingest(files)) == {"ingested": 36}
    assert asked == ["begin", "end"]


def _noting(write, asked: list[str], part, **options: bool) -> None:
    asked.clear()
    asked.append("begin")
    write(part, **options)
    asked.append("end")
