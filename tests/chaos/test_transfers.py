"""Copies between two real storages while workers, storages, broker and database are killed: nothing lost, wrong or doubled.

`make chaos` moves 10,000 files; the form in `make test` fewer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from arriero.registry import migrate
from arriero.registry.database import Database
from arriero.registry.ports import SilentDoorbell
from arriero.registry.services import accounts, contents, dids, rses
from arriero.registry.services.bootstrap import bootstrap
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.new_replicas import NewReplica
from arriero.registry.services.replicas import add_replicas
from arriero.registry.services.rse_attributes import set_attribute
from arriero.registry.services.rse_protocols import add_protocol
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.services.transfer_limits import set_limit
from arriero.registry.settings import Settings
from arriero.registry.states import Role, TransferDirection
from servicelib.postgresql import PostgreSQL
from servicelib.server import WebDavServer
from servicelib.stack import Stack
from support.installation import Installation, Process, installation
from support.invariants import assert_invariants

FILES = int(os.environ.get("ARRIERO_TEST_CHAOS_FILES", "500"))
SEED = int(os.environ.get("ARRIERO_TEST_CHAOS_SEED") or 0) or random.SystemRandom().randrange(1, 10**6)
WORKERS = 4
BLOWS = max(FILES // 100, 10)
BETWEEN_BLOWS_S = 1.0
LEASE_S = 4
AT_ONCE = 20
"""Copies under way at most."""
QUIET_S = 240.0 + FILES / 20
"""How long all may take to come to rest after the last blow."""

EVERYTHING = {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}
SETTINGS = {
    "ARRIERO_TRANSFER_LEASE_S": str(LEASE_S),
    "ARRIERO_TRANSFER_BACKOFF_S": "0.2",
    "ARRIERO_TRANSFER_BACKOFF_MAX_S": "5",
    # each blow costs those that it hits an attempt
    "ARRIERO_TRANSFER_MAX_ATTEMPTS": "100",
    "ARRIERO_SWEEP_S": "1",
}


@pytest.fixture
def stack(services) -> Iterator[Stack]:
    """Servers of this test's own, to be killed."""
    directory = services.directory / "chaos-transfers"
    directory.mkdir(mode=0o755)
    made = Stack(directory)
    made.start(["postgresql", "redis", "slac", "in2p3"])
    yield made
    made.stop()


