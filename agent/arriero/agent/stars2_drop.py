"""A folder into which tars of STARS2 are put: each is unpacked once, registered, and put aside."""

from __future__ import annotations

import time
from pathlib import Path

import structlog

from arriero.agent.registration import Registration
from arriero.agent.stars2 import Unpacked, UnsafeArchive, unpack
from arriero.agent.storage_files import StoredFile
from arriero.agent.watch import Watched, Watcher

log = structlog.get_logger(__name__)

_TARS = (".tar", ".tar.gz", ".tgz")


class Drop:
    """Takes tars from a folder, or one tar.

    Parameters
    ----------
    place
        The folder, or the tar.
    root
        Folder of the raws on disk.
    folder
        The same as names in the catalogue begin.
    registration, watcher
        Of the RSE.
    need_manifest
        Refuse tars without one.
    settle_s
        How long the size of a tar must not change, seconds.
    """

    def __init__(
        self,
        place: Path,
        root: Path,
        folder: str,
        registration: Registration,
        watcher: Watcher,
        *,
        need_manifest: bool,
        settle_s: float,
    ) -> None:
        self._place = place
        self._root = root
        self._folder = folder.strip("/")
        self._registration = registration
        self._watcher = watcher
        self._need_manifest = need_manifest
        self._settle_s = settle_s
        self._sizes: dict[Path, tuple[int, float]] = {}

    def look(self) -> Watched:
        """Take every tar that is complete."""
        result = Watched()
        found = sorted(self._place.iterdir()) if self._place.is_dir() else [self._place]
        for tar in found:
            if not tar.name.endswith(_TARS) or not tar.is_file():
                continue
            result.seen += 1
            if not self._settled(tar):
                result.waiting += 1
                continue
            self._take(tar, result)
        return result

    def _settled(self, tar: Path) -> bool:
        size, moment = tar.stat().st_size, time.monotonic()
        known, since = self._sizes.get(tar, (-1, moment))
        if known != size:
            since = moment
            self._sizes[tar] = (size, since)
        return moment - since >= self._settle_s

    def _take(self, tar: Path, result: Watched) -> None:
        try:
            unpacked = unpack(tar, self._root, need_manifest=self._need_manifest)
        except UnsafeArchive as error:
            log.warning("archive refused", tar=tar.name, reason=str(error))
            tar.with_name(f"{tar.name}.refused.txt").write_text(f"{error}\n", encoding="utf-8")
            tar.rename(tar.with_name(f"{tar.name}.refused"))
            result.failed += 1
            return
        done = self._watcher.take(self._files(unpacked))
        result.registered += done.registered
        result.failed += done.failed
        if not done.failed:
            # registered before it is put aside: who dies in between does it again, which changes nothing
            tar.rename(tar.with_name(f"{tar.name}.done"))

    def _files(self, unpacked: Unpacked) -> list[StoredFile]:
        files = []
        for below in unpacked.placed.values():
            name = f"{self._folder}/{below.as_posix()}" if self._folder else below.as_posix()
            path = self._registration.layout.path_of(name)
            files.append(StoredFile(name, path, (self._root / below).stat().st_size))
        return files
