"""Data products, dimension records and guiders: what comes with them is applied, what they lack is waited for."""

from __future__ import annotations

import json
import threading

import pytest
from astropy.io import fits
from lsst.daf.butler import Butler

from arriero.agent.ingest import metadata
from arriero.agent.ingest.butler_repository import create_repository, open_repository
from arriero.agent.ingest.models import OutcomeState
from support.butler import DAY, arrivals, codes
from support.exposures import write_exposure, write_night
from support.products import EXPOSURE, METRICS


def test_products_bring_their_records_or_wait_for_them(repository, new_writer, source):
    (bare, ref), (full, other) = source.make(3, records=False), source.make(4)
    writer = new_writer(repository)
    (parked,) = writer.ingest([bare])
    assert (parked.state, parked.code) == (OutcomeState.PARKED, "missing_dimension")
    assert parked.waits_for == f"instrument=LSSTComCam,exposure={EXPOSURE}"
    (outcome,) = writer.ingest([full])
    assert (outcome.state, outcome.dataset_id) == (OutcomeState.INGESTED, other.id), outcome.reason
    assert parked.waits_for in outcome.provides, "what wakes the parked one"
    again = writer.ingest([bare, full])
    assert [o.dataset_id for o in again] == [ref.id, other.id]
    raws = arrivals(source.raws_root, source.raws)
    assert codes(writer.ingest(raws)) == {"ingested": 9}, "the records are those of the raws"
    with open_repository(repository) as butler:
        found = butler.get_dataset(ref.id)
        assert (found.run, found.datasetType.name) == ("u/products", METRICS)
        assert butler.get(found) == {"noise": 8.0}
        assert butler.get(
            METRICS, instrument="LSSTComCam", exposure=EXPOSURE, detector=4, collections="u/*"
        ) == {"noise": 9.0}


def test_a_batch_brings_what_its_files_need(sqlite_repository, new_writer, source):
    """Data before dimensions: within one batch the order of arrival does not count."""
    (bare, ref) = source.make(5, records=False)
    raws = arrivals(source.raws_root, source.raws)
    outcomes = new_writer(sqlite_repository).ingest([bare, *raws])
    assert codes(outcomes) == {"ingested": 10}
    assert outcomes[0].dataset_id == ref.id


@pytest.mark.parametrize(
    ("meta", "code", "said"),
    [
        ({"rubin_butler": "data_product"}, "bad_description", "no rubin_sidecar"),
        ({"rubin_butler": "data_product", "rubin_sidecar": "{"}, "bad_description", "no dataset"),
        ({"rubin_butler": "data_product", "rubin_sidecar": '{"id": 1}'}, "bad_description", "datasetType"),
        ({"rubin_butler": "something"}, "unrecognised_file", "something"),
        ({"rubin_butler": "raw_file"}, "unrecognised_file", "LSSTComCam"),
        ({"rubin_butler": "zip_file"}, "bad_description", "zip"),
        ({"rubin_butler": "dim_file"}, "bad_description", "export"),
        ({"rubin_butler": "export"}, "bad_description", "export"),
        ({"rubin_butler": "refcat"}, "bad_description", "ECSV"),
    ],
)
def test_what_describes_nothing_is_said_and_harms_nobody(
    sqlite_repository, new_writer, tmp_path, night, meta, code, said
):
    path = tmp_path / "odd.dat"
    path.write_bytes(b"\0nothing of use\n")
    (odd,) = arrivals(tmp_path, [path], first_id=900)
    outcomes = new_writer(sqlite_repository).ingest(
        [odd.model_copy(update={"meta": meta}), *arrivals(*night)[:1]]
    )
    assert [o.code for o in outcomes] == [code, None]
    assert said in outcomes[0].reason


def test_other_dimensions_than_the_repositorys_type_are_refused(sqlite_repository, new_writer, source):
    (file, _) = source.make(4)
    content = json.loads(file.meta["rubin_sidecar"])
    content["datasetType"]["name"] = "raw"
    content["datasetType"]["dimensions"] = ["instrument"]
    file = file.model_copy(update={"meta": {"rubin_butler": 1, "rubin_sidecar": content}})
    (outcome,) = new_writer(sqlite_repository).ingest([file])
    assert outcome.code == "bad_data_id"
    assert "dimensions" in outcome.reason


