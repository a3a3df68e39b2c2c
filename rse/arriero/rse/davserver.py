"""What is known of one WebDAV server: what it calls itself, what it can do, and what has to be worked around.

It asks once and remembers, and learns from refusals. It changes nothing on the server.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import quote

from arriero.rse.abilities import Abilities
from arriero.rse.body import SizedBody
from arriero.rse.errors import AccessDenied, InvalidName, NotFound, TransferFailed, Unsupported
from arriero.rse.paths import quoted_path
from arriero.rse.types import Endpoint
from arriero.rse.wire import Answer, Attention

PROFILE_SECONDS = 600.0
"""How long what a server said about itself is believed."""

DIGESTS_MENDED_IN = (5, 8, 4)
"""XRootD versions before it compute a digest in a job that now and then freezes the whole server, or ends it."""

READ_RATHER_THAN_ASK = 4 << 20
"""Bytes up to which a file on such a server is read where its digest is wanted. It costs no more than the question
(100 kB: 0.13 ms of both sides, against 0.10), and three processes that asked had ended the server within 3,000 files."""

SETTLING_SECONDS = 0.004
"""Given to such a server between the end of a larger transfer and the question for its digest, so that its helper has
stored it. Without, 170 to 370 of 800 pulls of 100 kB were asked for too early, and the server froze within 6,000."""

SETTLING_SECONDS_PER_TRANSFER = 0.001
"""Besides, for each transfer that this process has under way there: at load 15, 20 ms left 1 of 2,000 too early."""

SETTLING_RATE = 400e6
"""Bytes per second that the helper reads of one file, at worst."""

SETTLING_RATE_IN_TURN = 800e6
"""Bytes per second that it reads of many, one after the other: files that end together are not all ready at once. Asked
too early the server reads them a second time: 200 MB files took it 3.5 to 4 s of CPU a GB instead of 2.1."""

MAX_SETTLING_SECONDS = 10.0

_XROOTD_VERSION = re.compile(r"xrootd/v(\d+)\.(\d+)\.(\d+)")
_DOUBTFUL = frozenset("?;")
_COPYING_SERVERS = ("xrootd", "dcache", "storm", "eos")
"""Servers that copy by themselves. Others have COPY too, and mean something else by it."""

_REFUSING_SERVERS = ("apache", "nginx", "lighttpd", "wsgidav", "dcache")
"""Servers that refuse a MOVE onto a name that is taken (measured; dCache by its documentation)."""


class Requester(Protocol):
    """Makes one request and raises this package's errors for whatever is not a success."""

    def __call__(
        self,
        action: str,
        url_path: str,
        path: str,
        *,
        data: SizedBody | bytes | None = None,
        headers: dict[str, str] | None = None,
        read_timeout: float | None = None,
        attention: Attention | None = None,
    ) -> Answer: ...


class Looker(Protocol):
    """Makes one request; None where nothing is there, which is no error."""

    def __call__(self, action: str, url_path: str, path: str) -> Answer | None: ...


@dataclass(frozen=True, slots=True)
class Profile:
    """What a server said about itself, and what was learnt of it."""

    server: str
    abilities: Abilities
    seen: float

    @property
    def is_xrootd(self) -> bool:
        return self.server.startswith("xrootd")

    @property
    def copies_by_itself(self) -> bool:
        """Whether it is known to have third-party copy, when that is switched on."""
        return self.server.startswith(_COPYING_SERVERS)


