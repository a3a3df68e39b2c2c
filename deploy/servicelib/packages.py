"""Install Debian packages as root, without letting them start their services.

The machine may run its own PostgreSQL or Redis; what is installed here must not add another one that listens.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from servicelib.errors import MissingPackagesError, ServiceError

ATTEMPTS = 3
_POLICY = Path("/usr/sbin/policy-rc.d")
_FORBIDDEN = 101  # "action forbidden by policy", see invoke-rc.d(8)
_CREATE_CLUSTER = Path("/etc/postgresql-common/createcluster.d/arriero.conf")
_OPTIONS = (
    "--yes",
    "--quiet",
    "--option=Acquire::Retries=5",
    "--option=Acquire::http::Timeout=60",
    "--option=DPkg::Lock::Timeout=300",
    "--option=Dpkg::Use-Pty=0",
    "--option=Dpkg::Options::=--force-confold",
)


def install(missing: MissingPackagesError, say: Callable[[str], None]) -> None:
    """Install what is missing.

    Parameters
    ----------
    missing
        What is missing and the packages that bring it.
    say
        Told what happens, since it can take minutes.

    Raises
    ------
    MissingPackagesError
        If this is not root, or no Debian: `missing` itself, whose message has the command.
    ServiceError
        If apt-get failed three times, with its last lines.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise missing
    say(f"Installing {' '.join(missing.packages)} with apt-get")
    with _services_held_back():
        for attempt in range(1, ATTEMPTS + 1):
            done = _apt_get("install", "--no-install-recommends", *missing.packages)
            if done.returncode == 0:
                return
            if attempt < ATTEMPTS:
                say("apt-get install failed; fetching the package lists and trying again")
                time.sleep(attempt - 1)
                _apt_get("update")
    said = "\n".join(f"  | {line}" for line in done.stdout.splitlines()[-15:])
    raise ServiceError(
        f"apt-get could not install {' '.join(missing.packages)}:\n{said}\nRun: {missing.command}"
    )


def _apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", *_OPTIONS, *arguments],
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


@contextmanager
def _services_held_back() -> Iterator[None]:
    """Forbid package scripts to start services, and PostgreSQL's to create a cluster, while this is open."""
    saved = _POLICY.with_suffix(".d.before-arriero")
    if _POLICY.exists() and not saved.exists():
        _POLICY.rename(saved)
    _POLICY.write_text(f"#!/bin/sh\nexit {_FORBIDDEN}\n")
    _POLICY.chmod(0o755)
    created = _missing_parents(_CREATE_CLUSTER)
    _CREATE_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
    _CREATE_CLUSTER.write_text("create_main_cluster = false\n")
    try:
        yield
    finally:
        _CREATE_CLUSTER.unlink(missing_ok=True)
        for directory in created:
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()
        if saved.exists():
            saved.replace(_POLICY)
        else:
            _POLICY.unlink(missing_ok=True)


def _missing_parents(path: Path) -> list[Path]:
    return [parent for parent in path.parents if not parent.exists()]


def main(packages: list[str]) -> int:
    """Install the packages named on the command line; print what to do when that cannot be."""
    try:
        install(
            MissingPackagesError({"Python": "incomplete"}, tuple(packages)),
            lambda line: print(line, file=sys.stderr),
        )
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
