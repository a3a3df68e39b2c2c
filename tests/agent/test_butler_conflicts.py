"""Files that contradict the repository, each other, or another writer: nothing is hidden, nothing is replaced."""

from __future__ import annotations

import os
import threading

from lsst.daf.butler import DatasetRef, FileDataset

from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.ingest.butler_session import Session
from arriero.agent.ingest.models import Outcome, OutcomeState
from support.butler import COMCAM_FIRST, DAY, RUN, arrivals, codes, datasets, exposures
from support.exposures import write_exposure, write_night


def test_a_replaced_file_is_not_accepted(repository, new_writer, tmp_path, night):
    writer = new_writer(repository)
    files = arrivals(*night)
    assert codes(writer.ingest(files)) == {"ingested": 36}
    elsewhere = write_night(tmp_path, DAY, seq_nums=[266], seed=1)
    bigger = files[9].model_copy(update={"bytes": files[9].bytes + 2880})
    (moved,) = writer.ingest(arrivals(tmp_path, elsewhere[:1]))
    assert (moved.state, moved.code, moved.retryable) == (OutcomeState.FAILED, "replaced_file", False)
    assert files[0].uri in moved.reason
    assert elsewhere[0].as_uri() in moved.reason
    path = night[1][9]
    with path.open("ab") as stream:
        stream.write(b"\0" * 2880)
    try:
        (grown,) = writer.ingest([bigger])
    finally:
        os.truncate(path, files[9].bytes)
    assert (grown.code, str(bigger.bytes) in grown.reason) == ("replaced_file", True)
    with open_repository(repository) as butler:
        assert butler.getURI("raw", collections=RUN, **COMCAM_FIRST).ospath == str(night[1][0])


def test_two_files_of_one_dataset(sqlite_repository, new_writer, tmp_path):
    one = write_exposure(tmp_path / "a", DAY, 266, detectors=[0])
    other = write_exposure(tmp_path / "b", DAY, 266, detectors=[0], seed=1)
    files = arrivals(tmp_path, [*one, *other])
    outcomes = new_writer(sqlite_repository).ingest(files)
    assert [o.code for o in outcomes] == [None, "duplicate_dataset"]
    assert files[0].uri in outcomes[1].reason


def test_a_uri_that_is_too_long_does_not_take_the_same_dataset_along(sqlite_repository, new_writer, tmp_path):
    one = write_exposure(tmp_path / "a", DAY, 266, detectors=[0])
    deep = write_exposure(tmp_path / ("d" * 120) / ("e" * 120), DAY, 266, detectors=[0])
    for paths in (one + deep, deep + one):
        outcomes = new_writer(sqlite_repository).ingest(arrivals(tmp_path, paths))
        assert codes(outcomes) == {"ingested": 1, "uri_too_long": 1}


def test_records_that_contradict_the_repository_are_not_hidden(repository, new_writer, tmp_path):
    writer = new_writer(repository)
    first = write_exposure(tmp_path / "a", DAY, 266, detectors=range(4))
    assert codes(writer.ingest(arrivals(tmp_path, first))) == {"ingested": 4}
    changed = write_exposure(
        tmp_path / "b", DAY, 266, detectors=range(4, 9), header={"OBJECT": "M31", "RA": 10.0}
    )
    fine = write_exposure(tmp_path / "b", DAY, 267)
    outcomes = writer.ingest(arrivals(tmp_path, changed + fine))
    assert codes(outcomes) == {"conflicting_record": 5, "ingested": 9}
    assert "target_name is 'ECDFS', the file says 'M31'" in outcomes[0].reason
    assert "tracking_ra" in outcomes[0].reason
    assert exposures(repository)[2024110800266]["target_name"] == "ECDFS"
    assert len(datasets(repository)) == 13


def test_of_an_exposure_told_in_two_ways_most_files_win(sqlite_repository, new_writer, tmp_path):
    odd = write_exposure(tmp_path / "a", DAY, 266, detectors=[0], header={"OBJECT": "M31"})
    rest = write_exposure(tmp_path / "b", DAY, 266, detectors=range(1, 9))
    outcomes = new_writer(sqlite_repository).ingest(arrivals(tmp_path, odd + rest))
    assert [o.code for o in outcomes] == ["conflicting_record"] + [None] * 8
    assert "target_name" in outcomes[0].reason


def test_two_writers_on_one_repository(repository, new_writer, tmp_path):
    paths = write_night(tmp_path, DAY, seq_nums=range(1, 17), shape=(2, 2))
    files = arrivals(tmp_path, paths)
    found: dict[int, list[Outcome]] = {}
    start = threading.Barrier(2)

    def work(which: int) -> None:
        writer = new_writer(repository)
        mine = [files[n : n + 36] for n in range(0, len(files), 36)]
        outcomes = []
        for batch in mine if which else mine[::-1]:
            start.wait()
            outcomes += writer.ingest(batch if which else batch[::-1])
        found[which] = sorted(outcomes, key=lambda o: o.id)

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes(found[0]) == codes(found[1]) == {"ingested": 144}
    assert [o.dataset_id for o in found[0]] == [o.dataset_id for o in found[1]]
    assert len(datasets(repository)) == 144


def test_a_writer_that_was_faster_with_another_file_is_not_hidden(
    repository, new_writer, tmp_path, night, monkeypatch
):
    """Between the look and the transaction: the Butler itself would skip, or on PostgreSQL replace, in silence."""
    here = arrivals(*night)[:9]
    there = arrivals(tmp_path, write_night(tmp_path, DAY, seq_nums=[266], seed=1))
    slower, faster = new_writer(repository), new_writer(repository)
    write = Session.write

    def overtaken(session: Session, candidates: list, **options: bool) -> None:
        monkeypatch.setattr(Session, "write", write)
        assert codes(faster.ingest(there[:4])) == {"ingested": 4}
        write(session, candidates, **options)

    monkeypatch.setattr(Session, "write", overtaken)
    outcomes = slower.ingest(here)
    assert [o.code for o in outcomes] == ["replaced_file"] * 4 + [None] * 5
    assert there[0].uri in outcomes[0].reason


def test_a_dataset_of_another_id_is_a_conflict_of_that_file_only(repository, new_writer, tmp_path, night):
    with open_repository(repository, writeable=True) as butler:
        writer = new_writer(repository)
        files = arrivals(*night)
        assert codes(writer.ingest(files[1:9])) == {"ingested": 8}
        data_id = butler.registry.expandDataId(COMCAM_FIRST)
        foreign = DatasetRef(butler.get_dataset_type("raw"), data_id, run=RUN)
        butler.ingest(FileDataset(files[0].uri, [foreign]), transfer="direct")
    outcomes = writer.ingest(files)
    assert outcomes[0].code == "butler_refused"
    assert codes(outcomes) == {"butler_refused": 1, "ingested": 35}


def test_datasets_that_the_registry_has_without_a_file_get_it_again(repository, new_writer, night):
    """They are believed to be new at first; one of them must not cost the others anything."""
    writer, files = new_writer(repository), arrivals(*night)
    before = writer.ingest(files[:4])
    with open_repository(repository, writeable=True) as butler:
        refs = [butler.get_dataset(outcome.dataset_id) for outcome in before]
        butler.pruneDatasets(refs, disassociate=False, unstore=True)
    after = writer.ingest(files)
    assert codes(after) == {"ingested": 36}
    assert [o.dataset_id for o in after[:4]] == [o.dataset_id for o in before]
    assert writer.transactions == 3
    with open_repository(repository) as butler:
        assert butler.getURI("raw", collections=RUN, **COMCAM_FIRST).ospath == str(night[1][0])
