"""Copies that an FTS carries: a second mover, over the REST interface that FTS 3 documents (jobs: POST, GET, DELETE).

One job for each file, to the attempt's own name. What the FTS says it has done is verified here and put under its final
name by `arriero.rse.copy`, as what an earlier attempt has left complete: nothing is believed of it, and a job that goes
on when nobody waits for it any more writes to a name that nobody else uses.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import structlog

from arriero.registry.pages import pages_of
from arriero.rse.attempts import earlier_attempts, remove_attempts
from arriero.rse.checksum import canonical_adler32
from arriero.rse.copy import copy_file, temporary_path
from arriero.rse.copy_order import CopyOrder
from arriero.rse.errors import Unsupported
from arriero.rse.pool import ProtocolPool
from arriero.scheduler.mover import CopiesUnderWay, Finished
from arriero.scheduler.plan import PlannedCopy
from arriero.scheduler.traffic import Link

log = structlog.get_logger(__name__)

LOOK_S = 0.5
"""How often jobs are asked for, seconds."""

MANY = 100
"""Jobs that one question names."""

SILENCE_S = 300.0
"""How long an FTS may say nothing of a copy, away or not, before it is given up, seconds."""

FTS_AWAY = "fts_unavailable"
"""Code of copies whose FTS does not answer."""

_GOOD = frozenset({"FINISHED"})
_BAD = frozenset({"FAILED", "FINISHEDDIRTY", "CANCELED", "DELETED"})


class FtsError(Exception):
    """The FTS does not answer, or not what it should."""


class FtsClient:
    """The three calls of an FTS that a mover needs.

    Parameters
    ----------
    url
        Of its REST interface, `https://fts.example.org:8446`.
    token_file
        Holds the bearer token that opens it; read for each call.
    ca_bundle
        Authorities to trust; the system's when None.
    """

    def __init__(self, url: str, *, token_file: Path | None = None, ca_bundle: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self._token_file = token_file
        self._http = httpx2.Client(
            timeout=30.0, verify=True if ca_bundle is None else str(ca_bundle), follow_redirects=False
        )

    def submit(self, order: CopyOrder, path: str, *, priority: int = 3) -> str:
        """Ask for a copy to a path at its destination; give the id of the job.

        Raises
        ------
        FtsError
            It was not taken.
        """
        file: dict[str, Any] = {
            "sources": [order.source.url(order.source_path)],
            "destinations": [order.destination.url(path)],
            "filesize": order.bytes,
        }
        params: dict[str, Any] = {"overwrite": False, "retry": -1, "priority": priority}
        if order.adler32 is not None:
            file["checksum"] = f"ADLER32:{canonical_adler32(order.adler32)}"
            params["verify_checksum"] = "target"
        said = self._call("POST", "/jobs", {"files": [file], "params": params})
        if not isinstance(said, dict) or not isinstance(said.get("job_id"), str):
            raise FtsError(f"{self.url} answers a submission without a job_id")
        return str(said["job_id"])

    def states(self, jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Ask for the state and reason of jobs; what it does not know is not in the answer.

        Raises
        ------
        FtsError
            It does not answer.
        """
        said = self._call("GET", f"/jobs/{','.join(jobs)}")
        told = said if isinstance(said, list) else [said]
        return {
            str(one["job_id"]): (str(one["job_state"]), str(one.get("reason") or ""))
            for one in told
            if isinstance(one, dict) and "job_id" in one and "job_state" in one
        }

    def cancel(self, job: str) -> None:
        """Have a job end.

        Raises
        ------
        FtsError
            It does not answer.
        """
        self._call("DELETE", f"/jobs/{job}")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"User-Agent": "arriero"}
        try:
            if self._token_file is not None:
                headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
            answer = self._http.request(method, f"{self.url}{path}", json=body, headers=headers)
        except (httpx2.HTTPError, OSError) as error:
            raise FtsError(f"{self.url} does not answer: {type(error).__name__}") from error
        if answer.status_code >= 300:
            raise FtsError(f"{self.url} answers {method} with {answer.status_code}: {answer.text[:200]!r}")
        try:
            return answer.json()
        except ValueError as error:
            raise FtsError(f"{self.url} answers {method} with something that is no JSON") from error


@dataclass(slots=True)
class _Job:
    copy: PlannedCopy
    name: str
    """Of the attempt, as its file carries it."""
    begun: float
    heard_at: float
    """When the FTS last said something of it."""


