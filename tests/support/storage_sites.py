"""Two RSEs with the same files on real storages, one of them under a rule; what is spoilt there real workers make good again."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import replica_checks, scrubbed_rses, storage_findings
from arriero.registry.services.context import Context
from arriero.rse.pool import ProtocolPool
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.scrub import Scrubber, ScrubSummary
from arriero.scheduler.transfer import TransferRunner
from support.audited import age_replicas
from support.scheduling import Catalogue, dids, replicas, requests

FAST = {"scrub_bytes_per_s": 1e9}


@dataclass
class Sites:
    """Two RSEs with the same files, and the second one's under a rule."""

    catalogue: Catalogue
    folders: dict[str, Path]
    ids: dict[str, int]
    contents: dict[str, bytes]
    files: dict[str, int]
    rule: int
    pool: ProtocolPool
    settings: dict[str, object] = field(default_factory=lambda: dict(FAST))

    def path(self, rse: str, name: str) -> Path:
        return self.folders[rse] / "raw" / name

    @property
    def context(self) -> Context:
        changed = self.catalogue.context.settings.model_copy(update=self.settings)
        return type(self.catalogue.context)(self.catalogue.database, changed, self.catalogue.bells)

    def scrubber(self) -> Scrubber:
        return Scrubber(self.context, pool=self.pool)

    def scrub(self) -> ScrubSummary:
        """One round, and what is to be read again is due now; the first look was 11 minutes ago."""
        summary = self.scrubber().run()
        with self.catalogue.database.transaction() as tx:
            tx.execute(update(replica_checks).values(not_before=after(-1)))
            tx.execute(update(scrubbed_rses).values(next_at=after(-1), refill_at=after(-1)))
            tx.execute(update(storage_findings).values(first_seen_at=after(-660), last_seen_at=after(-660)))
        return summary

    def repair(self) -> None:
        """What the workers do."""
        Evaluator(self.context).run()
        summary = TransferRunner(self.context, pool=self.pool).run()
        assert (summary.failed, summary.retried) == (0, 0), [
            (row.code, row.reason) for row in self.catalogue.rows(select(requests))
        ]
        self.catalogue.check_invariants()

    def state(self, rse: str, name: str) -> tuple[str, bool]:
        """State, and whether it is verified."""
        query = select(replicas).where(
            replicas.c.rse_id == self.ids[rse], replicas.c.file_id == self.files[name]
        )
        row = self.catalogue.one(query)
        return row.state.value, row.verified_at is not None

    def verified(self, rse: str) -> int:
        query = select(func.count()).where(
            replicas.c.rse_id == self.ids[rse], replicas.c.verified_at.is_not(None)
        )
        return self.catalogue.one(query)[0]


def add_file(catalogue: Catalogue, name: str, content: bytes, **values: object) -> int:
    defaults = {
        "scope_id": catalogue.scope_id,
        "name": name,
        "type": "FILE",
        "account_id": catalogue.account_id,
        "spread": 0,
        "bytes": len(content),
        "adler32": f"{zlib.adler32(content):08x}",
    }
    with catalogue.database.transaction() as tx:
        return catalogue._insert(tx, dids, **(defaults | values))


def make_sites(
    catalogue: Catalogue,
    endpoints: dict[str, dict[str, object]],
    folders: dict[str, Path],
    pool: ProtocolPool,
) -> Sites:
    ids = {
        rse: catalogue.rse(rse, protocol=protocol, attributes={"lfn2pfn_algorithm": "identity"})
        for rse, protocol in endpoints.items()
    }
    contents = {f"f{number}": bytes([65 + number]) * (1000 + number) for number in range(5)}
    files = {name: add_file(catalogue, name, content) for name, content in contents.items()}
    for rse, folder in folders.items():
        (folder / "raw").mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / "raw" / name).write_bytes(content)
            catalogue.replicas([files[name]], ids[rse], size=len(content))
    age_replicas(catalogue.database)
    rule = catalogue.rule(catalogue.collection("night", children=list(files.values())), "IN2P3")
    Evaluator(catalogue.context).run()
    return Sites(catalogue, folders, ids, contents, files, rule, pool)


@pytest.fixture
def sites(catalogue, pool, tmp_path) -> Sites:
    """On two folders."""
    folders = {rse: tmp_path / rse for rse in ("SLAC", "IN2P3")}
    endpoints = {
        rse: {"scheme": "file", "hostname": "", "port": 0, "prefix": str(folder)}
        for rse, folder in folders.items()
    }
    return make_sites(catalogue, endpoints, folders, pool)


@pytest.fixture(params=["file", "xrootd_in2p3", "apache"])
def anywhere(request, catalogue, services, pool, tmp_path) -> Sites:
    """On a folder, and on a storage of each kind."""
    slac = tmp_path / "SLAC"
    endpoints = {"SLAC": {"scheme": "file", "hostname": "", "port": 0, "prefix": str(slac)}}
    if request.param == "file":
        in2p3 = tmp_path / "IN2P3"
        endpoints["IN2P3"] = {"scheme": "file", "hostname": "", "port": 0, "prefix": str(in2p3)}
    else:
        server = services.webdav(request.param)
        server.write_file(f"{tmp_path.name}/raw/made", b"x")
        in2p3 = server.data_dir / tmp_path.name
        for folder in (in2p3, in2p3 / "raw"):
            folder.chmod(0o777)
        endpoints["IN2P3"] = {
            "scheme": "http",
            "hostname": "127.0.0.1",
            "port": server.port,
            "prefix": f"{server.prefix}/{tmp_path.name}",
        }
    return make_sites(catalogue, endpoints, {"SLAC": slac, "IN2P3": in2p3}, pool)


def flip(path: Path) -> None:
    """Change one bit of a file, and nothing that its storage could notice."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
