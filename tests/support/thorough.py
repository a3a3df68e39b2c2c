"""How much of what could be tried is tried: all of it at length, a share of it by `make test`."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

AT_LENGTH = not os.environ.keys().isdisjoint({"ARRIERO_TEST_AT_LENGTH", "ARRIERO_TEST_FUZZ_EXAMPLES"})

SHARE = 1 if AT_LENGTH else 4
"""Of so many hostile calls one is tried."""

_KINDS = ("sqlite", "postgresql")

_THE_SERVICE = frozenset({"registry", "official", "callers", "fuzzed"})
"""Fixtures of tests that speak to the service over HTTP; what they prove lies above the database."""


def is_tried(what: object, *, is_postgresql: bool) -> bool:
    """Whether it is tried on a database: at length each goes to one of the two, else one of `SHARE` does.

    Parameters
    ----------
    what
        Something whose `repr` is the same in every run.
    """
    return zlib.crc32(repr(what).encode()) % (2 * SHARE) == int(is_postgresql)


def is_run(name: str, fixtures: Sequence[str], parameters: Mapping[str, Any]) -> bool:
    """Whether a test is run: at length each is, else one of those over HTTP runs on one of the two databases.

    Parameters
    ----------
    name
        Of the test, with its parameters.
    """
    kind = next((value for value in parameters.values() if value in _KINDS), None)
    if AT_LENGTH or kind is None or _THE_SERVICE.isdisjoint(fixtures):
        return True
    bare = re.sub("|".join(_KINDS), "", name)
    return _KINDS[zlib.crc32(bare.encode()) % 2] == kind
