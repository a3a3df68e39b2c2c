"""What goes wrong with one subscription, one DID or one worker holds up no other, and loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from sqlalchemy import delete, insert, select, update

from arriero.registry.database import Database
from arriero.registry.ports import Bell, SilentDoorbell
from arriero.registry.schema.tables import (
    account_limits,
    dids,
    rses,
    rules,
    subscription_matches,
    subscriptions,
)
from arriero.registry.services import subscriptions as services
from arriero.registry.services.context import Context
from arriero.registry.services.dids import NewCollection
from arriero.registry.services.metadata import set_metadata
from arriero.registry.settings import Settings
from arriero.registry.states import SubscriptionState
from arriero.registry.store.accounts import set_suspended
from arriero.scheduler import subscribe
from arriero.scheduler.subscribe import Subscriber
from arriero.scheduler.sweeps import sweep_subscriptions
from support.in_process import catalogue, postgresql_catalogue
from support.subscriptions import due_now, look, made, prepared, row_of, site, subscribed, updated, waiting

__all__ = ["catalogue", "postgresql_catalogue", "site"]


def _killed(url: str) -> None:
    """Look at the past until the first page is applied, and die without a word."""
    context = Context(Database(url), Settings(), SilentDoorbell())
    concluded = Subscriber._conclude
    pages = []

    def dies(self, tx, batch, page, outcomes):
        if pages:
            # applied and not concluded: the worst moment
            os.kill(os.getpid(), signal.SIGKILL)
        pages.append(batch)
        concluded(self, tx, batch, page, outcomes)

    Subscriber._conclude = dies
    Subscriber(context, page=3).run()


def test_a_kill_in_the_middle_of_the_past_loses_nothing(site):
    names = [f"d{number}" for number in range(10)]
    for name in names:
        site.dataset(name)
    subscribed(site, retroactive=True)
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(site.url,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [row[0] for row in made(site)] == names[:6]
    # it is held until its lease is over
    assert look(site) == 0
    due_now(site)
    look(site, page=3)
    assert [row[0] for row in made(site)] == names
    assert waiting(site) == 0


def test_a_broken_subscription_between_two_good_ones(site):
    subscribed(site, "first", {"pattern": "."}, {"rse_expression": "IN2P3", "copies": 1}, priority=1)
    subscribed(site, "second", {"pattern": "."}, {"rse_expression": "LANCS", "copies": 1}, priority=2)
    subscribed(site, "pattern", {"pattern": "."}, {"rse_expression": "SLAC", "copies": 1}, priority=2)
    subscribed(site, "third", {"pattern": "."}, {"rse_expression": "SLAC|IN2P3", "copies": 1}, priority=3)
    with site.database.transaction() as tx:
        spec = [{"rse_expression": "GONE", "copies": 1}]
        for name, values in (
            ("second", {"replication_rules": spec}),
            ("pattern", {"filter": {"pattern": "("}}),
        ):
            tx.execute(update(subscriptions).where(subscriptions.c.name == name).values(**values))
    site.dataset("d")
    site.dataset("e")
    look(site)
    good = [("d", "IN2P3", 1), ("d", "SLAC|IN2P3", 1), ("e", "IN2P3", 1), ("e", "SLAC|IN2P3", 1)]
    assert made(site) == good
    assert [row_of(site, name)["state"] for name in ("first", "second", "pattern", "third")] == [
        SubscriptionState.ACTIVE,
        SubscriptionState.BROKEN,
        SubscriptionState.BROKEN,
        SubscriptionState.ACTIVE,
    ]
    assert (row_of(site, "second")["code"], row_of(site, "pattern")["code"]) == (
        "invalid_expression",
        "invalid_pattern",
    )
    assert "GONE" in row_of(site, "second")["reason"]
    waits = list(services.list_waiting(site.context, "root", "second"))
    assert [(one["name"], one["code"]) for one in waits] == [
        ("d", "invalid_expression"),
        ("e", "invalid_expression"),
    ]
    # tried again in vain, and meanwhile others come
    due_now(site)
    site.dataset("f")
    look(site)
    assert len(made(site)) == 6
    # the cause goes: one by an operator's hand, the other by an RSE that comes
    updated(site, "pattern", filter={"pattern": "."})
    assert row_of(site, "pattern")["state"] is SubscriptionState.ACTIVE
    site.rse("GONE")
    due_now(site)
    look(site)
    assert len(made(site)) == 12
    assert waiting(site) == 0
    assert [row_of(site, name)["state"] for name in ("second", "pattern")] == [SubscriptionState.ACTIVE] * 2
    assert row_of(site, "second")["reason"] is None


def test_an_expression_that_would_take_for_ever_is_not_tried(site):
    subscribed(site, "endless", priority=0)
    subscribed(site, "good", {"pattern": "."}, {"rse_expression": "LANCS", "copies": 1})
    with site.database.transaction() as tx:
        endless = update(subscriptions).where(subscriptions.c.name == "endless")
        tx.execute(endless.values(filter={"pattern": "(a+)+$"}))
    site.dataset("a" * 60 + "!")
    look(site)
    assert [row[1] for row in made(site)] == ["LANCS"]
    assert (row_of(site, "endless")["state"], row_of(site, "endless")["code"]) == (
        SubscriptionState.BROKEN,
        "invalid_filter",
    )


def test_one_did_that_is_refused_holds_up_no_other(site):
    site.account("alice")
    site.files("SLAC", ["big"], bytes=10_000)
    site.files("SLAC", ["small"], bytes=10)
    with site.database.transaction() as tx:
        in2p3 = tx.scalar(select(rses.c.id).where(rses.c.name == "IN2P3"))
        alice = site.actor("alice", site.root.role).account_id
        tx.execute(insert(account_limits).values(account_id=alice, rse_id=in2p3, bytes=1000))
    subscribed(site, account="alice")
    names = [f"d{number:02}" for number in range(20)]
    for name in names:
        site.dataset(name, ["big" if name == "d13" else "small"])
    look(site)
    assert [row[0] for row in made(site)] == [name for name in names if name != "d13"]
    [wait] = services.list_waiting(site.context, "alice", "nightly")
    assert (wait["name"], wait["attempt"]) == ("d13", 1)
    assert "limit" in wait["reason"]
    row = row_of(site)
    assert (row["state"], row["code"]) == (SubscriptionState.ACTIVE, wait["code"])
    with site.database.transaction() as tx:
        tx.execute(delete(account_limits))
    due_now(site)
    look(site)
    assert len(made(site)) == 20
    assert (waiting(site), row_of(site)["code"]) == (0, None)


def test_a_subscription_that_fails_as_nobody_foresaw(site, monkeypatch):
    subscribed(site, "bad", priority=1)
    subscribed(site, "good", {"pattern": "."}, {"rse_expression": "LANCS", "copies": 1}, priority=2)
    real = subscribe.apply

    def fails(tx, subscription, taken, storage):
        if subscription.name == "bad":
            raise RuntimeError("out of the blue")
        return real(tx, subscription, taken, storage)

    monkeypatch.setattr(subscribe, "apply", fails)
    site.dataset("d")
    look(site)
    assert made(site) == [("d", "LANCS", 1)]
    assert (row_of(site, "bad")["code"], waiting(site)) == ("unexpected_error", 1)
    monkeypatch.setattr(subscribe, "apply", real)
    due_now(site)
    look(site)
    assert made(site) == [("d", "IN2P3", 1), ("d", "LANCS", 1)]


def test_blocked_rses_are_waited_for(site):
    subscribed(
        site, "nightly", {"pattern": ".", "split_rule": True}, {"rse_expression": "tier=1", "copies": "*"}
    )
    with site.database.transaction() as tx:
        tx.execute(update(rses).where(rses.c.name == "LANCS").values(availability_write=False))
    site.dataset("d")
    look(site)
    assert made(site) == [("d", "IN2P3", 1)]
    assert "LANCS is blocked for writing" in row_of(site)["reason"]
    with site.database.transaction() as tx:
        tx.execute(update(rses).values(availability_write=True))
    due_now(site)
    look(site)
    assert made(site) == [("d", "IN2P3", 1), ("d", "LANCS", 1)]
    assert waiting(site) == 0


def test_a_suspended_account_asks_for_nothing(site):
    site.account("alice")
    subscribed(site, account="alice")
    with site.database.transaction() as tx:
        set_suspended(tx, "alice", suspended=True)
    site.dataset("d")
    look(site)
    assert (made(site), row_of(site)["code"]) == ([], "account_barred")
    with site.database.transaction() as tx:
        set_suspended(tx, "alice", suspended=False)
    due_now(site)
    look(site)
    assert (made(site), row_of(site)["code"]) == ([("d", "IN2P3", 1)], None)


def test_a_subscription_that_rests_does_nothing(site):
    for number in range(3):
        site.dataset(f"d{number}")
    subscribed(site, retroactive=True)
    updated(site, state="INACTIVE")
    assert waiting(site) == 0
    site.dataset("later")
    assert waiting(site) == 0
    look(site)
    assert made(site) == []
    updated(site, state="ACTIVE")
    site.dataset("last")
    look(site)
    assert [one[0] for one in made(site)] == ["last"]


def test_a_subscription_that_is_put_to_rest_while_it_is_applied(site):
    subscribed(site)
    site.dataset("d")
    subscriber = Subscriber(site.context)
    real = subscribe.apply

    def late(tx, subscription, taken, storage):
        return real(tx, subscription, taken, storage)

    batch = subscriber.claim()
    with site.database.snapshot() as connection:
        page = subscribe.read_page(connection, batch)
    updated(site, state="INACTIVE")
    [subscription] = page.subscriptions
    storage = subscribe.Storage([])
    outcome = site.database.run(lambda tx: late(tx, subscription, page.taken[subscription.id], storage))
    assert (outcome.added, {code for code, _ in outcome.failed.values()}) == (0, {"changed"})
    site.database.run(lambda tx: subscriber._conclude(tx, batch, page, {subscription.id: outcome}))
    look(site)
    assert made(site) == []
    assert row_of(site)["state"] is SubscriptionState.INACTIVE


def test_a_lifetime_that_is_over(site):
    subscribed(site, "short", lifetime=1)
    subscribed(site, "long", lifetime=1)
    site.dataset("before")
    with site.database.transaction() as tx:
        tx.execute(
            update(subscriptions)
            .where(subscriptions.c.name == "short")
            .values(expires_at=subscriptions.c.created_at)
        )
    look(site)
    assert [one[0] for one in made(site)] == ["before"]
    assert sweep_subscriptions(site.context) == 1
    row = row_of(site, "short")
    assert (row["state"], row["code"]) == (SubscriptionState.INACTIVE, "expired")
    assert row_of(site, "long")["state"] is SubscriptionState.ACTIVE
    assert sweep_subscriptions(site.context) == 0


def test_the_sweep_rings_for_what_is_due(site):
    subscribed(site)
    site.dataset("d")
    site.doorbell.rung.clear()
    sweep_subscriptions(site.context)
    assert site.doorbell.rung == [Bell.SUBSCRIPTIONS]
    look(site)
    site.doorbell.rung.clear()
    sweep_subscriptions(site.context)
    assert site.doorbell.rung == []


def test_two_workers_at_once_add_nothing_twice(site):
    names = [f"d{number:02}" for number in range(40)]
    subscribed(site, "one", {"pattern": "d"}, {"rse_expression": "IN2P3", "copies": 1})
    subscribed(site, "two", {"pattern": "d"}, {"rse_expression": "IN2P3", "copies": 1})
    subscribed(site, "past", {"pattern": "d"}, {"rse_expression": "tier=1", "copies": 2})
    for name in names:
        site.dataset(name)
    # the same DIDs for the second time, and the past of them
    set_metadata(site.context, site.root, [("raw", name, {"a": 1}) for name in names])
    updated(site, "past", retroactive=True)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            look(site, page=7)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    due_now(site)
    look(site)
    assert errors == []
    assert made(site) == [one for name in names for one in ((name, "IN2P3", 1), (name, "tier=1", 2))]
    assert waiting(site) == 0
    assert site.count(subscription_matches) == 3 * len(names)


def test_an_erased_did_is_passed_over(site):
    subscribed(site)
    site.dataset("d")
    site.dataset("e")
    with site.database.transaction() as tx:
        tx.execute(delete(dids).where(dids.c.name == "d"))
    look(site)
    assert made(site) == [("e", "IN2P3", 1)]
    with site.database.transaction() as tx:
        tx.execute(delete(rules))
        tx.execute(delete(dids).where(dids.c.name == "e"))
    assert site.count(subscription_matches) == 0


def test_no_did_falls_between_the_past_and_what_is_noted(postgresql_catalogue):
    """A DID that is being added while a subscription comes is the past, or is noted: never neither."""
    site = prepared(postgresql_catalogue)
    begun, go_on = threading.Event(), threading.Event()

    def adds() -> None:
        from arriero.registry.services.dids import add_within

        def work(connection) -> None:
            add_within(connection, site.context, site.root, [NewCollection("raw", "between", "DATASET")])
            begun.set()
            assert go_on.wait(30)

        site.database.run(work)

    adding = threading.Thread(target=adds)
    adding.start()
    assert begun.wait(30)
    subscribing = threading.Thread(target=lambda: subscribed(site, retroactive=True))
    subscribing.start()
    subscribing.join(0.3)
    assert subscribing.is_alive()
    go_on.set()
    adding.join(30)
    subscribing.join(30)
    look(site)
    assert made(site) == [("between", "IN2P3", 1)]
