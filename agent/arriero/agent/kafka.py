"""Kafka as a source of messages, by librdkafka's own consumer (the extra ``arriero[kafka]``).

Offsets are never committed by the library itself: `arriero.agent.topics` says when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from arriero.agent.topics import BrokerError, BrokerUnavailable, Message, NoKafka

if TYPE_CHECKING:
    from confluent_kafka import Consumer


class KafkaSource:
    """A member of a consumer group.

    Parameters
    ----------
    brokers
        ``HOST:PORT``, some of them.
    group
        Name of the group, whose offsets the broker keeps.
    topics
        Names; Rubin's are ``RSE-SCOPE``.
    settings
        librdkafka's, for TLS and passwords.

    Raises
    ------
    NoKafka
        The library is not installed.
    """

    def __init__(
        self,
        brokers: Iterable[str],
        group: str,
        topics: Sequence[str],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            import confluent_kafka
        except ImportError as error:
            raise NoKafka(
                "Kafka is read by confluent-kafka, which is not installed: pip install 'arriero[kafka]', "
                "or pipe the messages: kcat -C ... | arriero watch rucio-messages"
            ) from error
        self._kafka = confluent_kafka
        errors = confluent_kafka.KafkaError
        self._lasting = frozenset({errors.TOPIC_AUTHORIZATION_FAILED, errors.GROUP_AUTHORIZATION_FAILED})
        self._consumer: Consumer = confluent_kafka.Consumer(
            {
                "auto.offset.reset": "earliest",
                **(settings or {}),
                "bootstrap.servers": ",".join(brokers),
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
            }
        )
        self._consumer.subscribe(list(topics))

    def close(self) -> None:
        """Leave the group; what is not committed goes to its others."""
        self._consumer.close()

    def poll(self, most: int, wait_s: float) -> list[Message]:
        """Give messages in their order; as `MessageSource.poll`."""
        given = self._consumer.consume(most, timeout=wait_s)
        found = [
            Message(one.topic(), one.partition(), one.offset(), one.value() or b"")
            for one in given
            if one.error() is None
        ]
        # what came beside a message is said again, and a message is not
        if not found:
            for error in filter(None, (one.error() for one in given)):
                lasting = error.fatal() or error.code() in self._lasting
                raise (BrokerError if lasting else BrokerUnavailable)(f"Kafka says: {error.str()}")
        return found

    def commit(self, messages: Sequence[Message]) -> None:
        """Commit offsets, and wait for the broker's word; as `MessageSource.commit`."""
        last: dict[tuple[str, int], int] = {}
        for one in messages:
            key = one.topic, one.partition
            last[key] = max(last.get(key, -1), one.offset)
        offsets = [self._kafka.TopicPartition(*key, offset + 1) for key, offset in last.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except self._kafka.KafkaException as error:
            raise BrokerUnavailable(f"Kafka did not take the offsets: {error.args[0].str()}") from error
