"""When a certificate or proxy runs out: as much of a certificate as has to be read for that.

A server that is shown a proxy that has run out hangs up without a word (XRootD 5.5.3), so we have to know before.
"""

from __future__ import annotations

import calendar
import re
import ssl
import time
from collections.abc import Iterator
from itertools import islice

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION = 0x30, 0xA0
_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


def first_expiry(pem: str) -> float | None:
    """When the first of some certificates runs out, in seconds since 1970; None if none can be read.

    Parameters
    ----------
    pem
        Certificates as they lie in a file, with or without keys between them.
    """
    found = []
    for match in _PEM.finditer(pem):
        try:
            found.append(_expiry(ssl.PEM_cert_to_DER_cert(match.group())))
        except (ValueError, StopIteration):
            continue
    return min(found, default=None)


def _expiry(der: bytes) -> float:
    """Walk down to `notAfter`: Certificate, TBSCertificate, the fifth member of it (or fourth), the second of that."""
    certificate = next(_members(der))[1]
    members = _members(next(_members(certificate))[1])
    tag, content = next(members)
    if tag == _VERSION:
        next(members)
    validity = next(islice(members, 2, None))  # after signature and issuer
    if validity[0] != _SEQUENCE:
        raise ValueError("no validity")
    tag, content = next(islice(_members(validity[1]), 1, None))
    return float(calendar.timegm(time.strptime(content.decode("ascii"), _FORMATS.get(tag, ""))))


def _members(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Give tag and content of each value of a sequence."""
    position = 0
    while position + 2 <= len(der):
        tag, length, position = der[position], der[position + 1], position + 2
        if length >= 0x80:
            size = length & 0x7F
            length, position = int.from_bytes(der[position : position + size], "big"), position + size
        if position + length > len(der):
            raise ValueError("a value is longer than what holds it")
        yield tag, der[position : position + length]
        position += length
