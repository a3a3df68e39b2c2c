"""Events go to a broker at least once and in order: outages, deaths in between, several senders, transactions that end late.

The broker is librdkafka's own mock cluster, on a port of the test's process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest
from lsst.daf.butler import DatasetRef, DimensionUniverse
from sqlalchemy import select, update

from arriero.agent.kafka import KafkaSource
from arriero.agent.notifications import transferred
from arriero.agent.topics import TopicReader
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import event_senders
from arriero.registry.services import metrics
from arriero.registry.store import event_senders as store
from arriero.registry.store import events as outbox
from arriero.scheduler.claim import claim_requests
from arriero.scheduler.errors import BrokerAway
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.event_kafka import KafkaBroker
from arriero.scheduler.event_sender import Delivery, EventSender, Outgoing, Sent, Wanted
from arriero.scheduler.reports import Transfer, success
from arriero.scheduler.settle import settle
from support.cli import cli
from support.database import migrated_database
from support.kafka_cluster import Cluster, running_cluster
from support.rubin_messages import RECORDED
from support.scheduling import Catalogue
from support.services import drop_database

__all__ = ["cli"]

COPIED = Transfer("third_party_pull", 0.5, "SLAC", "davs://slac/x", "davs://in2p3/x", "davs")
META = {"rubin_butler": "raw_file", "rubin_sidecar": RECORDED["payload"]["rubin_sidecar"]}
NEVER = threading.Event()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture
def postgresql(services, tmp_path) -> Iterator[Catalogue]:
    url = migrated_database(services, "postgresql", tmp_path)
    made = Catalogue(url)
    yield made
    made.close()
    drop_database(services, url)


@pytest.fixture
def on_sqlite(tmp_path, services) -> Iterator[Catalogue]:
    made = Catalogue(migrated_database(services, "sqlite", tmp_path))
    yield made
    made.close()


@pytest.fixture
def rse() -> str:
    """An RSE of this test alone, and so its topics."""
    return f"IN2P3_{uuid4().hex[:8].upper()}"


def payload(rse: str, name: str, **others: object) -> dict[str, object]:
    return {**RECORDED["payload"], "scope": "raw", "dst-rse": rse, "name": name, **others}


def happen(catalogue: Catalogue, rse: str, *names: str) -> None:
    told = [(f"{rse}:raw:{name}", payload(rse, name)) for name in names]
    catalogue.database.run(lambda tx: outbox.append(tx, "transfer-done", told))


def position(catalogue: Catalogue, name: str = "kafka") -> int:
    return catalogue.one(select(event_senders).where(event_senders.c.name == name)).position


def read(cluster: Cluster, topic: str, count: int) -> list[dict]:
    """All that is in a topic, of which so many are waited for."""
    source = KafkaSource([cluster.address], uuid4().hex, [topic], {"session.timeout.ms": 6000})
    found = []
    for _ in range(40):
        found += source.poll(1000, 0.5 if len(found) < count else 0.2)
        if len(found) >= count and not source.poll(1, 0.2):
            break
    source.close()
    assert len({one.partition for one in found}) <= 1, "one partition, one order"
    return [json.loads(one.value) for one in found]


def names(messages: list[dict]) -> list[str]:
    return [message["payload"]["name"] for message in messages]


@pytest.fixture
def sender(cluster):
    """Makes senders, and closes what they hold of the broker."""
    brokers = []

    def make(catalogue: Catalogue, wanted: Wanted | None = None, timeout_s: float = 10, **options):
        broker = KafkaBroker([cluster.address], {"log_level": 0, "linger.ms": 0}, timeout_s=timeout_s)
        brokers.append(broker)
        return EventSender(catalogue.database, "kafka", broker, wanted or Wanted(), **options)

    yield make
    for broker in brokers:
        broker.close()


class Told:
    """A registry that is told of files."""

    def __init__(self) -> None:
        self.files: list[dict] = []

    def add_replicas(self, _rse: str, files) -> int:
        self.files += files
        return len(files)


def test_what_a_copy_wrote_is_read_by_our_own_reader_and_has_rubins_keys(catalogue, cluster, sender, rse):
    slac, there = catalogue.rse("SLAC"), catalogue.rse(rse)
    files = catalogue.files(3, at=[slac])
    catalogue.metadata(files[0], META)
    catalogue.metadata(files[1], {**META, "rubin_sidecar": json.loads(META["rubin_sidecar"])})
    catalogue.rule(catalogue.collection("night", children=files), rse)
    assert there
    Evaluator(catalogue.context).run()
    taken = catalogue.database.run(lambda tx: claim_requests(tx, "w", limit=10, lease_s=30))
    settle(catalogue.database, [success(request, COPIED) for request in taken], stuck_retry_s=7200)
    happened = catalogue.event_types()
    assert (happened.count("transfer-done"), "rule-ok" in happened) == (3, True)

    assert sender(catalogue).turn(NEVER) == Sent(confirmed=2), "not the rule, nor what is for no Butler"
    messages = read(cluster, f"{rse}-raw", 2)
    for message in messages:
        assert set(message) == set(RECORDED)
        assert message["event_type"] == "transfer-done"
        assert set(message["payload"]) == set(RECORDED["payload"])
        assert len(message["created_at"].split(" ")) == 2, "as Rucio writes time"
        read_back = transferred(message).meta
        assert read_back["rubin_butler"] == META["rubin_butler"]
        # as ctrl_ingestd does; an object would be refused
        ref = DatasetRef.from_json(read_back["rubin_sidecar"], universe=DimensionUniverse())
        assert (str(ref.id), ref.run) == ("bad79e54-84a3-5d4b-a0c7-3a1bb8e0a3a1", "LATISS/raw/all")
    assert names(messages) == ["file-000000", "file-000001"]

    told = Told()
    source = KafkaSource([cluster.address], "reader", [f"{rse}-raw"], {"session.timeout.ms": 6000})
    reader = TopicReader(told, source, rse)
    assert any(reader.turn(1.0).registered for _ in range(30))
    source.close()
    assert told.files[0]["name"] == "file-000000"


def test_only_what_is_asked_for_goes(on_sqlite, cluster, sender, rse):
    happen(on_sqlite, rse, "a")
    happen(on_sqlite, f"{rse}_2", "b")
    other = payload(rse, "c", scope="user")
    on_sqlite.database.run(lambda tx: outbox.append(tx, "transfer-done", [("k", other)]))
    on_sqlite.database.run(lambda tx: outbox.append(tx, "transfer-failed", [("k", payload(rse, "d"))]))
    wanted = Wanted(topics=frozenset({f"{rse}-raw", f"{rse}_2-raw"}), rses=frozenset({rse}))
    assert sender(on_sqlite, wanted).turn(NEVER) == Sent(confirmed=1)
    assert names(read(cluster, f"{rse}-raw", 1)) == ["a"]
    assert position(on_sqlite) == 4, "what is not asked for is passed"


def test_a_broker_that_is_away_costs_nothing_but_time(on_sqlite, cluster, sender, rse):
    happen(on_sqlite, rse, *"abcde")
    one = sender(on_sqlite, timeout_s=1.5, most=2)
    cluster.down()
    try:
        with pytest.raises(BrokerAway):
            one.turn(NEVER)
        assert position(on_sqlite) == 0
        happen(on_sqlite, rse, "f")
    finally:
        cluster.up()
    sent = list(one.run(NEVER, every_s=0.05, longest_s=0.2, once=True))
    assert sum(turn.confirmed for turn in sent) == 6
    told = names(read(cluster, f"{rse}-raw", 6))
    # what the broker took and did not confirm may be there before
    assert told[-6:] == list("abcdef")
    assert position(on_sqlite) == 6


DIES = """
import os, signal, sys, threading
from arriero.registry.database import Database
from arriero.registry.store import event_senders
from arriero.scheduler.event_kafka import KafkaBroker
from arriero.scheduler.event_sender import EventSender, Wanted

