"""Messages of a broker become replicas at least once: broken ones, redelivery, outages, and deaths in between.

The broker is librdkafka's own mock cluster: it speaks Kafka's protocol on a port, within the test's process. No real broker
is at hand.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from arriero.agent.backoff import Backoff
from arriero.agent.kafka import KafkaSource
from arriero.agent.topics import BrokerUnavailable, Message, NoKafka, TopicReader
from arriero.registry.errors import Conflict, RegistryError
from arriero.registry.models import NewToken
from support.cli import cli
from support.mover_sites import DOMAINS
from support.rubin_messages import RECORDED
from support.server import registry

__all__ = ["cli", "registry"]

RSE, TOPIC = RECORDED["payload"]["dst-rse"], "XRD1-test"
QUICK = {"session.timeout.ms": 6000}

BROKEN = [
    b"",
    b"\xff\xfe{",
    b"{",
    b"[]",
    b'"transfer-done"',
    b'{"event_type": "transfer-done"}',
    b'{"event_type": "transfer-done", "payload": {"scope": "test", "name": "x"}}',
    b'{"event_type": "transfer-done", "payload": {"scope": "test", "name": "x", "dst-rse": "XRD1", "bytes": "many"}}',
    json.dumps({**RECORDED, "event_type": "transfer-failed"}).encode(),
]


def told(name: str, **payload: object) -> bytes:
    return json.dumps({**RECORDED, "payload": {**RECORDED["payload"], "name": name, **payload}}).encode()


@pytest.fixture(scope="module")
def broker() -> Iterator[tuple[str, Producer]]:
    """Its address, and who writes to it."""
    producer = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1, "log_level": 0})
    [address] = producer.list_topics(timeout=10).brokers.values()
    yield f"{address.host}:{address.port}", producer
    producer.flush(5)


def send(producer: Producer, topic: str, *values: bytes) -> None:
    for value in values:
        producer.produce(topic, value=value, key=b"message")
    assert producer.flush(10) == 0


@pytest.fixture
def client(registry, monkeypatch):
    root = registry.client()
    root.add_scope("root", "test")
    root.add_rse(RSE)
    root.add_rse_attribute(RSE, "lfn2pfn_algorithm", "lsst_butler")
    root.add_protocol(
        RSE, {"scheme": "root", "hostname": "xrd1", "port": 1094, "prefix": "/rucio", "domains": DOMAINS}
    )
    token = root.create_token(NewToken(label="kafka", lifetime_s=600, rses=[RSE])).token
    monkeypatch.setenv("ARRIERO_URL", registry.url)
    monkeypatch.setenv("ARRIERO_TOKEN", token)
    return root


def names(client) -> set[str]:
    return {one["name"] for one in client.list_dids("test", did_type="file")}


def test_recorded_messages_are_registered_and_what_is_none_is_passed_over(broker, client, cli, tmp_path):
    address, producer = broker
    elsewhere = told("other.fits", **{"dst-rse": "XRD2"})
    client.add_replicas(RSE, [{"scope": "test", "name": "taken.fits", "bytes": 7, "adler32": "00000001"}])
    send(
        producer,
        TOPIC,
        *BROKEN,
        told("a.fits"),
        elsewhere,
        told("a.fits"),
        told("taken.fits"),
        told("b.fits"),
    )
    settings = tmp_path / "kafka.yaml"
    settings.write_text(json.dumps(QUICK))
    command = ["-o", "json", "watch", "kafka", "--broker", address, "--topic", TOPIC, "--rse", RSE, "--once"]
    command += ["--group", "recorded", "--settings", str(settings)]
    assert json.loads(cli(*command, expect=8).out) == {"rse": RSE, "told": 2, "refused": 1}
    assert names(client) == {"a.fits", "b.fits", "taken.fits"}
    meta = client.get_metadata("test", "a.fits")
    assert meta["rubin_butler"] == "raw_file"
    assert meta["rubin_sidecar"] == RECORDED["payload"]["rubin_sidecar"]
    assert (meta["bytes"], meta["adler32"]) == (1443, "c8a1b2c3")


def reader(client, address: str, topic: str, group: str) -> tuple[TopicReader, KafkaSource]:
    source = KafkaSource([address], group, [topic], QUICK)
    return TopicReader(client, source, RSE), source


def turn(one: TopicReader) -> int:
    """Read until something comes; give how many messages."""
    for _ in range(30):
        if messages := one.turn(1.0).messages:
            return messages
    raise AssertionError("nothing came")


class Dies(Exception):
    pass


def test_whoever_dies_before_the_commit_leaves_it_to_the_next(broker, client, monkeypatch):
    address, producer = broker
    topic = f"{TOPIC}-{uuid4().hex[:6]}"
    send(producer, topic, told("d.fits"), told("e.fits"))

    def dies(*_):
        raise Dies

    for step in ("add_replicas", "commit"):
        one, source = reader(client, address, topic, "dying")
        with monkeypatch.context() as patch:
            patch.setattr(client if step == "add_replicas" else source, step, dies)
            with pytest.raises(Dies):
                turn(one)
        source.close()
        assert names(client) == (set() if step == "add_replicas" else {"d.fits", "e.fits"})
    one, source = reader(client, address, topic, "dying")
    assert turn(one) == 2, "they are told again"
    source.close()
    assert names(client) == {"d.fits", "e.fits"}
    send(producer, topic, told("f.fits"))
    one, source = reader(client, address, topic, "dying")
    assert turn(one) == 1, "and then no more"
    source.close()


class Away(RegistryError):
    retryable = True


class InProcess:
    """A broker of one partition without a network: what is not committed is given to the next consumer."""

    def __init__(self, values: list[bytes]) -> None:
        self.messages = [Message("t", 0, number, value) for number, value in enumerate(values)]
        self.committed = self.position = 0
        self.trouble: list[Exception] = []

    def poll(self, most: int, wait_s: float) -> list[Message]:  # noqa: ARG002
        if self.trouble:
            raise self.trouble.pop()
        given = self.messages[self.position : self.position + min(most, 2)]
        self.position += len(given)
        return given

    def commit(self, messages) -> None:
        self.committed = messages[-1].offset + 1


class Catalogue:
    """Answers in turn with what it is given; then takes everything."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.calls: list[list[str]] = []
        self.files: set[str] = set()

    def add_replicas(self, rse: str, files) -> int:  # noqa: ARG002
        self.calls.append([file["name"] for file in files])
        if self.answers:
            raise self.answers.pop(0)
        self.files.update(self.calls[-1])
        return len(files)


