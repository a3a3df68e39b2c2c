"""Rubin's `rucio-register`, unmodified, against the registry: what it says of a real Butler's files comes back as said.

The commands run in this process, through the tool's own entry point; `tests/system/test_rubin_register.py` runs the
program itself.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler import DatasetRef
from lsst.rucio.register.script import main

from arriero.registry.models import ButlerRse, ButlerSelection, NewButler
from support.official_storage import add_storage
from support.rucio_register import (
    DETECTORS,
    PRODUCT_TYPES,
    PRODUCTS,
    RUN,
    ButlerSite,
    butler_site,
    register_raws,
    sidecar,
)

SCOPE = "raw"
COMCAM = "instrument = 'LSSTComCam'"


@pytest.fixture(scope="module")
def site(services) -> ButlerSite:
    return butler_site(services.xrootd_slac, f"register-{uuid.uuid4().hex[:8]}", SCOPE)


@dataclass
class Registered:
    """The site's RSE in a catalogue, and the tool configured for it."""

    site: ButlerSite
    client: Any
    rse: str
    url: str
    configuration: Path

    def run(self, *arguments: str) -> None:
        common = ("--rucio-register-config", str(self.configuration), "--backoff-max-tries", "1")
        main.main([*arguments, *common], standalone_mode=False)

    def products(self, dataset: str, dataset_type: str, *more: str) -> None:
        repository = ("--repo", str(self.site.repository), "--collections", PRODUCTS)
        self.run(
            *("data-products", *repository, "--dataset-type", dataset_type, "--rucio-dataset", dataset), *more
        )

    def files(self, dataset: str) -> dict[str, dict]:
        return {file["name"]: file for file in self.client.list_files(SCOPE, dataset)}

    def metadata(self, name: str) -> dict[str, Any]:
        return self.client.get_metadata(SCOPE, name, plugin="JSON")


@pytest.fixture
def registered(official, client, site: ButlerSite, tmp_path: Path) -> Iterator[Registered]:
    rse = official.unique("SLAC") + "_DISK"
    if SCOPE not in client.list_scopes():
        client.add_scope("root", SCOPE)
    url = add_storage(client, rse, site.server, site.folder)
    return Registered(site, client, rse, url, site.configuration(tmp_path, rse, url))


def refs_of(site: ButlerSite, dataset_type: str) -> dict[str, DatasetRef]:
    return site.names([ref for ref in site.products if ref.datasetType.name == dataset_type])


def test_data_products_come_back_as_they_went_in(registered: Registered, official):
    site, client = registered.site, registered.client
    dataset, expected = official.unique("Dataset/DRP/"), refs_of(site, PRODUCT_TYPES[0])
    registered.products(dataset, PRODUCT_TYPES[0], "--chunk-size", "4")
    files = registered.files(dataset)
    assert sorted(files) == sorted(expected)
    assert len(files) == 2 * DETECTORS
    for name, file in files.items():
        content = (site.repository / name).read_bytes()
        assert (file["bytes"], file["adler32"]) == (len(content), f"{zlib.adler32(content):08x}")
    said = client.list_replicas([{"scope": SCOPE, "name": dataset}], schemes=["https"])
    assert {row["name"]: row["rses"][registered.rse] for row in said} == {
        name: [f"{registered.url}/{SCOPE}/{name}"] for name in expected
    }
    for name, ref in expected.items():
        metadata = registered.metadata(name)
        assert metadata["rubin_butler"] == "data_product"
        assert metadata["rubin_sidecar"] == ref.to_json(), "a string, byte for byte"
        back = DatasetRef.from_json(metadata["rubin_sidecar"], universe=ref.dimensions.universe)
        assert (back.id, back.dataId.required_values) == (ref.id, ref.dataId.required_values)
    did = client.get_did(SCOPE, dataset)
    assert (did["type"], did["open"], did["monotonic"]) == ("DATASET", True, True)


def test_running_again_changes_nothing_and_what_is_new_is_attached(registered: Registered, official):
    dataset = official.unique("Dataset/DRP/")
    name = PRODUCT_TYPES[0]
    registered.products(dataset, name, "--where", f"{COMCAM} AND detector = 0", "--chunk-size", "1")
    first = registered.files(dataset)
    registered.products(dataset, name, "--where", f"{COMCAM} AND detector = 0")
    assert registered.files(dataset) == first
    assert len(first) == 2
    registered.products(dataset, name, "--where", f"{COMCAM} AND detector < 2")
    assert len(registered.files(dataset)) == 4, "two that were there, two that are new"
    registered.products(dataset, PRODUCT_TYPES[1])
    assert len(registered.files(dataset)) == 6
    another = official.unique("Dataset/DRP/")
    registered.products(another, PRODUCT_TYPES[1])
    shared = sorted(registered.files(another))
    parents = [row["name"] for row in registered.client.list_parent_dids(SCOPE, shared[0])]
    assert {dataset, another} <= set(parents)


def test_two_at_once_into_a_dataset_that_is_not_there_yet(registered: Registered, official):
    """Each finds no dataset and makes it; what the other has registered is no obstacle."""
    dataset = official.unique("Dataset/DRP/")
    arguments = (PRODUCT_TYPES[0], "--chunk-size", "6")
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(registered.products, dataset, *arguments) for _ in range(2)]
    assert [run.exception() for run in runs] == [None, None]
    assert sorted(registered.files(dataset)) == sorted(refs_of(registered.site, PRODUCT_TYPES[0]))


