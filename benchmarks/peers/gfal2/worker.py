"""gfal2's side: third-party copies from threads of one process, with Debian's Python and its gfal2 module.

usage: /usr/bin/python3 worker.py
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gfal2

from benchlib.lines import serve
from benchlib.stopwatch import Stopwatch

TIMEOUT_S = 3600


def version():
    return gfal2.get_version()


def copy(pairs, threads):
    """Copy from URL to URL, as FTS does: one context for all threads, which keeps connections."""
    context = gfal2.creat_context()

    def one(pair):
        parameters = context.transfer_parameters()
        parameters.overwrite = False
        parameters.create_parent = False
        parameters.timeout = TIMEOUT_S
        context.filecopy(parameters, *pair)

    watch = Stopwatch()
    with watch, ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(one, pair) for pair in pairs]:
            done.result()
    return watch.report(len(pairs))


if __name__ == "__main__":
    serve({"version": version, "copy": copy})
