"""Zips, exports and reference catalogues: files that tell of many datasets, as often and in whatever order they come."""

from __future__ import annotations

import textwrap
from pathlib import Path

from lsst.daf.butler import Butler, CollectionType, DatasetType, Timespan

from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.ingest.models import OutcomeState
from support.butler import arrivals, codes
from support.products import EXPOSURE, METRICS

MODEL = (
    "pretrained_models/tac_cnn_comcam_2025-02-18/pretrainedModelPackage/"
    "pretrainedModelPackage_pretrained_models_tac_cnn_comcam_2025-02-18.zip"
)
MODELS_EXPORT = f"""\
description: Butler Data Repository Export
version: 1.0.2
universe_version: 7
universe_namespace: daf_butler
data:
- type: collection
  collection_type: RUN
  name: pretrained_models/tac_cnn_comcam_2025-02-18
  host: null
  timespan_begin: null
  timespan_end: null
- type: dataset_type
  name: pretrainedModelPackage
  dimensions: []
  storage_class: NNModelPackagePayload
  is_calibration: false
- type: dataset
  dataset_type: pretrainedModelPackage
  run: pretrained_models/tac_cnn_comcam_2025-02-18
  records:
  - dataset_id:
    - !uuid 'a83d850a-0094-417c-ac9c-64d0f7b98048'
    data_id:
    - {{}}
    path: {MODEL}
    formatter: lsst.meas.transiNet.modelPackages.formatters.NNModelPackageFormatter
"""
TABLE = (
    "LSSTComCam/calib/fgcmcal/DM-48089/fgcmLookUpTable/"
    "fgcmLookUpTable_LSSTComCam_LSSTComCam_calib_fgcmcal_DM-48089.fits"
)
FGCM_EXPORT = f"""\
description: Butler Data Repository Export
version: 1.0.2
universe_version: 7
universe_namespace: daf_butler
data:
- type: dimension
  element: instrument
  records:
  - name: LSSTComCam
    visit_max: 7050123199999
    visit_system: 2
    exposure_max: 7050123199999
    detector_max: 1000
    class_name: lsst.obs.lsst.LsstComCam
- type: collection
  collection_type: RUN
  name: LSSTComCam/calib/fgcmcal/DM-48089
  host: null
  timespan_begin: null
  timespan_end: null
- type: dataset_type
  name: fgcmLookUpTable
  dimensions:
  - instrument
  storage_class: Catalog
  is_calibration: false
- type: dataset
  dataset_type: fgcmLookUpTable
  run: LSSTComCam/calib/fgcmcal/DM-48089
  records:
  - dataset_id:
    - !uuid 'bb573ca3-6159-45d9-88e3-866e01da4882'
    data_id:
    - instrument: LSSTComCam
    path: {TABLE}
    formatter: lsst.obs.base.formatters.fitsGeneric.FitsGenericFormatter
"""


