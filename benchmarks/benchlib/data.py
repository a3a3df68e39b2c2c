"""The files that every side registers: the same names, sizes, checksums and metadata, worked out from a number.

No import beyond the standard library: the peer's environment reads this module too.
"""

import zlib
from collections.abc import Iterator

SCOPE = "bench"
RSE = "SLAC_DISK"
ADLER32 = "0cc737eb"
DETECTORS = 189
FIRST_BYTES = 4_000_000

NAME_IN_SQL = (
    f"'MC_O_20260101_' || lpad((i / {DETECTORS})::text, 6, '0') || '_R' || lpad((i % 25)::text, 2, '0') || '_S'"
    f" || lpad((i % {DETECTORS})::text, 3, '0') || '_' || '{{prefix}}' || '.fits'"
)
"""`name` for PostgreSQL, with ``i`` the number; to be formatted with the prefix."""


def name(prefix: str, number: int) -> str:
    """Give the name of a file, as long as that of a raw of the LSST camera; names rise with the number."""
    exposure, detector = divmod(number, DETECTORS)
    return f"MC_O_20260101_{exposure:06d}_R{number % 25:02d}_S{detector:03d}_{prefix}.fits"


def size(number: int) -> int:
    """Give the bytes of a file."""
    return FIRST_BYTES + number


def meta(number: int) -> dict[str, object]:
    """Give the metadata of a file."""
    exposure, detector = divmod(number, DETECTORS)
    return {"bench_exposure": exposure, "bench_detector": detector, "bench_band": "ugrizy"[exposure % 6]}


def chunks(start: int, count: int, length: int) -> Iterator[range]:
    """Cut a range of numbers."""
    for first in range(start, start + count, length):
        yield range(first, min(first + length, start + count))


def digest_of(found: str, length: int, adler32: str) -> int:
    """Give a number for one file; the sum over files does not depend on their order."""
    return zlib.crc32(f"{found}:{length}:{adler32}".encode())


def digest(prefix: str, start: int, count: int) -> int:
    """Give the sum that a list of these files must have."""
    return sum(digest_of(name(prefix, i), size(i), ADLER32) for i in range(start, start + count))
