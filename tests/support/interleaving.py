"""Runs service calls in sessions of their own on PostgreSQL, one statement at a time, in an order that is given.

Each session is a thread with a `Database` of one connection. It stops before every statement that has to do with a
table which others use too, and before each COMMIT; whoever drives the run says who goes on. A session that waits for a
row lock is known by PostgreSQL's own word (`pg_blocking_pids`), and another goes on meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import event

from arriero.registry import database as database_module
from arriero.registry.database import Database
from support.interleaving_footprints import NOTHING, Footprint, footprint, shown

PATIENCE_S = 20.0
"""How long a statement that nobody blocks may take."""

_DEADLOCK_CHECK_S = 0.003
"""A session counts as blocked once it has waited longer than PostgreSQL takes to look for a deadlock."""


@contextmanager
def no_pauses() -> Iterator[None]:
    """Have a transaction that lost a race try again at once: the others are stepped, and need no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_module, "time", SimpleNamespace(sleep=lambda _seconds: None))
        yield


class Abandoned(BaseException):
    """The run is over before the session is."""


class Stuck(AssertionError):
    """No session can go on."""


@dataclass(slots=True)
class Step:
    """A statement or COMMIT before which a session has stopped."""

    label: str
    footprint: Footprint


class Session:
    """A thread with a connection of its own."""

    def __init__(self, url: str, number: int, changed: threading.Condition) -> None:
        self.number = number
        self.name = ""
        self.pid = 0
        self.database = Database(url, pool_size=1)
        self.step: Step | None = None
        self.doing: Step | None = None
        self.has_ended = True
        self.error: BaseException | None = None
        self.result: object = None
        self.held = NOTHING
        """What the transaction that is open has done."""
        self.let_go = NOTHING
        """What transactions held that were rolled back, or in part, since the last step."""
        self.transaction = 0
        """Grows with each transaction, at its beginning and its end."""
        self._changed = changed
        self._go = threading.Semaphore(0)
        self._abandoned = False
        self._thread: threading.Thread | None = None
        engine = self.database.engine
        event.listen(engine, "connect", self._on_connect)
        event.listen(engine, "before_cursor_execute", self._on_statement)
        event.listen(engine, "begin", self._on_begin)
        event.listen(engine, "commit", self._on_commit)
        event.listen(engine, "rollback", self._on_rollback)
        event.listen(engine, "rollback_savepoint", self._on_rollback_savepoint)

    def start(self, name: str, work: Callable[[], object]) -> None:
        self.name, self.step, self.doing, self.error, self.result = name, None, None, None, None
        self.has_ended = self._abandoned = False
        self.held = self.let_go = NOTHING
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True, name=name)
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            self.result = work()
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - the run's to judge
            self.error = error
        with self._changed:
            self.has_ended = True
            self._changed.notify_all()

    def go_on(self) -> None:
        self.doing, self.step = self.step, None
        self._go.release()

    def abandon(self) -> None:
        self._abandoned = True
        self._go.release()

    def join(self) -> None:
        assert self._thread is not None
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), f"{self.name} did not end"

    def close(self) -> None:
        self.database.dispose()

    def _stop(self, label: str, what: Footprint) -> None:
        if self._abandoned or threading.current_thread() is not self._thread:
            return
        with self._changed:
            self.step = Step(label, what)
            self._changed.notify_all()
        self._go.acquire()
        if self._abandoned:
            raise Abandoned

    def _on_connect(self, connection: psycopg.Connection[Any], _record: object) -> None:
        session = self

        class Cursor(psycopg.Cursor[Any]):
            def copy(self, statement: Any, *args: Any, **options: Any) -> Any:
                session._on_sql(str(statement))
                return super().copy(statement, *args, **options)

        connection.cursor_factory = Cursor
        self.pid = connection.info.backend_pid
        connection.execute("SET deadlock_timeout = '1ms'")
        connection.commit()

    def _on_statement(self, _connection, _cursor, statement, parameters, _context, _many) -> None:
        self._on_sql(statement, parameters)

    def _on_sql(self, statement: str, parameters: object = None) -> None:
        what = footprint(statement, parameters)
        if not what.modes:
            return
        self._stop(shown(statement), what)
        self.held = self.held.with_(what)

    def _on_begin(self, _connection) -> None:
        self.held = NOTHING
        self.transaction += 1

    def _on_commit(self, _connection) -> None:
        done = self.held.changes()
        if done.modes:
            self._stop("COMMIT", replace(done, ends=True, keeps=True))
        self.held = NOTHING
        self.transaction += 1

    def _on_rollback(self, connection) -> None:
        if self._abandoned:
            return
        held = Footprint(self.held.changes().modes, ends=True)
        broken = connection.connection.driver_connection.info.transaction_status != TransactionStatus.INTRANS
        if held.modes and not broken:
            self._stop("ROLLBACK", held)
        elif held.modes:
            # PostgreSQL has let go already
            self.let_go = self.let_go.with_(held)
        self.held = NOTHING
        self.transaction += 1

    def _on_rollback_savepoint(self, _connection, _name, _context) -> None:
        # which of them is not known here
        self.let_go = self.let_go.with_(Footprint(self.held.changes().modes, ends=True))


@dataclass(slots=True)
class Event:
    """A step that was taken."""

    session: int
    step: Step
    effect: Footprint
    """Of the step, and of the sessions that it let go on."""
    transaction: int
    """As of its session."""
    clock: list[int] = field(default_factory=list)
    """For each session, how many of its steps had to come before this one, itself included."""
    waited: bool = False
    """It wanted a row that another session had."""
    beside: Mapping[int, int] = field(default_factory=dict)
    """The transactions of the other sessions meanwhile."""

    def matters_to(self, later: Event) -> bool:
        """Whether it can matter that it came before a step of another session.

        What two transactions hold while both are open is not the same, unless one of them has to wait; and where none has,
        it does not matter to the other when one of them lets go.
        """
        is_open = later.step.footprint.ends or later.beside.get(self.session) == self.transaction
        apart = is_open and not (self.waited or later.waited) and self.effect is self.step.footprint
        return self.effect.depends_on(later.step.footprint, locks=not apart)


