"""What an answer of a storage means: from status, text or broken connection to this package's errors.

XRootD tells many things by 500 and a sentence, so the sentence is looked at where the status says nothing. Pure.
"""

from __future__ import annotations

import ssl

from arriero.rse.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidName,
    NoSpace,
    NotFound,
    RangeNotThere,
    RSEError,
    Stalled,
    TimedOut,
    TokenExpired,
    TransferFailed,
    Unavailable,
    Unsupported,
    clean_remote_text,
)

_NEEDS_FOLDER = frozenset({"PUT", "MKCOL", "MOVE", "COPY"})
_BY_STATUS: dict[int, tuple[type[RSEError], str]] = {
    401: (AccessDenied, "refuses the credentials; renew the token of that RSE"),
    403: (AccessDenied, "forbids it; look at the token's scopes and the storage's permissions"),
    404: (NotFound, "has nothing there"),
    405: (Unsupported, "does not do this here"),
    408: (TimedOut, "gave up waiting; try again"),
    412: (AlreadyExists, "has something there already; nothing is overwritten"),
    413: (Unsupported, "refuses files of this size; look at its limits"),
    414: (InvalidName, "refuses names of this length; shorten it"),
    416: (RangeNotThere, "cannot give that range"),
    423: (Unavailable, "has it locked; try again later"),
    425: (Unavailable, "is not ready; try again later"),
    429: (Unavailable, "is asked too often; try again later"),
    501: (Unsupported, "does not do this"),
    502: (Unavailable, "cannot reach what is behind it; try again later"),
    503: (Unavailable, "cannot serve now; try again later"),
    504: (TimedOut, "waited in vain for what is behind it; try again later"),
    507: (NoSpace, "is full; make space or wait until the reaper has"),
}
_BY_SENTENCE: tuple[tuple[str, type[RSEError], str], ...] = (
    ("no space left", NoSpace, "is full; make space or wait until the reaper has"),
    # XRootD's words when the last block that fits has been written
    ("filesystem write failure", NoSpace, "could not write all of it: its disk is full, or fails"),
    ("disk quota", NoSpace, "is out of quota; make space or raise it"),
    ("no such file or directory", NotFound, "has nothing there"),
    ("file name too long", InvalidName, "cannot hold a name of this length; shorten it"),
    ("directory not empty", Unsupported, "has a folder there, with something in it; only files are removed"),
    ("not a directory", AlreadyExists, "has a file where a folder is needed; remove or rename it"),
    ("is a directory", Unsupported, "has a folder there"),
)


def error_of_status(status: int, text: str | bytes, verb: str, rse: str, path: str) -> RSEError:
    """Error for an answer that is not a success.

    Parameters
    ----------
    status
        HTTP status, 300 or more.
    text
        Body, as the server sent it.
    verb
        HTTP method that was used.
    rse, path
        What it was about.
    """
    remote = clean_remote_text(text)
    kind: type[RSEError] = TransferFailed
    meaning = "failed to do it; try again, and look at the server's log if it persists"
    if status in _BY_STATUS:
        kind, meaning = _BY_STATUS[status]
    elif status < 400:
        kind, meaning = Unsupported, "sends us elsewhere, which is not followed; register the other address"
    elif status == 409 and verb in _NEEDS_FOLDER:
        kind, meaning = NotFound, "has not the folder above it"
    elif status == 409:
        kind, meaning = Unsupported, "does not do this to what is there"
    elif status in {400, 500}:
        kind, meaning = by_sentence(remote) or (kind, meaning)
    said = f" and says {remote!r}" if remote and not remote.startswith("<") else ""
    return kind(
        f"{rse}: {verb} of {path or 'the prefix'}: the storage {meaning} (HTTP {status}{said}).",
        rse=rse,
        path=path,
        status=status,
    )


def by_sentence(remote: str) -> tuple[type[RSEError], str] | None:
    lowered = remote.lower()
    for sentence, kind, meaning in _BY_SENTENCE:
        if sentence in lowered:
            return kind, meaning
    return None


def error_of_connection(error: OSError, verb: str, rse: str, path: str) -> RSEError:
    """Error for a request that got no answer, or half of one."""
    what = f"{rse}: {verb} of {path or 'the prefix'}"
    reason = clean_remote_text(error.strerror or str(error) or type(error).__name__)
    if error.filename is not None:
        return Unavailable(
            f"{what}: {error.filename} cannot be read ({reason}); correct the RSE's credential reference or CA bundle.",
            rse=rse,
            path=path,
        )
    if isinstance(error, ssl.SSLError):
        return _error_of_tls(error, what, rse, path)
    if isinstance(error, TimeoutError):
        return TimedOut(f"{what}: the storage did not answer in time; try again.", rse=rse, path=path)
    return Unavailable(
        f"{what}: no connection, or it broke off ({reason}); look whether the storage is up.",
        rse=rse,
        path=path,
    )


def _error_of_tls(error: ssl.SSLError, what: str, rse: str, path: str) -> RSEError:
    reason = clean_remote_text(error.strerror or str(error))
    alert = (error.reason or "") if not isinstance(error, ssl.SSLCertVerificationError) else ""
    if alert.endswith("ALERT_CERTIFICATE_EXPIRED"):
        return TokenExpired(
            f"{what}: our certificate or proxy has run out; renew it.",
            rse=rse,
            path=path,
        )
    if ("ALERT_" in alert and "CERTIFICATE" in alert) or alert.endswith("ALERT_UNKNOWN_CA"):
        return AccessDenied(
            f"{what}: the storage refuses our certificate ({reason}); look at the RSE's credential reference.",
            rse=rse,
            path=path,
        )
    return Unavailable(
        f"{what}: no TLS connection ({reason}); look at the certificate and at the RSE's CA bundle.",
        rse=rse,
        path=path,
    )


def error_of_broken_read(error: OSError, rse: str, path: str) -> RSEError:
    """Error for a body that broke off, came up short, or stalled."""
    if isinstance(error, TimeoutError):
        return Stalled(f"{rse}: {path} stopped coming; try again.", rse=rse, path=path)
    return TransferFailed(
        f"{rse}: {path} broke off ({clean_remote_text(error.strerror or str(error))}); try again.",
        rse=rse,
        path=path,
    )
