"""Carries events from the outbox to a broker: in their order, at least once, one process at a time for each sender.

A turn: take or extend the lease; read a batch; send it with no transaction open; move the position up to the first event
that the broker has not confirmed. Whoever dies in between leaves the position where it was, and the batch is sent again.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import orjson
import structlog
from sqlalchemy.exc import DBAPIError

from arriero.registry.arrival_words import BUTLER_KEY, SIDECAR_KEY
from arriero.registry.database import Database
from arriero.registry.errors import Busy
from arriero.registry.store import event_senders
from arriero.scheduler.core.retry import back_off
from arriero.scheduler.errors import BrokerAway
from arriero.scheduler.transfer_events import rucio_time

log = structlog.get_logger(__name__)

MOST = 1000
"""Events of one batch."""

LEASE_S = 60.0
"""How long a process that has died keeps others of its name from sending."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message, and where it goes."""

    event_id: int
    topic: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a broker said to a batch.

    Parameters
    ----------
    settled
        So many, from the first, are confirmed or refused.
    refused
        Places of those of them that the broker will never take, with its words.
    trouble
        Why the rest is not confirmed; None when there is no rest.
    """

    settled: int
    refused: Mapping[int, str] = field(default_factory=dict)
    trouble: str | None = None


class Broker(Protocol):
    """Where messages go."""

    def send(self, messages: Sequence[Outgoing], stop: threading.Event) -> Delivery:
        """Send messages in their order, and wait for the word on each."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are sent, and where: topics are ``RSE-SCOPE``, as Rubin's.

    Parameters
    ----------
    event_types
        In the outbox's words.
    topics, rses, scopes
        Only these; empty: all.
    any_file
        Also ``transfer-done`` of files that are not for a Butler, on which ctrl_ingestd ends.
    """

    event_types: frozenset[str] = frozenset({"transfer-done"})
    topics: frozenset[str] = frozenset()
    rses: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    any_file: bool = False

    def topic_of(self, event_type: str, payload: Mapping[str, Any]) -> str | None:
        """The topic of an event; None when it is not wanted, or tells of no scope at no RSE."""
        rse, scope = payload.get("dst-rse") or payload.get("rse"), payload.get("scope")
        if not rse or not scope:
            return None
        if event_type == "transfer-done" and not self.any_file and not payload.get(BUTLER_KEY):
            return None
        topic = f"{rse}-{scope}"
        wanted = _among(topic, self.topics) and _among(rse, self.rses) and _among(scope, self.scopes)
        return topic if wanted else None


def _among(value: str, those: Collection[str]) -> bool:
    return not those or value in those


def message_of(event: Any) -> bytes:
    """Write an event as Rucio's Hermes does.

    ``rubin_sidecar`` is JSON within a string, as rucio-register writes it: ctrl_ingestd takes nothing else.
    """
    payload = event.payload
    sidecar = payload.get(SIDECAR_KEY)
    if sidecar is not None and not isinstance(sidecar, str):
        payload = {**payload, SIDECAR_KEY: orjson.dumps(sidecar).decode()}
    return orjson.dumps(
        {
            "event_type": event.event_type,
            "payload": payload,
            "created_at": rucio_time(event.created_at),
        }
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """What a turn came to."""

    confirmed: int = 0
    refused: int = 0
    # events that were looked at are fewer than there are
    more: bool = False


class EventSender:
    """Sends what is wanted of the outbox.

    Parameters
    ----------
    name
        Whose position is kept; processes of one name take turns, others know nothing of each other.
    lease_s
        Longer than a broker may take for a batch.
    from_now
        A sender that is new begins with what happens from now on, not with what is kept.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        broker: Broker,
        wanted: Wanted,
        *,
        lease_s: float = LEASE_S,
        most: int = MOST,
        from_now: bool = False,
    ) -> None:
        self._database = database
        self._name = name
        self._broker = broker
        self._wanted = wanted
        self._lease_s = lease_s
        self._most = most
        self._owner = f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid4().hex[:8]}"
        self._turn: event_senders.Turn | None = None
        self._claimed_at = 0.0
        self._settled = 0
        self._next: tuple[int, frozenset[str]] | None = None
        self._from_now = from_now

    def _has_turn(self) -> event_senders.Turn | None:
        """Take the right to send, or extend it well before it ends."""
        if self._turn is None or time.monotonic() - self._claimed_at > self._lease_s / 6:
            # the time before it was asked for: the lease is then never shorter than it is taken for
            asked_at = time.monotonic()
            with self._database.snapshot() as tx:
                first = event_senders.newest(tx) if self._from_now else 0

            def claimed(tx: Any) -> event_senders.Turn | None:
                event_senders.add(tx, self._name, first)
                return event_senders.claim(tx, self._name, self._owner, self._lease_s)

            self._turn, self._claimed_at = self._database.run(claimed), asked_at
        return self._turn

    def _upto(self) -> int:
        """The id up to which every event that will ever be there is there."""
        with self._database.snapshot() as tx:
            if self._next is None:
                upto = event_senders.newest(tx)
                self._next = upto, event_senders.writers(tx)
            else:
                upto, before = self._next
                self._next = upto, before & event_senders.writers(tx)
        if not self._next[1]:
            self._settled, self._next = upto, None
        return self._settled

    def turn(self, stop: threading.Event) -> Sent:
        """Send a batch, if it is this process's turn.

        Raises
        ------
        BrokerAway
            The broker has not confirmed all of it; what follows the last confirmed event is sent again.
        """
        turn = self._has_turn()
        if turn is None:
            return Sent()
        upto = self._upto()
        position = turn.position
        if upto < position and not self._database.is_postgresql:
            # SQLite gives ids anew when the retention has taken all events
            position = 0
        if upto <= position:
            return Sent()
        with self._database.snapshot() as tx:
            found = event_senders.following(tx, position, upto, self._wanted.event_types, self._most)
        more = len(found) == self._most
        reached = found[-1].id if more else upto
        messages = [
            Outgoing(event.id, topic, message_of(event))
            for event in found
            if (topic := self._wanted.topic_of(event.event_type, event.payload)) is not None
        ]
        said = self._broker.send(messages, stop) if messages else Delivery(0)
        for place, reason in said.refused.items():
            refused = messages[place]
            log.error("event refused", event_id=refused.event_id, topic=refused.topic, reason=reason)
        if said.trouble is not None:
            # ids before the first that is not confirmed
            reached = messages[said.settled].event_id - 1
        self._mark(turn, reached)
        confirmed = said.settled - len(said.refused)
        if confirmed:
            log.info("events sent", sender=self._name, events=confirmed, position=reached)
        if said.trouble is not None:
            raise BrokerAway(f"The broker has not confirmed event {reached + 1}: {said.trouble}")
        return Sent(confirmed, len(said.refused), more)

    def _mark(self, turn: event_senders.Turn, position: int) -> None:
        """Keep how far it is; without a word from the database the position is read again before anything is sent."""
        self._turn = None
        if self._database.run(lambda tx: event_senders.mark(tx, self._name, turn, position)):
            self._turn = event_senders.Turn(position, turn.fence)
        else:
            log.warning("sender was replaced", sender=self._name)

    def close(self) -> None:
        """Leave the turn to others."""
        if self._turn is not None:
            turn, self._turn = self._turn, None
            self._database.run(lambda tx: event_senders.release(tx, self._name, turn))

    def run(
        self, stop: threading.Event, *, every_s: float = 1.0, longest_s: float = 30.0, once: bool = False
    ) -> Iterator[Sent]:
        """Take turn after turn until told to stop; give what each came to.

        Parameters
        ----------
        every_s
            Between two looks at an outbox in which nothing was new; doubled up to ``longest_s`` while something is away.
        once
            End when there is nothing more to send.
        """
        failed = 0
        while not stop.is_set():
            try:
                sent = self.turn(stop)
            except (BrokerAway, Busy, DBAPIError) as error:
                # a database's error has the statement with it
                reason = str(error.orig if isinstance(error, DBAPIError) else error)
                log.warning("events wait", sender=self._name, reason=reason)
                failed += 1
                stop.wait(back_off(failed, base_s=every_s, maximum_s=longest_s, seed=self._owner))
                continue
            failed = 0
            yield sent
            if sent.more or self._next is not None:
                # transactions under way end soon
                stop.wait(0.0 if sent.more else 0.05)
            elif once:
                return
            else:
                stop.wait(every_s)