class Stepper:
    """Drives sessions on one database.

    Parameters
    ----------
    url
        PostgreSQL.
    count
        How many sessions at most.
    """

    def __init__(self, url: str, count: int) -> None:
        self.changed = threading.Condition()
        self.sessions = [Session(url, number, self.changed) for number in range(count)]
        self.active: Sequence[Session] = ()
        self._blocked: set[int] = set()
        """Sessions that wait for a lock."""
        self.events: list[Event] = []
        self._last: dict[int, Event] = {}
        plain = url.replace("postgresql+psycopg://", "postgresql://")
        self._watch = psycopg.connect(plain, autocommit=True)

    def close(self) -> None:
        self._watch.close()
        for session in self.sessions:
            session.close()

    def start(self, works: Sequence[tuple[str, Callable[[Session], object]]]) -> None:
        """Begin an order; each session stops before its first step."""
        self.events, self._last, self._blocked = [], {}, set()
        self.active = self.sessions[: len(works)]
        for session, (name, work) in zip(self.active, works, strict=True):
            session.start(name, lambda session=session, work=work: work(session))
            self._rest()

    @property
    def ready(self) -> dict[int, Step]:
        """The sessions that can go on, and with what."""
        return {session.number: session.step for session in self.active if session.step is not None}

    @property
    def is_over(self) -> bool:
        return all(session.has_ended for session in self.active)

    def take(self, number: int) -> Event:
        """Have a session take its step, until it stops again, waits for a lock, or ends."""
        session = self.sessions[number]
        step = session.step
        assert step is not None
        waiting = [one for one in self.active if one.step is None and not one.has_ended]
        beside = {one.number: one.transaction for one in self.active if one is not session}
        happened = Event(number, step, step.footprint, session.transaction, beside=beside)
        session.go_on()
        if step.footprint.ends:
            # nothing else lets a lock go, but for a transaction that fails
            self._blocked.clear()
        self._rest()
        is_waiting = session.step is None and not session.has_ended
        happened.waited = is_waiting or any(one.let_go.modes for one in self.active)
        happened.clock = self._clock(happened)
        self.events.append(happened)
        self._last[number] = happened
        for one in waiting:
            if one.step is not None or one.has_ended:
                self._released(one, happened)
        for one in self.active:
            if one.let_go.modes:
                happened.effect = happened.effect.with_(one.let_go)
                one.let_go = NOTHING
        return happened

    def abandon(self) -> None:
        """End an order before its time; everything that was not committed is undone."""
        for session in self.active:
            if not session.has_ended:
                session.abandon()
        for session in self.active:
            session.join()

    def _clock(self, happened: Event) -> list[int]:
        clock = [0] * len(self.active)
        for one in reversed(self.events):
            if clock[one.session] >= one.clock[one.session]:
                continue
            if one.session == happened.session or one.matters_to(happened):
                clock = [max(pair) for pair in zip(clock, one.clock, strict=True)]
        clock[happened.session] += 1
        return clock

    def _released(self, session: Session, by: Event) -> None:
        """Note that a step let another session's statement through: that has happened after it."""
        blocked = self._last[session.number]
        by.effect = by.effect.with_(blocked.step.footprint)
        blocked.clock[:] = [max(pair) for pair in zip(blocked.clock, by.clock, strict=True)]

    def _rest(self) -> None:
        """Wait until every session has stopped, has ended, or waits for one that has stopped."""
        until = time.monotonic() + PATIENCE_S
        since: float | None = None
        before: frozenset[int] = frozenset()
        while True:
            with self.changed:
                running = self._running()
                if since is None and {one.number for one in running} - self._blocked:
                    self.changed.wait(0.002)
                    running = self._running()
            if any(one.let_go.modes for one in self.active):
                self._blocked.clear()
            still = frozenset(session.number for session in running)
            if still <= self._blocked:
                return
            waits = self._waits(running)
            if not all(session.pid in waits for session in running) or self._is_circle(running, waits):
                since = None
            elif since is None or still != before:
                since, before = time.monotonic(), still
            elif time.monotonic() - since > _DEADLOCK_CHECK_S:
                self._blocked = set(still)
                return
            else:
                time.sleep(0.0005)
            if time.monotonic() > until:
                raise Stuck(f"{[session.name for session in running]} neither run nor wait: {waits}")

    def _running(self) -> list[Session]:
        return [one for one in self.active if one.step is None and not one.has_ended]

    def _waits(self, running: Sequence[Session]) -> dict[int, set[int]]:
        """For each session that waits for a lock of another one of ours: the server processes that have it."""
        ours = {session.pid for session in self.active}
        rows = self._watch.execute(
            "SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) AS pid", ([one.pid for one in running],)
        ).fetchall()
        return {pid: set(by) & ours for pid, by in rows if set(by) & ours}

    @staticmethod
    def _is_circle(running: Sequence[Session], waits: dict[int, set[int]]) -> bool:
        """Whether sessions wait for nobody but each other: PostgreSQL ends one of them."""
        free = {session.pid for session in running}
        ends: set[int] = set()
        while True:
            more = {
                pid for pid in free - ends if any(by not in free or by in ends for by in waits.get(pid, ()))
            }
            if not more:
                return ends != free
            ends |= more
