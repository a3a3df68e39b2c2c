"""Storages in trouble, through all of it: rule, worker, settlement with the reason, and the copy done when the trouble is over."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from sqlalchemy import select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import links, request_attempts, rse_health
from arriero.registry.services.context import Context
from arriero.registry.states import RequestState, RuleState
from arriero.rse.pool import ProtocolPool
from arriero.rse.progress import Limits
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.transfer import RunSummary, TransferRunner
from servicelib.server import WebDavServer
from support.database import migrated_database
from support.rse_badserver import BadServer, Fault, bad_server
from support.rse_small_disk import xrootd_on_small_disk
from support.scheduling import Catalogue, replicas, request_history, requests
from support.services import Services, drop_database
from support.storage_sites import add_file

DAY_S = 86_400


class Trouble:
    """A catalogue with storages that get into trouble."""

    def __init__(self, url: str, folder: Path) -> None:
        self.catalogue = Catalogue(url)
        self.folder = folder
        self.roots: dict[str, Path] = {}
        self.credentials: dict[str, dict[str, str]] = {}

    def server(self, rse: str, server: WebDavServer, *, scheme: str = "http", **opened: str) -> int:
        """Add an RSE on a server, below a folder of this test's own."""
        self.roots[rse] = server.data_dir / self.folder.name
        port = server.port
        if scheme == "https":
            assert server.https_url
            port = int(server.https_url.split(":")[2].split("/")[0])
        self.credentials[rse] = opened
        return self._rse(rse, scheme, port, f"{server.prefix}/{self.folder.name}")

    def bad(self, rse: str, server: BadServer) -> int:
        return self._rse(rse, "http", server.port, "/store")

    def _rse(self, rse: str, scheme: str, port: int, prefix: str) -> int:
        protocol = {"scheme": scheme, "hostname": "127.0.0.1", "port": port, "prefix": prefix}
        return self.catalogue.rse(rse, protocol=protocol, attributes={"lfn2pfn_algorithm": "identity"})

    def wanted(self, night: str, contents: dict[str, bytes], at: int, to: str) -> int:
        """Have a rule ask for files."""
        ids = []
        for name, content in contents.items():
            ids.append(add_file(self.catalogue, name, content))
            self.catalogue.replicas(ids[-1:], at, size=len(content))
        rule = self.catalogue.rule(self.catalogue.collection(night, children=ids), to)
        Evaluator(self.catalogue.context).run()
        return rule

    def run(self, **settings: object) -> RunSummary:
        """What a worker does that has just been started; what waits for its time is due."""
        self.catalogue.age(requests, 3600, "not_before")
        with self.catalogue.database.transaction() as tx:
            tx.execute(update(rse_health).values(retry_at=after(-1.0)))
        path = self.folder / "credentials.yaml"
        path.write_text(yaml.safe_dump({rse: opened for rse, opened in self.credentials.items() if opened}))
        changed = {"credentials_file": path, "transfer_max_attempts": 50, "transfer_threads": 1, **settings}
        context = self.catalogue.context
        pool = ProtocolPool()
        try:
            made = Context(context.database, context.settings.model_copy(update=changed), context.doorbell)
            return TransferRunner(made, pool=pool).run()
        finally:
            pool.close()

    def waiting(self) -> list[tuple[str, str | None, int]]:
        """State, code and attempts of what is asked for."""
        rows = self.catalogue.rows(select(requests).order_by(requests.c.id))
        assert all(row.reason and row.lease_owner is None for row in rows)
        return [(row.state.value, row.code, row.attempt) for row in rows]

    def reason(self) -> str:
        """Of the first that waits."""
        rows = self.catalogue.rows(select(requests.c.reason).order_by(requests.c.id))
        return str(rows[0].reason)

    def there(self, rse: str) -> dict[str, bytes]:
        """All that is at an RSE."""
        root = self.roots[rse] / "raw"
        found = root.rglob("*") if root.exists() else iter(())
        return {str(path.relative_to(root)): path.read_bytes() for path in found if path.is_file()}

    def well(self, rule: int) -> None:
        """See that nothing is left of the trouble."""
        assert self.catalogue.rule_row(rule).state is RuleState.OK
        assert self.catalogue.count(requests) == 0
        self.catalogue.check_invariants()


