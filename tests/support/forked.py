"""Runs a Python program many times and imports its modules once.

Each run is a process of its own with its own arguments, environment and streams, forked from one that has imported the
modules and done nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess

_CONTEXT = multiprocessing.get_context("forkserver")


def preload(*modules: str) -> None:
    """Have these modules imported by the process that runs are forked from: before the first of them."""
    _CONTEXT.set_forkserver_preload([__name__, *modules])


def run(
    command: Sequence[str], *, env: Mapping[str, str], directory: Path, timeout: float
) -> CompletedProcess[str]:
    """Run a Python program as `subprocess.run` does.

    Parameters
    ----------
    command
        Path of the program, and its arguments.
    directory
        Where what it writes is kept meanwhile.
    """
    streams = directory / "stdout", directory / "stderr"
    process = _CONTEXT.Process(target=_become, args=(list(command), dict(env), [str(one) for one in streams]))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
    out, err = (stream.read_text() for stream in streams)
    code = process.exitcode
    process.close()
    assert code is not None
    return CompletedProcess(list(command), code, out, err)


def _become(command: list[str], environment: dict[str, str], streams: list[str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(streams, start=1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
