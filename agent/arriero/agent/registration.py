"""Registers files where they lie: sizes and checksums from the storage, names in the catalogue, in batches.

Safe to interrupt and to repeat: each batch is registered and attached before the next is read, and what the dataset
has already is not read again. One bad file costs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from arriero.agent.halving import Refused, accepted
from arriero.agent.storage_files import Layout, StoredFile
from arriero.registry.client import RegistryClient
from arriero.registry.errors import NotFound, RegistryError
from arriero.registry.pages import pages_of
from arriero.rse.checksum import adler32_of
from arriero.rse.errors import RSEError, SizeMismatch
from arriero.rse.protocol import StorageProtocol

log = structlog.get_logger(__name__)

BATCH = 1000
"""Files that one call registers: what Rucio's own schema allows."""

DigestDone = Callable[[StoredFile], None]
"""Called for each file whose checksum is known, or that failed."""


@dataclass(slots=True)
class Registered:
    """What became of the files."""

    found: int = 0
    known: int = 0
    """In the dataset, with a replica at the RSE, before."""
    registered: int = 0
    attached: int = 0
    bytes: int = 0
    """Of those that were registered now."""
    failures: dict[str, Exception] = field(default_factory=dict)
    """By name."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One order to register files.

    Attributes
    ----------
    dataset
        Where to attach them, as (scope, name); made when it is missing.
    threads
        Files whose checksum is taken at once.
    """

    client: RegistryClient
    protocol: StorageProtocol
    rse: str
    layout: Layout
    dataset: tuple[str, str] | None = None
    threads: int = 8

    def run(self, files: Sequence[StoredFile], *, on_digest: DigestDone | None = None) -> Registered:
        """Register files.

        Parameters
        ----------
        files
            From `find_files`.
        on_digest
            Told of each file as it is done.

        Raises
        ------
        RegistryError
            The registry refused the whole: no rights, no such scope, a closed dataset.
        """
        result = Registered(found=len(files))
        members = self._members()
        known = {name for name, here in members.items() if here is not None}
        fresh = []
        for file in files:
            if file.name in known and members[file.name] == file.bytes:
                result.known += 1
                if on_digest is not None:
                    on_digest(file)
            else:
                fresh.append(file)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="digest") as pool:
            for batch in pages_of(fresh, BATCH):
                self._register_batch(pool, batch, members, result, on_digest)
        return result

    def _members(self) -> dict[str, int | None]:
        """Names in the dataset (of this scope) with their size where this RSE has them; makes the dataset."""
        if self.dataset is None:
            return {}
        scope, name = self.dataset
        try:
            self.client.get_did(scope, name)
        except NotFound:
            self.client.add_did(scope, name, "DATASET")
            return {}
        members: dict[str, int | None] = {}
        for replica in self.client.list_replicas([{"scope": scope, "name": name}]):
            if replica["scope"] == self.layout.scope:
                here = self.rse in (replica.get("states") or replica.get("rses") or {})
                members[replica["name"]] = int(replica["bytes"]) if here else None
        return members

    def _register_batch(
        self,
        pool: ThreadPoolExecutor,
        batch: Sequence[StoredFile],
        members: dict[str, int | None],
        result: Registered,
        on_digest: DigestDone | None,
    ) -> None:
        described: list[tuple[StoredFile, dict[str, Any]]] = []
        for file, adler32 in self._digests(pool, batch, result, on_digest):
            described.append((file, self._described(file, adler32)))
        done = list(self._add(described, result))
        result.registered += len(done)
        result.bytes += sum(file.bytes for file in done)
        if self.dataset is not None:
            missing = [file for file in done if file.name not in members]
            dids = [{"scope": self.layout.scope, "name": file.name} for file in missing]
            if dids:
                result.attached += self.client.attach_dids(*self.dataset, dids)

    def _digests(
        self,
        pool: ThreadPoolExecutor,
        batch: Sequence[StoredFile],
        result: Registered,
        on_digest: DigestDone | None,
    ) -> Iterator[tuple[StoredFile, str]]:
        futures = [pool.submit(self._digest, file) for file in batch]
        for file, future in zip(batch, futures, strict=True):
            try:
                adler32 = future.result()
            except RSEError as error:
                result.failures[file.name] = error
                log.warning("file not read", name=file.name, code=error.code)
                continue
            finally:
                if on_digest is not None:
                    on_digest(file)
            yield file, adler32

    def _digest(self, file: StoredFile) -> str:
        """Checksum by the server where it has one, else of the bytes read back, of as many bytes as were listed."""
        adler32: str | None = None
        if "adler32" in self.protocol.abilities.digest_algorithms:
            stat = self.protocol.stat(file.path, digest=True)
            adler32, size = stat.adler32, stat.bytes
        if adler32 is None:
            adler32, size = adler32_of(self.protocol.read(file.path))
        if size != file.bytes:
            raise SizeMismatch(
                f"{self.rse}: {file.path} had {file.bytes} bytes when it was listed and {size} while it was read; "
                "register it once it is complete.",
                rse=self.rse,
                path=file.path,
            )
        return adler32

    def _described(self, file: StoredFile, adler32: str) -> dict[str, Any]:
        described: dict[str, Any] = {
            "scope": self.layout.scope,
            "name": file.name,
            "bytes": file.bytes,
            "adler32": adler32,
        }
        if self.layout.algorithm is None:
            described["pfn"] = self.protocol.endpoint.pfn(file.path)
        return described

    def _add(
        self, described: Sequence[tuple[StoredFile, dict[str, Any]]], result: Registered
    ) -> Iterator[StoredFile]:

        def send(part: Sequence[tuple[StoredFile, dict[str, Any]]]) -> int:
            return self.client.add_replicas(self.rse, [entry for _, entry in part])

        def refused(one: tuple[StoredFile, dict[str, Any]], error: Refused) -> None:
            result.failures[one[0].name] = error

        return (file for file, _ in accepted(described, send, refused))


def worst(failures: Sequence[Exception]) -> Exception:
    """Pick the failure that decides the exit code when nothing at all succeeded: the first that is not temporary."""
    for failure in failures:
        if isinstance(failure, RegistryError | RSEError) and not failure.retryable:
            return failure
    return failures[0]
