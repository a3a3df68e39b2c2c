"""The mover of a site over real HTTP with real bytes: in, out and within; killed, late, refused, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select, update

from arriero.agent.mover import SiteMover
from arriero.registry.models import NewToken
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import audit_log, request_history, requests, rses
from arriero.registry.states import RequestState
from arriero.rse.copy import copy_file
from arriero.rse.errors import Cancelled
from arriero.scheduler.sweeps import sweep_requests
from support.installation import ARRIERO, Process, wait_until
from support.invariants import assert_invariants
from support.mover_sites import DOMAINS, place
from support.server import registry

__all__ = ["place", "registry"]


@contextmanager
def running(mover: SiteMover) -> Iterator[threading.Event]:
    """The mover at work in a thread; its error is the test's."""
    stop, faults = threading.Event(), []

    def work() -> None:
        try:
            mover.run(stop)
        except Exception as error:  # noqa: BLE001 - raised below
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(timeout=30)
        assert not thread.is_alive()
    if faults:
        raise faults[0]


def test_files_move_within_a_site_that_nobody_else_reaches(place):
    place.folder("TAPE")
    place.folder("DISK")
    files = place.files("TAPE", *(f"f{number}" for number in range(30)))
    rule = place.wanted("of-TAPE", "DISK")
    assert place.central().claimed == 0
    with running(place.mover("TAPE", "DISK")):
        place.wait_for(rule)
    place.is_at("DISK", files)
    history = place.rows(select(request_history.c.mode, request_history.c.attempt, request_history.c.seconds))
    assert {(row.mode, row.attempt) for row in history} == {("streamed", 1)}
    assert all(row.seconds > 0 for row in history)
    audited = {
        row.action: row.detail for row in place.rows(select(audit_log)) if row.action.startswith("request")
    }
    assert set(audited) == {"request_claim", "request_report"}
    assert audited["request_report"]["failed"] == 0


def test_files_come_to_a_site_from_a_server(place, services):
    place.server("SLAC", services.xrootd_slac)
    place.folder("DISK")
    files = place.files("SLAC", "a", "b", "c")
    rule = place.wanted("of-SLAC", "DISK")
    assert place.central().claimed == 0
    with running(place.mover("DISK")):
        place.wait_for(rule)
    place.is_at("DISK", files)


def test_files_leave_a_site_for_a_server(place, services):
    place.server("IN2P3", services.xrootd_in2p3)
    place.folder("DISK")
    files = place.files("DISK", "a", "b", "c")
    rule = place.wanted("of-DISK", "IN2P3")
    assert place.central().released == 3
    [disk] = place.rows(select(rses.c.id).where(rses.c.name == "DISK"))
    for row in place.rows(select(requests)):
        assert (row.state, row.code, row.attempt) == (RequestState.QUEUED, "site_mover", 0)
        assert row.source_id == disk.id
        assert "DISK is read by the mover of its site only" in row.reason
    assert place.central().claimed == 0, "it waits for the mover, and a while for everybody else"
    with running(place.mover("DISK")):
        place.wait_for(rule)
    place.is_at("IN2P3", files)


def test_a_source_that_everybody_reaches_comes_before_one_of_a_site(place):
    place.folder("DISK")
    place.folder("OPEN", site_mover=False)
    place.folder("THERE", site_mover=False)
    files = place.files("DISK", "a")
    (place.folders["OPEN"] / "raw").mkdir()
    (place.folders["OPEN"] / "raw" / "a").write_bytes(files["a"])
    known = {"bytes": len(files["a"]), "adler32": f"{zlib.adler32(files['a']):08x}"}
    place.root.add_replicas("OPEN", [{"scope": "raw", "name": "a", **known}])
    place.wanted("of-DISK", "THERE")
    assert place.central().done == 1
    place.is_at("THERE", files)


def test_between_two_sites_that_only_themselves_reach_nothing_goes(place):
    place.folder("ONE")
    place.folder("TWO")
    place.files("ONE", "a")
    place.wanted("of-ONE", "TWO")
    assert place.client("TWO").claim_requests("w", 10, 0, 60) == []
    row = place.request()
    assert (row.state, row.code, row.attempt) == (RequestState.QUEUED, "no_source", 1)
    assert "ONE is read by the mover of its site only" in row.reason
    assert place.client("ONE").claim_requests("w", 10, 0, 60) == []


