"""The main job on a whole installation: PostgreSQL, Redis, two XRootD servers, two workers, the service, a site agent.

One worker is killed and Redis is flushed in the middle; afterwards every byte, row and dataset is accounted for.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, NullPool, create_engine, text

from arriero.registry.database import Database
from demo.exposures import write_exposure
from servicelib.server import WebDavServer
from support.installation import ARRIERO, Installation, Process, installation, wait_until
from support.invariants import assert_invariants
from support.services import Services

DAY_OBS = 20241108
DATASET = f"raw:Dataset/LSSTComCam/raw/{DAY_OBS}"
SOURCE, DESTINATION = "SLAC_RAW_DISK", "IN2P3_RAW_DISK"
# 29 exposures x 9 detectors, 29 indexes and 10 small notes: 300 files of 1 kB to 20 MB
SHAPES = [(32, 32)] * 12 + [(180, 180)] * 10 + [(700, 700)] * 6 + [(2230, 2230)]
NOTES = 10
RAWS = len(SHAPES) * 9
FILES = RAWS + len(SHAPES) + NOTES

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@dataclass
class Site:
    """One storage element and the folder of it that this test uses."""

    rse: str
    server: WebDavServer
    folder: str

    @property
    def root(self) -> Path:
        return self.server.data_dir / self.folder

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file()
        }


def write_night(site: Site, camera: Path) -> None:
    """Have the camera leave a night of raws, with notes beside them."""
    night = camera / "LSSTComCam" / str(DAY_OBS)
    for number, shape in enumerate(SHAPES):
        write_exposure(night, DAY_OBS, 100 + number, shape=shape)
    for number in range(NOTES):
        (night / f"note_{number}.txt").write_text(f"note {number}\n".ljust(1000, "."))
    for path in sorted(camera.rglob("*")):
        if path.is_file():
            site.server.write_file(f"{site.folder}/raw/{path.relative_to(camera)}", path.read_bytes())


def register(arriero: Installation, source: Site, destination: Site) -> None:
    """Tell the registry of the sites and of what lies at the first."""
    for site in (source, destination):
        arriero.run("rse", "add", site.rse)
        arriero.run("rse", "attribute", "add", site.rse, "--key", "lfn2pfn_algorithm", "--value", "identity")
        arriero.run(
            *("rse", "protocol", "add", site.rse, "--scheme", "http", "--host-name", "127.0.0.1"),
            *("--port", str(site.server.port), "--prefix", f"{site.server.prefix}/{site.folder}"),
        )
    arriero.run("rse", "distance", "set", source.rse, destination.rse, "--distance", "1")
    arriero.run("scope", "add", "raw", "--account", "root")
    arriero.run(
        *(
            "replica",
            "add",
            "--rse",
            source.rse,
            "--scope",
            "raw",
            "--dataset",
            DATASET,
            f"LSSTComCam/{DAY_OBS}",
        )
    )
    arriero.run("did", "update", "--close", DATASET)


def start_agent(arriero: Installation, butler: str) -> None:
    """Start an agent whose whole environment is a URL and a token."""
    answer = json.loads(arriero.run("-o", "json", "token", "create", "--label", "in2p3", "--butler", butler))
    issued = answer[0] if isinstance(answer, list) else answer
    environment = {"ARRIERO_URL": arriero.client["ARRIERO_URL"], "ARRIERO_TOKEN": issued["token"]}
    arriero.start(
        "agent", ARRIERO, "agent", "run", "--butler", butler, environment=environment
    ).wait_for_line("agent started")


@pytest.fixture
def sites(services: Services) -> tuple[Site, Site]:
    folder = f"system-{uuid.uuid4().hex[:8]}"
    return (
        Site(SOURCE, services.xrootd_slac, folder),
        Site(DESTINATION, services.xrootd_in2p3, folder),
    )


@dataclass
class Catalogue:
    """The installation's database, asked directly."""

    engine: Engine

    def count(self, statement: str) -> int:
        """Give the one number that a statement asks for."""
        with self.engine.connect() as connection:
            return int(connection.execute(text(statement)).scalar_one())

    @property
    def copied(self) -> int:
        """Requests that have ended well."""
        return self.count("SELECT count(*) FROM request_history WHERE state = 'DONE'")

    @property
    def ingested(self) -> int:
        """Files that are in the Butler, by the ledger."""
        return self.count("SELECT count(*) FROM arrivals WHERE state = 'ingested'")


