"""One exposure of LSSTCam from its landing at one site to being whole in the Butler of another one, with all processes of production."""

import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import psycopg
from astropy.io import fits

from arriero.registry.client import RegistryClient
from arriero.registry.models import NewButler, NewToken
from benchlib import data
from benchlib.ingest_site import REPOSITORIES, ingest_worker
from benchlib.installation import installation
from benchlib.report import Sample
from benchlib.rules_found import Found, require, say
from benchlib.rules_sides import OURS
from benchlib.sides import BIN, HERE, bare_environment, database_url, postmaster_pid, recreate
from benchlib.stopwatch import machine_cpu_s, tree_cpu_s
from benchlib.transfers_ours import DESTINATION, SOURCE, Crew, set_up
from benchlib.transfers_peers import Curl
from benchlib.transfers_storage import Files, Pair, clear, make_folder, verify
from demo.exposures import exposure_header
from servicelib.stamp import stamp

WORK = "one exposure"
DAY_OBS = 20251101
BUTLER = "exposure"
COPIERS = 2
AT_ONCE = 8
LOOK_S = 0.02
PATIENCE_S = 300.0
PIECE = 1 << 20

RAFTS = [
    f"R{row}{column}"
    for row in range(5)
    for column in range(5)
    if f"{row}{column}" not in {"00", "04", "40", "44"}
]
SENSORS = [f"S{row}{column}" for row in range(3) for column in range(3)]
CORNERS = ["R00", "R04", "R40", "R44"]
SLOTS = [(raft, sensor) for raft in RAFTS for sensor in SENSORS] + [
    (raft, sensor) for raft in CORNERS for sensor in ("SG0", "SG1", "SW0", "SW1")
]
"""All 205 detectors: 189 for science, 8 guiders, 8 for the wavefront."""


@dataclass(frozen=True)
class Asked:
    """How much is measured."""

    detectors: int = len(SLOTS)
    megabytes: int = 20
    rounds: int = 3


def lay_exposure(pair: Pair, seq_num: int, asked: Asked) -> Files:
    """Write an exposure's files into the storage where it lands."""
    name = f"MC_O_{DAY_OBS}_{seq_num:06d}"
    folder = f"{data.SCOPE}/LSSTCam/{DAY_OBS}/{name}"
    directory = make_folder(pair.source, folder)
    block = Random(seq_num).randbytes(PIECE)  # noqa: S311 - bytes to move, no secret
    adler32, size = {}, 0
    for number, (raft, sensor) in enumerate(SLOTS[: asked.detectors]):
        path = directory / f"{name}_{raft}_{sensor}.fits"
        head = _head(name, seq_num, raft, sensor, asked.megabytes * PIECE)
        checksum, size = zlib.adler32(head), len(head)
        with path.open("wb", buffering=0) as file:
            file.write(head)
            for piece in range(asked.megabytes):
                content = (number << 16 | piece).to_bytes(8, "big") + block[8:]
                file.write(content)
                checksum, size = zlib.adler32(content, checksum), size + PIECE
            rest = bytes(-size % 2880)
            file.write(rest)
        checksum, size = zlib.adler32(rest, checksum), size + len(rest)
        adler32[path.name] = f"{checksum:08x}"
        pair.source.account.own(path)
        stamp(str(path))
    return Files(folder, size, adler32)


def _head(name: str, seq_num: int, raft: str, sensor: str, size: int) -> bytes:
    cards = exposure_header(DAY_OBS, seq_num)
    cards |= {
        "INSTRUME": ("LSSTCam", "Instrument"),
        "CAMCODE": ("MC", "The code for the camera"),
        "OBSID": (name, "ImageName from Camera StartIntegration"),
        "FILTER": ("r_57", "Name of the physical filter"),
        "RAFTBAY": (raft, "The raft bay in the camera"),
        "CCDSLOT": (sensor, "The CCD slot in the raft"),
    }
    primary = fits.PrimaryHDU(header=fits.Header([(k, v, c) for k, (v, c) in cards.items()])).header
    image = fits.Header(
        [("XTENSION", "IMAGE"), ("BITPIX", 8), ("NAXIS", 1), ("NAXIS1", size), ("PCOUNT", 0), ("GCOUNT", 1)]
    )
    return bytes(primary.tostring().encode("ascii") + image.tostring().encode("ascii"))


