"""The ways of the bytes: pulled by the destination, pushed by the source, or streamed through this process.

Each way that a link cannot go is left for the next one, with the reason; what a link cannot is remembered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import structlog

from arriero.rse.checksum import Adler32, Md5
from arriero.rse.copy_order import CopyOrder, Mode, StepDown
from arriero.rse.errors import Cancelled as TransferCancelled
from arriero.rse.errors import (
    NotFound,
    OtherSideFailed,
    ReportLost,
    RSEError,
    TimedOut,
    TransferFailed,
    Unsupported,
)
from arriero.rse.links import LinkMemory
from arriero.rse.progress import Cancelled, Limits, Progress, Watch
from arriero.rse.protocol import OtherSide, StorageProtocol
from arriero.rse.types import WIRE_SCHEMES

log = structlog.get_logger(__name__)

LATE_SECONDS = 6.0
"""How long a storage may go on sending after the one who told it to has gone (XRootD: until its next marker, 5 s)."""


class Ways:
    """Brings the bytes of one order to one path at the destination.

    Parameters
    ----------
    order
        What to copy.
    source, destination
        The storages.
    links
        What this process knows of links.
    limits, on_progress, cancelled
        For each way that is tried.
    confirm
        Raises if the source is not what it should be: then no other way is tried.
    """

    def __init__(
        self,
        order: CopyOrder,
        source: StorageProtocol,
        destination: StorageProtocol,
        links: LinkMemory,
        *,
        limits: Limits,
        on_progress: Progress | None,
        cancelled: Cancelled | None,
        confirm: Callable[[], None],
    ) -> None:
        self.order = order
        self.source = source
        self.destination = destination
        self.links = links
        self.limits = limits
        self.on_progress = on_progress
        self.cancelled = cancelled
        self.confirm = confirm
        self.steps: list[StepDown] = []
        """The ways that were not gone."""
        self.adler32: str | None = None
        """Of the bytes that passed here."""
        self.md5: str | None = None

    def watch(self, *, told: bool = True) -> Watch:
        """Look after a transfer that begins now; `told` is whether its bytes are progress."""
        order = self.order
        return Watch(
            order.destination.rse,
            order.destination_path,
            order.bytes,
            limits=self.limits,
            on_progress=self.on_progress if told else None,
            cancelled=self.cancelled,
        )

    def go(self, path: str, *, only_new: bool, wants_md5: bool) -> Mode:
        """Bring the bytes there, by the first way that can be gone.

        Parameters
        ----------
        path
            At the destination, in a folder that exists.
        only_new
            What is there must stay.
        wants_md5
            Take the md5 of the bytes, if they pass here.
        """
        ways: dict[Mode, Callable[[], None]] = {
            "third_party_pull": lambda: self._pull(path),
            "third_party_push": lambda: self._push(path),
            "streamed": lambda: self._stream(path, only_new=only_new, wants_md5=wants_md5),
        }
        last: RSEError | None = None
        for mode in self.order.ways:
            closed = self._closed(mode)
            if closed is not None:
                self.steps.append(closed)
                continue
            try:
                self._with_parents(path, ways[mode])
            except (Unsupported, OtherSideFailed) as error:
                if mode == "streamed":
                    raise
                self.confirm()
                self._step_down(path, mode, error)
                last = error
                continue
            return mode
        raise last or Unsupported(
            f"{self.order.destination.rse}: no way for {self.order.destination_path} from {self.order.source.rse}: "
            f"{'; '.join(step.reason for step in self.steps)}.",
            rse=self.order.destination.rse,
            path=self.order.destination_path,
        )

    def reason(self, mode: Mode) -> str:
        """Say why the bytes went this way."""
        before = "; ".join(step.reason for step in self.steps)
        if mode == "third_party_pull":
            return before or self.destination.abilities.pull_reason
        if mode == "third_party_push":
            return (
                f"{before}; {self.source.abilities.push_reason}"
                if before
                else self.source.abilities.push_reason
            )
        return before or "asked for"

    def _closed(self, mode: Mode) -> StepDown | None:
        """Say why a way need not be tried; None when it may be open."""
        order = self.order
        if mode == "streamed":
            return None
        pulls = mode == "third_party_pull"
        other = order.source if pulls else order.destination
        if other.scheme not in WIRE_SCHEMES:
            who, verb = ("source", "pull from") if pulls else ("destination", "push to")
            return StepDown(
                mode, "unsupported", f"the {who} is reached by {other.scheme!r}, which no storage can {verb}"
            )
        able = self.destination.abilities if pulls else self.source.abilities
        if not (able.third_party_pull if pulls else able.third_party_push):
            return StepDown(mode, "unsupported", able.pull_reason if pulls else able.push_reason)
        return self.links.closed(order.source, order.destination, mode)

    def _step_down(self, path: str, mode: Mode, error: RSEError) -> None:
        """Note why the next way is tried, and remove what this one has left."""
        tried = "the destination to pull" if mode == "third_party_pull" else "the source to push"
        if isinstance(error, OtherSideFailed):
            reason = error.message
        else:
            who, _, verb = tried.partition(" to ")
            reason = f"{who} refused to {verb}: {error.message}"
        step = StepDown(mode, error.code, reason)
        self.steps.append(step)
        self.links.note(self.order.source, self.order.destination, step)
        self.destination.delete(path)

    # -- the ways ---------------------------------------------------------------------------------

    def _pull(self, path: str) -> None:
        order, watch = self.order, self.watch()
        authorization = self.source.delegate(
            order.source_path, writes=False, seconds=self.limits.total_s(order.bytes)
        )
        source = OtherSide(order.source, order.source_path, authorization)
        self._reported(path, lambda: self.destination.pull(source, path, size=order.bytes, watch=watch))

    def _push(self, path: str) -> None:
        order, watch = self.order, self.watch()
        authorization = self.destination.delegate(path, writes=True, seconds=self.limits.total_s(order.bytes))
        destination = OtherSide(order.destination, path, authorization)
        try:
            with self.destination.receiving(order.bytes):
                self._reported(
                    path,
                    lambda: self.source.push(order.source_path, destination, size=order.bytes, watch=watch),
                )
        except (TransferCancelled, TimedOut, ReportLost):
            self._remove_late(path)
            raise

    def _remove_late(self, path: str) -> None:
        """Remove what a source may still finish: it notices only at its next marker that nobody listens."""
        try:
            self.destination.delete(path)
            time.sleep(LATE_SECONDS)
            self.destination.delete(path)
        except RSEError as error:
            log.info("pushed file not removed", path=path, code=error.code)

    def _reported(self, path: str, transfer: Callable[[], None]) -> None:
        """Have storages copy; where the report broke off, what counts is whether all bytes are there.

        They are verified like any others. A server that goes on writing writes to this attempt's own name.
        """
        try:
            transfer()
        except ReportLost as lost:
            try:
                found = self.destination.stat(path).bytes
            except RSEError:
                raise lost from None
            if found != self.order.bytes:
                raise

    def _stream(self, path: str, *, only_new: bool, wants_md5: bool) -> None:
        order, watch = self.order, self.watch()
        adler32, md5 = Adler32(), Md5() if wants_md5 else None
        with closing(self.source.read(order.source_path, watch=watch)) as pieces:
            watched = _watched(pieces, watch, adler32, md5)
            self.destination.write(path, watched, order.bytes, only_new=only_new, watch=watch)
        self.adler32 = adler32.hexdigest()
        self.md5 = None if md5 is None else md5.hexdigest()

    # -- folders ----------------------------------------------------------------------------------

    def _with_parents(self, path: str, transfer: Callable[[], None]) -> None:
        """Run a transfer; once more if the folders, thought to be there, have gone."""
        try:
            transfer()
        except NotFound as error:
            if self._is_about_source(error):
                raise
            self.destination.make_parents(path)
        else:
            return
        try:
            transfer()
        except NotFound as error:
            if self._is_about_source(error):
                raise
            # not NotFound: that would be held against the source
            order = self.order
            raise TransferFailed(
                f"{order.destination.rse}: the folder of {order.destination_path} does not stay; "
                "try again, and see who removes folders there.",
                rse=order.destination.rse,
                path=order.destination_path,
            ) from error

    def _is_about_source(self, error: NotFound) -> bool:
        return error.path == self.order.source_path and error.rse == self.order.source.rse


def _watched(pieces: Iterable[bytes], watch: Watch, adler32: Adler32, md5: Md5 | None) -> Iterator[bytes]:
    for piece in adler32.through(pieces):
        if md5 is not None:
            md5.update(piece)
        watch.check()
        yield piece
        watch.arrived(adler32.bytes)
    watch.rest()  # the storage may still have to put it on its disk
