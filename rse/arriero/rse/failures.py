"""What a failed copy means to whoever decides what comes next: one table.

Every error of this package belongs to one kind. A kind says whether the same copy may succeed later, whom the failure
counts against, and whether it looks as if an RSE were down: then it is that RSE that has to be waited for, and the
copy has used up nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from arriero.rse.copy_order import CopyOrder
from arriero.rse.errors import (
    AccessDenied,
    AlreadyExists,
    Cancelled,
    ChecksumMismatch,
    InvalidName,
    NoSpace,
    NotFound,
    OtherSideFailed,
    RefusedByGuard,
    ReportLost,
    RSEError,
    SizeMismatch,
    SourceMismatch,
    Stalled,
    TimedOut,
    TokenExpired,
    TookTooLong,
    TransferFailed,
    Unavailable,
    Unsupported,
)


class FailureKind(StrEnum):
    """Why a copy failed."""

    SOURCE_MISSING = "source_missing"
    SOURCE_CORRUPT = "source_corrupt"
    """It is not what the catalogue says."""
    DESTINATION_OCCUPIED = "destination_occupied"
    DESTINATION_FULL = "destination_full"
    DAMAGED = "damaged"
    """The bytes were right at the source and wrong at the destination."""
    NO_WAY = "no_way"
    """The storages do not reach each other."""
    STALLED = "stalled"
    TOO_SLOW = "too_slow"
    UNREACHABLE = "unreachable"
    SERVER_ERROR = "server_error"
    PERMISSION = "permission"
    CREDENTIALS_EXPIRED = "credentials_expired"
    BAD_NAME = "bad_name"
    """A storage cannot hold the name."""
    UNSUPPORTED = "unsupported"
    REFUSED = "refused"
    """By the guard: nothing was sent."""
    CANCELLED = "cancelled"
    UNEXPECTED = "unexpected"
    """An error of this program."""


Blame = Literal["source", "destination", "named", "nobody"]
"""Whom a failure counts against; `named` is the RSE that the error is about."""


@dataclass(frozen=True, slots=True)
class FailureClass:
    """What a kind of failure means."""

    retryable: bool
    """The same copy may succeed later with nothing else changed but time."""
    blame: Blame
    is_down: bool = False
    """Nothing can be done at that RSE for now, by any copy."""


FAILURES: Mapping[FailureKind, FailureClass] = MappingProxyType(
    {
        FailureKind.SOURCE_MISSING: FailureClass(retryable=False, blame="source"),
        FailureKind.SOURCE_CORRUPT: FailureClass(retryable=False, blame="source"),
        FailureKind.DESTINATION_OCCUPIED: FailureClass(retryable=False, blame="destination"),
        FailureKind.DESTINATION_FULL: FailureClass(retryable=True, blame="destination"),
        FailureKind.DAMAGED: FailureClass(retryable=True, blame="nobody"),
        FailureKind.NO_WAY: FailureClass(retryable=True, blame="nobody"),
        FailureKind.STALLED: FailureClass(retryable=True, blame="nobody"),
        FailureKind.TOO_SLOW: FailureClass(retryable=True, blame="nobody"),
        FailureKind.UNREACHABLE: FailureClass(retryable=True, blame="named", is_down=True),
        FailureKind.SERVER_ERROR: FailureClass(retryable=True, blame="named"),
        FailureKind.PERMISSION: FailureClass(retryable=True, blame="named"),
        FailureKind.CREDENTIALS_EXPIRED: FailureClass(retryable=True, blame="named", is_down=True),
        FailureKind.BAD_NAME: FailureClass(retryable=False, blame="named"),
        FailureKind.UNSUPPORTED: FailureClass(retryable=False, blame="named"),
        FailureKind.REFUSED: FailureClass(retryable=False, blame="named"),
        FailureKind.CANCELLED: FailureClass(retryable=True, blame="nobody"),
        FailureKind.UNEXPECTED: FailureClass(retryable=True, blame="nobody"),
    }
)

_KINDS: tuple[tuple[type[RSEError], FailureKind], ...] = (
    (TokenExpired, FailureKind.CREDENTIALS_EXPIRED),
    (AccessDenied, FailureKind.PERMISSION),
    (Stalled, FailureKind.STALLED),
    (TookTooLong, FailureKind.TOO_SLOW),
    (TimedOut, FailureKind.UNREACHABLE),
    (Unavailable, FailureKind.UNREACHABLE),
    (OtherSideFailed, FailureKind.NO_WAY),
    (ReportLost, FailureKind.SERVER_ERROR),
    (TransferFailed, FailureKind.SERVER_ERROR),
    (NotFound, FailureKind.SOURCE_MISSING),
    (SourceMismatch, FailureKind.SOURCE_CORRUPT),
    (AlreadyExists, FailureKind.DESTINATION_OCCUPIED),
    (NoSpace, FailureKind.DESTINATION_FULL),
    (ChecksumMismatch, FailureKind.DAMAGED),
    (SizeMismatch, FailureKind.DAMAGED),
    (InvalidName, FailureKind.BAD_NAME),
    (Unsupported, FailureKind.UNSUPPORTED),
    (RefusedByGuard, FailureKind.REFUSED),
    (Cancelled, FailureKind.CANCELLED),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """How one copy failed."""

    kind: FailureKind
    code: str
    """Of the error."""
    reason: str
    retryable: bool
    against_source: bool
    against_destination: bool
    down: str | None
    """Name of the RSE that seems to be down."""


def kind_of(error: BaseException) -> FailureKind:
    """Say what kind of failure an error is."""
    for error_class, kind in _KINDS:
        if isinstance(error, error_class):
            return kind
    return FailureKind.UNEXPECTED


def classify(error: BaseException, order: CopyOrder) -> Failure:
    """Say what the failure of a copy means.

    Parameters
    ----------
    error
        What `copy_file` has raised.
    order
        What it was asked for.
    """
    kind = kind_of(error)
    meaning = FAILURES[kind]
    named = error.rse if isinstance(error, RSEError) else None
    source, destination = order.source.rse, order.destination.rse
    return Failure(
        kind,
        error.code if isinstance(error, RSEError) else "unexpected_error",
        str(error) if isinstance(error, RSEError) else f"{type(error).__name__}: {error}",
        meaning.retryable,
        against_source=meaning.blame == "source" or (meaning.blame == "named" and named == source),
        against_destination=meaning.blame == "destination"
        or (meaning.blame == "named" and named == destination),
        down=named if meaning.is_down and named in {source, destination} else None,
    )