event_senders.mark = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
EventSender(Database(sys.argv[1]), "kafka", KafkaBroker([sys.argv[2]]), Wanted()).turn(threading.Event())
"""


def test_whoever_is_killed_between_confirm_and_mark_is_followed_by_one_who_sends_again(
    catalogue, cluster, sender, rse
):
    happen(catalogue, rse, *"abc")
    words = [sys.executable, "-c", DIES, catalogue.url, cluster.address]
    died = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert names(read(cluster, f"{rse}-raw", 3)) == list("abc")
    assert position(catalogue) == 0
    families = {family.name: family.samples for family in metrics.measure(catalogue.context)}
    assert families["arriero_event_sender_oldest_seconds"]["kafka",] > 0
    other = sender(catalogue)
    assert other.turn(NEVER) == Sent(), "the dead one has the lease"
    catalogue.database.run(lambda tx: tx.execute(update(event_senders).values(leased_until=after(-1))))
    assert other.turn(NEVER).confirmed == 3
    assert names(read(cluster, f"{rse}-raw", 6)) == list("abcabc")
    assert position(catalogue) == 3


class Noted:
    """A broker that confirms everything, and does something else first."""

    def __init__(self, meanwhile=lambda: None) -> None:
        self.ids: list[int] = []
        self.meanwhile = meanwhile

    def send(self, messages: list[Outgoing], _stop: threading.Event) -> Delivery:
        self.meanwhile()
        self.ids += [message.event_id for message in messages]
        return Delivery(len(messages))


def test_two_senders_of_one_name_send_each_event_once(catalogue, rse):
    happen(catalogue, rse, *(f"{number:03d}" for number in range(60)))
    stop, noted = threading.Event(), [Noted(), Noted()]
    senders = [EventSender(catalogue.database, "kafka", one, Wanted(), most=5) for one in noted]

    def run(one: EventSender) -> None:
        for _ in one.run(stop, every_s=0.01):
            pass

    threads = [threading.Thread(target=run, args=(one,)) for one in senders]
    for thread in threads:
        thread.start()
    for number in range(60, 90):
        happen(catalogue, rse, f"{number:03d}")
    for _ in range(1000):
        if position(catalogue) >= 90:
            break
        stop.wait(0.01)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert sorted(noted[0].ids + noted[1].ids) == list(range(1, 91))
    for one in noted:
        assert one.ids == sorted(one.ids)
    [holder] = [one for one, done in zip(senders, noted, strict=True) if done.ids]
    holder.close()
    happen(catalogue, rse, "late")
    third = Noted()
    assert EventSender(catalogue.database, "kafka", third, Wanted()).turn(NEVER).confirmed == 1, "at once"
    assert third.ids == [91]


def test_who_was_replaced_while_it_sent_moves_nothing(catalogue, rse):
    happen(catalogue, rse, *"ab")
    second = Noted()

    def replaced() -> None:
        catalogue.database.run(lambda tx: tx.execute(update(event_senders).values(leased_until=after(-1))))
        happen(catalogue, rse, "c")
        assert EventSender(catalogue.database, "kafka", second, Wanted()).turn(NEVER).confirmed == 3

    EventSender(catalogue.database, "kafka", Noted(replaced), Wanted()).turn(NEVER)
    assert second.ids == [1, 2, 3]
    assert position(catalogue) == 3


def test_an_event_whose_transaction_ends_late_is_not_passed_over(postgresql, rse):
    noted = Noted()
    one = EventSender(postgresql.database, "kafka", noted, Wanted())
    with postgresql.database.transaction() as late:
        outbox.append(late, "transfer-done", [("k", payload(rse, "first"))])
        happen(postgresql, rse, "second")
        assert one.turn(NEVER) == Sent(), "an event below it may come"
        happen(postgresql, rse, "third")
        assert one.turn(NEVER) == Sent()
    while not noted.ids:
        one.turn(NEVER)
    one.turn(NEVER)
    assert noted.ids == [1, 2, 3]


def test_a_message_that_the_broker_never_takes_holds_up_no_other(on_sqlite, cluster, rse):
    happen(on_sqlite, rse, "a", "b" * 5000, "c")
    broker = KafkaBroker([cluster.address], {"log_level": 0, "message.max.bytes": 4000})
    said = EventSender(on_sqlite.database, "kafka", broker, Wanted()).turn(NEVER)
    broker.close()
    assert (said.confirmed, said.refused) == (2, 1)
    assert names(read(cluster, f"{rse}-raw", 2)) == ["a", "c"]


def test_a_new_name_may_begin_now(on_sqlite, rse):
    happen(on_sqlite, rse, "before")
    noted = Noted()
    one = EventSender(on_sqlite.database, "new", noted, Wanted(), from_now=True)
    assert one.turn(NEVER) == Sent()
    happen(on_sqlite, rse, "after")
    assert one.turn(NEVER).confirmed == 1
    assert noted.ids == [2]


def test_the_command_sends_says_how_far_it_is_and_no_password(
    on_sqlite, cluster, cli, rse, tmp_path, monkeypatch
):
    monkeypatch.setenv("ARRIERO_DATABASE_URL", on_sqlite.url)
    happen(on_sqlite, rse, *"ab")
    settings = tmp_path / "kafka.yaml"
    settings.write_text(json.dumps({"linger.ms": 0}))
    command = [
        "-o",
        "json",
        "event",
        "send",
        "kafka",
        "--broker",
        cluster.address,
        "--settings",
        str(settings),
    ]
    assert json.loads(cli(*command, "--once").out) == {"name": "kafka", "sent": 2, "refused": 0}
    [row] = json.loads(cli("-o", "json", "event", "senders").out)
    assert (row["name"], row["position"], row["behind"], row["owner"]) == ("kafka", 2, 0, None)
    settings.write_text(json.dumps({"sasl.password": "s3cret", "no.such.setting": "s3cret"}))
    ended = cli(*command, "--once", expect=2)
    assert "librdkafka" in ended.err
    assert "s3cret" not in ended.out + ended.err
    with on_sqlite.database.snapshot() as tx:
        assert store.newest(tx) == 2
