"""Registers what messages of a broker tell, at least once: their place is kept when the catalogue has what they say.

Why it exists: a consumer that commits on its own loses a file with each crash and each outage (ctrl_ingestd does). Here
a batch stays in hand until it is registered, and only then its offsets are committed; what is told again is registered
already. A message that nobody can use is told of and passed over, and a file that the catalogue refuses holds up no other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog

from arriero.agent.backoff import Backoff
from arriero.agent.errors import AgentError
from arriero.agent.halving import Refused, accepted
from arriero.agent.notifications import replicas_at
from arriero.registry.errors import RegistryError

log = structlog.get_logger(__name__)

MOST = 1000
"""Messages of one batch: as many files as one call registers."""


class BrokerError(AgentError):
    """A broker does not do what it is asked."""

    code = "broker"
    exit_code = 5


class BrokerUnavailable(BrokerError):
    """A broker cannot be asked now."""

    code = "broker_unavailable"
    retryable = True


class NoKafka(BrokerError):
    """What reads Kafka is not installed."""

    code = "no_kafka"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Message:
    """A message, and where it stands."""

    topic: str
    partition: int
    offset: int
    value: bytes


class MessageSource(Protocol):
    """A broker, as a consumer of a group sees it."""

    def poll(self, most: int, wait_s: float) -> list[Message]:
        """Give messages that this group has not committed, in their order; wait for the first so long.

        Raises
        ------
        BrokerUnavailable
            The broker cannot be asked now.
        """
        ...

    def commit(self, messages: Sequence[Message]) -> None:
        """Say that the group needs these, and those before them in their partitions, no more."""
        ...


class Catalogue(Protocol):
    """The registry as it is told of files."""

    def add_replicas(self, rse: str, files: Any) -> int: ...


@dataclass(slots=True)
class Told:
    """What a batch came to."""

    messages: int = 0
    registered: int = 0
    refused: int = 0

    def add(self, other: Told) -> None:
        """Count another one, too."""
        self.messages += other.messages
        self.registered += other.registered
        self.refused += other.refused


def register(client: Catalogue, rse: str, files: Sequence[dict[str, Any]]) -> Told:
    """Register files at an RSE; one that the catalogue refuses is told of, and holds up no other.

    Raises
    ------
    RegistryError
        The catalogue does not do it, whichever file it is.
    """
    told = Told()

    def refused(file: dict[str, Any], error: Refused) -> None:
        log.warning("file refused", name=file["name"], rse=rse, reason=str(error))
        told.refused += 1

    told.registered = sum(1 for _ in accepted(files, partial(client.add_replicas, rse), refused))
    return told


class TopicReader:
    """Registers the files that Rucio's ``transfer-done`` messages say were brought to an RSE.

    Parameters
    ----------
    client
        The registry.
    source
        Where the messages come from.
    rse
        Only what was brought here.
    with_pfn
        Register the messages' URLs, since names make no paths at that RSE.
    """

    def __init__(self, client: Catalogue, source: MessageSource, rse: str, *, with_pfn: bool = False) -> None:
        self._client = client
        self._source = source
        self._rse = rse
        self._with_pfn = with_pfn
        self._in_hand: list[Message] = []

    def turn(self, wait_s: float) -> Told:
        """Take a batch, register it, and commit its offsets; what is in hand after a failure comes first.

        Raises
        ------
        RegistryError, BrokerUnavailable
            The catalogue or the broker does not do it now: nothing is committed, the next turn does it again.
        """
        if not self._in_hand:
            self._in_hand = self._source.poll(MOST, wait_s)
        if not self._in_hand:
            return Told()
        lines = (message.value.decode("utf-8", "replace") for message in self._in_hand)
        told = Told(messages=len(self._in_hand))
        told.add(register(self._client, self._rse, replicas_at(lines, self._rse, with_pfn=self._with_pfn)))
        # registered: if the commit fails, some are told again, here or to another member of the group
        done, self._in_hand = self._in_hand, []
        self._source.commit(done)
        log.info("messages read", rse=self._rse, messages=told.messages, registered=told.registered)
        return told

    def run(
        self, stop: threading.Event, *, wait_s: float = 1.0, backoff: Backoff | None = None
    ) -> Iterator[Told]:
        """Take batch after batch until told to stop; give what each came to.

        Raises
        ------
        RegistryError, BrokerUnavailable
            What waiting will not mend.
        """
        waits = backoff or Backoff()
        while not stop.is_set():
            try:
                yield self.turn(wait_s)
            except (RegistryError, BrokerError) as error:
                if not error.retryable:
                    raise
                log.warning("messages wait", rse=self._rse, in_hand=len(self._in_hand), reason=str(error))
                waits.wait(stop)
            else:
                waits.reset()