def start_centre(arriero: Installation, directory: Path) -> list[Process]:
    """Start service, beat and two workers on a new database; give the workers."""
    password = directory / "password"
    password.write_text("a password for the test\n")
    arriero.run("admin", "db", "upgrade", central=True)
    arriero.run("admin", "bootstrap", "--username", "root", "--password-file", str(password), central=True)
    arriero.start_service()
    arriero.client |= {
        "ARRIERO_ACCOUNT": "root",
        "ARRIERO_USERNAME": "root",
        "ARRIERO_PASSWORD_FILE": str(password),
    }
    arriero.start_beat()
    queues = "rules,transfer,delete,maintenance"
    return [arriero.start_worker(name, queues=queues) for name in ("worker-1", "worker-2")]


def add_butler(arriero: Installation, destination: Site, repository: Path, registry_db: str) -> None:
    """Create a repository whose registry is PostgreSQL, and have it fed by the destination."""
    arriero.run(
        *("butler", "create", str(repository)),
        *("--instrument", "lsstcomcam", "--registry-db", registry_db),
    )
    arriero.run(
        *("butler", "add", "in2p3", "--uri", str(repository), "--rse", destination.rse),
        *("--instrument", "lsstcomcam", "--select", "raw:LSSTComCam/*.fits"),
    )
    start_agent(arriero, "in2p3")


def test_three_hundred_files_survive_a_killed_worker_and_a_flushed_broker(
    services: Services, sites: tuple[Site, Site], tmp_path: Path
) -> None:
    source, destination = sites
    write_night(source, tmp_path / "camera")
    assert len(source.files()) == FILES
    database = services.postgresql.create_database()
    registry_db = services.postgresql.create_database()
    services.postgresql.sql("CREATE EXTENSION btree_gist", registry_db.rsplit("/", 1)[1])
    repository = tmp_path / "repo"
    settings = {
        "ARRIERO_DATABASE_URL": database,
        "ARRIERO_BROKER_URL": services.redis.url,
        "ARRIERO_TRANSFER_LEASE_S": "6",
        "ARRIERO_SWEEP_S": "1",
    }
    catalogue = Catalogue(create_engine(database, poolclass=NullPool))
    with installation(tmp_path / "installation", settings) as arriero:
        workers = start_centre(arriero, tmp_path)
        register(arriero, source, destination)
        add_butler(arriero, destination, repository, registry_db)

        rule = arriero.run("rule", "add", DATASET, "--rses", destination.rse, "--copies", "1").strip()
        begun = time.monotonic()
        wait_until(lambda: catalogue.copied > 0, "a first file was copied")
        _worker_that_copies(catalogue.engine, workers).kill()
        services.redis.flush()
        assert catalogue.count("SELECT count(*) FROM requests WHERE state = 'SUBMITTED'") > 0
        assert catalogue.copied < FILES, "the worker was killed too late to prove anything"

        wait_until(lambda: catalogue.ingested == RAWS, "every raw is in the Butler", timeout_s=240)
        wait_until(
            lambda: json.loads(arriero.run("-o", "json", "rule", "show", rule))["state"] == "OK",
            "the rule is OK",
        )
        megabytes = sum(map(len, source.files().values())) / 1e6
        print(
            f"{FILES} files, {megabytes:.0f} MB, {RAWS} datasets: {time.monotonic() - begun:.1f} s, with a dead worker"
        )
        trace = arriero.run("-o", "table", "trace", _raw(100))

    assert "ingested" in trace
    assert "AVAILABLE" in trace
    _prove_rows(catalogue, destination)
    _prove_bytes(source, destination)
    adopted = catalogue.count("SELECT count(*) FROM request_history WHERE mode = 'adopted'")
    _prove_third_party(source, destination, adopted)
    _prove_butler(repository, destination)
    checked = Database(database)
    assert_invariants(checked)
    checked.dispose()


