"""The tools of the community, as programs, on a running Arriero: what they register is copied and ingested elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from arriero.agent.ingest.butler_repository import create_repository
from arriero.registry.models import ButlerRse, ButlerSelection, NewButler
from support.butler import RUN
from support.installation import wait_until
from support.laptop import DESTINATION, SOURCE, Laptop
from support.official import CONFIGURATION
from support.official_storage import EVERYTHING, make_folder, protocol_of, proxy_certificate
from support.rucio_register import (
    PRODUCT_TYPES,
    PRODUCTS,
    ButlerSite,
    butler_site,
    register_raws,
    rucio_register,
)
from support.services import Services

pytestmark = pytest.mark.system

SCOPE = "raw"
BY_CLIENTS = {"wan": {operation: EVERYTHING[operation] for operation in ("read", "write", "delete")}}


@pytest.fixture(scope="module")
def environment(running: Laptop, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What `rucio` and `rucio-register` read: a rucio.cfg, and a proxy certificate."""
    directory = tmp_path_factory.mktemp("rucio")
    arriero = running.arriero.client
    configuration = directory / "rucio.cfg"
    configuration.write_text(
        CONFIGURATION.format(
            url=arriero["ARRIERO_URL"],
            username="root",
            password=Path(arriero["ARRIERO_PASSWORD_FILE"]).read_text().strip(),
            account="root",
            token=directory / "token",
        )
    )
    proxy = proxy_certificate(running.servers[SOURCE], directory)
    for rse, server in running.servers.items():
        make_folder(server, running.folder)
        running.client.add_protocol(rse, protocol_of(server, running.folder, domains=BY_CLIENTS))
    return {"RUCIO_CONFIG": str(configuration), "X509_USER_PROXY": str(proxy), "COLUMNS": "300"}