class Night:
    """Files at one storage that a rule wants at the other."""

    def __init__(self, stack: Stack, url: str, dice: random.Random) -> None:
        self.folder = f"chaos-{uuid.uuid4().hex[:8]}"
        self.source: WebDavServer = stack.server("slac")  # type: ignore[assignment]
        self.destination: WebDavServer = stack.server("in2p3")  # type: ignore[assignment]
        self.sizes = [dice.choice((0, 1, 1000, 20_000, 100_000)) for _ in range(FILES)]
        migrate.upgrade(url)
        self.database = Database(url)
        bootstrap(self.database, "root", "secret")
        with self.database.snapshot() as connection:
            account_id = connection.execute(text("SELECT id FROM accounts WHERE name = 'root'")).scalar_one()
        self.root = Actor(account_id, "root", Role.ADMIN)
        self.context = Context(self.database, Settings(), SilentDoorbell())
        for name, server in (("SLAC", self.source), ("IN2P3", self.destination)):
            rses.add_rse(self.context, self.root, name, {})
            set_attribute(self.context, self.root, name, "lfn2pfn_algorithm", "identity")
            protocol = {
                "hostname": "127.0.0.1",
                "port": server.port,
                "prefix": f"{server.prefix}/{self.folder}",
                "domains": {"wan": EVERYTHING},
            }
            add_protocol(self.context, self.root, name, "http", protocol)
        accounts.add_scope(self.context, self.root, "root", "raw")

    def register(self) -> None:
        """Write the files and tell the catalogue of them."""
        files = []
        for number, size in enumerate(self.sizes):
            content = (b"%08d" % number) * (size // 8 + 1)
            content = content[:size]
            name = f"d{number % 20}/f{number:05d}"
            self.source.write_file(f"{self.folder}/raw/{name}", content)
            files.append(NewReplica("raw", name, size, adler32=f"{zlib.adler32(content):08x}"))
        add_replicas(self.context, self.root, "SLAC", files)
        dids.add_collections(self.context, self.root, [dids.NewCollection("raw", "night", "DATASET")])
        held = [contents.Child("raw", file.name) for file in files]
        contents.attach(self.context, self.root, [contents.Attachment("raw", "night", held)])
        # slowly enough to be struck; and a limit is to hold in trouble too
        set_limit(
            self.context,
            self.root,
            "IN2P3",
            direction=TransferDirection.DESTINATION,
            activity=None,
            max_transfers=AT_ONCE,
        )

    def want(self) -> None:
        """Ask for all of them at the other storage."""
        add_rules(self.context, self.root, RuleSpec("IN2P3", 1), [("raw", "night")])

    def ask(self, query: str) -> list[tuple]:
        """Ask the database, or give nothing while it is down."""
        try:
            with self.database.snapshot() as connection:
                return [tuple(row) for row in connection.execute(text(query))]
        except DBAPIError:
            return []

    @property
    def done(self) -> bool:
        return self.ask("SELECT state FROM rules") == [("OK",)] and self.ask(
            "SELECT count(*) FROM requests"
        ) == [(0,)]

    def different(self) -> list[str]:
        """Names of what is not the same at both ends, and of what is at one of them only."""
        sent, received = (
            {
                str(path.relative_to(server.data_dir / self.folder)): zlib.adler32(path.read_bytes())
                for path in (server.data_dir / self.folder).rglob("*")
                if path.is_file()
            }
            for server in (self.source, self.destination)
        )
        return sorted(name for name in sent.keys() | received.keys() if sent.get(name) != received.get(name))


class Trouble:
    """Blows, by dice."""

    def __init__(self, stack: Stack, arriero: Installation, dice: random.Random) -> None:
        self._stack = stack
        self._arriero = arriero
        self._dice = dice
        self._started = 0
        self._frozen: list[tuple[float, Process]] = []
        self.struck: Counter[str] = Counter()
        self.workers = [self._worker() for _ in range(WORKERS)]

    def _worker(self) -> Process:
        self._started += 1
        queues = "rules,transfer,delete,maintenance"
        return self._arriero.start_worker(f"worker-{self._started}", queues=queues, concurrency=1)

    def strike(self) -> None:
        """Let one thing go wrong: each kind once, then by weight."""
        self.thaw()
        blows: dict[Callable[[], None], int] = {
            self.kill_worker: 6,
            self.freeze_worker: 2,
            self.flush_broker: 2,
            self.kill_database: 1,
            self.kill_storage: 2,
        }
        first = [blow for blow in blows if not self.struck[blow.__name__]]
        blow = self._dice.choice(first) if first else self._dice.choices(list(blows), list(blows.values()))[0]
        blow()
        self.struck[blow.__name__] += 1

    def kill_worker(self) -> None:
        victim = self._dice.randrange(len(self.workers))
        self._frozen = [one for one in self._frozen if one[1] is not self.workers[victim]]
        self.workers[victim].kill()
        self.workers[victim] = self._worker()

    def freeze_worker(self) -> None:
        """Have a worker hang beyond its leases, and come back."""
        victim = self._dice.choice(self.workers)
        os.killpg(victim.pid, signal.SIGSTOP)
        self._frozen.append((time.monotonic() + 2 * LEASE_S, victim))

    def thaw(self, *, everyone: bool = False) -> None:
        for until, victim in self._frozen:
            if everyone or time.monotonic() >= until:
                os.killpg(victim.pid, signal.SIGCONT)
        self._frozen = [] if everyone else [one for one in self._frozen if time.monotonic() < one[0]]

    def flush_broker(self) -> None:
        self._stack.server("redis").flush()  # type: ignore[attr-defined]

    def kill_database(self) -> None:
        server = self._stack.server("postgresql")
        server.kill()
        server.start()

    def kill_storage(self) -> None:
        server = self._stack.server(self._dice.choice(("slac", "in2p3")))
        server.kill()
        time.sleep(self._dice.random())
        server.start()


@pytest.mark.timeout(FILES / 10 + 600)
def test_nothing_is_lost_wrong_or_doubled(stack, tmp_path):
    print(f"ARRIERO_TEST_CHAOS_SEED={SEED} throws the same dice")
    dice = random.Random(SEED)
    postgresql = stack.server("postgresql")
    assert isinstance(postgresql, PostgreSQL)
    url = postgresql.create_database()
    night = Night(stack, url, dice)
    night.register()
    settings = SETTINGS | {
        "ARRIERO_DATABASE_URL": url,
        "ARRIERO_BROKER_URL": stack.server("redis").url,  # type: ignore[attr-defined]
    }
    with installation(Path(tmp_path) / "installation", settings) as arriero:
        arriero.start_beat()
        trouble = Trouble(stack, arriero, dice)
        night.want()
        begun = time.monotonic()
        while not night.done and trouble.struck.total() < BLOWS:
            time.sleep(BETWEEN_BLOWS_S * (0.5 + dice.random()))
            trouble.strike()
        trouble.thaw(everyone=True)
        deadline = time.monotonic() + QUIET_S
        while not night.done and time.monotonic() < deadline:
            time.sleep(0.5)
    took = time.monotonic() - begun
    ledger = {
        "files": FILES,
        "seconds": round(took, 1),
        "blows": dict(trouble.struck),
        "done": night.ask("SELECT count(*) FROM request_history WHERE state = 'DONE'")[0][0],
        "failed": night.ask("SELECT count(*) FROM request_history WHERE state <> 'DONE'")[0][0],
        "modes": dict(night.ask("SELECT mode, count(*) FROM request_history GROUP BY mode")),
        "attempts": dict(night.ask("SELECT attempt, count(*) FROM request_history GROUP BY attempt")),
        "waiting": night.ask("SELECT state, code, count(*) FROM requests GROUP BY state, code"),
    }
    print(json.dumps(ledger, indent=2))
    assert night.done, ledger
    assert night.different() == []
    assert (ledger["done"], ledger["failed"]) == (FILES, 0)
    doubled = "SELECT file_id FROM request_history GROUP BY file_id HAVING count(*) > 1"
    assert night.ask(doubled) == []
    there = "SELECT count(*) FROM replicas WHERE state = 'AVAILABLE' AND verified_at IS NOT NULL"
    assert night.ask(there) == [(FILES,)]
    assert_invariants(night.database)
    night.database.dispose()
    assert len(trouble.struck) == 5, "every kind of blow has fallen"
