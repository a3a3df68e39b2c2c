"""The Celery app, its doorbell, a real worker on a real Redis, and the worker in this process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from celery import Celery
from sqlalchemy import select

from arriero.registry.ports import Bell
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings
from arriero.registry.states import RequestState, RuleState
from arriero.scheduler.app import create_celery
from arriero.scheduler.doorbell import CeleryDoorbell
from arriero.scheduler.embedded import EmbeddedWorker
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.names import QUEUES
from arriero.scheduler.process import Turns
from servicelib.redis import Redis
from support.scheduling import Catalogue, evaluations, requests


def test_configuration():
    settings = Settings(broker_url="redis://localhost:6379/1", sweep_s=7)
    app = create_celery(settings)
    assert app.conf.task_serializer == "json"
    assert list(app.conf.accept_content) == ["json"]
    assert app.conf.result_backend is None
    assert app.conf.task_ignore_result
    assert app.conf.task_acks_late
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.broker_transport_options["visibility_timeout"] >= 3600
    # one exchange would give each message to every queue
    queues = [(queue.name, queue.exchange.name, queue.routing_key) for queue in app.conf.task_queues]
    assert queues == [(name, name, name) for name in QUEUES]
    ours = {name for name in app.tasks if name.startswith("arriero.")}
    assert ours == {
        "arriero.rules.evaluate",
        "arriero.rules.subscribe",
        "arriero.transfer.run",
        "arriero.delete.run",
        "arriero.maintenance.sweep_evaluations",
        "arriero.maintenance.sweep_requests",
        "arriero.maintenance.sweep_arrivals",
        "arriero.maintenance.sweep_deletions",
        "arriero.maintenance.sweep_subscriptions",
        "arriero.maintenance.sweep_rules",
        "arriero.maintenance.sweep_dids",
        "arriero.maintenance.sweep_replicas",
        "arriero.maintenance.sweep_accounts",
        "arriero.maintenance.sweep_histories",
        "arriero.maintenance.scrub",
        "arriero.maintenance.sweep_audits",
    }
    assert {app.conf.task_routes[name]["queue"] for name in ours} == set(QUEUES)
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} == {
        name for name in ours if name.startswith("arriero.maintenance")
    }
    assert {entry["schedule"] for entry in app.conf.beat_schedule.values()} == {7}


def test_importing_the_app_reads_no_settings():
    environment = dict(os.environ, ARRIERO_NO_SUCH_SETTING="x")
    code = "import arriero.scheduler.app"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
    asked = subprocess.run(
        [sys.executable, "-c", "from arriero.scheduler.app import app"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode != 0
    assert "ARRIERO_NO_SUCH_SETTING" in asked.stderr


class Sent(Celery):
    """An app that notes what it would send."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(set_as_current=False)
        self.sent: list[str] = []
        self.fails = fails

    def send_task(self, name, *_args, **_options):
        if self.fails:
            raise ConnectionRefusedError("no broker")
        self.sent.append(name)


def test_rings_of_a_short_time_are_one_and_none_is_lost():
    app = Sent()
    bell = CeleryDoorbell(app, window_s=1)
    bell.ring(Bell.EVALUATIONS)
    wait_for(lambda: app.sent == ["arriero.rules.evaluate"], 0.9)
    for _ in range(50):
        bell.ring(Bell.EVALUATIONS)
        bell.ring(Bell.REQUESTS)
    time.sleep(1.5)
    assert app.sent[1:] == ["arriero.rules.evaluate", "arriero.transfer.run"]
    bell.close()
    bell.ring(Bell.EVALUATIONS)
    assert len(app.sent) == 3


def test_a_doorbell_without_a_broker_neither_raises_nor_waits():
    for app in (Sent(fails=True), create_celery(Settings(broker_url="redis://127.0.0.1:1/0"))):
        bell = CeleryDoorbell(app)
        begun = time.monotonic()
        for _ in range(10):
            bell.ring(Bell.REQUESTS)
        assert time.monotonic() - begun < 5
        bell.close()