def test_a_formatter_that_is_not_installed_is_kept_by_its_name(sqlite_repository, new_writer, source):
    """The site's readers have the science stack; the agent need not."""
    (file, _) = source.make(4)
    content = json.loads(file.meta["rubin_sidecar"])
    content["datasetType"] |= {"name": "catalogue", "storageClass": "SimpleCatalog"}
    file = file.model_copy(update={"meta": {"rubin_butler": "data_product", "rubin_sidecar": content}})
    (outcome,) = new_writer(sqlite_repository).ingest([file])
    assert outcome.state is OutcomeState.INGESTED, outcome.reason
    with open_repository(sqlite_repository) as butler:
        (info,) = butler._datastore._get_stored_records_associated_with_refs(
            [butler.get_dataset(outcome.dataset_id)], ignore_datastore_records=True
        )[outcome.dataset_id]
    assert info.formatter == "lsst.obs.base.formatters.fitsGeneric.FitsGenericFormatter"


def test_dimension_files_wake_what_waits(repository, new_writer, source, tmp_path):
    (bare, ref) = source.make(3, records=False)
    path = tmp_path / "raw" / "CC_O_20241108_000266_dimensions.yaml"
    path.parent.mkdir()
    with source.butler.export(filename=str(path)) as export:
        for element in ("group", "day_obs", "exposure"):
            rows = source.butler.query_dimension_records(element, instrument="LSSTComCam")
            export.saveDimensionData(element, rows)
    (file,) = arrivals(path.parent, [path], first_id=500)
    writer = new_writer(repository)
    assert codes(writer.ingest([bare])) == {"missing_dimension": 1}
    for _ in range(2):
        (outcome,) = writer.ingest([file])
        assert (outcome.state, outcome.dataset_id) == (OutcomeState.INGESTED, None), outcome.reason
        assert f"instrument=LSSTComCam,exposure={EXPOSURE}" in outcome.provides
    assert writer.ingest([bare])[0].dataset_id == ref.id
    path.write_text(path.read_text().replace("ECDFS", "M31"))
    (outcome,) = writer.ingest([file])
    assert outcome.code == "conflicting_record"
    assert "target_name is 'ECDFS', the file says 'M31'" in outcome.reason


def test_guiders_go_with_their_exposure(tmp_path, new_writer):
    repository = create_repository(str(tmp_path / "repo"), "LSSTCam")
    root = tmp_path / "files"
    (comcam,) = write_exposure(root, DAY, 266, detectors=[0], header={"FILTER": "r_57"}, index=False)
    header = fits.getheader(comcam)
    header["RAFTBAY"], header["CCDSLOT"] = "R22", "S11"
    header["OBSID"] = "MC_O_20241108_000266"
    raw, guider = (root / f"MC_O_20241108_000266_{name}.fits" for name in ("R22_S11", "R00_SG0_guider"))
    fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU([[1]])]).writeto(raw)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU([[7, 8]])]).writeto(guider)
    science, movie = arrivals(root, [raw, guider])
    writer = new_writer(repository, "LSSTCam")
    (parked,) = writer.ingest([movie])
    assert parked.waits_for == f"instrument=LSSTCam,exposure={EXPOSURE}"
    outcomes = writer.ingest([movie, science])
    assert codes(outcomes) == {"ingested": 2}
    with open_repository(repository) as butler:
        got = butler.get(
            "guider_raw",
            instrument="LSSTCam",
            exposure=EXPOSURE,
            detector=189,
            collections="LSSTCam/raw/guider",
        )
        assert got[1].data.tolist() == [[7, 8]]


def test_headers_are_read_in_parallel_when_no_index_has_them(sqlite_repository, new_writer, tmp_path):
    files = arrivals(tmp_path, write_night(tmp_path, DAY, index=False))
    seen: set[int] = set()
    read = metadata.read_start

    def slow(uri: str, size: int):
        seen.add(threading.get_ident())
        threading.Event().wait(0.005)
        return read(uri, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "read_start", slow)
        assert codes(new_writer(sqlite_repository).ingest(files)) == {"ingested": 36}
    assert len(seen) > 4


def test_what_is_parked_in_a_bare_repository(tmp_path, new_writer, source):
    """A site may get products before anybody has registered the instrument."""
    Butler.makeRepo(tmp_path / "bare")
    (bare, _) = source.make(3, records=False)
    (outcome,) = new_writer(str(tmp_path / "bare")).ingest([bare])
    assert outcome.waits_for == "instrument=LSSTComCam"
