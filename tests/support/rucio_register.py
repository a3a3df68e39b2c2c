"""Rubin's `rucio-register`, unmodified, and the site whose Butler repository it registers.

The repository lies in the storage element's folder of a scope, as the tool's documentation asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lsst.daf.butler import Butler, DatasetRef, DatasetType

from arriero.agent.ingest.butler_repository import create_repository, open_repository
from arriero.agent.ingest.butler_writer import ButlerWriter
from arriero.agent.ingest.models import OutcomeState
from servicelib.server import WebDavServer
from support.butler import DAY, RUN, arrivals
from support.exposures import write_exposure

PRODUCTS = "LSSTComCam/runs/DRP"
PRODUCT_TYPES = ("isr_log", "camera_notes")
EXPOSURES = (266, 267)
DETECTORS = 9
TARGET = """M 31 "Andromeda" \\ <o'clock> & 50% """.strip()
"""A name of a target that every layer between the Butler and the catalogue has to quote rightly."""

TOOL = Path(sys.executable).with_name("rucio-register")


@dataclass
class ButlerSite:
    """A storage element with a Butler repository below the folder of a scope.

    Attributes
    ----------
    root
        What the tool calls `rse_root`.
    zipped
        Data products that travel in the zip alone.
    zip, dimensions
        A zip as the Butler packs them, and an export of dimension records.
    """

    server: WebDavServer
    folder: str
    scope: str
    raws: list[DatasetRef] = field(default_factory=list)
    products: list[DatasetRef] = field(default_factory=list)
    zipped: list[DatasetRef] = field(default_factory=list)
    zip: Path = Path()
    dimensions: Path = Path()

    @property
    def root(self) -> Path:
        return self.server.data_dir / self.folder

    @property
    def repository(self) -> Path:
        return self.root / self.scope

    def names(self, refs: list[DatasetRef]) -> dict[str, DatasetRef]:
        """Give the name that each dataset's file has in the catalogue."""
        with open_repository(str(self.repository)) as butler:
            return {self.name(Path(butler.getURI(ref).ospath)): ref for ref in refs}

    def name(self, path: Path) -> str:
        return path.relative_to(self.repository).as_posix()

    def configuration(self, directory: Path, rse: str, url: str) -> Path:
        """Write the tool's configuration: four keys, as its documentation has them."""
        path = directory / f"register-{rse}.yaml"
        path.write_text(
            yaml.safe_dump(
                {"rucio_rse": rse, "scope": self.scope, "rse_root": str(self.root), "dtn_url": url}
            )
        )
        return path


def butler_site(server: WebDavServer, folder: str, scope: str) -> ButlerSite:
    """Make a site: two exposures of raws, data products with and without a detector, a zip, dimension records."""
    server.write_file(f"{folder}/.keep", b"")
    site = ButlerSite(server, folder, scope)
    # Where a Butler puts the products itself, as pipelines do; its own files lie beside them.
    create_repository(str(site.repository), "LSSTComCam")
    night = site.repository / "LSSTComCam" / str(DAY)
    written = [
        path
        for number in EXPOSURES
        for path in write_exposure(night, DAY, number, shape=(16, 16), header={"OBJECT": TARGET})
    ]
    writer = ButlerWriter(str(site.repository), ["LSSTComCam"])
    images = [path for path in written if path.suffix == ".fits"]
    outcomes = writer.ingest(arrivals(site.repository, images))
    writer.close()
    assert {outcome.state for outcome in outcomes} == {OutcomeState.INGESTED}
    with Butler.from_config(str(site.repository), writeable=True, run=PRODUCTS) as butler:
        site.raws = butler.query_datasets("raw", collections=RUN, limit=None)
        site.products = _put_products(butler)
        site.zipped = _put_for_the_zip(butler)
        zipped = butler.retrieve_artifacts_zip(site.zipped, site.repository / "zips")
        site.zip = Path(zipped.ospath)
        site.dimensions = _export_dimensions(butler, site.repository)
    server.account.own(*site.root.rglob("*"), site.root)
    return site


def _put_products(butler: Butler) -> list[DatasetRef]:
    per_detector, per_exposure = PRODUCT_TYPES
    universe = butler.dimensions
    for name, dimensions in (
        (per_detector, ["instrument", "exposure", "detector"]),
        (per_exposure, ["instrument", "exposure"]),
    ):
        dataset_type = DatasetType(name, dimensions, "StructuredDataDict", universe=universe)
        butler.registry.registerDatasetType(dataset_type)
    refs = []
    for number in EXPOSURES:
        data_id = {"instrument": "LSSTComCam", "exposure": DAY * 100_000 + number}
        notes = {"observer": "Ångström “quoted” \\ back\nslash", "sequence": number}
        refs.append(butler.put(notes, per_exposure, data_id))
        refs += [
            butler.put({"detector": detector}, per_detector, data_id, detector=detector)
            for detector in range(DETECTORS)
        ]
    return refs


def _put_for_the_zip(butler: Butler) -> list[DatasetRef]:
    dimensions = ["instrument", "exposure", "detector"]
    dataset_type = DatasetType("zipped_log", dimensions, "StructuredDataDict", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    data_id = {"instrument": "LSSTComCam", "exposure": DAY * 100_000 + EXPOSURES[0]}
    return [butler.put({"detector": n}, dataset_type, data_id, detector=n) for n in range(3)]


def _export_dimensions(butler: Butler, repository: Path) -> Path:
    path = repository / "LSSTComCam" / str(DAY) / "_dimensions.yaml"
    with butler.export(filename=str(path)) as export:
        for element in ("instrument", "physical_filter", "day_obs", "group", "exposure"):
            export.saveDimensionData(element, butler.query_dimension_records(element, limit=None))
    return path


def rucio_register(*arguments: str, environment: Mapping[str, str], expect: int = 0) -> str:
    """Run `rucio-register` as a person would, and give what it wrote.

    Parameters
    ----------
    environment
        `RUCIO_CONFIG` and what else differs from this process's.
    """
    done = subprocess.run(
        [TOOL, *arguments, "--backoff-max-tries", "1"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == expect, said
    return said


def register_raws(
    repository: Path, collection: str, dataset: str, configuration: Path, *, chunk: int
) -> None:
    """Do what `rucio-register raws` is meant to do, by the tool's own classes.

    In this release the command itself stops with a KeyError before it asks the catalogue for anything.
    """
    # They read rucio.cfg when they are imported.
    from lsst.rucio.register.data_type import DataType
    from lsst.rucio.register.rucio_interface import RucioInterface
    from lsst.rucio.register.rucio_register_config import RucioRegisterConfig
    from lsst.rucio.register.script import chunks

    config = RucioRegisterConfig(str(configuration))
    with open_repository(str(repository)) as butler:
        interface = RucioInterface(
            butler=butler,
            rucio_rse=config.rucio_rse,
            scope=config.scope,
            rse_root=config.rse_root,
            dtn_url=config.dtn_url,
            rubin_butler_type=DataType.RAW_FILE,
        )
        interface.set_backoff(factor=1, max_value=1, max_tries=1)
        refs = butler.query_datasets("raw", collections=collection, limit=None)
        for part in chunks(refs, chunk):
            interface.register_as_replicas(dataset, part)


def sidecar(ref: DatasetRef) -> dict[str, Any]:
    """Give what the tool writes about a dataset."""
    return json.loads(ref.to_json())