class FtsMover(CopiesUnderWay):
    """Has an FTS copy, and verifies what it has done.

    How many run at once on a link is the FTS's own affair: slots are passed over.

    Parameters
    ----------
    fts
        Which.
    pool
        Protocols of this process.
    threads
        Submissions and verifications at once.
    """

    def __init__(self, fts: FtsClient, pool: ProtocolPool, *, threads: int = 8) -> None:
        super().__init__()
        self._fts = fts
        self._pool = pool
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="arriero-fts")
        self._jobs: dict[str, _Job] = {}
        self._follower = threading.Thread(target=self._follow, name="arriero-fts-jobs", daemon=True)
        self._follower.start()

    def submit(self, copies: Sequence[PlannedCopy], slots: Mapping[Link, int]) -> None:  # noqa: ARG002
        """Ask for copies; returns at once."""
        self._expect(copies)
        for copy in copies:
            self._executor.submit(self._guarded, copy, self._ask, copy)

    def progress(self) -> Mapping[int, int]:
        """Give nothing: an FTS is not asked for it."""
        return {}

    def close(self) -> None:
        """Have what runs end, and wait for it."""
        self._closing.set()
        self._follower.join()
        self._executor.shutdown(wait=True, cancel_futures=True)
        for job in list(self._jobs):
            self._give_up(job)
        self._fts.close()

    # -- in the threads --

    def _guarded(self, copy: PlannedCopy, work: Any, *given: Any) -> None:
        with self._told(copy):
            try:
                work(*given)
            except FtsError as error:
                self._finished.put(Finished(copy, None, FTS_AWAY, str(error), retryable=True))

    def _ask(self, copy: PlannedCopy) -> None:
        if self._is_cancelled(copy):
            self._finished.put(Finished(copy, None, "cancelled", "not begun"))
            return
        order = copy.order
        path = temporary_path(order.destination_path, order.attempt_name)
        self._pool.get(order.destination).make_parents(path)
        job = self._fts.submit(order, path)
        now = time.monotonic()
        self._jobs[job] = _Job(copy, order.attempt_name, begun=now, heard_at=now)

    def _follow(self) -> None:
        """Look after jobs until the end."""
        while not self._closing.wait(LOOK_S):
            for job, one in list(self._jobs.items()):
                if self._is_cancelled(one.copy):
                    self._give_up(job)
                    self._finished.put(Finished(one.copy, None, "cancelled", "taken back"))
            for page in pages_of(list(self._jobs), MANY):
                self._look(page)

    def _look(self, jobs: Sequence[str]) -> None:
        try:
            states = self._fts.states(jobs)
        except FtsError as error:
            log.warning("jobs not looked at", cause=str(error))
            states, silence = {}, str(error)
        else:
            silence = f"{self._fts.url} does not know it"
        now = time.monotonic()
        for job, one in ((job, self._jobs[job]) for job in jobs if job in self._jobs):
            if job in states:
                one.heard_at = now
            elif now - one.heard_at > SILENCE_S:
                states[job] = "FAILED", silence
        for job, (state, reason) in states.items():
            if state in _GOOD or state in _BAD:
                ended = self._jobs.pop(job, None)
                if ended is not None:
                    self._executor.submit(self._guarded, ended.copy, self._end, ended, job, state, reason)

    def _end(self, one: _Job, job: str, state: str, reason: str) -> None:
        """Verify what a job has left, or remove it."""
        copy, order = one.copy, one.copy.order
        if state in _BAD:
            remove_attempts(order, self._pool, [one.name])
            told = f"job {job} of {self._fts.url} is {state}: {reason or 'without a reason'}"
            self._finished.put(Finished(copy, None, "transfer_failed", told, retryable=True))
            return
        earlier = (one.name, *earlier_attempts(copy.request.id, copy.request.fence))
        try:
            result = copy_file(
                replace(order, earlier_attempts=earlier, ways=()),
                self._pool,
                cancelled=lambda: self._is_cancelled(copy),
            )
        except Unsupported as error:
            # it was not whole, and is removed; there is no other way
            told = f"job {job} of {self._fts.url} says FINISHED, and what it left is not the file: {error}"
            self._finished.put(Finished(copy, None, "transfer_failed", told, retryable=True))
            return
        remove_attempts(order, self._pool, earlier)
        told = f"copied by job {job} of {self._fts.url}, and verified here"
        seconds = time.monotonic() - one.begun
        self._finished.put(Finished(copy, replace(result, mode_reason=told, seconds=seconds)))

    def _give_up(self, job: str) -> None:
        one = self._jobs.pop(job, None)
        if one is None:
            return
        try:
            self._fts.cancel(job)
            remove_attempts(one.copy.order, self._pool, [one.name])
        except FtsError as error:
            log.warning("job not cancelled", job=job, cause=str(error))
