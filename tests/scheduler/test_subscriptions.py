"""Subscriptions are applied: when a DID appears, when its metadata comes, when it closes, and to the past."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import select

from arriero.registry.ports import Bell
from arriero.registry.schema.tables import (
    dids,
    events,
    rules,
)
from arriero.registry.services import subscriptions as services
from arriero.registry.services.contents import Attachment, Child, attach
from arriero.registry.services.context import Context
from arriero.registry.services.dids import NewCollection, add_collections, set_status
from arriero.registry.services.metadata import delete_metadata, set_metadata
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import RuleGrouping, SubscriptionState
from arriero.scheduler.app import create_celery
from arriero.scheduler.doorbell import CeleryDoorbell
from arriero.scheduler.embedded import EmbeddedWorker
from arriero.scheduler.subscribe import Subscriber
from support.database import counted_statements
from support.in_process import catalogue, postgresql_catalogue
from support.subscriptions import look, made, prepared, row_of, site, subscribed, updated, waiting

__all__ = ["catalogue", "postgresql_catalogue", "site"]


def test_a_dataset_that_appears_gets_its_rules(site):
    template = {
        "rse_expression": "tier=1",
        "copies": "*",
        "activity": "Express",
        "lifetime": 3600,
        "grouping": "ALL",
        "priority": 5,
        "comments": "from the night",
        "source_replica_expression": "SLAC",
        "purge_replicas": True,
    }
    uuid = subscribed(site, "nightly", {"scope": ["raw"], "pattern": "2024"}, template)
    site.doorbell.rung.clear()
    site.dataset("20241108")
    site.dataset("other")
    site.container("2024")
    assert Bell.SUBSCRIPTIONS in site.doorbell.rung
    look(site)
    assert [row[:3] for row in made(site)] == [("2024", "tier=1", 2), ("20241108", "tier=1", 2)]
    [rule] = site.rows(select(rules).join(dids, dids.c.id == rules.c.did_id).where(dids.c.name == "2024"))
    assert (rule["activity"], rule["grouping"], rule["priority"]) == ("Express", RuleGrouping.ALL, 5)
    assert (rule["comments"], rule["source_replica_expression"]) == ("from the night", "SLAC")
    assert rule["purge_replicas"]
    assert rule["expires_at"] is not None
    assert rule["subscription_id"] == row_of(site)["id"]
    assert waiting(site) == 0
    assert row_of(site)["last_processed"] is not None
    assert row_of(site)["reason"] is None
    [first, _] = services.list_subscription_rules(site.context, "root", "nightly")
    assert first["subscription_id"] == uuid


def test_metadata_that_comes_late_is_not_missed(site):
    subscribed(site, "nightly", {"scope": ["raw"], "band": "[gr]$", "night": 20241108})
    for name in ("d", "e", "f"):
        site.dataset(name)
    look(site)
    assert made(site) == []
    set_metadata(site.context, site.root, [("raw", "d", {"band": "g"})])
    look(site)
    assert made(site) == []
    set_metadata(site.context, site.root, [("raw", "d", {"night": 20241108}), ("raw", "e", {"night": 1})])
    look(site)
    assert [row[0] for row in made(site)] == ["d"]
    # from above, and by taking a key away
    site.container("above", ["f"])
    set_metadata(
        site.context, site.root, [("raw", "above", {"night": 20241108, "band": "r"})], recursive=True
    )
    look(site)
    assert [row[0] for row in made(site)] == ["above", "d", "f"]
    subscribed(site, "flagged", {"did_type": "DATASET", "excluded_pattern": "[^e]", "hold": "yes"})
    subscribed(site, "other", {"pattern": "e", "night": 1}, {"rse_expression": "LANCS", "copies": 1})
    delete_metadata(site.context, site.root, "raw", "d", "band")
    look(site)
    assert len(made(site)) == 3


def test_a_dataset_that_comes_with_its_metadata_and_is_closed(site):
    subscribed(site, "closed", {"is_open": False})
    subscribed(site, "known", {"night": 1}, {"rse_expression": "LANCS", "copies": 1})
    add_collections(site.context, site.root, [NewCollection("raw", "d", "DATASET", meta={"night": 1})])
    look(site)
    assert made(site) == [("d", "LANCS", 1)]
    site.doorbell.rung.clear()
    set_status(site.context, site.root, "raw", "d", is_open=False)
    assert Bell.SUBSCRIPTIONS in site.doorbell.rung
    look(site)
    assert made(site) == [("d", "IN2P3", 1), ("d", "LANCS", 1)]


def test_average_sizes_count_when_it_closes(site):
    subscribed(site, "large", {"min_avg_file_size": 1500})
    subscribed(site, "small", {"max_avg_file_size": 1500}, {"rse_expression": "LANCS", "copies": 1})
    site.files("SLAC", ["a", "b"])
    site.files("SLAC", ["c"], bytes=3000)
    for name in ("empty", "d"):
        site.dataset(name)
    look(site)
    assert made(site) == []
    site.attach("d", ["a", "b", "c"])
    site.container("outer", ["d"])
    for name in ("d", "outer", "empty"):
        set_status(site.context, site.root, "raw", name, is_open=False)
    look(site)
    assert made(site) == [("d", "IN2P3", 1), ("outer", "IN2P3", 1)]


@pytest.mark.parametrize("known", [False, True])
def test_files_where_a_subscription_wants_them(site, known):
    if known:
        # the way over the staged files
        site.files("SLAC", ["raw-0"])
    subscribed(site, "sets", {"pattern": ".*"}, {"rse_expression": "LANCS", "copies": 1})
    site.files("SLAC", ["before"])
    assert waiting(site) == 0
    subscribed(site, "files", {"did_type": ["FILE"], "pattern": "raw", "min_avg_file_size": 1000})
    site.doorbell.rung.clear()
    site.files("SLAC", [f"raw-{number}" for number in range(25)])
    site.files("SLAC", ["tiny-raw", "raw-tiny"], bytes=5)
    assert Bell.SUBSCRIPTIONS in site.doorbell.rung
    look(site, page=7)
    assert [row[0] for row in made(site)] == sorted(f"raw-{number}" for number in range(25))
    # metadata that comes with a second registration
    subscribed(site, "meta", {"did_type": ["FILE"], "band": "r"}, {"rse_expression": "LANCS", "copies": 1})
    site.files("LANCS", ["tiny-raw"], bytes=5, meta={"band": "r"})
    look(site)
    assert ("tiny-raw", "LANCS", 1) in made(site)
    # registered by attaching
    site.dataset("d")
    new = Child("raw", "raw-new", 1000, "0000002a")
    attach(site.context, site.root, [Attachment("raw", "d", [new], "SLAC")])
    look(site)
    assert ("raw-new", "IN2P3", 1) in made(site)
    assert ("d", "LANCS", 1) in made(site)


def test_a_rule_that_ended_does_not_come_back_with_the_next_change(site):
    subscribed(site)
    site.dataset("d")
    look(site)
    [rule] = site.rows(select(rules.c.uuid))
    remove_rule(site.context, site.root, rule["uuid"].hex, now=True)
    set_metadata(site.context, site.root, [("raw", "d", {"a": 1})])
    set_status(site.context, site.root, "raw", "d", is_open=False)
    look(site)
    assert made(site) == []
    # unless somebody asks for it
    updated(site, retroactive=True)
    look(site)
    assert made(site) == [("d", "IN2P3", 1)]


def test_a_rule_that_is_there_is_passed_over(site):
    site.dataset("d")
    add_rules(site.context, site.root, RuleSpec("IN2P3", 1), [("raw", "d")])
    subscribed(site, "nightly", {"pattern": "."}, {"rse_expression": "IN2P3", "copies": 1}, retroactive=True)
    look(site)
    assert made(site) == [("d", "IN2P3", 1)]
    assert (waiting(site), row_of(site)["reason"]) == (0, None)


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_the_past_page_by_page(site, page):
    site.files("SLAC", ["file"])
    names = [f"d{number}" for number in range(10)]
    for name in names:
        site.dataset(name)
    subscribed(site, "nightly", {"pattern": "d[0-8]"}, retroactive=True)
    assert made(site) == []
    look(site, page=page)
    assert [row[0] for row in made(site)] == names[:9]
    assert waiting(site) == 0


def test_the_past_does_not_hold_up_what_is_new(site):
    for number in range(6):
        site.dataset(f"old{number}")
    subscribed(site, retroactive=True)
    site.dataset("new")
    subscriber = Subscriber(site.context, page=2)
    for _ in range(2):
        batch = subscriber.claim()
        assert batch is not None
        subscriber.look(batch)
    # after one page of the past
    assert [row[0] for row in made(site)] == ["new", "old0", "old1"]
    look(site, page=2)
    assert len(made(site)) == 7


def test_without_retroactive_the_past_is_left_alone(site):
    site.dataset("old")
    subscribed(site)
    look(site)
    assert made(site) == []
    # what changes is looked at
    set_metadata(site.context, site.root, [("raw", "old", {"a": 1})])
    look(site)
    assert made(site) == [("old", "IN2P3", 1)]


def test_chained_rules_have_the_first_as_their_source(site):
    subscribed(
        site,
        "chained",
        {"pattern": "."},
        {"rse_expression": "SLAC", "copies": 1},
        {"rse_expression": "tier=1", "copies": 1, "chained_idx": 1, "algorithm": "exclude_site"},
    )
    site.dataset("d")
    look(site)
    found = made(site, "source_replica_expression")
    assert {(one[1], one[3]) for one in found} in (
        {("SLAC", None), ("IN2P3", "SLAC")},
        {("SLAC", None), ("LANCS", "SLAC")},
    )
    updated(site, "chained", retroactive=True)
    look(site)
    assert made(site, "source_replica_expression") == found


def test_rules_for_another_account(site):
    site.account("alice")
    subscribed(
        site, "for-alice", {"pattern": "."}, {"rse_expression": "SLAC", "copies": 1, "account": "alice"}
    )
    site.dataset("d")
    look(site)
    [rule] = services.list_subscription_rules(site.context, "root", "for-alice")
    assert rule["account"] == "alice"
    # one's own subscription cannot do so
    services.add_subscription(
        site.context,
        site.root,
        "alice",
        "sly",
        {
            "filter": {"pattern": "."},
            "replication_rules": [{"rse_expression": "LANCS", "copies": 1, "account": "root"}],
        },
    )
    site.dataset("e")
    look(site)
    assert (row_of(site, "sly")["state"], row_of(site, "sly")["code"]) == (
        SubscriptionState.BROKEN,
        "not_allowed",
    )


def test_a_dry_run_says_what_it_would_do(site):
    site.dataset("old")
    subscribed(site, dry_run=True, retroactive=True)
    site.dataset("new")
    look(site)
    assert made(site) == []
    said = site.rows(
        select(events).where(events.c.event_type == "subscription-dry-run").order_by(events.c.id)
    )
    assert {one["key"] for one in said} == {"raw:old", "raw:new"}
    assert said[0]["payload"]["rules"] == [{"rse_expression": "IN2P3", "copies": 1, "template": 1}]
    row = row_of(site)
    assert (row["code"], "would get 1 on IN2P3" in row["reason"]) == ("dry_run", True)
    # what cannot be had is in the event, and nothing is tried again
    assert (said[0]["payload"]["unmet"], waiting(site)) == ([], 0)
    updated(site, dry_run=False, retroactive=True)
    look(site)
    assert [one[0] for one in made(site)] == ["new", "old"]
    assert row_of(site)["reason"] is None


def test_the_worker_in_this_process_is_rung_and_finds_by_itself_what_nobody_rang_for(site):
    settings = site.context.settings.model_copy(update={"sweep_s": 0.5})
    bell = CeleryDoorbell(create_celery(settings))
    context = Context(site.database, settings, bell)
    worker = EmbeddedWorker(context)
    worker.start()

    def wait_for(name: str) -> None:
        until = time.monotonic() + 30
        while name not in [one[0] for one in made(site)]:
            assert time.monotonic() < until
            time.sleep(0.05)

    try:
        subscribed(site)
        add_collections(context, site.root, [NewCollection("raw", "rung", "DATASET")])
        wait_for("rung")
        site.dataset("unrung")
        wait_for("unrung")
    finally:
        worker.stop()
        bell.close()


def test_as_many_statements_for_few_dids_as_for_many(site):
    subscribed(site, "plain", {"pattern": "."}, {"rse_expression": "IN2P3", "copies": 1})
    subscribed(
        site, "sized", {"pattern": ".", "max_avg_file_size": 1}, {"rse_expression": "LANCS", "copies": 1}
    )

    def statements(prefix: str, count: int) -> int:
        new = [NewCollection("raw", f"{prefix}{number}", "DATASET") for number in range(count)]
        with counted_statements(site.database) as adding:
            add_collections(site.context, site.root, new)
        with counted_statements(site.database) as looking:
            look(site)
        assert len(adding) < 20
        return len(looking)

    statements("warm", 10)
    assert statements("few", 10) == statements("many", 300) < 60


def test_a_registration_costs_one_statement_that_finds_nothing(site):
    """Whether subscriptions look is asked once a call, whatever it registers; nothing is written for nobody."""

    def asked(work) -> int:
        with counted_statements(site.database) as seen:
            work()
        assert waiting(site) == 0
        return sum("INTO subscription_items" in one for one in seen)

    assert asked(lambda: site.files("SLAC", [f"f{number}" for number in range(500)])) == 1
    assert asked(lambda: site.dataset("d")) == 1
    assert asked(lambda: set_metadata(site.context, site.root, [("raw", "d", {"a": 1})])) == 1
    # nor where those that there are want no files
    subscribed(site)
    assert asked(lambda: site.files("SLAC", [f"g{number}" for number in range(500)])) == 1


def test_many_new_files_are_noted_by_one_row(postgresql_catalogue):
    site = prepared(postgresql_catalogue)
    subscribed(site, "files", {"did_type": ["FILE"]})
    site.files("SLAC", [f"f{number}" for number in range(500)])
    assert waiting(site) == 1
