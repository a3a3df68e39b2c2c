"""The same calls of Rucio's REST protocol to either side, from one client.

Bodies are made before the clock starts, and answers are counted a line at a time, so that the client costs both sides
the same and little.
"""

import http.client
import json
import time
from urllib.parse import urlsplit

from benchlib import data
from benchlib.stopwatch import Stopwatch


class CallFailed(RuntimeError):
    """A call was answered with an error."""


class Wire:
    """A client of one side."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=3600)
        self._headers = {"Content-Type": "application/json"}

    def log_in(self) -> None:
        """Ask for a token of root."""
        login = {"X-Rucio-Account": "root", "X-Rucio-Username": "ddmlab", "X-Rucio-Password": "secret"}
        self._connection.request("GET", "/auth/userpass", headers=login)
        answer = self._connection.getresponse()
        answer.read()
        self._headers["X-Rucio-Auth-Token"] = answer.headers["X-Rucio-Auth-Token"]

    def hang_up(self) -> None:
        """Close the connection; the next call opens another one."""
        self._connection.close()

    def _call(
        self, method: str, path: str, body: bytes | None, accept: str = "*/*"
    ) -> http.client.HTTPResponse:
        self._connection.request(method, path, body=body, headers={**self._headers, "Accept": accept})
        answer = self._connection.getresponse()
        if answer.status >= 300:
            raise CallFailed(f"{method} {path}: {answer.status} {answer.read()[:500]!r}")
        return answer

    def register(self, prefix: str, start: int, count: int, chunk: int) -> dict[str, object]:
        """Register files."""
        watch = Stopwatch()
        for numbers in data.chunks(start, count, chunk):
            files = [
                {
                    "scope": data.SCOPE,
                    "name": data.name(prefix, i),
                    "bytes": data.size(i),
                    "adler32": data.ADLER32,
                }
                for i in numbers
            ]
            body = json.dumps({"rse": data.RSE, "files": files, "ignore_availability": True}).encode()
            with watch:
                self._call("POST", "/replicas", body).read()
        return watch.report(count)

    def attach(self, prefix: str, start: int, count: int, chunk: int, dataset: str) -> dict[str, object]:
        """Make a dataset and attach files to it."""
        path, watch = f"/dids/{data.SCOPE}/{dataset}", Stopwatch()
        self._call("POST", path, b'{"type": "DATASET"}').read()
        for numbers in data.chunks(start, count, chunk):
            held = [{"scope": data.SCOPE, "name": data.name(prefix, i)} for i in numbers]
            body = json.dumps({"dids": held}).encode()
            with watch:
                self._call("POST", f"{path}/dids", body).read()
        return watch.report(count)

    def list_files(self, dataset: str, most: int | None, digest: bool) -> dict[str, object]:
        """List the files of a dataset."""
        return self._listed("GET", f"/dids/{data.SCOPE}/{dataset}/files", None, most, digest)

    def list_replicas(self, dataset: str, most: int | None, digest: bool) -> dict[str, object]:
        """List the replicas of a dataset with their PFNs."""
        body = json.dumps({"dids": [{"scope": data.SCOPE, "name": dataset}]}).encode()
        return self._listed("POST", "/replicas/list", body, most, digest)

    def _listed(
        self, method: str, path: str, body: bytes | None, most: int | None, digest: bool
    ) -> dict[str, object]:
        stream, watch, count, length = "application/x-json-stream", Stopwatch(), 0, 0
        with watch:
            answer = self._call(method, path, body, stream)
            first = time.perf_counter()
            while piece := answer.read1(1 << 16):
                if count == 0:
                    first = time.perf_counter()
                count += piece.count(b"\n")
                length += len(piece)
                if most is not None and count >= most:
                    break
        if most is not None:
            # of a part of a list only the flow counts, not what it took to begin
            watch.seconds = time.perf_counter() - first
        self._connection.close()
        return watch.report(count, bytes=length, digest=self._digest(method, path, body) if digest else None)

    def _digest(self, method: str, path: str, body: bytes | None) -> int:
        digest = 0
        for line in self._call(method, path, body, "application/x-json-stream"):
            row = json.loads(line)
            digest += data.digest_of(row["name"], row["bytes"], row["adler32"])
        return digest

    def set_meta(self, prefix: str, start: int, count: int, chunk: int) -> dict[str, object]:
        """Set metadata of files."""
        watch = Stopwatch()
        for numbers in data.chunks(start, count, chunk):
            changes = [
                {"scope": data.SCOPE, "name": data.name(prefix, i), "meta": data.meta(i)} for i in numbers
            ]
            body = json.dumps({"dids": changes}).encode()
            with watch:
                self._call("POST", "/dids/bulkdidsmeta", body).read()
        return watch.report(count)
