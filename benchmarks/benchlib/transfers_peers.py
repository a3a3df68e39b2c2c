"""What Arriero's copies are compared with: rclone, curl and gfal2, each as one process, between the same two storages."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchlib.report import Sample
from benchlib.transfers_storage import Files, Pair, make_folder
from benchlib.worker import Worker
from servicelib.errors import MissingPackagesError
from servicelib.packages import install
from servicelib.server import SYSTEM_PATH

GFAL2_WORKER = Path(__file__).resolve().parents[1] / "peers" / "gfal2" / "worker.py"
SYSTEM_PYTHON = "/usr/bin/python3"
"""gfal2's Python module is a Debian package, for Debian's Python."""


class CopySide(Protocol):
    """One of those that copy."""

    name: str

    def place(self, files: Files) -> str:
        """Give the folder of the destination that it copies into."""

    def copy(self, files: Files) -> Sample:
        """Copy files, and say what it took; files a second."""


def need(program: str, *packages: str) -> None:
    """Have a program, from Debian packages where it is missing.

    Raises
    ------
    MissingPackagesError
        It is missing and cannot be installed; the message says how.
    """
    if shutil.which(program, path=SYSTEM_PATH) is None:
        _install(program, packages)


def _install(what: str, packages: Sequence[str]) -> None:
    lacking = MissingPackagesError({what: "it is not installed"}, tuple(packages))
    install(lacking, lambda line: print(line, file=sys.stderr))


def _version(*command: str) -> str:
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment()).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return "" if found is None else found.group()


def _environment() -> dict[str, str]:
    # no settings, proxies or credentials of the person who measures
    return {"PATH": SYSTEM_PATH, "HOME": "/nonexistent", "LANG": "C.UTF-8"}


def _run(command: Sequence[str], count: int) -> Sample:
    """Run a program that does so many things, and say what it took.

    Raises
    ------
    RuntimeError
        It failed, with what it said.
    """
    began = time.perf_counter()
    # what is said on both is little; nobody reads while it runs
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
    )
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(
            f"{command[0]} ended with {process.returncode}: {said[-2000:].decode(errors='replace')}"
        )
    return Sample(
        count / seconds,
        client_cpu_s=used.ru_utime + used.ru_stime,
        client_rss_mb=round(used.ru_maxrss / 1024, 1),
        items=count,
    )


@dataclass
class Rclone:
    """``rclone copy`` from WebDAV to WebDAV: the bytes go through it."""

    pair: Pair
    directory: Path
    at_once: int

    def __post_init__(self) -> None:
        need("rclone", "rclone")
        self.name = f"rclone {_version('rclone', 'version')}"

    def place(self, files: Files) -> str:
        return f"rclone/{files.folder}"

    def copy(self, files: Files) -> Sample:
        settings = self.directory / "rclone.conf"
        remotes = {"source": self.pair.source, "destination": self.pair.destination}
        settings.write_text(
            "".join(
                f"[{name}]\ntype = webdav\nurl = {self.pair.url(server)}\nvendor = other\n"
                for name, server in remotes.items()
            )
        )
        command = ["rclone", "--config", str(settings), "copy"]
        command += [f"source:{files.folder}", f"destination:{self.place(files)}"]
        command += ["--transfers", str(self.at_once), "--checkers", str(max(8, self.at_once))]
        if self.pair.ca_bundle is not None:
            command += ["--ca-cert", str(self.pair.ca_bundle)]
        return _run(command, len(files.adler32))


@dataclass
class Curl:
    """One process of ``curl --parallel``, which sends what Arriero sends for each file, or the COPY alone.

    curl knows no order among what it does at once: all HEADs come first, then all COPYs, and so on. What is sent for one
    file is then apart by as many requests as there are files.
    """

    pair: Pair
    directory: Path
    at_once: int
    only_copy: bool = False

    def __post_init__(self) -> None:
        need("curl", "curl")
        does = "COPY alone" if self.only_copy else "HEAD, COPY, HEAD, MOVE"
        self.name = f"curl {_version('curl', '--version')} --parallel, {does}"

    def place(self, files: Files) -> str:
        return f"curl/{files.folder}"

    def copy(self, files: Files) -> Sample:
        make_folder(self.pair.destination, self.place(files))
        requests = self.directory / "curl.conf"
        requests.write_text("next\n".join(self._requests(files)))
        # with fewer files than this the requests for one file could be under way together
        at_once = max(1, min(self.at_once, len(files.adler32) // 8))
        command = ["curl", "--silent", "--show-error", "--parallel", "--parallel-max", str(at_once)]
        return _run([*command, "--config", str(requests)], len(files.adler32))

    def _requests(self, files: Files) -> Iterator[str]:
        source, destination = (self.pair.url(server) for server in (self.pair.source, self.pair.destination))
        names = [
            (f"{source}/{files.folder}/{name}", f"{destination}/{self.place(files)}/{name}")
            for name in files.adler32
        ]
        if self.only_copy:
            for there, here in names:
                yield self._copy(there, here)
            return
        for there, _ in names:
            yield self._request("HEAD", there, ["Want-Digest: adler32"])
        for there, here in names:
            yield self._copy(there, f"{here}.part")
        for _, here in names:
            yield self._request("HEAD", f"{here}.part", ["Want-Digest: adler32"])
        for _, here in names:
            yield self._request("MOVE", f"{here}.part", [f"Destination: {here}", "Overwrite: F"])

    def _copy(self, there: str, here: str) -> str:
        headers = [
            f"Source: {there}",
            "Overwrite: F",
            "Credential: none",
            "RequireChecksumVerification: false",
        ]
        return self._request("COPY", here, headers)

    def _request(self, method: str, url: str, headers: Iterable[str]) -> str:
        lines = [f'url = "{url}"', 'output = "/dev/null"', "fail", "globoff"]
        lines.append("head" if method == "HEAD" else f'request = "{method}"')
        lines += [f'header = "{header}"' for header in headers]
        if self.pair.ca_bundle is not None:
            lines.append(f'cacert = "{self.pair.ca_bundle}"')
        return "\n".join([*lines, ""])


class Gfal2:
    """gfal2 in a process of its own, which is what FTS runs: third-party copies from threads, without checksums."""

    def __init__(self, worker: Worker, pair: Pair, at_once: int) -> None:
        self._worker = worker
        self._pair = pair
        self._at_once = at_once
        self.name = f"gfal2 {worker.do('version')}"

    def place(self, files: Files) -> str:
        return f"gfal2/{files.folder}"

    def copy(self, files: Files) -> Sample:
        make_folder(self._pair.destination, self.place(files))
        source, destination = (
            self._pair.url(server) for server in (self._pair.source, self._pair.destination)
        )
        pairs = [
            (f"{source}/{files.folder}/{name}", f"{destination}/{self.place(files)}/{name}")
            for name in files.adler32
        ]
        answer = self._worker.do("copy", pairs=pairs, threads=self._at_once)
        return sample_of(answer)


@contextmanager
def gfal2(pair: Pair, at_once: int) -> Iterator[Gfal2]:
    """Run gfal2's side."""
    found = subprocess.run([SYSTEM_PYTHON, "-c", "import gfal2"], check=False, capture_output=True)
    plugin = any(Path("/usr/lib").glob("*/gfal2-plugins/libgfal_plugin_http.so"))
    if found.returncode or not plugin:
        _install("gfal2", ("python3-gfal2", "gfal2-plugin-http"))
    worker = Worker([SYSTEM_PYTHON, "-W", "ignore", str(GFAL2_WORKER)], _environment())
    try:
        yield Gfal2(worker, pair, at_once)
    finally:
        worker.close()


def sample_of(answer: Mapping[str, float], **more: float) -> Sample:
    """Make a sample of what a worker answers."""
    return Sample(
        rate=answer["n"] / answer["seconds"],
        client_cpu_s=answer["client_cpu_s"],
        client_rss_mb=answer["client_rss_mb"],
        items=int(answer["n"]),
        **more,
    )