def written(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_exports_of_rtn_103_as_printed(repository, new_writer, tmp_path):
    ingest_exports(repository, new_writer, tmp_path)


def test_the_exports_of_rtn_103_in_a_repository_that_has_nothing(new_writer, tmp_path):
    Butler.makeRepo(tmp_path / "bare")
    ingest_exports(str(tmp_path / "bare"), new_writer, tmp_path)


def ingest_exports(repository, new_writer, tmp_path):
    """Before their files are there, and again, in either order."""
    root = tmp_path / "ancillary"
    exports = arrivals(
        root,
        [
            written(root, "pretrained-models-export.yaml", MODELS_EXPORT),
            written(root, "exports/DM-48089-fgcmLookupTable-export.yaml", FGCM_EXPORT),
        ],
    )
    writer = new_writer(repository)
    early = writer.ingest(exports)
    assert {(o.state, o.code) for o in early} == {(OutcomeState.PARKED, "missing_prerequisite")}
    assert early[0].waits_for == f"file={(root / MODEL).as_uri()}"
    files = [written(root, name, f"bytes of {name}") for name in (MODEL, TABLE)]
    for order in (exports, exports[::-1]):
        outcomes = writer.ingest(order)
        assert codes(outcomes) == {"ingested": 2}, outcomes
        assert {str(o.dataset_id) for o in outcomes} == {
            "a83d850a-0094-417c-ac9c-64d0f7b98048",
            "bb573ca3-6159-45d9-88e3-866e01da4882",
        }
    with open_repository(repository) as butler:
        for name, run, path in (
            ("pretrainedModelPackage", "pretrained_models/*", files[0]),
            ("fgcmLookUpTable", "LSSTComCam/calib/fgcmcal/*", files[1]),
        ):
            (ref,) = butler.query_datasets(name, collections=run, find_first=False)
            assert butler.getURI(ref).ospath == str(path)
        (instrument,) = butler.query_dimension_records("instrument")
        assert instrument.class_name == "lsst.obs.lsst.LsstComCam"


def test_an_export_with_calibrations_chains_and_tags(repository, database_kind, new_writer, source, tmp_path):
    calib = f"calib-{database_kind}"
    butler = source.butler
    dimensions = ("instrument", "detector")
    bias = DatasetType(
        "bias", dimensions, "StructuredDataDict", universe=butler.dimensions, isCalibration=True
    )
    butler.registry.registerDatasetType(bias)
    butler.collections.register(f"{calib}/run")
    refs = [
        butler.put({"level": n}, "bias", instrument="LSSTComCam", detector=n, run=f"{calib}/run")
        for n in range(2)
    ]
    butler.collections.register(f"{calib}/biases", CollectionType.CALIBRATION)
    butler.registry.certify(f"{calib}/biases", refs, Timespan(None, None))
    butler.collections.register(f"{calib}/some", CollectionType.TAGGED)
    butler.registry.associate(f"{calib}/some", refs[:1])
    butler.collections.register(calib, CollectionType.CHAINED)
    butler.collections.redefine_chain(calib, [f"{calib}/some", f"{calib}/biases"])
    root = tmp_path / "ancillary" / "DM-1"
    root.mkdir(parents=True)
    with butler.export(directory=str(root), filename=str(root / "export.yaml"), transfer="copy") as export:
        export.saveDatasets(refs)
        for name in (f"{calib}/biases", f"{calib}/some", calib):
            export.saveCollection(name)
    files = arrivals(tmp_path / "ancillary", [root / "export.yaml"])
    writer = new_writer(repository)
    for _ in range(3):
        assert codes(outcomes := writer.ingest(files)) == {"ingested": 1}, outcomes
    with open_repository(repository) as here:
        assert list(here.collections.get_info(calib).children) == [f"{calib}/some", f"{calib}/biases"]
        assert [r.id for r in here.query_datasets("bias", collections=f"{calib}/some")] == [refs[0].id]
        found = here.find_dataset(
            "bias",
            instrument="LSSTComCam",
            detector=1,
            collections=f"{calib}/biases",
            timespan=Timespan.fromInstant(Timespan.from_day_obs(20241108).begin),
        )
        assert (found.id, here.get(found)) == (refs[1].id, {"level": 1})


def test_an_export_of_an_old_universe(repository, new_writer, tmp_path):
    """Universe 5 had no group and no day_obs; what it said of them is migrated."""
    text = textwrap.dedent("""\
        description: Butler Data Repository Export
        version: 1.0.2
        universe_version: 5
        universe_namespace: daf_butler
        data:
        - type: dimension
          element: exposure
          records:
          - {instrument: LSSTComCam, id: 7, physical_filter: r_03, obs_id: CC_O_7, exposure_time: 30.0, dark_time: 30.0,
             observation_type: science, observation_reason: test, day_obs: 20241108, seq_num: 7, seq_start: 7, seq_end: 7,
             group_name: '2024-11-09T00', group_id: 1, target_name: M31, science_program: x, tracking_ra: 1.0,
             tracking_dec: 2.0, sky_angle: 3.0, azimuth: 4.0, zenith_angle: 5.0, has_simulated: false, timespan: null}
        """)
    (file,) = arrivals(tmp_path, [written(tmp_path, "old/export.yaml", text)])
    writer = new_writer(repository)
    for _ in range(2):
        (outcome,) = writer.ingest([file])
        assert outcome.state is OutcomeState.INGESTED, outcome.reason
    assert "instrument=LSSTComCam,exposure=7" in outcome.provides
    with open_repository(repository) as butler:
        (row,) = butler.query_dimension_records("exposure", instrument="LSSTComCam")
        assert (row.group, row.day_obs, row.target_name) == ("2024-11-09T00", 20241108, "M31")


def test_a_zip_with_its_datasets(repository, new_writer, source, tmp_path):
    made = [source.make(detector)[1] for detector in (6, 7)]
    archive = source.butler.retrieve_artifacts_zip(made, tmp_path / "zips")
    (file,) = arrivals(tmp_path / "zips", [Path(archive.ospath)])
    file = file.model_copy(update={"meta": {"rubin_butler": "zip_file", "rubin_sidecar": ""}})
    writer = new_writer(repository)
    (first,) = writer.ingest([file])
    raws = arrivals(source.raws_root, source.raws, first_id=50)
    if first.state is OutcomeState.PARKED:
        assert first.waits_for == f"instrument=LSSTComCam,exposure={EXPOSURE}"
        assert codes(writer.ingest(raws)) == {"ingested": 9}
    for _ in range(2):
        (outcome,) = writer.ingest([file])
        assert outcome.state is OutcomeState.INGESTED, outcome.reason
    with open_repository(repository) as butler:
        refs = butler.query_datasets(METRICS, collections="u/products")
        assert {ref.id for ref in refs} == {ref.id for ref in made}
        assert sorted(butler.get(ref)["noise"] for ref in refs) == [11.0, 12.0]
        assert {butler.getURI(ref).ospath.partition("#")[0] for ref in refs} == {archive.ospath}


def test_a_reference_catalogue_with_its_prefix(repository, new_writer, tmp_path):
    root = tmp_path / "refcats" / "the_monster"
    pixels = (146812, 141991, 146919)
    files = {pixel: written(root, f"{pixel}.fits", f"stars of {pixel}") for pixel in pixels}
    run = "refcats/DM-49042/the_monster_20250219"
    meta = f"# meta: {{dataset_type: the_monster_20250219, run: {run}, prefix: '{root.as_uri()}/'}}\n"
    rows = "".join(f"{pixel}.fits {pixel}\n" for pixel in pixels)
    head = (
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: filename, datatype: string}\n"
        "# - {name: htm7, datatype: int64}\n"
    )
    table = written(
        tmp_path, "tables/the_monster.ecsv", f"{head}{meta}# schema: astropy-2.0\nfilename htm7\n{rows}"
    )
    (file,) = arrivals(tmp_path / "tables", [table])
    writer = new_writer(repository)
    found = []
    for _ in range(2):
        (outcome,) = writer.ingest([file])
        assert outcome.state is OutcomeState.INGESTED, outcome.reason
        found.append(outcome.dataset_id)
    assert found[0] == found[1]
    assert found[0].version == 5, "the same at every site"
    with open_repository(repository) as butler:
        for pixel, path in files.items():
            ref = butler.find_dataset("the_monster_20250219", htm7=pixel, collections=run)
            assert (butler.getURI(ref).ospath, ref.datasetType.storageClass_name) == (
                str(path),
                "SimpleCatalog",
            )
    bare = written(tmp_path, "tables/bare.ecsv", f"{head}# schema: astropy-2.0\nfilename htm7\n{rows}")
    (refused,) = writer.ingest(arrivals(tmp_path / "tables", [bare], first_id=2))
    assert (refused.code, "dataset_type, run" in refused.reason) == ("bad_description", True)
    told = {"rubin_sidecar": {"dataset_type": "other", "run": "refcats/other", "prefix": root.as_uri()}}
    (by_sidecar,) = arrivals(tmp_path / "tables", [bare], first_id=3)
    meta_of_file = {"rubin_butler": "refcat", **told}
    assert codes(writer.ingest([by_sidecar.model_copy(update={"meta": meta_of_file})])) == {"ingested": 1}