def _prove_rows(catalogue: Catalogue, destination: Site) -> None:
    """Every file was copied once and is AVAILABLE and verified; every raw is one dataset; nothing is left over."""
    count = catalogue.count
    assert count("SELECT count(*) FROM requests") == 0
    assert catalogue.copied == FILES
    assert count("SELECT count(*) FROM request_history WHERE mode = 'third_party_pull'") > FILES / 2
    assert (
        count("SELECT count(*) FROM request_history WHERE mode NOT IN ('third_party_pull', 'adopted')") == 0
    )
    there = (
        "SELECT count(*) FROM replicas JOIN rses ON rses.id = rse_id "
        f"WHERE rses.name = '{destination.rse}' AND state = 'AVAILABLE' AND verified_at IS NOT NULL"
    )
    assert count(there) == FILES
    assert count("SELECT count(DISTINCT dataset_id) FROM arrivals") == RAWS


def _worker_that_copies(engine: Engine, workers: list[Process]) -> Process:
    """Find the worker, by its process group, that holds requests right now."""
    with engine.connect() as connection:
        owner = connection.execute(
            text("SELECT lease_owner FROM requests WHERE state = 'SUBMITTED' ORDER BY id DESC LIMIT 1")
        ).scalar_one()
    group = os.getpgid(int(owner.split(":")[1]))
    return next(worker for worker in workers if worker.pid == group)


def _raw(seq_num: int) -> str:
    exposure = f"CC_O_{DAY_OBS}_{seq_num:06d}"
    return f"raw:LSSTComCam/{DAY_OBS}/{exposure}/{exposure}_R22_S00.fits"


def _prove_bytes(source: Site, destination: Site) -> None:
    """Every file is at both sites with the same bytes, and nothing else is."""
    sent, received = source.files(), destination.files()
    assert sorted(sent) == sorted(received), "no file missing, no temporary file left"
    different = [name for name in sent if zlib.adler32(sent[name]) != zlib.adler32(received[name])]
    assert different == []


def _prove_third_party(source: Site, destination: Site, adopted: int) -> None:
    """By its own log the destination's server fetched every byte from the source's: none passed through a worker.

    XRootD 5.5.3 finishes a copy whose client is gone, and logs no end of it: what was adopted may have a begin alone.
    """
    log = destination.server.log_path.read_text(errors="replace")
    pattern = (
        r"event=(PULL_START|TRANSFER_SUCCESS), local=(\S+), remote=(\S+?),(?:.*bytes_transferred=(\d+))?"
    )
    begun: set[str] = set()
    pulled: dict[str, int] = {}
    base = f"{source.server.url}/{source.folder}/"
    for event, local, remote, size in re.findall(pattern, log):
        if f"/{destination.folder}/" not in local:
            continue
        assert remote.startswith(base)
        if event == "PULL_START":
            begun.add(remote.removeprefix(base))
        else:
            pulled[remote.removeprefix(base)] = int(size)
    sent = {name: len(content) for name, content in source.files().items()}
    assert begun == sent.keys()
    assert pulled.items() <= sent.items()
    assert len(pulled) >= len(sent) - adopted


def _prove_butler(repository: Path, destination: Site) -> None:
    """Every raw is in the Butler once, in place, with the size that is on disk."""
    from lsst.daf.butler import Butler

    with Butler.from_config(str(repository), collections="LSSTComCam/raw/all") as butler:
        refs = butler.query_datasets("raw", limit=None)
        assert len(refs) == RAWS
        assert len({ref.dataId for ref in refs}) == RAWS
        base = f"{destination.server.url}/{destination.folder}/raw/"
        on_disk = destination.files()
        for ref in refs:
            uri = str(butler.getURI(ref))
            assert uri.startswith(base)
            assert f"raw/{uri.removeprefix(base)}" in on_disk
        image = butler.get("raw", instrument="LSSTComCam", exposure=DAY_OBS * 100_000 + 100, detector=0)
        assert image[1 if len(image) > 1 else 0].data is not None
