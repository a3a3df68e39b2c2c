"""The soak: processes that attach, evaluate, copy, sweep and change rules, killed at random; then proves that all is whole.

    soak.py DIRECTORY --seconds 60 --seed 7

Prints one JSON object. The PostgreSQL is its own, to be killed too. Workers are forked while no connection is open here,
so that each is a process of the operating system that can be killed at any instant.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import exists, select, text
from sqlalchemy.exc import DBAPIError

from arriero.registry import migrate
from arriero.registry.database import Database
from arriero.registry.errors import Conflict, NotFound
from arriero.registry.ports import SilentDoorbell
from arriero.registry.schema.tables import (
    deletion_history,
    deletions,
    dids,
    evaluation_items,
    evaluations,
    locks,
    replicas,
    requests,
    rules,
)
from arriero.registry.services.context import Context
from arriero.registry.services.doctor import CHECKS, described, examine
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.states import DidType, ReplicaState, RuleState
from arriero.registry.store.invariants import Finding
from chaos import workers
from servicelib.errors import StartError
from servicelib.postgresql import PostgreSQL

CREW = {"attacher": 4, "rules": 3, "transfers": 2, "reapers": 2, "sweeps": 1, "storm": 2}
CHANGE_THINGS = ("attacher", "storm")
VICTIMS = (
    *("attacher", "storm", "sweeps"),
    *("rules", "rules", "rules"),
    *("transfers", "transfers"),
    *("reapers", "reapers"),
)
"""Who is struck, by weight."""

BETWEEN_BLOWS_S = 0.8
STANDSTILL_S = 60.0
QUIET_S = 240.0
"""How long nothing may move on before all is done, and how long everything may take to come to rest."""


class Crew:
    """The processes, by slot: who is killed is replaced.

    Parameters
    ----------
    url
        Of the database.
    directory
        Where they write what they do.
    seed
        Of all dice.
    """

    def __init__(self, url: str, directory: Path, seed: int) -> None:
        self._url = url
        self.words = directory / "words"
        self._seed = seed
        self._incarnation = 0
        self.pids: dict[tuple[str, int], int] = {}
        self._stopped: dict[tuple[str, int], float] = {}

    def start(self, slot: tuple[str, int]) -> None:
        self._incarnation += 1
        seed = f"{self._seed} {slot} {self._incarnation}"
        pid = os.fork()
        if pid == 0:
            # nothing of the parent's is to run at the end of this one
            try:
                workers.work(slot[0], self._url, self.words, seed)
            finally:
                os._exit(1)
        self.pids[slot] = pid

    def start_all(self) -> None:
        for kind, number in CREW.items():
            for slot in range(number):
                self.start((kind, slot))

    def kill(self, slot: tuple[str, int]) -> None:
        pid = self.pids.pop(slot)
        self._stopped.pop(slot, None)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def freeze(self, slot: tuple[str, int], seconds: float) -> None:
        """Have a process hang, for longer than its lease, and come back."""
        os.kill(self.pids[slot], signal.SIGSTOP)
        self._stopped[slot] = time.monotonic() + seconds

    def thaw(self, *, everyone: bool = False) -> None:
        for slot, until in list(self._stopped.items()):
            if everyone or time.monotonic() >= until:
                os.kill(self.pids[slot], signal.SIGCONT)
                del self._stopped[slot]

    def bury(self) -> list[str]:
        """Replace those that ended by themselves, which none should; name them."""
        ended = []
        for slot, pid in list(self.pids.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                ended.append(f"{slot[0]} {slot[1]} ended by itself")
                del self.pids[slot]
                self.start(slot)
        return ended

    def end(self, kinds: tuple[str, ...] | None = None) -> None:
        self.thaw(everyone=True)
        for slot in list(self.pids):
            if kinds is None or slot[0] in kinds:
                self.kill(slot)


class Soak:
    """One soak, from the first process to the last finding."""

    def __init__(self, url: str, directory: Path, seed: int, server: PostgreSQL) -> None:
        self.url = url
        self.dice = random.Random(seed)
        self.crew = Crew(url, directory, seed)
        self.server = server
        self.figures: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self, seconds: float) -> dict[str, Any]:
        try:
            self.crew.start_all()
            self._trouble(seconds)
            self.crew.end(CHANGE_THINGS)
            begun = time.monotonic()
            self._resume()
            waiting = self._come_to_rest()
            self.figures["seconds_to_rest"] = round(time.monotonic() - begun)
        finally:
            self.crew.end()
        return self._told(waiting)

    def _trouble(self, seconds: float) -> None:
        begun = time.monotonic()
        crashes = [begun + seconds * part for part in (0.4, 0.75)]
        while time.monotonic() < begun + seconds:
            time.sleep(self.dice.uniform(0.5, 1.5) * BETWEEN_BLOWS_S)
            self.crew.thaw()
            self.faults += self.crew.bury()
            if crashes and time.monotonic() > crashes[0]:
                crashes.pop(0)
                self._crash()
            self._strike()

    def _strike(self) -> None:
        kind = self.dice.choice(VICTIMS)
        slot = (kind, self.dice.randrange(CREW[kind]))
        if self.dice.random() < 0.25:
            self.crew.freeze(slot, self.dice.uniform(1, 6))
            self.figures["frozen"] += 1
            return
        self.crew.kill(slot)
        self.crew.start(slot)
        self.figures["killed"] += 1
        self.figures[f"killed_{kind}"] += 1

    def _crash(self) -> None:
        """Kill the database server, as a loss of power would, and start it again."""
        self._count_rows()
        self.server.kill()
        deadline = time.monotonic() + 60
        while True:
            try:
                self.server.start(timeout=60)
                break
            except StartError:
                # its sessions notice that it has gone one after the other, and until then it does not start again
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        self.figures["database_crashes"] += 1

    def _count_rows(self) -> None:
        """Add what the database says to have written; it forgets that when it crashes."""
        with self._database() as database, database.snapshot() as connection:
            rows = connection.execute(
                text(
                    "SELECT relname, n_tup_ins, n_tup_del FROM pg_stat_user_tables WHERE relname IN ('locks', 'contents')"
                )
            )
            for table, inserted, deleted in rows:
                self.figures[f"{table}_made"] += inserted
                self.figures[f"{table}_removed"] += deleted

    @contextmanager
    def _database(self) -> Iterator[Database]:
        # none is open while a worker is forked
        database = Database(self.url, pool_size=1)
        try:
            yield database
        finally:
            database.dispose()

    def _resume(self) -> None:
        """Have the rules go on that were suspended, and those that are to end by themselves stay."""
        with self._database() as database:
            context = Context(database, workers.settings(self.url), SilentDoorbell())
            with database.snapshot() as connection:
                found = connection.execute(select(rules.c.uuid, rules.c.state)).all()
            root = workers.actor(database)
            for uuid, state in found:
                options: dict[str, Any] = {"lifetime": None}
                if state is RuleState.SUSPENDED:
                    options["state"] = "INJECT"
                try:
                    update_rule(context, root, uuid.hex, options)
                except (NotFound, Conflict):
                    # the sweep was quicker
                    self.figures["gone"] += 1

    def _come_to_rest(self) -> list[str]:
        """Wait until nothing is left to do; say what is after too long."""
        until = time.monotonic() + QUIET_S
        waiting, moved_at = ["nothing was looked at"], time.monotonic()
        while waiting and time.monotonic() < min(until, moved_at + STANDSTILL_S):
            self.faults += self.crew.bury()
            time.sleep(0.5)
            before = waiting
            try:
                with self._database() as database:
                    waiting = self._waiting(database)
            except DBAPIError as error:
                waiting = [str(error.orig)]
            if waiting != before:
                moved_at = time.monotonic()
        return waiting

    @staticmethod
    def _waiting(database: Database) -> list[str]:
        with database.snapshot() as connection:
            unfinished = connection.execute(
                select(rules.c.id, rules.c.state, rules.c.code, rules.c.reason).where(
                    rules.c.state != RuleState.OK
                )
            ).all()
        told = [f"rule {row.id} is {row.state} ({row.code}: {row.reason})" for row in unfinished]
        for table in (evaluations, evaluation_items, requests, deletions):
            if rows := workers.count(database, table):
                told.append(f"{rows} rows in {table.name}")
        return told

    @staticmethod
    def _without_copy(database: Database) -> list[str]:
        """Files of which no copy is left: nothing here is meant to lose any."""
        there = exists().where(replicas.c.file_id == dids.c.id, replicas.c.state == ReplicaState.AVAILABLE)
        with database.snapshot() as connection:
            lost = connection.scalars(select(dids.c.name).where(dids.c.type == DidType.FILE, ~there)).all()
        return [f"{name} has no copy left" for name in lost]

    def _told(self, waiting: list[str]) -> dict[str, Any]:
        self._count_rows()
        for line in self.crew.words.read_text().splitlines():
            if line.startswith("FAULT "):
                self.faults.append(line)
                continue
            word, *numbers = line.split()
            self.figures[word] += sum(map(int, numbers[:1])) if numbers else 1
            if word == "copied":
                self.figures["copies_retried"] += int(numbers[1])
                self.figures["reports_discarded"] += int(numbers[2])
        with self._database() as database:
            self.figures["rules_left"] = workers.count(database, rules)
            self.figures["locks_left"] = workers.count(database, locks)
            self.figures["replicas_deleted"] = workers.count(database, deletion_history)
            self.faults += self._without_copy(database)
            found = [
                described(one)
                for one in examine(database, CHECKS, sweep_s=workers.SWEEP_S)
                if isinstance(one, Finding) and one.broken
            ]
        return {
            "figures": dict(sorted(self.figures.items())),
            "findings": found,
            "waiting": waiting,
            "faults": self.faults[:20],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "directory", type=Path, help="Where the server and the workers write; others can enter it."
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    server = PostgreSQL(given.directory)
    server.start()
    try:
        url = server.create_database()
        migrate.upgrade(url)
        workers.build(url)
        told = Soak(url, given.directory, given.seed, server).run(given.seconds)
    finally:
        server.stop()
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
