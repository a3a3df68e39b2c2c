"""Times of headers as nanoseconds of TAI, as the Butler stores them. No I/O, no Butler."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from astropy.time import Time
from erfa import ErfaWarning  # type: ignore[import-untyped]

NS_PER_DAY = 86_400_000_000_000
MJD_1970 = 40_587
"""MJD of 1970-01-01T00:00:00, from which the Butler counts TAI nanoseconds."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - TAI has no zone

MAX_NS = (datetime(2100, 1, 1) - _EPOCH).days * NS_PER_DAY  # noqa: DTZ001
"""The Butler refuses times from 2100-01-01 TAI on."""

_ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?", re.ASCII)

SCALES = ("tai", "utc", "tt", "tdb")
"""Scales that astropy converts to TAI without tables from the network."""


@dataclass(frozen=True, slots=True)
class TaiSpan:
    """A half-open span of TAI, in nanoseconds since 1970-01-01T00:00:00 TAI (as the Butler stores it)."""

    begin_ns: int
    end_ns: int


@lru_cache(maxsize=4096)
def tai_nanoseconds(raw: str | float, scale: str) -> int:
    """Return a time as TAI nanoseconds since 1970-01-01T00:00:00 TAI.

    Parameters
    ----------
    raw
        ISO 8601 without a zone, or an MJD in days.
    scale
        One of `SCALES`.

    Raises
    ------
    ValueError
        If it is no time, or outside of 1970 to 2100.
    """
    # Cached: all detectors of an exposure have the same times.
    if scale not in SCALES:
        raise ValueError(f"time scale {scale} is none of {', '.join(SCALES)}")
    nanoseconds = _tai_read(raw) if scale == "tai" and isinstance(raw, str) else None
    if nanoseconds is None:
        nanoseconds = _converted(raw, scale)
    if not 0 <= nanoseconds < MAX_NS:
        raise ValueError("outside of 1970 to 2100")
    return nanoseconds


def _tai_read(raw: str) -> int | None:
    """Return a time that is in TAI already, None for a form that astropy has to read, which takes it 0.1 ms."""
    if not (found := _ISO.fullmatch(raw.strip())):
        return None
    whole, fraction = found.groups(default="")
    try:
        since = datetime.fromisoformat(whole) - _EPOCH
    except ValueError:
        return None
    return (since.days * 86_400 + since.seconds) * 10**9 + int(fraction.ljust(9, "0"))


def _converted(raw: str | float, scale: str) -> int:
    with warnings.catch_warnings():
        # Leap seconds of the years to come are not known; simulations live there.
        warnings.simplefilter("ignore", ErfaWarning)
        if isinstance(raw, str):
            time = Time(raw.strip(), format="isot", scale=scale).tai
        else:
            time = Time(_finite(raw), format="mjd", scale=scale).tai
    # Split so that whole days stay integers; a double alone holds a date only to about 40 microseconds.
    days = round(float(time.jd1) - 2_400_000.5 - MJD_1970)
    rest = (float(time.jd1) - 2_400_000.5 - MJD_1970 - days) + float(time.jd2)
    return days * NS_PER_DAY + round(rest * NS_PER_DAY)


def _finite(raw: float) -> float:
    if isinstance(raw, bool) or not math.isfinite(number := float(raw)):
        raise ValueError("not a finite number of days")
    return number
