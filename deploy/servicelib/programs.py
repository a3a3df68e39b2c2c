"""Find programs and libraries that Debian packages install, also outside the PATH of an ordinary user."""

from __future__ import annotations

import shutil
from pathlib import Path

from servicelib.server import SYSTEM_PATH


def find_program(name: str) -> str | None:
    """Return the full path of a program, None when it is not installed."""
    return shutil.which(name, path=SYSTEM_PATH)


def find_library(pattern: str) -> Path | None:
    """Return a shared library whose file name matches a glob pattern, None when there is none."""
    for directory in (Path("/usr/lib"), *sorted(Path("/usr/lib").glob("*-linux-*")), Path("/usr/lib64")):
        for found in sorted(directory.glob(pattern)):
            return found
    return None