@pytest.fixture
def trouble(services: Services, tmp_path: Path) -> Iterator[Trouble]:
    url = migrated_database(services, "postgresql", tmp_path)
    made = Trouble(url, tmp_path)
    yield made
    made.catalogue.close()
    drop_database(services, url)


def test_a_disk_that_is_full_until_there_is_room(trouble, services):
    """XRootD says so within the report of a copy; nobody has to do anything when there is room again."""
    slac = trouble.server("SLAC", services.xrootd_slac)
    contents = {name: name.encode() * 3_000_000 for name in "ab"}
    for name, content in contents.items():
        services.xrootd_slac.write_file(f"{trouble.folder.name}/raw/{name}", content)
    with xrootd_on_small_disk(services.directory, f"disk-{uuid.uuid4().hex[:8]}", 4 << 20) as small:
        trouble.server("SMALL", small)
        rule = trouble.wanted("night", contents, slac, "SMALL")
        done = trouble.run()
        assert (done.done, done.retried) == (1, 1)
        [waits] = trouble.waiting()
        assert waits == ("QUEUED", "no_space", 1)
        assert "SMALL" in trouble.reason()
        pool = ProtocolPool()
        row = trouble.catalogue.one(select(replicas).where(replicas.c.state == "COPYING"))
        assert row.verified_at is None
        [there] = _listed(pool, small, trouble)
        assert there in contents, "what did not fit is removed"
        assert trouble.run().retried == 1, "the disk is still full"
        _protocol(pool, small, trouble).delete(f"raw/{there}")
        assert trouble.run().done == 1
        [other] = _listed(pool, small, trouble)
        assert {there, other} == set(contents)
        assert b"".join(_protocol(pool, small, trouble).read(f"raw/{other}")) == contents[other]
        pool.close()
    trouble.well(rule)
    # each attempt can be told
    tried = trouble.catalogue.rows(select(request_attempts).order_by(request_attempts.c.id))
    assert [(row.attempt, row.code) for row in tried] == [(1, "no_space"), (2, "no_space")]
    done = trouble.catalogue.rows(select(request_history).order_by(request_history.c.attempt))
    assert [(row.state, row.attempt) for row in done] == [(RequestState.DONE, 1), (RequestState.DONE, 3)]


def _protocol(pool: ProtocolPool, server: WebDavServer, trouble: Trouble):
    from arriero.rse.types import Endpoint

    prefix = f"{server.prefix}/{trouble.folder.name}"
    return pool.get(Endpoint("SMALL", "http", "127.0.0.1", server.port, prefix))


def _listed(pool: ProtocolPool, server: WebDavServer, trouble: Trouble) -> list[str]:
    return [entry.name for entry in _protocol(pool, server, trouble).list_directory("raw")]


def test_a_token_that_has_run_out_and_an_authority_that_nobody_knows(trouble, services, tmp_path):
    """Neither is for ever: what waits is copied when the file of the token, or of the authority, is mended."""
    source = services.xrootd_tokens
    token, scope = tmp_path / "token", f"storage.read:/{tmp_path.name}"
    token.write_text(source.token_for(scope, seconds=-600))
    opened = {"ca_bundle": str(source.ca_bundle), "token_file": str(token)}
    there = trouble.server("TOKENS", source, scheme="https", **opened)
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(_another_authority(services, tmp_path))
    trouble.server("IN2P3", services.xrootd_in2p3, scheme="https", ca_bundle=str(wrong))
    contents = {"f": b"behind a token" * 100}
    source.write_file(f"{tmp_path.name}/raw/f", contents["f"])
    rule = trouble.wanted("night", contents, there, "IN2P3")
    assert (trouble.run().done, trouble.waiting()[0][:2]) == (0, ("QUEUED", "token_expired"))
    assert str(token) in trouble.reason()
    token.write_text(source.token_for(scope))
    assert trouble.run().done == 0
    assert trouble.waiting()[0][:2] == ("QUEUED", "unavailable")
    assert "certificate" in trouble.reason()
    assert trouble.there("IN2P3") == {}
    trouble.credentials["IN2P3"] = {"ca_bundle": str(services.xrootd_in2p3.ca_bundle)}
    assert trouble.run().done == 1
    assert trouble.there("IN2P3") == contents
    trouble.well(rule)
    assert "eyJ" not in str(trouble.catalogue.rows(select(request_attempts))), "no token is written down"


