"""What a copy is asked for, and what came of it: plain values, which cross from the scheduler to a copy and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from arriero.rse.types import Endpoint

Mode = Literal["third_party_pull", "third_party_push", "streamed", "adopted"]

WAYS: tuple[Mode, ...] = ("third_party_pull", "third_party_push", "streamed")
"""How bytes get to a destination, the shortest way first."""


@dataclass(frozen=True, slots=True)
class CopyOrder:
    """What to copy, from where, to where, and what the catalogue says it is."""

    source: Endpoint
    source_path: str
    destination: Endpoint
    destination_path: str
    bytes: int
    adler32: str | None
    """Of the catalogue; without it, that of the source: by its storage, else by reading it."""
    md5: str | None
    """Of the catalogue; where there is no adler32 it is verified, by reading the bytes."""
    attempt_name: str
    """Unique among all attempts at this file, for instance `<request>-<attempt>`: letters, digits, `-`, `_`."""
    replaces_bad: bool = False
    """What is under the final name was declared bad: the verified copy takes its place."""
    earlier_attempts: tuple[str, ...] = ()
    """Names of attempts that are over and may have left something: what is complete is adopted, the rest removed."""
    ways: tuple[Mode, ...] = WAYS
    """Ways that are worth trying, in this order: whoever knows the link leaves out what it cannot."""


@dataclass(frozen=True, slots=True)
class StepDown:
    """A way that was not gone, and why."""

    mode: Mode
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class CopyResult:
    """How a copy was done; the file is under its final name with this size and checksum."""

    mode: Mode
    mode_reason: str
    bytes: int
    adler32: str
    seconds: float
    steps: tuple[StepDown, ...] = ()
    """The ways before it that the link cannot go."""
