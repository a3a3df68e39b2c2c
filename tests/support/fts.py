"""An emulation of an FTS: the three calls of its documented REST interface that a mover needs, over real third-party copies.

No FTS runs where the tests run. What is here takes the words of its interface (POST /jobs, GET /jobs/{ids}, DELETE /jobs/{id},
their fields and states) and has the destination of a job pull; it says what a test tells it to where that is asked for.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class EmulatedFts:
    """Jobs, and what goes wrong with them."""

    url: str = ""
    token: str = "opens the fts"
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    lies: set[str] = field(default_factory=set)
    """Files, by the end of their source, that it says it has copied and has not."""
    holds: threading.Event = field(default_factory=threading.Event)
    """Jobs begin when it is set."""
    away: bool = False

    def submit(self, body: dict[str, Any]) -> str:
        job = str(uuid.uuid4())
        self.jobs[job] = {"job_id": job, "job_state": "SUBMITTED", "reason": None, "body": body}
        threading.Thread(target=self._work, args=(self.jobs[job],), daemon=True).start()
        return job

    def _work(self, job: dict[str, Any]) -> None:
        [file] = job["body"]["files"]
        self.holds.wait(30)
        if job["job_state"] != "SUBMITTED":
            return
        job["job_state"] = "ACTIVE"
        said = "success"
        if not any(file["sources"][0].endswith(one) for one in self.lies):
            said = _pulled(file["sources"][0], file["destinations"][0])
        job["job_state"] = "FINISHED" if "success" in said else "FAILED"
        job["reason"] = None if "success" in said else f"TRANSFER ERROR: {said}"


def _pulled(source: str, destination: str) -> str:
    """Have the destination fetch; give the last line of its report."""
    parts = urlsplit(destination)
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=30)
    try:
        headers = {"Source": source, "Overwrite": "F", "Credential": "none"}
        connection.request("COPY", parts.path, headers=headers)
        answer = connection.getresponse()
        lines = answer.read().decode().strip().splitlines()
        return lines[-1] if answer.status < 300 and lines else f"status {answer.status}"
    finally:
        connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _is_open(self) -> bool:
        fts = self.server.fts
        if fts.away:
            self._answer(503, {"status": "503 Service Unavailable"})
        elif self.headers.get("Authorization") != f"Bearer {fts.token}":
            self._answer(401, {"status": "401 Unauthorized"})
        else:
            return True
        return False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_open():
            self._answer(200, {"job_id": self.server.fts.submit(json.loads(body))})

    def do_GET(self) -> None:
        if not self._is_open():
            return
        jobs = self.server.fts.jobs
        ids = self.path.removeprefix("/jobs/").split(",")
        found = [
            {key: jobs[one][key] for key in ("job_id", "job_state", "reason")} for one in ids if one in jobs
        ]
        if len(ids) == 1:
            self._answer(200 if found else 404, found[0] if found else {"status": "404 Not Found"})
        else:
            self._answer(200, found)

    def do_DELETE(self) -> None:
        if self._is_open():
            job = self.server.fts.jobs[self.path.removeprefix("/jobs/")]
            if job["job_state"] in {"SUBMITTED", "ACTIVE"}:
                job["job_state"] = "CANCELED"
            self._answer(200, {"job_id": job["job_id"], "job_state": job["job_state"]})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fts: EmulatedFts


@contextmanager
def emulated_fts() -> Iterator[EmulatedFts]:
    """Run one for the length of the block."""
    fts = EmulatedFts()
    fts.holds.set()
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.fts = fts
        fts.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield fts
        finally:
            fts.holds.set()
            server.shutdown()
            thread.join(5)