def test_an_outage_of_the_catalogue_or_the_broker_skips_nothing():
    source = InProcess([told(f"{number}.fits") for number in range(5)])
    source.trouble.append(BrokerUnavailable("no leader"))
    catalogue = Catalogue(Away("gone"), Away("gone"))
    stop, seen = threading.Event(), 0
    for one in TopicReader(catalogue, source, RSE).run(stop, wait_s=0, backoff=Backoff(0.001, 0.002)):
        seen += one.messages
        if seen == 5:
            stop.set()
    assert catalogue.calls[:3] == [["0.fits", "1.fits"]] * 3, (
        "nothing further is asked for before it is registered"
    )
    assert (len(catalogue.files), source.committed) == (5, 5)


def test_what_waiting_does_not_mend_ends_it_and_is_not_committed():
    class Forbidden(RegistryError):
        retryable = False

    source = InProcess([told("a.fits")])
    with pytest.raises(Forbidden):
        list(TopicReader(Catalogue(Forbidden("token revoked")), source, RSE).run(threading.Event(), wait_s=0))
    assert source.committed == 0


def test_one_refused_file_is_alone():
    source = InProcess([told("a.fits"), told("b.fits")])
    catalogue = Catalogue(Conflict("taken"), Conflict("taken"))
    said = TopicReader(catalogue, source, RSE).turn(0)
    assert (said.registered, said.refused, source.committed) == (1, 1, 2)
    assert catalogue.calls == [["a.fits", "b.fits"], ["a.fits"], ["b.fits"]]


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(NoKafka, match=r"arriero\[kafka\].*rucio-messages"):
        KafkaSource(["localhost:9092"], "g", ["t"])
