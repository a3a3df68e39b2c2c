"""Every error that this package raises, so that callers decide by class and never by text.

An error names the thing, the cause and the next step. What a server said is shown only after
`clean_remote_text`, because it is written by strangers and ends up in a database and on a dashboard.

The exit codes are those of the command line: 2 usage, 3 not found, 4 conflict, 5 temporary, 6 not allowed,
7 permanent.
"""

from __future__ import annotations

import re
import unicodedata
from typing import ClassVar

REMOTE_TEXT_LIMIT = 300
"""Characters kept of what a server said."""

_SECRETS = re.compile(
    r"(?ix)"
    r"( \b(?:transferheader)?authorization \s* [:=] \s* (?:bearer|basic|digest)? \s* )"
    r" [^\s,;&\"'<>]+"
    r"| ( \b(?:authz|access_token|refresh_token|token|secret|password|passwd|api_?key|signature|x-amz-[a-z-]+)"
    r" \s* [=:] \s* (?:bearer(?:\s|%20))? ) [^\s,;&\"'<>]+"
    r"| ( \b(?:bearer|basic) \s+ ) [A-Za-z0-9._~+/=-]{6,}"
    r"| ( [a-z][a-z0-9+.-]* :// ) [^\s/@]+ @"
)
_JSON_WEB_TOKEN = re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*")
_SPACE = re.compile(r"\s+")


def _masked(match: re.Match[str]) -> str:
    kept = next((group for group in match.groups() if group is not None), "")
    return f"{kept}***@" if match.group().endswith("@") else f"{kept}***"


def clean_remote_text(text: str | bytes, limit: int = REMOTE_TEXT_LIMIT) -> str:
    """Make text of a remote party fit to be stored and shown.

    Parameters
    ----------
    text
        What the server said; bytes are read as UTF-8, anything else replaced.
    limit
        Characters to keep.

    Returns
    -------
    str
        One line without control or invisible format characters, with credentials masked.
    """
    if isinstance(text, bytes):
        text = text[: limit * 16].decode("utf-8", "replace")
    text = text[: limit * 16]
    text = "".join(c if c.isprintable() or c.isspace() else " " for c in text)
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    text = _SPACE.sub(" ", text).strip()
    text = _JSON_WEB_TOKEN.sub("***", _SECRETS.sub(_masked, text))
    return text if len(text) <= limit else text[: limit - 1] + "…"


class RSEError(Exception):
    """Root of all errors of this package.

    Attributes
    ----------
    code
        Stable name of the class of error, for machines.
    http_status
        Status that an API answers with.
    exit_code
        Exit code of a command.
    retryable
        True where the same call may succeed later with nothing else changed.
    rse, path
        The storage that it is about, and the path there; None where it is about none.
    status
        What the server answered, where it did.
    """

    code: ClassVar[str] = "rse_error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, rse: str | None = None, path: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.rse = rse
        self.path = path
        self.status = status


class NotFound(RSEError):
    """The path does not exist on that RSE."""

    code = "not_found"
    http_status = 404
    exit_code = 3


class AlreadyExists(RSEError):
    """Something else is there under that name; nothing is ever overwritten."""

    code = "already_exists"
    http_status = 409
    exit_code = 4


class AccessDenied(RSEError):
    """The storage refused the credentials (401 or 403)."""

    code = "access_denied"
    http_status = 403
    exit_code = 6


class TokenExpired(AccessDenied):
    """The token or proxy for that RSE has run out; whoever renews it has not."""

    code = "token_expired"
    http_status = 403
    exit_code = 5
    retryable = True


class RefusedByGuard(RSEError):
    """Not an address that may be talked to: the guard refused it before anything was sent."""

    code = "refused_by_guard"
    http_status = 403
    exit_code = 6


class NoSpace(RSEError):
    """The storage is full; retryable once space has come back."""

    code = "no_space"
    http_status = 507
    exit_code = 5
    retryable = True


class ChecksumMismatch(RSEError):
    """The bytes at the destination are not those that were to be copied."""

    code = "checksum_mismatch"
    http_status = 502
    exit_code = 7
    retryable = True


class SizeMismatch(RSEError):
    """The file at the destination is shorter or longer than what was to be copied."""

    code = "size_mismatch"
    http_status = 502
    exit_code = 7
    retryable = True


class SourceMismatch(RSEError):
    """The source is not what the catalogue says: permanent for that source, another may do."""

    code = "source_mismatch"
    http_status = 409
    exit_code = 7


class Unavailable(RSEError):
    """The storage cannot be reached, or answers that it cannot serve now."""

    code = "unavailable"
    http_status = 503
    exit_code = 5
    retryable = True


class TimedOut(RSEError):
    """The storage did not answer, or a transfer made no progress, in the time allowed."""

    code = "timed_out"
    http_status = 504
    exit_code = 5
    retryable = True


class Stalled(TimedOut):
    """A transfer had begun, and no byte of it came for too long."""

    code = "stalled"
    http_status = 504
    exit_code = 5
    retryable = True


class TookTooLong(TimedOut):
    """A transfer went on, and took longer than a file of its size may."""

    code = "took_too_long"
    http_status = 504
    exit_code = 5
    retryable = True


class Unsupported(RSEError):
    """The storage, or its protocol, cannot do this."""

    code = "unsupported"
    http_status = 501
    exit_code = 7


class RangeNotThere(Unsupported):
    """The part of a file that was asked for begins behind its end."""

    code = "range_not_there"
    http_status = 416
    exit_code = 7


class TransferFailed(RSEError):
    """The bytes did not get through; the text is the server's, cleaned."""

    code = "transfer_failed"
    http_status = 502
    exit_code = 5
    retryable = True


class OtherSideFailed(TransferFailed):
    """A storage that copies by itself could not reach the other one, or was turned away there: the link's fault."""

    code = "other_side_failed"
    http_status = 502
    exit_code = 5
    retryable = True


class ReportLost(TransferFailed):
    """The connection broke off before a storage that copies by itself could say how that ended."""

    code = "report_lost"
    http_status = 502
    exit_code = 5
    retryable = True


class Cancelled(RSEError):
    """The caller took the order back; nothing was left behind."""

    code = "cancelled"
    http_status = 409
    exit_code = 130


class InvalidName(RSEError):
    """A path that leaves its prefix, or that this storage cannot hold."""

    code = "invalid_name"
    http_status = 422
    exit_code = 2


class InvalidExpression(RSEError):
    """The RSE expression cannot be read, or names something that does not exist.

    Attributes
    ----------
    column
        Position of the fault in the expression, counted from 1.
    """

    code = "invalid_rse_expression"
    http_status = 400
    exit_code = 2

    def __init__(self, message: str, *, column: int) -> None:
        super().__init__(message)
        self.column = column


class EmptyExpression(InvalidExpression):
    """The RSE expression is well-formed and no RSE satisfies it."""

    code = "empty_rse_expression"
