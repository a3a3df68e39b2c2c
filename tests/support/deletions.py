"""Storages with real bytes for tests of deletion: files at several RSEs, tombstones, and what is left in the end."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    bad_replicas,
    deletion_history,
    deletions,
    dids,
    replicas,
    rse_deletions,
    rse_limits,
    rse_usage,
)
from arriero.registry.services.context import Context
from arriero.registry.states import BadReplicaState, ReplicaState
from arriero.scheduler import deletion_site
from arriero.scheduler.deletion_claim import ClaimedDeletion, claim_deletions
from arriero.scheduler.deletion_run import DeletionRunner
from arriero.scheduler.deletion_site import SiteSummary
from arriero.scheduler.deletion_sweep import sweep_deletions
from servicelib.server import WebDavServer
from support.scheduling import Catalogue

DELETABLE = {
    "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}
}
SETTINGS = {"deletion_grave_s": 0.0, "deletion_backoff_s": 600.0, "deletion_backoff_max_s": 6000.0}
"""No graves; and what has failed is tried again when `Storages.wake` says so, and not before."""


class Storages:
    """RSEs with folders of their own, and files on them.

    Parameters
    ----------
    catalogue
        Where they are registered.
    folder
        Of this test's own.
    """

    def __init__(self, catalogue: Catalogue, folder: Path) -> None:
        self.catalogue = catalogue
        self.database = catalogue.database
        self._folder = folder
        self.roots: dict[int, Path] = {}

    def rse(self, name: str, **attributes: str) -> int:
        """Add an RSE on this machine."""
        root = self._folder / name
        (root / "raw").mkdir(parents=True)
        return self._add(
            name, root, {"scheme": "file", "hostname": "", "port": 0, "prefix": str(root)}, attributes
        )

    def webdav(self, name: str, server: WebDavServer, **attributes: str) -> int:
        """Add an RSE on a server, below a folder of this test's own."""
        folder = f"{self._folder.name}-{name}"
        server.write_file(f"{folder}/raw/.keep", b"")
        (server.data_dir / folder / "raw" / ".keep").unlink()
        protocol = {
            "scheme": "http",
            "hostname": "127.0.0.1",
            "port": server.port,
            "prefix": f"{server.prefix}/{folder}",
        }
        return self._add(name, server.data_dir / folder, protocol, attributes)

    def _add(self, name: str, root: Path, protocol: dict[str, Any], attributes: dict[str, str]) -> int:
        described = protocol | {"domains": DELETABLE}
        known = {"lfn2pfn_algorithm": "identity", **attributes}
        rse_id = self.catalogue.rse(name, protocol=described, attributes=known)
        self.roots[rse_id] = root
        return rse_id

    def path(self, rse_id: int, name: str) -> Path:
        """Where a file lies at an RSE."""
        return self.roots[rse_id] / "raw" / name

    def names(self, rse_id: int) -> list[str]:
        """Names of the files at an RSE, as they are on the storage; the mark of deletion is none."""
        return sorted(path.name for path in (self.roots[rse_id] / "raw").iterdir())

    def files(
        self,
        count: int,
        *,
        at: Sequence[int],
        verified: Sequence[int] = (),
        prefix: str = "file",
        size: int = 100,
    ) -> list[int]:
        """Add files with their bytes at RSEs, verified at some of them."""
        content = (b"%06d" % count) * size
        content = content[:size]
        ids = self.catalogue.files(count, prefix=prefix, size=size, at=at)
        names = [f"{prefix}-{number:06d}" for number in range(count)]
        with self.database.transaction() as tx:
            adler32 = f"{zlib.adler32(content):08x}"
            tx.execute(update(dids).where(dids.c.id.in_(ids)).values(adler32=adler32))
            tx.execute(
                update(replicas)
                .where(replicas.c.file_id.in_(ids), replicas.c.rse_id.in_(verified))
                .values(verified_at=after(-3600.0))
            )
        for rse_id in at:
            for name in names:
                self.write(rse_id, name, content)
        return ids

    def write(self, rse_id: int, name: str, content: bytes) -> None:
        """Have a file lie at an RSE, for whoever serves it."""
        path = self.path(rse_id, name)
        path.write_bytes(content)
        path.chmod(0o666)
        _hand_over(path)

    def make_folder(self, path: Path, *, with_file: bool) -> None:
        """Have a folder lie where a file should be, for whoever serves it."""
        path.mkdir()
        path.chmod(0o777)
        _hand_over(path)
        if with_file:
            (path / "inside").write_bytes(b"x")
            _hand_over(path / "inside")

    def let_go(self, ids: Sequence[int], rse_id: int, *, purge: bool = False, age_s: float = 60.0) -> None:
        """Give replicas a tombstone; of several the first is the oldest."""
        with self.database.transaction() as tx:
            for place, file_id in enumerate(ids):
                tx.execute(
                    update(replicas)
                    .where(replicas.c.rse_id == rse_id, replicas.c.file_id == file_id)
                    .values(tombstone=after(place * 0.001 - age_s), purge=True if purge else None)
                )

    def declare_bad(self, ids: Sequence[int], rse_id: int) -> None:
        """Have replicas be bad, as a declaration leaves them."""
        with self.database.transaction() as tx:
            here = (replicas.c.rse_id == rse_id, replicas.c.file_id.in_(ids))
            tx.execute(update(replicas).where(*here).values(state=ReplicaState.BAD, verified_at=None))
            rows = [{"file_id": one, "rse_id": rse_id, "state": BadReplicaState.BAD} for one in ids]
            tx.execute(insert(bad_replicas), rows)

    def measure(self, rse_id: int, *, free: int, keep: int) -> None:
        """Say how much is free, and how much is to be."""
        with self.database.transaction() as tx:
            row = {"rse_id": rse_id, "source": "storage", "free": free, "updated_at": after(0.0)}
            tx.execute(insert(rse_usage).values(**row))
            tx.execute(insert(rse_limits).values(rse_id=rse_id, name="MinFreeSpace", value=keep))

    def context(self, **settings: Any) -> Context:
        """A context with other settings."""
        changed = self.catalogue.context.settings.model_copy(update={**SETTINGS, **settings})
        return Context(self.database, changed, self.catalogue.bells)

    def run(self, **settings: Any) -> SiteSummary:
        """Delete what is due."""
        return DeletionRunner(self.context(**settings)).run()

    def sweep(self, **settings: Any) -> int:
        return sweep_deletions(self.context(**settings))

    def wake(self) -> None:
        """Have everything be due that waits for its time."""
        with self.database.transaction() as tx:
            tx.execute(
                update(deletions).where(deletions.c.lease_owner.is_(None)).values(not_before=after(-1.0))
            )
            tx.execute(update(rse_deletions).values(not_before=None, paced_until=None))

    def outlive(self) -> None:
        """Have every lease be over."""
        with self.database.transaction() as tx:
            leased = deletions.c.lease_owner.is_not(None)
            tx.execute(update(deletions).where(leased).values(lease_until=after(-1.0)))

    def states(self, rse_id: int) -> dict[int, str]:
        """State of each replica at an RSE."""
        query = select(replicas.c.file_id, replicas.c.state).where(replicas.c.rse_id == rse_id)
        return {row.file_id: row.state for row in self.catalogue.rows(query)}

    def queue(self) -> list[Any]:
        return self.catalogue.rows(select(deletions).order_by(deletions.c.id))

    def history(self) -> list[Any]:
        return self.catalogue.rows(select(deletion_history).order_by(deletion_history.c.id))

    def site(self, rse_id: int) -> Any:
        """How deletion stands with an RSE."""
        return self.catalogue.one(select(rse_deletions).where(rse_deletions.c.rse_id == rse_id))

    def copies(self) -> dict[int, int]:
        """AVAILABLE replicas of each file, those with none included."""
        here = (replicas.c.file_id == dids.c.id, replicas.c.state == ReplicaState.AVAILABLE)
        count = select(func.count()).select_from(replicas).where(*here).scalar_subquery()
        query = select(dids.c.id, count.label("copies")).where(dids.c.type == "FILE")
        return {row.id: row.copies for row in self.catalogue.rows(query)}


def _hand_over(path: Path) -> None:
    """Have a path belong to whoever its folder belongs to: the server."""
    owner = path.parent.stat()
    if path.stat().st_uid != owner.st_uid:
        os.chown(path, owner.st_uid, owner.st_gid)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Begin some work in a thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def claim(storages: Storages, rse_id: int, owner: str, limit: int = 1000) -> Sequence[ClaimedDeletion]:
    """Take deletions at an RSE as a worker does."""
    with storages.database.transaction() as tx:
        return claim_deletions(tx, rse_id, owner, limit=limit, most=1000, lease_s=60.0).deletions


class Gate:
    """Holds up what is asked of storages, for tests that need to be quicker than it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, before: bool = True) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        made = deletion_site.remover

        def remover(protocol, algorithm):
            remove = made(protocol, algorithm)

            def held_up(one):
                if not before:
                    report = remove(one)
                self.reached.set()
                assert self.opened.wait(30)
                return remove(one) if before else report

            return held_up

        monkeypatch.setattr(deletion_site, "remover", remover)