def rucio(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("rucio"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "ERROR" not in said, said
    return said


def rule(environment: Mapping[str, str], did: str) -> str:
    """Ask for a copy at the other site, as the technotes do; return the rule's id."""
    said = rucio(environment, "rule", "add", "--rse-exp", DESTINATION, "--copies", "1", did)
    return said.split()[-1]


def test_what_is_uploaded_is_replicated_and_downloaded_from_there(
    running: Laptop, environment: Mapping[str, str], tmp_path: Path
) -> None:
    contents = {f"up-{uuid.uuid4().hex[:8]}-{i}.fits": os.urandom(200_000) for i in range(2)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    dataset = f"{SCOPE}:Dataset-{uuid.uuid4().hex[:8]}"
    rucio(
        environment,
        *("upload", "--rse", SOURCE, "--protocol", "https", "--scope", SCOPE, dataset),
        *(str(tmp_path / name) for name in contents),
    )
    running.wait_for_rule(rule(environment, dataset), "OK")
    for name, content in contents.items():
        assert running.path(DESTINATION, name).read_bytes() == content
    trace = running.client.trace(SCOPE, next(iter(contents)))
    there = {replica.rse: replica for replica in trace.replicas}
    assert there[SOURCE].verified_at is None, "a client's word"
    assert there[DESTINATION].verified_at is not None
    down = tmp_path / "down"
    rucio(
        environment,
        *("download", "--dir", str(down), "--no-subdir", "--rses", DESTINATION, "--protocol", "https"),
        dataset,
    )
    assert {path.name: path.read_bytes() for path in down.iterdir()} == contents


@pytest.fixture(scope="module")
def slac(running: Laptop, services: Services) -> ButlerSite:
    return butler_site(services.xrootd_slac, running.folder, SCOPE)


def register(site: ButlerSite, dataset: str, configuration: Path, environment: Mapping[str, str]) -> None:
    """Register all kinds of files of a site, as its operators do."""
    common = ("--rucio-dataset", dataset, "--rucio-register-config", str(configuration))
    of_type = [word for name in PRODUCT_TYPES for word in ("--dataset-type", name)]
    rucio_register(
        *("data-products", "--repo", str(site.repository), "--collections", PRODUCTS, *of_type, *common),
        environment=environment,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUCIO_CONFIG", environment["RUCIO_CONFIG"])
        # They read rucio.cfg when they are imported, and keep it.
        from lsst.rucio.register.script import main
        from rucio.common import config

        config.clean_cached_config()
        main.main(["zips", "--zip-file", site.zip.as_uri(), *common], standalone_mode=False)
        main.main(
            ["dimensions", "--dimension-file", site.dimensions.as_uri(), *common], standalone_mode=False
        )
        register_raws(site.repository, RUN, dataset, configuration, chunk=30)
        config.clean_cached_config()


def test_what_rucio_register_registered_is_ingested_at_the_other_site(
    running: Laptop, environment: Mapping[str, str], slac: ButlerSite, tmp_path: Path
) -> None:
    dataset = "Dataset/LSSTComCam/20241108"
    configuration = slac.configuration(tmp_path, SOURCE, f"{slac.server.url}/{slac.folder}")
    register(slac, dataset, configuration, environment)
    rucio(environment, "did", "update", "--close", f"{SCOPE}:{dataset}")
    running.wait_for_rule(rule(environment, f"{SCOPE}:{dataset}"), "OK")

    repository = tmp_path / "in2p3"
    create_repository(str(repository), "LSSTComCam")
    running.client.add_butler(
        NewButler(
            name="in2p3",
            uri=str(repository),
            rses=(ButlerRse(rse=DESTINATION),),
            selections=tuple(ButlerSelection(scope=SCOPE, pattern=p) for p in ("LSSTComCam/*", "zips/*")),
            instruments=("LSSTComCam",),
        )
    )
    running.start_agent("in2p3")
    settled = "SELECT count(*) FROM arrivals WHERE state IN ('pending', 'leased')"
    files = len(slac.raws) + len(slac.products) + 2
    wait_until(
        lambda: (
            running.rows("SELECT count(*) FROM arrivals") == [(files,)] and running.rows(settled) == [(0,)]
        ),
        "every arrival is settled",
        instead=lambda: running.rows("SELECT state, code, reason FROM arrivals"),
    )
    _prove_raws(running, slac, repository)
    _prove_products(running, slac, repository)


def _prove_raws(running: Laptop, slac: ButlerSite, repository: Path) -> None:
    """Every raw is in the second Butler under the id that it has in the first, in place at its own site."""
    from lsst.daf.butler import Butler

    server = running.servers[DESTINATION]
    base = f"{server.url}/{running.folder}/{SCOPE}/"
    names = {ref.id: name for name, ref in slac.names(slac.raws).items()}
    with Butler.from_config(str(repository), collections=RUN) as butler:
        refs = butler.query_datasets("raw", limit=None)
        assert {ref.id for ref in refs} == set(names), "the ids that the sidecars say"
        for ref in refs:
            assert str(butler.getURI(ref)) == base + names[ref.id]
        image = butler.get(refs[0])
        assert image[1 if len(image) > 1 else 0].data is not None
    for name in names.values():
        there, here = running.path(DESTINATION, name), slac.repository / name
        assert zlib.adler32(there.read_bytes()) == zlib.adler32(here.read_bytes())


def _prove_products(running: Laptop, slac: ButlerSite, repository: Path) -> None:
    """Everything else is there too, with what was said of it: products under their ids, dimension records, the zip."""
    from lsst.daf.butler import Butler

    rows = running.rows("SELECT state, code, count(*) FROM arrivals GROUP BY state, code")
    assert rows == [("ingested", None, len(slac.raws) + len(slac.products) + 2)], running.rows(
        "SELECT d.name, a.code, a.reason FROM arrivals a JOIN dids d ON d.id = a.file_id WHERE a.state <> 'ingested'"
    )
    with Butler.from_config(str(repository)) as butler:
        for ref in (*slac.products, *slac.zipped):
            there = butler.get_dataset(ref.id)
            assert there is not None
            assert there.run == ref.run
    for name, ref in slac.names(slac.products).items():
        assert running.path(DESTINATION, name).read_bytes() == (slac.repository / name).read_bytes()
        metadata = running.client.get_metadata(SCOPE, name, plugin="JSON")
        assert json.loads(metadata["rubin_sidecar"]) == json.loads(ref.to_json())