def measure_exposure(
    crew: Crew, broker_url: str, pair: Pair, directory: Path, *, asked: Asked, found: Found
) -> None:
    """Have one exposure after the other land, each under a rule of its dataset; the first one warms everything."""
    url = crew.begin(ca_bundle=pair.ca_bundle)
    set_up(crew.first, pair)
    environment = bare_environment() | {"PYTHONPATH": str(HERE.parent), "ARRIERO_LOG_LEVEL": "WARNING"}
    recreate(crew.admin_url, REPOSITORIES)
    worker = ingest_worker(directory, environment)
    try:
        repository = worker.do(
            "create",
            repository=str(directory / "lsstcam"),
            registry_db=database_url(crew.admin_url, REPOSITORIES),
            namespace="lsstcam",
            instrument="LSSTCam",
        )
        with (
            installation(url, broker_url, crew.credentials, directory, copiers=COPIERS) as server_url,
            _client(server_url) as client,
            _agent(
                client, server_url, pair, repository=repository, directory=directory, environment=environment
            ),
            psycopg.connect(url, autocommit=True) as connection,
        ):
            for turn in range(asked.rounds + 1):
                files = lay_exposure(pair, turn + 1, asked)
                crew.calm()
                with _busy(crew.admin_url, pair) as used:
                    sample = _one(client, connection, files, turn + 1)
                verify(pair.destination, files, files.folder)
                there = worker.do("count", repository=repository, instrument="LSSTCam")
                require(there["datasets"] == (turn + 1) * asked.detectors, there)
                clear(pair.destination, files.folder)
                if turn:
                    found.keep(
                        WORK, asked.detectors, OURS, replace(used, rate=sample.rate, items=sample.items)
                    )
                    _bound(crew.admin_url, pair, directory, files, asked=asked, found=found)
                clear(pair.source, files.folder)
    finally:
        worker.close()


@contextmanager
def _busy(admin_url: str, pair: Pair) -> Iterator[Sample]:
    """Tell whom the machine's processors have worked for in a block; what is neither storage nor database counts as client."""
    before, used = _processor_times(admin_url, pair), Sample(0.0)
    yield used
    times = [after - began for after, began in zip(_processor_times(admin_url, pair), before, strict=True)]
    used.server_cpu_s, used.database_cpu_s = times[:2]
    used.client_cpu_s = times[2] - times[0] - times[1]


def _processor_times(admin_url: str, pair: Pair) -> tuple[float, float, float]:
    pids = [pid for server in (pair.source, pair.destination) if (pid := server.pid()) is not None]
    return sum(map(tree_cpu_s, pids)), tree_cpu_s(postmaster_pid(admin_url)), machine_cpu_s()


def _bound(admin_url: str, pair: Pair, directory: Path, files: Files, *, asked: Asked, found: Found) -> None:
    """Copy the same files with nothing but COPY: what the two storages need on this machine."""
    curl = Curl(pair, directory, AT_ONCE, only_copy=True)
    with _busy(admin_url, pair) as used:
        sample = curl.copy(files)
    clear(pair.destination, curl.place(files))
    found.keep(WORK, asked.detectors, curl.name, replace(used, rate=sample.rate, items=sample.items))


def _one(
    client: RegistryClient, connection: psycopg.Connection[tuple[int]], files: Files, seq_num: int
) -> Sample:
    scope, path = data.SCOPE, files.folder.partition("/")[2]
    dataset = f"Dataset/{path}"
    client.add_did(scope, dataset, "DATASET")
    client.add_replication_rule([{"scope": scope, "name": dataset}], 1, DESTINATION, account="root")
    described = [
        {"scope": scope, "name": f"{path}/{name}", "bytes": files.size, "adler32": adler32}
        for name, adler32 in files.adler32.items()
    ]
    query = "SELECT count(*) FROM arrivals WHERE state = 'ingested'"
    before = _count(connection, query)
    began = time.perf_counter()
    client.add_replicas(SOURCE, described)
    client.attach_dids(scope, dataset, [{"scope": scope, "name": str(one["name"])} for one in described])
    while (ingested := _count(connection, query) - before) < len(described):
        seconds = time.perf_counter() - began
        require(seconds < PATIENCE_S, f"{ingested} of {len(described)} of exposure {seq_num} are in")
        time.sleep(LOOK_S)
    seconds = time.perf_counter() - began
    say(f"exposure {seq_num}: {seconds:.2f} s")
    return Sample(len(described) / seconds, items=len(described))


def _count(connection: psycopg.Connection[tuple[int]], query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def _client(url: str) -> Iterator[RegistryClient]:
    client = RegistryClient(url, account="root", username="ddmlab", password="secret")  # noqa: S106 - of the benchmark alone
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _agent(
    client: RegistryClient,
    url: str,
    pair: Pair,
    *,
    repository: str,
    directory: Path,
    environment: dict[str, str],
) -> Iterator[None]:
    client.add_butler(
        NewButler.model_validate(
            {
                "name": BUTLER,
                "uri": repository,
                "instruments": ["LSSTCam"],
                "rses": [{"rse": DESTINATION, "uri_prefix": pair.url(pair.destination)}],
                "selections": [{"scope": data.SCOPE}],
            }
        )
    )
    token = client.create_token(NewToken(label=BUTLER, lifetime_s=86_400, butlers=[BUTLER])).token
    settings = {"ARRIERO_URL": url, "ARRIERO_TOKEN": token}
    with (directory / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            [str(BIN / "arriero"), "agent", "run", "--butler", BUTLER],
            env=environment | settings,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)
