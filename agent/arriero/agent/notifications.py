"""What other systems say has arrived: S3 event notifications, and Rucio's ``transfer-done`` messages.

Both are hints: what they name is looked at before it is believed, and the same message twice changes nothing. A message
that cannot be understood is told of and passed over; it never holds up the next.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import structlog

from arriero.registry.arrival_words import BUTLER_KEY, SIDECAR_KEY

log = structlog.get_logger(__name__)

CREATED = "ObjectCreated:"
LONGEST = 1_000_000
"""Characters of a message; a longer one is none."""


@dataclass(frozen=True, slots=True)
class Created:
    """An object that an S3 store says it has, complete."""

    bucket: str
    key: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Transferred:
    """A file that Rucio says it has brought to an RSE."""

    scope: str
    name: str
    rse: str
    bytes: int
    adler32: str | None
    md5: str | None
    url: str | None
    meta: Mapping[str, Any]


def in_bursts(lines: Iterable[str], most: int) -> Iterator[list[str]]:
    """Give lines as they come: all that are there, and at most so many; a pipe that is quiet holds none of them back."""
    waiting: queue.Queue[str | Exception | None] = queue.Queue(most)

    def read() -> None:
        try:
            for line in lines:
                waiting.put(line)
        except (OSError, ValueError) as error:
            waiting.put(error)
        else:
            waiting.put(None)

    threading.Thread(target=read, name="messages", daemon=True).start()
    while True:
        burst: list[str] = []
        item = waiting.get()
        while isinstance(item, str):
            burst.append(item)
            if len(burst) >= most:
                break
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                break
        if burst:
            yield burst
        if isinstance(item, Exception):
            raise item
        if item is None:
            return


def messages(lines: Iterable[str]) -> Iterator[Any]:
    """Decode messages, one a line; what is none is told of and passed over."""
    for line in lines:
        text = line.strip()
        if not text:
            continue
        if len(text) > LONGEST:
            log.warning(
                "message not understood", reason=f"longer than {LONGEST} characters", begins=text[:80]
            )
            continue
        try:
            decoded = json.loads(text)
        except (ValueError, RecursionError) as error:
            log.warning("message not understood", reason=str(error), begins=text[:80])
            continue
        yield decoded


def created(message: Any) -> Iterator[Created]:
    """Read the objects that an S3 notification says were created; keys are sent percent-encoded.

    Both the bare ``Records`` and the same within the ``Message`` of a topic are read.
    """
    if isinstance(message, Mapping) and isinstance(message.get("Message"), str):
        message = next(messages([message["Message"]]), {})
    records = message.get("Records") if isinstance(message, Mapping) else None
    for record in records if isinstance(records, list) else []:
        try:
            if not str(record["eventName"]).removeprefix("s3:").startswith(CREATED):
                continue
            place = record["s3"]
            size = place["object"].get("size")
            key = unquote_plus(str(place["object"]["key"]))
            yield Created(str(place["bucket"]["name"]), key, None if size is None else int(size))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("record not understood", reason=f"{type(error).__name__}: {error}")


def transferred(message: Any) -> Transferred | None:
    """Read Rucio's ``transfer-done``, with Rubin's keys in it or not; None for any other message."""
    if not isinstance(message, Mapping) or message.get("event_type") != "transfer-done":
        return None
    payload: Any = message.get("payload")
    try:
        if isinstance(payload, str):
            payload = json.loads(payload)
        meta = {key: payload[key] for key in (BUTLER_KEY, SIDECAR_KEY) if payload.get(key) is not None}
        return Transferred(
            scope=str(payload["scope"]),
            name=str(payload["name"]),
            rse=str(payload["dst-rse"]),
            bytes=int(payload["bytes"] if payload.get("bytes") is not None else payload["file-size"]),
            adler32=payload.get("checksum-adler") or None,
            md5=payload.get("checksum-md5") or None,
            url=payload.get("dst-url"),
            meta=meta,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.warning("message not understood", reason=f"{type(error).__name__}: {error}")
        return None


def arrived_at(lines: Iterable[str], rse: str) -> Iterator[Transferred]:
    """Read what Rucio says it has brought to one RSE, from messages one a line."""
    for message in messages(lines):
        one = transferred(message)
        if one is not None and one.rse == rse:
            yield one


def replicas_at(lines: Iterable[str], rse: str, *, with_pfn: bool) -> list[dict[str, Any]]:
    """Read messages, one a line, as the registrations of the replicas that Rucio has brought to an RSE, each file once."""
    found = {(one.scope, one.name): as_replica(one, with_pfn=with_pfn) for one in arrived_at(lines, rse)}
    return list(found.values())


def as_replica(one: Transferred, *, with_pfn: bool) -> dict[str, Any]:
    """Write what Rucio has brought as the registration of a replica."""
    replica: dict[str, Any] = {
        "scope": one.scope,
        "name": one.name,
        "bytes": one.bytes,
        "adler32": one.adler32,
        "md5": one.md5,
        "meta": dict(one.meta),
    }
    if with_pfn and one.url:
        replica["pfn"] = one.url
    return {key: value for key, value in replica.items() if value not in (None, {})}
