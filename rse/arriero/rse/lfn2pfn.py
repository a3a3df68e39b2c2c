"""From scope and name to the path below an RSE's prefix, by the algorithm that the RSE is registered with.

The three that Rubin's RSEs use are here; a site adds its own as an entry point `arriero.rse.lfn2pfn`: a function
of (scope, name) that gives the path. They must be pure and stable for ever: the path is where the file is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points

from arriero.rse.errors import Unsupported
from arriero.rse.paths import safe_path

Algorithm = Callable[[str, str], str]

ENTRY_POINT_GROUP = "arriero.rse.lfn2pfn"


def _scope_folder(scope: str) -> str:
    """`user.jdoe` and `group.x` become folders, other scopes keep their dots (Rucio's rule)."""
    return scope.replace(".", "/") if scope.startswith(("user", "group")) else scope


def hash_path(scope: str, name: str) -> str:
    """Rucio's default: `scope/h[0:2]/h[2:4]/name`, with h the md5 of `scope:name`."""
    digest = hashlib.md5(f"{scope}:{name}".encode(), usedforsecurity=False).hexdigest()
    return f"{_scope_folder(scope)}/{digest[0:2]}/{digest[2:4]}/{name}"


def identity_path(scope: str, name: str) -> str:
    """Rucio's `identity`: `scope/name`."""
    return f"{_scope_folder(scope)}/{name}"


def lsst_butler_path(scope: str, name: str) -> str:  # noqa: ARG001
    """Rubin's algorithm: the name is the path, the scope plays no part.

    Two scopes may therefore give one path: the catalogue keeps (RSE, path) unique.
    """
    return name


WITHOUT_SCOPE = "lsst_butler"
"""Algorithm in which the scope plays no part: files of one name share a path."""

_BUILT_IN: dict[str, Algorithm] = {
    "hash": hash_path,
    "identity": identity_path,
    WITHOUT_SCOPE: lsst_butler_path,
}


@cache
def _algorithm(name: str) -> Algorithm:
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
        loaded: Algorithm = entry.load()
        return loaded
    known = sorted({*_BUILT_IN, *entry_points(group=ENTRY_POINT_GROUP).names})
    raise Unsupported(
        f"There is no LFN-to-PFN algorithm {name[:60]!r}; use one of {', '.join(known)}, "
        f"or install a package that offers it as entry point {ENTRY_POINT_GROUP}."
    )


def path_for(algorithm: str, scope: str, name: str) -> str:
    """Path of a file below the prefix of an RSE.

    Parameters
    ----------
    algorithm
        `hash`, `identity`, `lsst_butler`, or the name of an installed entry point.
    scope, name
        The DID of the file.

    Returns
    -------
    str
        Path relative to the prefix, unquoted.

    Raises
    ------
    Unsupported
        If there is no such algorithm.
    InvalidName
        If the path would leave the prefix, or cannot be a name on a storage.
    """
    return safe_path(_algorithm(algorithm)(scope, name))
