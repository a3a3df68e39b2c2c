"""Finding out by trial what a WebDAV server can do, with small files of our own that are removed again.

What servers say of themselves is not enough: XRootD renames without saying so and ignores `Overwrite: F`, Apache has
a COPY that is something else. A trial ends where the server lets us write but not remove: it then leaves one empty
file, and the rest is believed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import structlog

from arriero.rse.abilities import Abilities
from arriero.rse.checksum import adler32_of
from arriero.rse.davread import DavReader
from arriero.rse.davserver import DavServer
from arriero.rse.davwrite import DavWriter
from arriero.rse.errors import AlreadyExists, RSEError, Unsupported
from arriero.rse.protocol import OtherSide
from arriero.rse.thirdparty import ThirdParty

log = structlog.get_logger(__name__)

_CONTENT = b"probe"


class Probe:
    """One trial of one server."""

    def __init__(
        self, reader: DavReader, writer: DavWriter, copier: ThirdParty, authorization: str | None
    ) -> None:
        self._server: DavServer = reader.server
        self._reader = reader
        self._writer = writer
        self._copier = copier
        self._name = f".arriero-{uuid.uuid4().hex}"
        self._files: set[str] = set()
        self._authorization = authorization

    def run(self, said: Abilities) -> Abilities:
        """Try what can be tried.

        Parameters
        ----------
        said
            What the server says of itself; stays where it cannot be tried.
        """
        try:
            first = self._written("a", b"")
            if not self._writer.delete(first):
                return said
            self._files.discard(first)
            return self._tried(said)
        except RSEError as error:
            log.info("trial broken off", rse=self._server.endpoint.rse, code=error.code, reason=str(error))
            return said
        finally:
            for name in sorted(self._files):
                self._forget(name)

    def _tried(self, said: Abilities) -> Abilities:
        file = self._written("b", _CONTENT)
        found = replace(said, digest_algorithms=self._digests(file, said), ranges=self._gives_ranges(file))
        if not self._server.profile().copies_by_itself:
            found = self._copies(file, found)
        moves = self._moves(file)
        return replace(found, move=moves, move_refuses=moves and self._refuses(), is_proved=True)

    def _digests(self, file: str, said: Abilities) -> frozenset[str]:
        """Ask for the checksum; where that went wrong nothing was shown."""
        try:
            found = self._reader.digest_by_head(file)
        except RSEError:
            return said.digest_algorithms
        return frozenset({"adler32"}) if found == adler32_of([_CONTENT])[0] else frozenset()

    def _gives_ranges(self, file: str) -> bool:
        try:
            return self._reader.read_range(file, 1, 3) == _CONTENT[1:4]
        except RSEError:
            return False

    def _moves(self, file: str) -> bool:
        try:
            self._move(file, self._named("c"))
        except Unsupported:
            return False
        return True

    def _refuses(self) -> bool:
        """Whether a move onto what is there is refused, as `Overwrite: F` asks for."""
        try:
            self._move(self._written("d", b""), self._named("c"))
        except AlreadyExists:
            return True
        return False

    def _copies(self, file: str, found: Abilities) -> Abilities:
        """Have it copy a file from itself, and if it can, to itself: only a report of success counts."""
        pulls = self._copied(
            lambda other: self._copier.pull(other, self._named("e"), size=len(_CONTENT)), file, "e"
        )
        if not pulls:
            return replace(found, third_party_pull=False, third_party_push=False)
        pushes = self._copied(
            lambda other: self._copier.told_to_push(file, other, size=len(_CONTENT)), self._named("f"), "f"
        )
        return replace(
            found,
            third_party_pull=True,
            pull_reason="the destination was seen to pull by itself",
            third_party_push=pushes,
            push_reason="the source was seen to push by itself"
            if pushes
            else "the source was seen not to push",
        )

    def _copied(self, copy: Callable[[OtherSide], None], other: str, target: str) -> bool:
        try:
            copy(OtherSide(self._server.endpoint, other, self._authorization))
            return self._reader.stat(self._named(target), digest=False).bytes == len(_CONTENT)
        except RSEError:
            return False

    def _named(self, letter: str) -> str:
        name = f"{self._name}-{letter}"
        self._files.add(name)
        return name

    def _written(self, letter: str, content: bytes) -> str:
        name = self._named(letter)
        self._writer.write(name, [content], len(content), only_new=False, watch=None)
        return name

    def _move(self, source: str, destination: str) -> None:
        url_path = self._server.url_path
        self._writer.move_url(url_path(source), source, url_path(destination), replace=False)

    def _forget(self, name: str) -> None:
        try:
            self._writer.delete(name)
        except RSEError as error:
            log.info("trial file not removed", rse=self._server.endpoint.rse, path=name, code=error.code)
