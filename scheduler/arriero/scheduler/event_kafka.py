"""Kafka as the broker of events, by librdkafka's own producer (the extra ``arriero[kafka]``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from arriero.scheduler.errors import BrokerRefuses
from arriero.scheduler.event_sender import Delivery, Outgoing

if TYPE_CHECKING:
    from confluent_kafka import Producer

KEY = b"message"
"""Of every message, as hermesk's: one partition of a topic, and so one order."""

TIMEOUT_S = 30.0
"""Within which the broker has confirmed a message, or has not; half a lease."""


class KafkaBroker:
    """Producer of messages.

    Parameters
    ----------
    brokers
        ``HOST:PORT``, some of them.
    settings
        librdkafka's, for TLS and passwords.

    Raises
    ------
    BrokerRefuses
        The library is not installed, or does not take the settings.
    """

    def __init__(
        self,
        brokers: Iterable[str],
        settings: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        try:
            import confluent_kafka
        except ImportError as error:
            raise BrokerRefuses(
                "Kafka is written by confluent-kafka, which is not installed: pip install 'arriero[kafka]'"
            ) from error
        self._kafka = confluent_kafka
        errors = confluent_kafka.KafkaError
        self._never = frozenset(
            {errors.MSG_SIZE_TOO_LARGE, errors.TOPIC_EXCEPTION, errors.INVALID_RECORD, errors.INVALID_MSG}
        )
        self._timeout_s = timeout_s
        self._settings = {
            **(settings or {}),
            "bootstrap.servers": ",".join(brokers),
            # in order and written by all replicas, whatever is sent again below us
            "enable.idempotence": True,
            "message.timeout.ms": int(timeout_s * 1000),
        }
        self._producer: Producer | None = None
        self._open()

    def _open(self) -> Producer:
        if self._producer is None:
            try:
                self._producer = self._kafka.Producer(self._settings)
            except (self._kafka.KafkaException, TypeError, ValueError) as error:
                # not the library's words: they may have a value with them
                raise BrokerRefuses("librdkafka does not take the settings for Kafka") from error
        return self._producer

    def close(self) -> None:
        """Let go of what is not confirmed."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            producer.purge()
            producer.flush(1)

    def send(self, messages: Sequence[Outgoing], stop: threading.Event) -> Delivery:
        """Send messages; as `Broker.send`. After trouble a new producer begins where this one ended."""
        said: list[Any] = ["no word from the broker"] * len(messages)
        producer = self._open()
        # the library gives its word on each by then
        until = time.monotonic() + self._timeout_s + 5
        for place, message in enumerate(messages):
            self._produce(producer, message, said, place, until)
        while producer.flush(0.2) and time.monotonic() < until:
            if stop.is_set():
                until = min(until, time.monotonic() + 2)
        delivery = self._judge(said)
        if delivery.trouble is not None:
            self.close()
        return delivery

    def _produce(
        self, producer: Producer, message: Outgoing, said: list[Any], place: int, until: float
    ) -> None:
        def told(error: Any, _message: Any) -> None:
            said[place] = error

        while True:
            try:
                producer.produce(message.topic, value=message.value, key=KEY, on_delivery=told)
            except BufferError:
                producer.poll(0.1)
                if time.monotonic() > until:
                    return
            except self._kafka.KafkaException as error:
                said[place] = error.args[0]
                return
            else:
                return

    def _judge(self, said: Sequence[Any]) -> Delivery:
        refused: dict[int, str] = {}
        for place, error in enumerate(said):
            if error is None:
                continue
            if isinstance(error, self._kafka.KafkaError) and error.code() in self._never:
                refused[place] = error.str()
                continue
            return Delivery(place, refused, error if isinstance(error, str) else error.str())
        return Delivery(len(said), refused)