def _another_authority(services: Services, tmp_path: Path) -> bytes:
    import subprocess

    key, certificate = tmp_path / "other.key", tmp_path / "other.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-subj", "/CN=Somebody else", "-days", "1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate.read_bytes()


def test_storms_hangs_resets_and_wrong_clocks(trouble, services, monkeypatch):
    """D9, D11: a source that is down costs its files no attempt; what hangs or is cut is tried again; clocks do not matter."""
    monkeypatch.setattr("arriero.rse.copy.Limits", partial(Limits, stall_s=0.5))
    contents = {f"f{number}": bytes([65 + number]) * (5000 + number) for number in range(9)}
    with bad_server(software="bad") as bad:
        source = trouble.bad("BAD", bad)
        trouble.server("IN2P3", services.wsgidav)
        bad.files.update({f"raw/{name}": content for name, content in contents.items()})
        rule = trouble.wanted("night", contents, source, "IN2P3")
        # every request is refused, whatever for
        bad.before = lambda _verb, path: bad.faults.update({path: Fault(status=503)})
        done = trouble.run()
        assert (done.done, done.retried + done.released) == (0, 9)
        assert done.released > 0
        assert {(state, code) for state, code, _ in trouble.waiting()} <= {
            ("QUEUED", "unavailable"),
            ("QUEUED", "link_busy"),
        }
        assert max(attempt for _, _, attempt in trouble.waiting()) <= 1
        health = trouble.catalogue.one(select(rse_health).where(rse_health.c.rse_id == source))
        assert (health.breaker.value, health.code) == ("OPEN", "unavailable")
        before = [attempt for *_, attempt in trouble.waiting()]
        asked = len(bad.requests)
        trouble.run()
        assert len(bad.requests) - asked < 10, "one copy is tried, to see"
        assert [attempt for *_, attempt in trouble.waiting()] == before, "and costs no attempt"
        # it is back, with a clock that is a day ahead; some files hang, others are cut
        monkeypatch.setattr(
            "http.server.BaseHTTPRequestHandler.date_time_string",
            lambda _self, _timestamp=None: time.strftime(
                "%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + DAY_S)
            ),
        )
        bad.faults.clear()
        ills = itertools.cycle([Fault(), Fault(stall=True), Fault(cut_after=100)])
        sick: dict[str, Fault] = {}
        bad.before = lambda verb, path: bad.faults.update(
            {path: sick.setdefault(path, next(ills)) if verb == "GET" else Fault()}
        )
        assert trouble.run(transfer_threads=4).done >= 1, "the one that is tried, to see"
        trouble.run(transfer_threads=4)
        assert 3 <= len(trouble.there("IN2P3")) < 9
        assert {code for _, code, _ in trouble.waiting()} <= {
            "timed_out",
            "transfer_failed",
            "unavailable",
            "stalled",
        }
        bad.before = None
        bad.faults.clear()
        bad.ended.set()
        # and the worker's own clock is a day behind
        wall = time.time
        monkeypatch.setattr(time, "time", lambda: wall() - DAY_S)
        for _ in range(3):
            trouble.run(transfer_threads=4)
        monkeypatch.undo()
        assert trouble.there("IN2P3") == contents
        trouble.well(rule)
        assert trouble.catalogue.count(links) == 1
