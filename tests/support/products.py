"""A Butler repository elsewhere whose products arrive here, for tests of the ingest."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from lsst.daf.butler import DatasetRef, DatasetType

from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.ingest.butler_writer import ButlerWriter
from arriero.agent.ingest.models import ArrivalFile
from support.butler import DAY, arrivals, codes
from support.exposures import write_exposure

EXPOSURE = 2024110800266
METRICS = "isr_metrics"


class Source:
    """A repository elsewhere that has made products of an exposure, and the files of its storage element."""

    def __init__(self, directory: Path, repository: str) -> None:
        self.root = directory / "products"
        self.root.mkdir()
        self.raws_root = directory / "raws"
        self.raws = write_exposure(self.raws_root, DAY, 266)
        with contextlib.closing(ButlerWriter(repository, ["LSSTComCam"])) as writer:
            assert codes(writer.ingest(arrivals(self.raws_root, self.raws))) == {"ingested": 9}
        self.butler = open_repository(repository, writeable=True)
        dimensions = ("instrument", "exposure", "detector")
        self.butler.registry.registerDatasetType(
            DatasetType(METRICS, dimensions, "StructuredDataDict", universe=self.butler.dimensions)
        )
        self.butler.collections.register("u/products")
        self._made: dict[int, DatasetRef] = {}

    def make(self, detector: int, *, records: bool = True) -> tuple[ArrivalFile, DatasetRef]:
        """Return a product as it arrives elsewhere: with what `rucio-register` writes on it."""
        path = self.root / f"metrics_{detector}.yaml"
        if detector not in self._made:
            data_id = {"instrument": "LSSTComCam", "exposure": EXPOSURE, "detector": detector}
            ref = self.butler.put({"noise": 5.0 + detector}, METRICS, data_id, run="u/products")
            path.write_bytes(self.butler.getURI(ref).read())
            self._made[detector] = ref
        ref = self._made[detector]
        told = json.loads(ref.to_json())
        assert "exposure" in told["dataId"]["records"]
        if not records:
            del told["dataId"]["records"]
        (file,) = arrivals(self.root, [path], first_id=100 + detector)
        meta = {"rubin_butler": "data_product", "rubin_sidecar": json.dumps(told)}
        return file.model_copy(update={"meta": meta}), ref
