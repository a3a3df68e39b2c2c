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
from benchlib.transfers_storage import Files, Pair, await_digests, make_folder
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
    """``curl --parallel``, which sends as many requests as Arriero for each small file, or the COPY alone.

    It knows no order among what it does at once: one process sends all HEADs, another one then all COPYs, and so on. Their
    times are added.
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
        place, server = self.place(files), self.pair.destination
        make_folder(server, place)
        source, destination = self.pair.url(self.pair.source), self.pair.url(server)
        there = [f"{source}/{path}" for path in files.paths()]
        here = [f"{destination}/{path}" for path in files.paths(place)]
        if self.only_copy:
            return self._send("COPY", here, map(_copy_headers, there))
        parts = [f"{url}.part" for url in here]
        digest = ["Want-Digest: adler32"]
        samples = [
            self._send("HEAD", there, [digest] * len(there)),
            self._send("COPY", parts, map(_copy_headers, there)),
        ]
        # as Arriero leaves XRootD the time to store a digest; it is not counted
        await_digests(server, [f"{path}.part" for path in files.paths(place)])
        moved = [[f"Destination: {url}", "Overwrite: F"] for url in here]
        samples += [
            self._send("HEAD", parts, [digest] * len(parts)),
            self._send("MOVE", parts, moved),
        ]
        return Sample(
            1 / sum(1 / one.rate for one in samples),
            client_cpu_s=sum(one.client_cpu_s for one in samples),
            client_rss_mb=max(one.client_rss_mb for one in samples),
            items=len(here),
        )

    def _send(self, method: str, urls: Sequence[str], headers: Iterable[Sequence[str]]) -> Sample:
        requests = self.directory / "curl.conf"
        sections = [self._request(method, *one) for one in zip(urls, headers, strict=True)]
        requests.write_text("next\n".join(sections))
        command = ["curl", "--silent", "--show-error", "--no-progress-meter", "--config", str(requests)]
        return _run([*command, "--parallel", "--parallel-max", str(self.at_once)], len(urls))

    def _request(self, method: str, url: str, headers: Iterable[str]) -> str:
        lines = [f'url = "{url}"', 'output = "/dev/null"', "fail", "globoff"]
        lines.append("head" if method == "HEAD" else f'request = "{method}"')
        lines += [f'header = "{header}"' for header in headers]
        if self.pair.ca_bundle is not None:
            lines.append(f'cacert = "{self.pair.ca_bundle}"')
        return "\n".join([*lines, ""])


def _copy_headers(source: str) -> list[str]:
    return [f"Source: {source}", "Overwrite: F", "Credential: none", "RequireChecksumVerification: false"]


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