def test_turns_do_the_work_once_more_for_who_comes_meanwhile():
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        go_on.wait(10)
        done.append(1)

    turns = Turns(work)
    thread = threading.Thread(target=turns.take)
    thread.start()
    begun.wait(10)
    turns.take()
    turns.take()
    go_on.set()
    thread.join()
    assert len(done) == 2
    turns.take()
    assert len(done) == 3


def wait_for(condition, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


@contextmanager
def celery(*arguments: str, environment: dict[str, str], log):
    """A real Celery process, ended at the end."""
    command = [sys.executable, "-m", "celery", "-A", "arriero.scheduler.app", *arguments]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_worker_on_redis_evaluates_what_is_rung_for(catalogue: Catalogue, services, tmp_path):
    slac = catalogue.rse("SLAC")
    catalogue.rse("IN2P3")
    broker = services.redis.database_url(5)
    environment = {
        "ARRIERO_DATABASE_URL": catalogue.url,
        "ARRIERO_BROKER_URL": broker,
        "ARRIERO_SWEEP_S": "1",
    }
    log_path = tmp_path / "celery.log"
    options = ("--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat")
    with (
        log_path.open("w") as log,
        celery("worker", "-Q", "rules,maintenance", "-c", "2", *options, environment=environment, log=log),
    ):
        wait_for(lambda: "ready." in log_path.read_text())
        night = catalogue.collection("night", children=catalogue.files(20, at=[slac]))
        rung = catalogue.rule(night, "IN2P3")
        CeleryDoorbell(create_celery(Settings(broker_url=broker))).ring(Bell.EVALUATIONS)
        wait_for(lambda: catalogue.rule_row(rung).state == RuleState.REPLICATING)
        assert catalogue.count(requests, state=RequestState.QUEUED) == 20
        # nobody rings, and the lease is a dead worker's: beat and the sweep find it
        silent = catalogue.rule(night, "IN2P3|IN2P3")
        with catalogue.database.transaction() as tx:
            tx.execute(evaluations.update().values(lease_owner="dead", lease_until=evaluations.c.created_at))
        services.redis.flush()
        with celery("beat", "--loglevel", "INFO", environment=environment, log=log):
            wait_for(lambda: catalogue.rule_row(silent).state == RuleState.REPLICATING)
    assert catalogue.count(evaluations) == 0
    catalogue.check_invariants()


def test_the_embedded_worker_evaluates_and_copies_in_this_process(
    catalogue: Catalogue, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folders = {name: tmp_path / name for name in ("HERE", "THERE")}
    for folder in folders.values():
        folder.mkdir()

    def add(name):
        protocol = {"scheme": "file", "hostname": "", "port": 0, "prefix": str(folders[name])}
        return catalogue.rse(name, protocol=protocol, attributes={"lfn2pfn_algorithm": "identity"})

    here, _ = add("HERE"), add("THERE")
    files = catalogue.files(6, size=5, at=[here])
    (folders["HERE"] / "raw").mkdir()
    for number in range(6):
        (folders["HERE"] / "raw" / f"file-{number:06d}").write_bytes(b"bytes")
    with catalogue.database.transaction() as tx:
        from support.scheduling import dids

        tx.execute(dids.update().where(dids.c.type == "FILE").values(adler32=f"{0x066C0228:08x}"))
    settings = catalogue.context.settings.model_copy(update={"sweep_s": 0.5})
    bell = CeleryDoorbell(create_celery(settings))
    context = Context(catalogue.database, settings, bell)
    worker = EmbeddedWorker(context)
    worker.start()
    try:
        rung = catalogue.rule(catalogue.collection("night", children=files), "THERE")
        bell.ring(Bell.EVALUATIONS)
        wait_for(lambda: catalogue.rule_row(rung).state == RuleState.OK)
        assert len(list((folders["THERE"] / "raw").iterdir())) == 6
        # nobody rings: the sweep does
        more = catalogue.collection("more", children=files)
        unrung = catalogue.rule(more, "THERE|HERE", copies=2)
        wait_for(lambda: catalogue.rule_row(unrung).state == RuleState.OK)
    finally:
        begun = time.monotonic()
        worker.stop()
        bell.close()
    assert time.monotonic() - begun < 10
    left = {thread.name.rpartition("_")[0] or thread.name for thread in threading.enumerate()}
    assert (
        sorted(path.name for path in tmp_path.iterdir() if path.is_file() and "registry" not in path.name)
        == []
    )
    assert left.isdisjoint({"arriero-worker", "arriero-beat", "arriero-copy", "arriero-leases"})
    assert catalogue.rows(select(requests)) == []
    catalogue.check_invariants()


class _Trickle(BaseHTTPRequestHandler):
    """A source that would take hours."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 30))
        self.end_headers()

    def do_PROPFIND(self) -> None:
        properties = f"<d:resourcetype/><d:getcontentlength>{1 << 30}</d:getcontentlength>"
        answer = (
            f'<d:multistatus xmlns:d="DAV:"><d:response><d:href>{self.path}</d:href><d:propstat><d:prop>'
            f"{properties}</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
            "</d:multistatus>"
        ).encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(207)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.do_HEAD()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))
                time.sleep(0.02)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def trickle():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Trickle)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_worker_that_is_told_to_end_gives_its_copies_back(
    catalogue: Catalogue, services, trickle, tmp_path
):
    slow = {"scheme": "http", "hostname": "127.0.0.1", "port": trickle, "prefix": "/"}
    (tmp_path / "there").mkdir()
    local = {"scheme": "file", "hostname": "", "port": 0, "prefix": str(tmp_path / "there")}
    source, _ = catalogue.rse("SLOW", protocol=slow), catalogue.rse("THERE", protocol=local)
    files = catalogue.files(3, size=1 << 30, at=[source])
    rule = catalogue.rule(catalogue.collection("night", children=files), "THERE")
    Evaluator(catalogue.context).run()
    broker = services.redis.database_url(6)
    environment = {"ARRIERO_DATABASE_URL": catalogue.url, "ARRIERO_BROKER_URL": broker}
    log_path = tmp_path / "celery.log"
    with (
        log_path.open("w") as log,
        celery("worker", "-Q", "transfer", "-c", "1", environment=environment, log=log) as process,
    ):
        CeleryDoorbell(create_celery(Settings(broker_url=broker))).ring(Bell.REQUESTS)
        wait_for(
            lambda: any((tmp_path / "there").rglob("*.part")) or catalogue.count(requests, state="FAILED")
        )
        assert [row.reason for row in catalogue.rows(select(requests))] == [None] * 3
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert time.monotonic() - begun < 10
    found = catalogue.rows(select(requests))
    assert {(row.state, row.code, row.attempt) for row in found} == {(RequestState.QUEUED, "released", 0)}
    lines = [json.loads(line) for line in log_path.read_text().splitlines() if line.startswith("{")]
    (run,) = [line for line in lines if line["event"] == "transfers run"]
    assert (run["claimed"], run["released"], run["task"]) == (3, 3, "arriero.transfer.run")
    assert catalogue.rule_row(rule).state == RuleState.REPLICATING
    assert not [path for path in (tmp_path / "there").rglob("*") if path.is_file()]
    catalogue.check_invariants()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_worker_comes_back_with_its_broker(catalogue: Catalogue, services, tmp_path):
    redis = Redis(services.directory, "redis-restarted")
    redis.start()
    environment = {"ARRIERO_DATABASE_URL": catalogue.url, "ARRIERO_BROKER_URL": redis.url}
    log_path = tmp_path / "celery.log"
    bell = CeleryDoorbell(create_celery(Settings(broker_url=redis.url)))
    try:
        with (
            log_path.open("w") as log,
            celery("worker", "-Q", "rules", "-c", "1", environment=environment, log=log),
        ):
            wait_for(lambda: "ready." in log_path.read_text())
            redis.kill()
            rule = catalogue.rule(catalogue.collection("nothing"), "*")
            catalogue.rse("SLAC")
            bell.ring(Bell.EVALUATIONS)
            time.sleep(1)
            assert catalogue.rule_row(rule).state == RuleState.INJECT
            redis.start()

            def rung() -> bool:
                bell.ring(Bell.EVALUATIONS)
                return catalogue.rule_row(rule).state == RuleState.OK

            wait_for(rung)
    finally:
        bell.close()
        redis.stop()
