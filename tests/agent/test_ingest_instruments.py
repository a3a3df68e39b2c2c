"""Instruments by declaration: from the names and headers of their files to `butler.get`, each in a repository made for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astro_metadata_translator import ObservationInfo
from astro_metadata_translator.translators import MegaPrimeTranslator
from astropy.nddata import CCDData
from lsst.daf.butler import Butler

from arriero.agent.ingest.butler_repository import create_repository, open_repository
from support.butler import arrivals, codes
from support.exposures import write_exposure
from support.headers import DECAM, HSC, IMSIM, MEGAPRIME, PFS, write_fits


def stock(*arguments: str) -> list[list[str]]:
    """Run the stock command; give the words of the lines that it prints."""
    program = Path(sys.executable).with_name("butler")
    done = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
    return [line.split() for line in done.stdout.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory) -> str:
    """A repository with several instruments of Rubin's universe: the first makes it, the others complete it."""
    directory = str(tmp_path_factory.mktemp("several") / "repo")
    for instrument in ("HSC", "DECam", "MegaPrime", "LSSTCam-imSim", "LATISS"):
        uri = create_repository(directory, instrument)
    return uri


def test_hsc(one_for_all, new_writer, tmp_path):
    path = write_fits(tmp_path / "HSCA04090107.fits", HSC)
    writer = new_writer(one_for_all, "HSC", "DECam")
    assert codes(outcomes := writer.ingest(arrivals(tmp_path, [path]))) == {"ingested": 1}, outcomes
    with open_repository(one_for_all) as butler:
        got = butler.get("raw", instrument="HSC", exposure=40900, detector=37, collections="HSC/raw/all")
        assert got[0].header["FRAMEID"] == "HSCA04090107"
        (row,) = butler.query_dimension_records("exposure", instrument="HSC")
        assert (row.obs_id, row.day_obs, row.physical_filter) == ("HSCA04090000", 20151010, "HSC-r")
        assert abs(row.tracking_ra - 21.1572375) < 1e-6
        assert abs(row.tracking_dec - 1.25975833) < 1e-6
        assert abs(row.zenith_angle - 37.35041361) < 1e-6
        assert row.timespan.begin.utc.isot.startswith("2015-10-10T08:20:06.59")


def test_megaprime_agrees_with_the_observatories_own_translator(one_for_all, new_writer, tmp_path):
    names = [f"ccd{number:02d}" for number in range(36)]
    path = write_fits(tmp_path / "1038843o.fits", MEGAPRIME, [{"EXTNAME": name} for name in names])
    writer = new_writer(one_for_all, "HSC", "MegaPrime")
    assert codes(outcomes := writer.ingest(arrivals(tmp_path, [path]))) == {"ingested": 1}, outcomes
    told = ObservationInfo(MEGAPRIME | {"EXTNAME": "ccd22"}, translator_class=MegaPrimeTranslator, quiet=True)
    with open_repository(one_for_all) as butler:
        data_id = {"instrument": "MegaPrime", "exposure": told.exposure_id, "detector": told.detector_num}
        got = butler.get("raw", data_id, collections="MegaPrime/raw/all")
        assert (len(got), got[1].header["EXTNAME"], got[1].data[0, 0]) == (2, "ccd22", 23)
        (row,) = butler.query_dimension_records("exposure", instrument="MegaPrime")
        assert (row.obs_id, row.physical_filter) == (told.observation_id, told.physical_filter)
        assert (row.day_obs, row.observation_type) == (told.observing_day, told.observation_type)
        assert (row.target_name, row.science_program) == (told.object, told.science_program)
        assert (row.exposure_time, row.dark_time) == (told.exposure_time.value, told.dark_time.value)
        assert abs((row.timespan.begin - told.datetime_begin.tai).to_value("s")) < 0.01
        assert abs((row.timespan.end - told.datetime_end.tai).to_value("s")) < 0.01
        place = told.tracking_radec.fk5
        assert abs(row.tracking_ra - place.ra.degree) < 1e-6
        assert abs(row.tracking_dec - place.dec.degree) < 1e-6
        assert (row.azimuth, row.zenith_angle) == (
            pytest.approx(told.altaz_begin.az.degree),
            pytest.approx(90 - told.altaz_begin.alt.degree),
        )
        (visit,) = butler.query_dimension_records("visit", instrument="MegaPrime")
        assert visit.id == told.exposure_id


