"""Workers that copy, in processes of their own: killed at every step, and stopped for longer than their leases."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from arriero.registry.states import ReplicaState, RequestState, RuleState
from arriero.rse.pool import ProtocolPool
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.sweeps import sweep_requests
from arriero.scheduler.transfer import TransferRunner
from servicelib.server import WebDavServer
from support.copiers import AMID_BYTES, LEFT_WHOLE, SLEEPS, SOURCE_SEEN, STEPS, start_copier
from support.database import migrated_database
from support.dying import is_asleep, wait_until
from support.rse_badserver import BadServer, Fault, bad_server
from support.scheduling import Catalogue, replicas, request_history, requests
from support.services import Services, drop_database
from support.storage_sites import add_file

SETTINGS = {"transfer_threads": 1}
FILES = 5
LINKS = ("xrootd_in2p3", "wsgidav")
"""Where copies go: to one that pulls them, and to one that they are streamed to."""


class Matrix:
    """A catalogue, three storages and a second worker, for all steps."""

    def __init__(self, services: Services, url: str, folder: str, slow: BadServer) -> None:
        self.catalogue = Catalogue(url)
        self.pool = ProtocolPool()
        self.folder = folder
        self.slow = slow
        self.servers: dict[str, WebDavServer] = {
            name: services.webdav(name) for name in ("xrootd_slac", *LINKS)
        }
        self.ids = {name: self._rse(name, server) for name, server in self.servers.items()}
        protocol = {"scheme": "http", "hostname": "127.0.0.1", "port": slow.port, "prefix": "/store"}
        self.ids["slow"] = self.catalogue.rse(
            "SLOW", protocol=protocol, attributes={"lfn2pfn_algorithm": "identity"}
        )

    def _rse(self, name: str, server: WebDavServer) -> int:
        protocol = {
            "scheme": "http",
            "hostname": "127.0.0.1",
            "port": server.port,
            "prefix": f"{server.prefix}/{self.folder}",
        }
        return self.catalogue.rse(
            name.upper(), protocol=protocol, attributes={"lfn2pfn_algorithm": "identity"}
        )

    def close(self) -> None:
        self.pool.close()
        self.catalogue.close()

    def root(self, destination: str) -> Path:
        """What an RSE shows, as a folder of this machine."""
        return self.servers[destination].data_dir / self.folder

    def wanted(self, night: str, destination: str, source: str = "xrootd_slac", size: int = 100_000) -> int:
        """Have files at one RSE that a rule wants at another; give the rule."""
        self.contents = {
            f"{night}/f{number}": bytes([65 + number]) * (size + number) for number in range(FILES)
        }
        self.files = {name: add_file(self.catalogue, name, data) for name, data in self.contents.items()}
        for name, content in self.contents.items():
            if source == "slow":
                self.slow.files[f"raw/{name}"] = content
            else:
                self.servers[source].write_file(f"{self.folder}/raw/{name}", content)
            self.catalogue.replicas([self.files[name]], self.ids[source], size=len(content))
        dataset = self.catalogue.collection(night, children=list(self.files.values()))
        rule = self.catalogue.rule(dataset, destination.upper())
        Evaluator(self.catalogue.context).run()
        return rule

    def worker_is_given_up(self) -> int:
        """Have all leases be over, and what was held be due."""
        self.catalogue.age(requests, 60, "lease_until")
        taken = sweep_requests(self.catalogue.context)
        self.catalogue.age(requests, 3600, "not_before")
        return taken

    def second_worker(self) -> TransferRunner:
        return TransferRunner(self.catalogue.context, pool=self.pool)

    def there(self, destination: str, night: str) -> dict[str, bytes]:
        """All that is below a folder of an RSE, and what was tried at its top."""
        root = self.root(destination)
        found = [*(root / "raw" / night).rglob("*"), *root.glob(".arriero*")]
        return {
            str(path.relative_to(root / "raw")) if "raw" in path.parts else path.name: path.read_bytes()
            for path in found
            if path.is_file()
        }

    def check(self, rule: int, destination: str, night: str) -> dict[int, str]:
        """See that each file is there once, right and settled; give the way of each."""
        catalogue = self.catalogue
        assert catalogue.rule_row(rule).state is RuleState.OK
        assert catalogue.count(requests) == 0
        assert self.there(destination, night) == self.contents
        ids = list(self.files.values())
        at = select(replicas).where(replicas.c.file_id.in_(ids), replicas.c.rse_id == self.ids[destination])
        rows = catalogue.rows(at)
        assert len(rows) == FILES
        assert {row.state for row in rows} == {ReplicaState.AVAILABLE}
        assert all(row.verified_at is not None for row in rows)
        done = catalogue.rows(
            select(request_history)
            .where(request_history.c.file_id.in_(ids), request_history.c.state == RequestState.DONE)
            .order_by(request_history.c.file_id)
        )
        assert [row.file_id for row in done] == ids, "each file is settled once"
        for row in done:
            assert (row.mode_reason is None) == (row.mode == "third_party_pull"), row
            assert row.mode != "streamed" or "no third-party copy" in row.mode_reason
        catalogue.check_invariants()
        return {row.file_id: row.mode for row in done}


@pytest.fixture(scope="module")
def matrix(services, tmp_path_factory) -> Iterator[Matrix]:
    directory = tmp_path_factory.mktemp("copiers")
    url = migrated_database(services, "postgresql", directory)
    with bad_server() as slow:
        made = Matrix(services, url, directory.name, slow)
        yield made
        slow.ended.set()
        made.close()
    drop_database(services, url)


def night_of(step: str, destination: str) -> str:
    return f"{step}-{destination}".replace(" ", "_").replace(":", "")


AT_THE_STORAGE = (*LEFT_WHOLE, "copy: moved and not told")
"""Where storages differ; the rest is between the worker and the database."""


@pytest.mark.parametrize(
    ("step", "destination"),
    [*((step, LINKS[0]) for step in STEPS), *((step, LINKS[1]) for step in AT_THE_STORAGE)],
)
def test_a_copier_that_dies_at_a_step_leaves_what_the_next_one_ends(matrix, step, destination):
    night = night_of(step, destination)
    rule = matrix.wanted(night, destination, size=1_500_000 if step == SOURCE_SEEN else 100_000)
    worker = start_copier(matrix.catalogue.url, SETTINGS, step, matrix.root(destination))
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL, "it did not come to that step"
    before = matrix.there(destination, night)
    taken = matrix.worker_is_given_up()
    assert taken == 0 or step != "claim: not committed"
    matrix.second_worker().run()
    modes = matrix.check(rule, destination, night)
    if step in LEFT_WHOLE:
        [left] = [name for name in before if name.endswith(".part")]
        [third] = [name for name in matrix.contents if left.startswith(name)]
        assert before[left] == matrix.contents[third]
        assert modes[matrix.files[third]] == "adopted", "what was left complete is copied again"


@pytest.mark.parametrize(("source", "destination"), [("slow", "xrootd_in2p3"), ("xrootd_slac", "wsgidav")])
def test_a_copier_that_dies_while_bytes_move(matrix, source, destination):
    """What it has left is removed, also where the storage goes on writing when nobody listens any more."""
    night = night_of(AMID_BYTES, destination)
    rule = matrix.wanted(night, destination, source, size=8_000_000)
    third = f"raw/{list(matrix.contents)[2]}"
    if source == "slow":
        matrix.slow.faults = {f"raw/{name}": Fault() for name in matrix.contents}
        matrix.slow.before = _stall_third(matrix.slow)
    worker = start_copier(matrix.catalogue.url, SETTINGS, AMID_BYTES, matrix.root(destination))
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL, "it did not come to that step"
    sizes = {len(content) for name, content in matrix.there(destination, night).items() if ".part" in name}
    assert any(0 < size < 8_000_000 for size in sizes) or source != "slow", (sizes, third)
    matrix.slow.before = None
    matrix.slow.faults.clear()
    matrix.worker_is_given_up()
    matrix.second_worker().run()
    matrix.check(rule, destination, night)


def _stall_third(slow: BadServer):
    """Have the third file that a storage fetches come half, and no more."""
    fetched: list[str] = []

    def look(verb: str, path: str) -> None:
        if verb == "GET" and path not in fetched:
            fetched.append(path)
            slow.faults[path] = Fault(stall=len(fetched) == 3)

    return look


@pytest.mark.parametrize(
    ("step", "destination"),
    [*((step, LINKS[0]) for step in SLEEPS), ("asleep: before the move", LINKS[1])],
)
def test_what_a_copier_that_was_stopped_for_long_does_when_it_wakes(matrix, step, destination):
    night = night_of(step, destination)
    rule = matrix.wanted(night, destination)
    worker = start_copier(matrix.catalogue.url, SETTINGS, step, matrix.root(destination))
    wait_until(lambda: is_asleep(worker), "it did not come to that step")
    assert matrix.worker_is_given_up() > 0
    matrix.second_worker().run()
    modes = matrix.check(rule, destination, night)
    os.kill(worker.pid, signal.SIGCONT)
    worker.join(60)
    assert worker.exitcode == 0
    assert matrix.check(rule, destination, night) == modes, "it was believed"