def test_a_wrong_url_is_refused_with_the_right_path(registered: Registered, official, tmp_path: Path):
    from rucio.common.exception import InvalidPath

    dataset, name = official.unique("Dataset/DRP/"), PRODUCT_TYPES[1]
    for wrong in (f"{registered.url}/elsewhere", registered.url.replace("https", "davs")):
        registered.configuration = registered.site.configuration(tmp_path, registered.rse, wrong)
        with pytest.raises(InvalidPath):
            registered.products(dataset, name)
    assert dataset not in registered.client.list_dids(SCOPE, {"name": dataset})


def test_a_closed_dataset_takes_no_more(registered: Registered, official):
    from rucio.common.exception import UnsupportedOperation

    dataset = official.unique("Dataset/DRP/")
    registered.products(dataset, PRODUCT_TYPES[1])
    registered.client.close(SCOPE, dataset)
    before = registered.files(dataset)
    with pytest.raises(UnsupportedOperation, match="closed"):
        registered.products(dataset, PRODUCT_TYPES[0])
    assert registered.files(dataset) == before


def test_raws(registered: Registered, official, monkeypatch):
    dataset = official.unique("Dataset/LSSTComCam/raw/Obs/")
    configuration, repository = registered.configuration, registered.site.repository
    register_raws(repository, RUN, dataset, configuration, chunk=7)
    expected = registered.site.names(registered.site.raws)
    assert sorted(registered.files(dataset)) == sorted(expected)
    for name, ref in expected.items():
        metadata = registered.metadata(name)
        assert metadata == {"rubin_butler": "raw_file", "rubin_sidecar": ref.to_json()}
        assert json.loads(metadata["rubin_sidecar"]) == sidecar(ref)


def test_the_command_raws_of_this_release_asks_for_nothing(registered: Registered, official):
    """It stops by itself. When this test fails the tool is mended: use the command in the tests above."""
    dataset = official.unique("Dataset/LSSTComCam/raw/Obs/")
    repository = ("--repo", str(registered.site.repository), "--collections", RUN)
    with pytest.raises(KeyError, match="backoff-factor"):
        registered.run("raws", *repository, "--rucio-dataset", dataset, "raw")
    assert dataset not in registered.client.list_dids(SCOPE, {"name": dataset})


def test_zips_and_dimensions(registered: Registered, official):
    site, client = registered.site, registered.client
    dataset = official.unique("Dataset/zips/")
    registered.run("zips", "--rucio-dataset", dataset, "--zip-file", site.zip.as_uri())
    registered.run("dimensions", "--rucio-dataset", dataset, "--dimension-file", site.dimensions.as_uri())
    registered.run("zips", "--rucio-dataset", dataset, "--zip-file", site.zip.as_uri())
    zipped, dimensions = site.name(site.zip), site.name(site.dimensions)
    assert sorted(registered.files(dataset)) == sorted([zipped, dimensions])
    assert registered.metadata(zipped) == {"rubin_butler": "zip_file", "rubin_sidecar": ""}
    assert registered.metadata(dimensions) == {"rubin_butler": "dim_file", "rubin_sidecar": ""}
    found = client.list_dids(SCOPE, [{"rubin_butler": "zip_file"}], did_type="file")
    assert zipped in list(found)


def test_a_name_with_what_means_something_in_a_url(registered: Registered, official):
    """The tool encodes nothing in a PFN."""
    dataset = official.unique("Dataset/zips/")
    name = f"zips/{uuid.uuid4().hex[:8]} 50%25#1?.zip"
    path = registered.site.server.write_file(f"{registered.site.folder}/{SCOPE}/{name}", b"PK")
    registered.run("zips", "--rucio-dataset", dataset, "--zip-file", path.as_uri())
    assert list(registered.files(dataset)) == [name]


def test_an_ingest_worker_is_given_what_the_tool_said(registered: Registered, official):
    dataset = official.unique("Dataset/DRP/")
    registered.products(dataset, PRODUCT_TYPES[1])
    catalogue = official.registry.client()
    butler = official.unique("butler")
    catalogue.add_butler(
        NewButler(
            name=butler,
            uri="/somewhere",
            rses=(ButlerRse(rse=registered.rse),),
            selections=(ButlerSelection(scope=SCOPE, pattern="*"),),
        )
    )
    registered.run("zips", "--rucio-dataset", dataset, "--zip-file", registered.site.zip.as_uri())
    claimed = catalogue.claim_arrivals(butler, "worker", 100, 0, 60)
    expected = {
        name: {"rubin_butler": "data_product", "rubin_sidecar": ref.to_json()}
        for name, ref in refs_of(registered.site, PRODUCT_TYPES[1]).items()
    }
    expected[registered.site.name(registered.site.zip)] = {"rubin_butler": "zip_file", "rubin_sidecar": ""}
    assert {file.name: file.meta for file in claimed} == expected
    assert {file.uri for file in claimed} == {f"{registered.url}/{SCOPE}/{name}" for name in expected}