class DavServer:
    """One WebDAV endpoint, as far as it is known."""

    def __init__(self, endpoint: Endpoint, request: Requester, look: Looker) -> None:
        self.endpoint = endpoint
        self.request = request
        self.look = look
        self._root = quote(endpoint.root)
        self._profile: Profile | None = None
        self._lock = threading.RLock()
        self._transfers = 0
        self._digests_until = 0.0
        """When the helper of such a server is likely to have read all that has come."""
        self._tried_at: float | None = None

    def url_path(self, path: str) -> str:
        """Give the quoted path on the server, if the server can hold it."""
        if not path:
            return f"{self._root}/"
        quoted = quoted_path(path)
        if "%3" in quoted and not _DOUBTFUL.isdisjoint(path):
            self._refuse_what_it_cannot_hold(path)
        return f"{self._root}/{quoted}"

    def _refuse_what_it_cannot_hold(self, path: str) -> None:
        """XRootD cuts names at `?`; WsgiDAV cuts them at `?` and `;` when it renames (measured)."""
        server = self.profile().server
        fault = None
        if server.startswith("xrootd"):
            fault = "'?' in names" if "?" in path else None
        elif server.startswith("wsgidav") and not {"?", ";"}.isdisjoint(path):
            fault = "'?' and ';' in names"
        if fault is not None:
            raise InvalidName(
                f"{self.endpoint.rse}: {path!r} would become another file: this server cannot hold {fault}; rename it.",
                rse=self.endpoint.rse,
                path=path,
            )

    # -- what it can do ---------------------------------------------------------------------------

    def profile(self) -> Profile:
        """Give what is known; ask again once in a while what the server says of itself."""
        profile = self._profile
        if profile is None or time.monotonic() - profile.seen > PROFILE_SECONDS:
            profile = self._ask()
        return profile

    @property
    def abilities(self) -> Abilities:
        """What it can do, as far as that is known."""
        return self.profile().abilities

    @property
    def proved(self) -> Abilities | None:
        """What a trial has shown, of this process or another, and nothing else has refuted."""
        profile = self._profile
        return profile.abilities if profile is not None and profile.abilities.is_proved else None

    def remember(self, abilities: Abilities) -> None:
        """Take what somebody has found out for what it can do."""
        self._profile = Profile(abilities.server, abilities, time.monotonic())

    def is_to_be_tried(self) -> bool:
        """Whether it is time for a trial; after each a while has to pass, whatever it has shown."""
        now = time.monotonic()
        with self._lock:
            if self.profile().abilities.is_proved:
                return False
            if self._tried_at is not None and now - self._tried_at < PROFILE_SECONDS:
                return False
            self._tried_at = now
            return True

    def learn(self, **changes: bool | str) -> None:
        """Note what a refusal has shown, until the server is asked again."""
        with self._lock:
            profile = self._profile
            if profile is not None:
                # the fields are named by our own code
                abilities = replace(profile.abilities, **changes)  # type: ignore[arg-type]
                self._profile = replace(profile, abilities=abilities)

    def _ask(self) -> Profile:
        """Ask what it says of itself; what was proved by trial stays, as long as it is not known to be other software."""
        headers = self._options()
        server = (headers or {}).get("server", "").lower()
        with self._lock:
            # another thread may have found out more while this one waited
            known = self._profile
            if (
                known is not None
                and known.abilities.is_proved
                and (headers is None or known.server == server)
            ):
                self._profile = replace(known, seen=time.monotonic())
            else:
                self._profile = Profile(server, said_by(server, headers or {}), time.monotonic())
            return self._profile

    def _options(self) -> Mapping[str, str] | None:
        """Headers of the answer; None if it does not answer that."""
        try:
            return self.request("options", f"{self._root}/", "").headers
        except (Unsupported, AccessDenied, NotFound, TransferFailed):
            return None

    # -- what has to be worked around -------------------------------------------------------------

    @contextmanager
    def transfer_of(self, size: int) -> Iterator[None]:
        """Count a transfer to this storage; at its end, wait until its digest is likely to be stored."""
        with self._lock:
            self._transfers += 1
        try:
            yield
            if size > READ_RATHER_THAN_ASK and self.abilities.fragile_digests:
                time.sleep(min(self._settling_seconds(size), MAX_SETTLING_SECONDS))
        finally:
            with self._lock:
                self._transfers -= 1

    def _settling_seconds(self, size: int) -> float:
        """How long the digest of a file that has just come is left alone."""
        with self._lock:
            now = time.monotonic()
            self._digests_until = max(self._digests_until, now) + size / SETTLING_RATE_IN_TURN
            seconds = max(self._digests_until - now, size / SETTLING_RATE)
            return SETTLING_SECONDS + self._transfers * SETTLING_SECONDS_PER_TRANSFER + seconds


def said_by(server: str, headers: Mapping[str, str]) -> Abilities:
    """What a server can do by what it says of itself.

    Parameters
    ----------
    server
        Its name, in lower case.
    headers
        Of its answer to OPTIONS.
    """
    verbs = {verb.strip().upper() for verb in headers.get("allow", "").split(",")}
    is_dav = bool({"1", "2"} & {part.strip() for part in headers.get("dav", "").split(",")})
    knows_how = server.startswith(_COPYING_SERVERS)
    copies = knows_how and "COPY" in verbs
    lacks = "could {}, but has third-party copy switched off" if knows_how else "has no third-party copy"
    return Abilities(
        third_party_pull=copies,
        third_party_push=copies,
        digest_algorithms=frozenset({"adler32"}) if knows_how else frozenset(),
        fragile_digests=_has_fragile_digests(server),
        # XRootD renames, and does not say so among its verbs
        move=is_dav or "MOVE" in verbs or not headers,
        move_refuses=server.startswith(_REFUSING_SERVERS),
        ranges=headers.get("accept-ranges", "").lower() == "bytes" or knows_how,
        list_directory=is_dav or "PROPFIND" in verbs or not headers,
        pull_reason="the destination "
        + ("pulls from the source by itself" if copies else lacks.format("pull")),
        push_reason="the source "
        + ("pushes to the destination by itself" if copies else lacks.format("push")),
        server=server,
    )


def _has_fragile_digests(server: str) -> bool:
    version = _XROOTD_VERSION.match(server)
    return version is not None and tuple(map(int, version.groups())) < DIGESTS_MENDED_IN