@pytest.mark.parametrize("compressed", [False, True])
def test_decam_has_a_dataset_in_each_extension(one_for_all, new_writer, tmp_path, compressed):
    number = 229388 + compressed
    detectors = (25, 1, 62)
    path = write_fits(
        tmp_path / f"DECam_{number:08d}.fits.fz",
        DECAM | {"EXPNUM": number, "OBSID": f"ct4m{number}"},
        [{"CCDNUM": detector} for detector in detectors],
        compressed=compressed,
    )
    files = arrivals(tmp_path, [path])
    writer = new_writer(one_for_all, "HSC", "DECam")
    for _ in range(2):
        assert codes(outcomes := writer.ingest(files)) == {"ingested": 1}, outcomes
        assert len(set(outcomes[0].datasets)) == 3
    with open_repository(one_for_all) as butler:
        for place, detector in enumerate(detectors, 1):
            data_id = {"instrument": "DECam", "exposure": number, "detector": detector}
            got = butler.get("raw", data_id, collections="DECam/raw/all")
            assert (len(got), got[0].header["EXPNUM"], got[1].header["CCDNUM"]) == (2, number, detector)
            assert (got[1].data == place).all()
            assert butler.getURI("raw", data_id, collections="DECam/raw/all").ospath == str(path)
        (row,) = butler.query_dimension_records("exposure", instrument="DECam", exposure=number)
        assert (row.day_obs, row.observation_type) == (20130831, "science")
        assert abs(row.tracking_dec + 0.00158306) < 1e-6
        (visit,) = butler.query_dimension_records("visit", instrument="DECam", visit=number)
        assert (visit.name, visit.physical_filter, visit.region) == (row.obs_id, row.physical_filter, None)
    dead = write_fits(
        tmp_path / "DECam_00000009.fits", DECAM | {"EXPNUM": 9}, [{"CCDNUM": 70}], compressed=compressed
    )
    (parked,) = writer.ingest(arrivals(tmp_path, [dead]))
    assert parked.waits_for == "instrument=DECam,detector=70"


def test_imsim_as_in_data_preview_0_2(one_for_all, new_writer, tmp_path):
    paths = [
        write_fits(tmp_path / "y1-wfd/00261426" / f"lsst_a_261426_{detector}_r.fits", IMSIM)
        for detector in ("R03_S02", "R43_S22")
    ]
    writer = new_writer(one_for_all, "LSSTCam-imSim")
    assert codes(outcomes := writer.ingest(arrivals(tmp_path, paths))) == {"ingested": 2}, outcomes
    with open_repository(one_for_all) as butler:
        run = "LSSTCam-imSim/raw/all"
        found = butler.query_datasets("raw", collections=run)
        assert {(r.dataId["exposure"], r.dataId["detector"]) for r in found} == {(261426, 20), (261426, 188)}
        data_id = {"instrument": "LSSTCam-imSim", "exposure": 261426, "detector.full_name": "R03_S02"}
        assert butler.get("raw", data_id, collections=run)[0].header["TESTTYPE"] == "IMSIM"
        (visit,) = butler.query_dimension_records("visit", instrument="LSSTCam-imSim", visit=261426)
        assert visit.physical_filter == "r_sim_1.4"


def test_latiss(one_for_all, new_writer, tmp_path):
    header = {"CAMCODE": "AT", "FILTER": "SDSSr_65mm", "GRATING": "empty", "OBSID": "AT_O_20250113_000004"}
    (path,) = write_exposure(tmp_path, 20250113, 4, detectors=[0], header=header, index=False)
    named = path.rename(path.with_name("AT_O_20250113_000004_R00_S00.fits"))
    writer = new_writer(one_for_all, "LATISS")
    (outcome,) = writer.ingest(arrivals(tmp_path, [named]))
    assert "instrument=LATISS,visit=2025011300004" in outcome.provides, outcome
    with open_repository(one_for_all) as butler:
        data_id = {"instrument": "LATISS", "exposure": 2025011300004, "detector": 0}
        assert butler.get("raw", data_id, collections="LATISS/raw/all")[0].header["CAMCODE"] == "AT"


def pfs_night(root: Path) -> tuple[list[Path], Path]:
    raws = [
        write_fits(
            root / "raw/2024-10-17/sps" / f"PFS{category}0000{visit:02d}{spectrograph}{arm}.fits",
            PFS | {"W_VISIT": visit},
        )
        for category, visit, spectrograph, arm in (("A", 12, 1, 1), ("A", 12, 1, 2), ("B", 13, 2, 3))
    ]
    config = write_fits(
        root / "raw/2024-10-17/pfsConfig/pfsConfig-0xad349fe21234abcd-000012.fits", {"W_VISIT": 12}
    )
    return raws, config