def test_a_mover_that_was_killed_loses_nothing(place):
    """Killed with SIGKILL while it waits for a server that never answers."""
    place.folder("DISK")
    place.folder("SLOW", site_mover=False)
    files = place.files("SLOW", "a")
    silent = socket.create_server(("127.0.0.1", 0))
    mute = {"scheme": "http", "hostname": "127.0.0.1", "port": silent.getsockname()[1], "prefix": "/"}
    place.root.delete_protocols("SLOW", "file")
    place.root.add_protocol("SLOW", {**mute, "domains": DOMAINS})
    rule = place.wanted("of-SLOW", "DISK")
    token = place.root.create_token(NewToken(label="mover", lifetime_s=600, rses=["DISK"])).token
    environment = {"ARRIERO_URL": place.registry.url, "ARRIERO_TOKEN": token}
    command = [ARRIERO, "agent", "run", "--mover", "--threads", "2"]
    process = Process(command, place.directory / "mover.log", environment)
    try:
        with silent:
            silent.settimeout(60)
            connection, _ = silent.accept()
            assert place.request().state == RequestState.SUBMITTED
            process.kill()
            connection.close()
    finally:
        process.stop()
    place.change(update(requests).values(lease_until=after(-1)))
    sweep_requests(place.registry.context)
    row = place.request()
    assert (row.state, row.code, row.attempt) == (RequestState.QUEUED, "lease_expired", 1)
    place.change(update(requests).values(not_before=after(-1)))
    folder = place.folders["SLOW"]
    place.root.delete_protocols("SLOW", "http")
    place.root.add_protocol(
        "SLOW", {"scheme": "file", "hostname": "", "port": 0, "prefix": str(folder), "domains": DOMAINS}
    )
    with running(place.mover("DISK")):
        place.wait_for(rule)
    place.is_at("DISK", files)


def test_the_command_moves_files_until_it_is_told_to_end(place):
    place.folder("TAPE")
    place.folder("DISK")
    files = place.files("TAPE", "a", "b")
    token = place.root.create_token(NewToken(label="mover", lifetime_s=600, rses=["TAPE", "DISK"])).token
    environment = {"ARRIERO_URL": place.registry.url, "ARRIERO_TOKEN": token}
    process = Process([ARRIERO, "agent", "run", "--mover"], place.directory / "mover.log", environment)
    try:
        place.wait_for(place.wanted("of-TAPE", "DISK"))
        process.wait_for_line("mover started")
        assert process.is_running
    finally:
        code = process.stop()
    assert code == 0, process.output
    place.is_at("DISK", files)
    bare = subprocess.run(
        [ARRIERO, "agent", "run"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert (bare.returncode, "--butler" in bare.stderr) == (2, True), bare.stderr


class Held:
    """A copy that goes on until it is cancelled or let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.cancelled = threading.Event()

    def __call__(self, order, pool, *, cancelled, on_progress):
        on_progress(1)
        self.begun.set()
        while not self.go.wait(0.02):
            if cancelled():
                self.cancelled.set()
                raise Cancelled("taken back", rse=order.destination.rse)
        return copy_file(order, pool, cancelled=cancelled)


def test_a_mover_that_is_stopped_gives_back_what_it_holds(place):
    place.folder("TAPE")
    place.folder("DISK")
    place.files("TAPE", "a", "b", "c")
    place.wanted("of-TAPE", "DISK")
    held = Held()
    with running(place.mover("TAPE", "DISK", copy=held, threads=2)):
        assert held.begun.wait(30)
    for row in place.rows(select(requests)):
        assert (row.state, row.attempt, row.lease_owner) == (RequestState.QUEUED, 0, None)
    assert_invariants(place.registry.database)


def test_leases_are_kept_while_a_copy_takes_long(place):
    place.folder("TAPE")
    place.folder("DISK")
    files = place.files("TAPE", "a")
    rule = place.wanted("of-TAPE", "DISK")
    held = Held()
    with running(place.mover("TAPE", "DISK", copy=held, lease_s=0.9)):
        assert held.begun.wait(30)
        first = place.request()
        wait_until(
            lambda: place.request().lease_until > first.lease_until, "the lease is longer", every_s=0.05
        )
        assert place.request().fence == first.fence
        assert place.request().copied == 1
        held.go.set()
        place.wait_for(rule)
    place.is_at("DISK", files)


def test_a_copy_whose_lease_is_lost_is_ended_and_another_mover_makes_it(place):
    place.folder("TAPE")
    place.folder("DISK")
    files = place.files("TAPE", "a")
    rule = place.wanted("of-TAPE", "DISK")
    held = Held()
    with running(place.mover("TAPE", "DISK", copy=held, lease_s=1)) as stop:
        assert held.begun.wait(30)
        # its lease is given to somebody else
        place.change(update(requests).values(fence=requests.c.fence + 1, lease_owner="another"))
        assert held.cancelled.wait(30)
        stop.set()
    assert place.request().lease_owner == "another"
    place.change(update(requests).values(lease_until=after(-1)))
    sweep_requests(place.registry.context)
    place.change(update(requests).values(not_before=after(-1)))
    with running(place.mover("TAPE", "DISK")):
        place.wait_for(rule)
    place.is_at("DISK", files)


def test_the_mover_needs_no_part_of_the_centre():
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'sqlalchemy', 'celery', 'fastapi', 'lsst', 'orjson'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from arriero.agent.cli.main import run\n"
        "sys.exit(run(['--url', 'http://127.0.0.1:9', '--timeout', '1', 'agent', 'run', '--mover']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "", "ARRIERO_TOKEN": "x"},
    ) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "catalogue unreachable" in line or "Error" in line)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert (process.returncode, "catalogue unreachable" in said) == (0, True), said + rest
