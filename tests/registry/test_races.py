"""Two sessions at once, one held before its commit: no change of contents is lost on any rule.

On PostgreSQL: SQLite has one writer at a time. Each of these fails when the lock that it is about is taken away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from arriero.registry.errors import Conflict, NotFound
from arriero.registry.schema.tables import contents as contents_table
from arriero.registry.schema.tables import did_meta, dids, locks, replicas, rules
from arriero.registry.services import account_limits, contents, erasure, metadata, rses, rule_removal
from arriero.registry.services import replicas as replica_service
from arriero.registry.services import rules as rule_service
from arriero.registry.services.contents import Attachment, Child
from arriero.registry.services.replicas import NewReplica
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.states import LockState, RuleState

RSE = "IN2P3_RAW_DISK"
SPEC = RuleSpec(RSE, 1)


@pytest.fixture
def site(postgresql_catalogue):
    made = postgresql_catalogue
    made.scope()
    made.rse("SLAC_RAW_DISK")
    made.rse(RSE)
    made.files("SLAC_RAW_DISK", ["a", "b"])
    made.dataset("d")
    made.container("inner")
    made.container("outer")
    return made


def attach_in(connection: Connection, site, parent: str, child: str) -> None:
    contents.attach_within(
        connection,
        site.context,
        site.root,
        [Attachment("raw", parent, [Child("raw", child)])],
        ignore_duplicate=False,
    )


@contextmanager
def held(site, work: Callable[[Connection], Any]) -> Iterator[None]:
    """Do something in a transaction that is committed only at the end of the block."""
    with site.database.transaction() as connection:
        work(connection)
        yield


def waiting(site) -> bool:
    with site.database.snapshot() as connection:
        query = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(connection.scalar(query))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def add_rule(site, name: str):
    return rule_service.add_rules(site.context, site.root, SPEC, [("raw", name)])[0]


def test_a_rule_that_is_added_during_an_attach_waits_for_it(site):
    with held(site, lambda connection: attach_in(connection, site, "d", "a")):
        pool = ThreadPoolExecutor(1)
        running = pool.submit(add_rule, site, "d")
        until(lambda: waiting(site))
        assert not running.done()
    uuid = running.result(10)
    pool.shutdown()
    assert site.generation(uuid) == 1
    assert site.count(contents_table) == 1


@pytest.mark.parametrize("on", ["d", "inner", "outer"])
def test_an_attach_during_the_adding_of_a_rule_anywhere_above_wakes_it(site, on):
    site.attach("outer", ["inner"])
    site.attach("inner", ["d"])
    uuids = []
    pool = ThreadPoolExecutor(1)

    def add(connection: Connection) -> None:
        uuids.extend(rule_service.add_within(connection, site.root, SPEC, [("raw", on)]))

    with held(site, add):
        running = pool.submit(site.attach, "d", ["a"])
        until(lambda: waiting(site))
        assert not running.done()
    running.result(10)
    pool.shutdown()
    assert site.generation(uuids[0]) == 2


def test_a_file_that_is_attached_while_its_dataset_is_hung_up_wakes_the_rule_above(site):
    uuid = add_rule(site, "inner")
    pool = ThreadPoolExecutor(1)
    with held(site, lambda connection: attach_in(connection, site, "inner", "d")):
        running = pool.submit(site.attach, "d", ["a"])
        until(lambda: waiting(site))
        assert not running.done()
    running.result(10)
    pool.shutdown()
    assert site.generation(uuid) == 3


def test_a_container_is_not_hung_up_while_something_below_it_changes(site):
    site.attach("inner", ["d"])
    uuid = add_rule(site, "outer")
    pool = ThreadPoolExecutor(1)
    with held(site, lambda connection: attach_in(connection, site, "d", "a")):
        running = pool.submit(site.attach, "outer", ["inner"])
        until(lambda: waiting(site))
        assert not running.done()
    running.result(10)
    pool.shutdown()
    assert site.generation(uuid) == 2


@contextmanager
def being_erased(site, name: str) -> Iterator[None]:
    """Hold the erasure of a collection before its commit."""
    metadata.set_metadata(site.context, site.root, [("raw", name, {"lifetime": -1})])
    [did_id] = [row["id"] for row in site.rows(select(dids.c.id).where(dids.c.name == name))]
    with held(site, lambda connection: erasure.erase_within(connection, did_id=did_id)):
        yield


@pytest.mark.parametrize(
    "change",
    [
        lambda site: site.attach("d", ["a"]),
        lambda site: site.attach("inner", ["d"]),
        lambda site: site.detach("d", ["b"]),
        lambda site: add_rule(site, "d"),
        lambda site: metadata.set_metadata(site.context, site.root, [("raw", "d", {"night": 1})]),
    ],
    ids=["attach to", "hang up", "detach from", "rule", "metadata"],
)
def test_what_is_erased_meanwhile_is_not_there(site, change):
    site.attach("d", ["b"])
    pool = ThreadPoolExecutor(1)
    with being_erased(site, "d"):
        running = pool.submit(change, site)
        until(lambda: waiting(site))
        assert not running.done()
    with pytest.raises(NotFound) as missing:
        running.result(10)
    pool.shutdown()
    assert missing.value.rucio_class == "DataIdentifierNotFound"
    assert (site.count(contents_table), site.count(rules), site.count(did_meta)) == (0, 0, 0)


def test_what_is_hung_up_while_it_is_to_be_erased_waits_for_the_next_sweep(site):
    metadata.set_metadata(site.context, site.root, [("raw", "d", {"lifetime": -1})])
    uuid = add_rule(site, "inner")
    pool = ThreadPoolExecutor(1)
    with held(site, lambda connection: attach_in(connection, site, "inner", "d")):
        running = pool.submit(erasure.erase_expired_collections, site.context)
        until(lambda: waiting(site))
    assert running.result(10) == 0
    pool.shutdown()
    assert erasure.erase_expired_collections(site.context) == 1
    assert site.count(contents_table) == 0
    assert site.generation(uuid) == 3


def test_two_datasets_of_one_container_grow_at_the_same_time(site):
    site.dataset("e")
    site.attach("inner", ["d", "e"])
    with held(site, lambda connection: attach_in(connection, site, "d", "a")):
        pool = ThreadPoolExecutor(1)
        pool.submit(site.attach, "e", ["b"]).result(10)
        pool.shutdown()
    assert site.count(contents_table) == 4


def test_two_who_would_close_a_circle_together_are_not_both_let(site):
    pool = ThreadPoolExecutor(1)
    with held(site, lambda connection: attach_in(connection, site, "outer", "inner")):
        running = pool.submit(site.attach, "inner", ["outer"])
        until(lambda: waiting(site))
    with pytest.raises(Conflict, match="circular"):
        running.result(20)
    pool.shutdown()
    assert site.count(contents_table) == 1


@pytest.mark.parametrize(("adler32", "refused"), [("00000001", False), ("00000002", True)])
def test_two_who_register_one_new_file_agree_or_one_is_refused(site, adler32, refused):
    def register(connection: Connection) -> None:
        new = [NewReplica("raw", "new", 5, "00000001")]
        replica_service.register_within(connection, site.context, site.root, "SLAC_RAW_DISK", new)

    pool = ThreadPoolExecutor(1)
    with held(site, register):
        other = [NewReplica("raw", "new", 5, adler32)]
        running = pool.submit(replica_service.add_replicas, site.context, site.root, RSE, other)
        until(lambda: waiting(site))
    if refused:
        with pytest.raises(Conflict, match="adler32"):
            running.result(10)
    else:
        running.result(10)
    pool.shutdown()
    [file] = site.rows(select(dids).where(dids.c.name == "new"))
    assert file["adler32"] == "00000001"
    assert site.count(replicas, replicas.c.file_id == file["id"]) == (1 if refused else 2)


@pytest.mark.parametrize("change", ["attach", "detach", "register", "unblock", "limit"])
def test_a_rule_that_is_taken_away_meanwhile_is_passed_over(site, change):
    site.attach("d", ["a"])
    ending, staying = add_rule(site, "d"), add_rule(site, "a")
    rses.update_rse(site.context, site.root, RSE, {"availability_write": False})
    site.evaluated()
    with site.database.transaction() as connection:
        connection.execute(rules.update().values(state=RuleState.STUCK))
        for uuid in (ending, staying):
            connection.execute(
                locks.insert().values(
                    rule_id=select(rules.c.id).where(rules.c.uuid == uuid).scalar_subquery(),
                    file_id=select(dids.c.id).where(dids.c.name == "a").scalar_subquery(),
                    rse_id=2,
                    bytes=1,
                    state=LockState.STUCK,
                )
            )
    changes = {
        "attach": lambda: site.attach("d", ["b"]),
        "detach": lambda: site.detach("d", ["a"]),
        "register": lambda: site.files(RSE, ["a"]),
        "unblock": lambda: rses.update_rse(site.context, site.root, RSE, {"availability_write": True}),
        "limit": lambda: account_limits.set_local_limit(site.context, site.root, "root", RSE, 5),
    }

    def end(connection: Connection) -> None:
        row = rule_service.require_rule(connection, ending, lock=True)
        rule_removal.end_rule(connection, row, purge=False, account="root", reason="removed")

    pool = ThreadPoolExecutor(1)
    with held(site, end):
        running = pool.submit(changes[change])
        until(lambda: waiting(site))
    running.result(10)
    pool.shutdown()
    assert site.generation(ending) is None
    assert site.generation(staying) == (None if change in {"attach", "detach"} else 1)


def test_many_at_once_lose_nothing_and_never_give_up(site):
    site.dataset("e")
    site.attach("outer", ["inner"])
    site.attach("inner", ["d", "e"])
    names = [f"f{i}" for i in range(60)]
    site.files("SLAC_RAW_DISK", names)
    on_top = add_rule(site, "outer")
    site.evaluated()

    def attach_some(number: int) -> None:
        random = Random(number)
        for name in names[number::4]:
            site.attach(random.choice("de"), [name])

    def rules_come_and_go() -> None:
        for _ in range(8):
            uuid = add_rule(site, "d")
            rule_removal.remove_rule(site.context, site.root, uuid.hex, now=True)

    def containers_come_and_go() -> None:
        for i in range(8):
            site.container(f"c{i}", ["d"])
            site.attach("outer", [f"c{i}"])
            site.detach("outer", [f"c{i}"])

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(attach_some, number) for number in range(4)]
        running += [pool.submit(rules_come_and_go), pool.submit(containers_come_and_go)]
        for future in running:
            future.result(120)
    files = select(dids.c.id).where(dids.c.name.in_(names))
    assert site.count(contents_table, contents_table.c.child_id.in_(files)) == 60
    assert site.count(rules) == 1
    # the rule saw every one of the changes below it: 60 files, and 8 containers that came and went
    assert site.generation(on_top) == 60 + 2 * 8