@pytest.mark.parametrize("instrument", ["PFS", "pfs-exposure", "pfs-exposure-arm"])
def test_pfs(tmp_path, new_writer, instrument):
    """The tutorials' own calls: raws and pfsConfig by link, the table of query-datasets, and what `get` is asked for."""
    raws, config = pfs_night(tmp_path)
    repository = create_repository(str(tmp_path / "datastore"), instrument)
    writer = new_writer(repository, instrument, transfer="link")
    vocabulary = "visit" if instrument == "PFS" else "exposure"
    (parked,) = writer.ingest(arrivals(tmp_path, [config]))
    assert parked.waits_for == f"instrument=PFS,{vocabulary}=12"
    for _ in range(2):
        outcomes = writer.ingest(arrivals(tmp_path, [config, *raws]))
        assert codes(outcomes) == {"ingested": 4}, outcomes
    linked = [p for p in (tmp_path / "datastore").rglob("*.fits") if p.samefile(raws[0])]
    assert len(linked) == 1, "linked into the datastore"
    table = stock("query-datasets", str(tmp_path / "datastore"), "raw", "--collections", "PFS/raw/all")
    columns, rows = table[0], [row for row in table if row[:1] == ["raw"]]
    assert len(rows) == 3
    with Butler.from_config(repository, collections=["PFS/raw/all", "PFS/raw/pfsConfig"]) as butler:
        if instrument == "pfs-exposure":
            told = dict(zip(columns, rows[0], strict=True))
            assert set(columns) == {
                "type", "run", "id", "instrument", "arm", "dither", "pfs_design_id", "spectrograph", "detector", "exposure",
            }  # fmt: skip
            assert (told["arm"], told["dither"], told["spectrograph"], told["detector"]) == (
                "b",
                "0.0",
                "1",
                "0",
            )
            raw = butler.get("raw", instrument="PFS", exposure=12, detector=1)
        elif instrument == "PFS":
            raw = butler.get("raw", instrument="PFS", visit=12, arm="r", spectrograph=1)
        else:
            raw = butler.get("raw", instrument="PFS", exposure=12, arm="r", spectrograph=1)
        assert raw[0].header["OBJECT"] == "cosmos"
        found = butler.get("pfsConfig", {"instrument": "PFS", vocabulary: 12})
        assert found[0].header["W_VISIT"] == 12
        (row,) = butler.query_dimension_records(vocabulary, data_id={"instrument": "PFS", vocabulary: 12})
        assert row.pfs_design_id == -5965967813042197555


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
def test_spherex_with_a_universe_formatters_and_templates_of_its_own(tmp_path, registry_db, new_writer):
    repository = create_repository(
        str(tmp_path / "repo"), "SPHEREx", registry_db=registry_db, namespace=registry_db and "spx"
    )
    header = {
        "OBSNUM": 456, "OBSID": "2025W19_1B_0456_2", "CADENCE": "deep", "TIMESYS": "UTC", "MJD-BEG": 60800.5,
        "MJD-END": 60800.501, "EXPTIME": 86.4, "RA": 268.0, "DEC": 65.5,
    }  # fmt: skip
    paths = [
        write_fits(
            tmp_path / "in" / f"level2_2025W19_1B_0456_{n}D{n}_spx_l2b-v11-2025-164.fits",
            header | {"DETECTOR": n},
            [{"BUNIT": "MJy/sr"}],
        )
        for n in range(1, 7)
    ]
    writer = new_writer(repository, "SPHEREx", transfer="copy")
    assert codes(outcomes := writer.ingest(arrivals(tmp_path / "in", paths))) == {"ingested": 6}, outcomes
    with open_repository(repository) as butler:
        run = "SPHEREx/raw/all"
        (ref,) = butler.query_datasets("spectral_image", collections=run, where="detector.lvf_band = 'B3'")
        image = butler.get(ref)
        assert isinstance(image, CCDData)
        assert (str(image.unit), image.shape) == ("MJy / sr", (16, 16))
        assert np.asarray(image.data).max() == 1
        path = butler.getURI(ref)
        assert "SPHEREx/raw/all/spectral_image/SPHEREx/deep/456_3_" in path.path
        again = butler.getURI(ref).read()
    assert again == paths[2].read_bytes()
