"""What the processes of the soak do. Each runs until it is killed, and writes down what it did, a word a line."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection

from arriero.registry.database import Database
from arriero.registry.errors import Busy, Conflict, InvalidInput, NotFound
from arriero.registry.ports import SilentDoorbell
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import accounts, dids, rules
from arriero.registry.schema.tables import replicas as replicas_table
from arriero.registry.services import contents, replicas
from arriero.registry.services.contents import Attachment, Child
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.replicas import NewReplica
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_moves import move_rule, reduce_rule, release_parents
from arriero.registry.services.rule_removal import remove_expired_rules, remove_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.settings import Settings
from arriero.registry.states import DidType, Role, RuleGrouping
from arriero.rse.errors import RSEError, Unavailable
from arriero.scheduler import deletion_site
from arriero.scheduler.deletion_claim import ClaimedDeletion
from arriero.scheduler.deletion_reports import Outcome
from arriero.scheduler.deletion_reports import Report as Deleted
from arriero.scheduler.deletion_run import DeletionRunner
from arriero.scheduler.deletion_sweep import sweep_deletions
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.plan import PlannedCopy
from arriero.scheduler.rule_engine import Engine
from arriero.scheduler.sweeps import sweep_evaluations, sweep_requests
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner

SCOPE = "raw"
SITES = tuple(f"T{number}" for number in range(6))
FILES = 300
SETS, MIDDLES, TOPS = 8, 4, 2
MOST_RULES = 40
SWEEP_S = 0.5

EXPRESSIONS = (("tier=2", 3), ("T0|T1|T2", 2), ("T3|T4|T5", 2), ("tier=2\\T0", 2), ("T5", 1), ("T1", 1))
"""Where rules want their copies, and how many at most."""

Step = Callable[[], str]


def settings(url: str) -> Settings:
    """Everything that is waited for takes seconds instead of minutes."""
    return Settings(
        database_url=url,  # type: ignore[arg-type]
        database_pool_size=2,
        evaluation_chunk_files=200,
        evaluation_lease_s=2,
        transfer_lease_s=2,
        transfer_batch=40,
        transfer_backoff_s=0.2,
        transfer_backoff_max_s=1,
        deletion_batch=40,
        deletion_threads=2,
        deletion_lease_s=2,
        deletion_grave_s=0.5,
        deletion_backoff_s=0.2,
        deletion_backoff_max_s=1,
        stuck_retry_s=1,
        sweep_s=SWEEP_S,
    )


class Worker:
    """One process: its context, its dice, and where it writes what it did.

    Parameters
    ----------
    url
        Of the database.
    words
        File that every process appends to.
    seed
        Of the dice.
    """

    def __init__(self, url: str, words: Path, seed: str) -> None:
        self.dice = random.Random(seed)
        self._words = os.open(words, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        structlog.configure(processors=[self._note_log])
        self.database = Database(url, pool_size=2)
        chosen = settings(url)
        self.context = Context(self.database, chosen, SilentDoorbell(), Engine(chosen))
        self._root: Actor | None = None

    def note(self, word: str) -> None:
        os.write(self._words, word.encode() + b"\n")

    def _note_log(self, _logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        said = str(event["event"])
        if said in {"transaction retried", "evaluation taken over by another worker"}:
            self.note(said.replace(" ", "_"))
        elif said.endswith("taken back"):
            self.note("lease_taken_back")
        elif said == "evaluation failed":
            self.note_fault("evaluation", event.get("exc_info"))
        raise structlog.DropEvent

    def note_fault(self, where: str, error: object) -> None:
        """Write down what should not have happened; the test fails with it."""
        told = traceback.format_exc() if error is True else repr(error)
        if isinstance(error, BaseException):
            told = "".join(traceback.format_exception(error))
        if "AdminShutdown" in told or "OperationalError" in told:
            self.note("outage")
            return
        self.note(f"FAULT {where}: {told[-2000:]!r}")

    @property
    def root(self) -> Actor:
        if self._root is None:
            self._root = actor(self.database)
        return self._root

    def run(self, step: Step, *, pause_s: float) -> None:
        """Do one thing after another; what is refused is refused, and the database may be away."""
        while True:
            try:
                self.note(step())
            except (Conflict, NotFound, InvalidInput):
                self.note("refused")
            except Busy:
                self.note("busy")
            except (DBAPIError, NoConnection) as error:
                lost = isinstance(error, NoConnection) or error.connection_invalidated
                if lost or "OperationalError" in type(error).__name__:
                    self.note("outage")
                    time.sleep(0.2)
                else:
                    self.note_fault(step.__name__, error)
            except Exception as error:  # noqa: BLE001 - shown by the test
                self.note_fault(step.__name__, error)
            time.sleep(self.dice.uniform(0, 2 * pause_s))


class Attacher(Worker):
    """Attaches and detaches at every depth, registers new files, brings files by hand."""

    number = 0

    def step(self) -> str:
        kind = self.dice.random()
        if kind < 0.4:
            return self._attach_files()
        if kind < 0.65:
            return self._detach_files()
        if kind < 0.9:
            return self._move_collection()
        return self._bring()

    def _some_files(self) -> list[Child]:
        names = self.dice.sample(range(FILES), self.dice.randint(1, 15))
        return [Child(SCOPE, f"file-{name:06d}") for name in names]

    def _attach_files(self) -> str:
        target = f"set{self.dice.randrange(SETS)}"
        children = self._some_files()
        rse = None
        if self.dice.random() < 0.3:
            Attacher.number += 1
            name = f"new-{os.getpid()}-{Attacher.number}"
            children = [
                Child(SCOPE, f"{name}-{part}", bytes=1000, adler32="0a0b0c0d")
                for part in range(self.dice.randint(1, 5))
            ]
            rse = "SLAC"
        attachment = Attachment(SCOPE, target, children, rse)
        contents.attach(self.context, self.root, [attachment], ignore_duplicate=True)
        return "attach"

    def _held_by(self, name: str) -> list[str]:
        from arriero.registry.schema.tables import contents as held

        parent = select(dids.c.id).where(dids.c.name == name).scalar_subquery()
        with self.database.snapshot() as connection:
            query = (
                select(dids.c.name).join(held, held.c.child_id == dids.c.id).where(held.c.parent_id == parent)
            )
            return sorted(connection.scalars(query))

    def _detach_files(self) -> str:
        target = f"set{self.dice.randrange(SETS)}"
        there = self._held_by(target)
        if not there:
            return "nothing"
        chosen = self.dice.sample(there, min(len(there), self.dice.randint(1, 12)))
        contents.detach(self.context, self.root, SCOPE, target, [Child(SCOPE, name) for name in chosen])
        return "detach"

    def _move_collection(self) -> str:
        if self.dice.random() < 0.7:
            parent, child = f"middle{self.dice.randrange(MIDDLES)}", f"set{self.dice.randrange(SETS)}"
        else:
            parent, child = f"top{self.dice.randrange(TOPS)}", f"middle{self.dice.randrange(MIDDLES)}"
        if child in self._held_by(parent):
            contents.detach(self.context, self.root, SCOPE, parent, [Child(SCOPE, child)])
            return "detach_collection"
        contents.attach(self.context, self.root, [Attachment(SCOPE, parent, [Child(SCOPE, child)])])
        return "attach_collection"

    def _bring(self) -> str:
        new = [NewReplica(child.scope, child.name, 1000, "0a0b0c0d") for child in self._some_files()]
        replicas.add_replicas(self.context, self.root, self.dice.choice(SITES), new)
        return "bring"


class Storm(Worker):
    """Adds, removes, suspends, resumes, moves, reduces and boosts rules."""

    def step(self) -> str:
        with self.database.snapshot() as connection:
            there: list[UUID] = list(connection.scalars(select(rules.c.uuid).order_by(rules.c.id)))
        kind = self.dice.random()
        if not there or (kind < 0.45 and len(there) < MOST_RULES):
            return self._add()
        chosen = self.dice.choice(there).hex
        if kind < 0.6:
            remove_rule(self.context, self.root, chosen, now=True, purge_replicas=self.dice.random() < 0.3)
            return "rule_removed"
        if kind < 0.68:
            update_rule(self.context, self.root, chosen, {"state": "SUSPENDED"})
            return "rule_suspended"
        if kind < 0.78:
            update_rule(self.context, self.root, chosen, {"state": "INJECT"})
            return "rule_resumed"
        if kind < 0.86:
            update_rule(
                self.context, self.root, chosen, {"boost_rule": True, "priority": self.dice.randint(1, 5)}
            )
            return "rule_boosted"
        if kind < 0.95:
            expression, _ = self.dice.choice(EXPRESSIONS)
            move_rule(self.context, self.root, chosen, expression, {"copies": 1})
            return "rule_moved"
        reduce_rule(self.context, self.root, chosen, 1)
        return "rule_reduced"

    def _add(self) -> str:
        expression, most = self.dice.choice(EXPRESSIONS)
        of_all = [f"set{n}" for n in range(SETS)] + [f"middle{n}" for n in range(MIDDLES)]
        of_all += [f"top{n}" for n in range(TOPS)] + [f"file-{self.dice.randrange(FILES):06d}"]
        spec = RuleSpec(
            expression,
            self.dice.randint(1, most),
            grouping=self.dice.choice(list(RuleGrouping)),
            lifetime_s=self.dice.choice([None, None, None, 4.0]),
            purge_replicas=self.dice.random() < 0.2,
        )
        add_rules(self.context, self.root, spec, [(SCOPE, self.dice.choice(of_all))])
        return "rule_added"


class Rules(Worker):
    """Evaluates."""

    def step(self) -> str:
        return f"evaluated {Evaluator(self.context).run(budget_s=1)}"


class Transfers(Worker):
    """Copies and settles; one copy in twenty fails and is tried again."""

    def step(self) -> str:
        runner = TransferRunner(self.context, make_mover=lambda: ScriptedMover(self._script))
        summary = runner.run(budget_s=1)
        return f"copied {summary.done} {summary.retried} {summary.discarded}"

    def _script(self, copy: PlannedCopy) -> RSEError | None:
        del copy
        if self.dice.random() < 0.05:
            return Unavailable("the storage is busy")
        return None


class Reapers(Worker):
    """Deletes what no rule holds; one deletion in twenty fails, and now and then a storage does not answer."""

    def __init__(self, url: str, words: Path, seed: str) -> None:
        super().__init__(url, words, seed)
        # the process is this one's alone
        deletion_site.remover = lambda *_: self._remove

    def step(self) -> str:
        summary = DeletionRunner(self.context).run(budget_s=1)
        return f"deleted {summary.done} {summary.failed} {summary.discarded}"

    def _remove(self, one: ClaimedDeletion) -> Deleted:
        if not one.may_go:
            return Deleted(one, Outcome.KEPT)
        luck = self.dice.random()
        if luck < 0.01:
            silent = ("unavailable", "the storage is busy")
            return Deleted(one, Outcome.UNREACHABLE, *silent, may_be_under_way=True)
        if luck < 0.05:
            return Deleted(one, Outcome.FAILED, "access_denied", "not now")
        return Deleted(one, Outcome.DONE)


class Sweeps(Worker):
    """Takes back what the dead held, ends rules."""

    def step(self) -> str:
        sweep_evaluations(self.context)
        sweep_requests(self.context)
        sweep_deletions(self.context)
        release_parents(self.context)
        remove_expired_rules(self.context)
        return "swept"


KINDS: dict[str, tuple[type[Any], float]] = {
    "attacher": (Attacher, 0.05),
    "storm": (Storm, 0.1),
    "rules": (Rules, 0.05),
    "transfers": (Transfers, 0.05),
    "reapers": (Reapers, 0.1),
    "sweeps": (Sweeps, SWEEP_S),
}
"""What processes there are, and how long each rests between two steps on average, seconds."""


def work(kind: str, url: str, words: Path, seed: str) -> None:
    """Be one process, until killed."""
    made, pause_s = KINDS[kind]
    worker = made(url, words, seed)
    worker.run(worker.step, pause_s=pause_s)


def build(url: str) -> None:
    """Make the catalogue: files at SLAC, in datasets, in containers, in containers."""
    from support.scheduling import Catalogue

    made = Catalogue(url)
    try:
        greedy = {"greedyDeletion": "true", "deletion_mark": "false"}
        slac = made.rse("SLAC", attributes={"tier": "1", **greedy})
        for number, name in enumerate(SITES):
            # at the others only what is purged goes
            kept = {"tier": "2", "deletion_mark": "false"}
            made.rse(name, attributes={**kept, **greedy} if number % 2 else kept)
        files = made.files(FILES, at=[slac])
        with made.database.transaction() as tx:
            # they may go when others are verified elsewhere
            tx.execute(update(replicas_table).values(tombstone=now()))
        sets = [made.collection(f"set{n}", children=files[n * 20 : n * 20 + 20]) for n in range(SETS)]
        middles = [
            made.collection(f"middle{n}", DidType.CONTAINER, children=sets[n * 2 : n * 2 + 2])
            for n in range(MIDDLES)
        ]
        for n in range(TOPS):
            made.collection(f"top{n}", DidType.CONTAINER, children=middles[n * 2 : n * 2 + 2])
    finally:
        made.close()


def actor(database: Database) -> Actor:
    """Give the administrator in whose name everything is done."""
    with database.snapshot() as connection:
        found = connection.scalar(select(accounts.c.id).where(accounts.c.name == "root"))
    assert found is not None
    return Actor(found, "root", Role.ADMIN)


def count(database: Database, table: Any) -> int:
    """Rows of a table."""
    with database.snapshot() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)
