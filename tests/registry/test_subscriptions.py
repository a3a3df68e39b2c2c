"""What a subscription may say, and what is refused before it can hold anything up."""

from __future__ import annotations

import pytest

from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.ports import Bell
from arriero.registry.schema.tables import subscription_items, subscriptions
from arriero.registry.services.metadata import set_metadata
from arriero.registry.services.subscription_specs import check_filter, may_take_for_ever
from arriero.registry.services.subscriptions import add_subscription, list_waiting, update_subscription

TEMPLATE = {"rse_expression": "SLAC", "copies": 1}


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse("SLAC")
    return catalogue


def subscribe(site, *templates: dict, filter_: dict | None = None, **options) -> None:
    given = {"filter": filter_ or {"pattern": "."}, "replication_rules": list(templates) or [TEMPLATE]}
    add_subscription(site.context, site.root, "root", "nightly", {**given, **options})


@pytest.mark.parametrize(
    ("pattern", "refused"),
    [
        (".*raw.*/2024[0-9]{4}/.*", False),
        (r"(LSSTCam|LATISS)/raw/\d+", False),
        (r"a{2,4}(b+c)?[*+(|]+\)", False),
        (r"(\d{2}-){3}", False),
        ("(a+)+", True),
        ("(a|aa)*b", True),
        ("((a*)b)+", True),
        ("(?:x{1,})*", True),
        ("(ab{0,99}){20}", True),
        (".*" * 9, True),
    ],
)
def test_expressions_that_may_take_for_ever(pattern, refused):
    assert may_take_for_ever(pattern) is refused
    for key in ("pattern", "excluded_pattern", "scope", "night"):
        if refused:
            with pytest.raises(InvalidInput, match=f"filter: {key}"):
                check_filter({key: pattern})
        else:
            check_filter({key: pattern})


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ({"chained_idx": 2, "algorithm": "exclude_site"}, "chained_idx"),
        ({"chained_idx": 1.5, "algorithm": "exclude_site"}, "chained_idx"),
        ({"chained_idx": 1}, "algorithm"),
        ({"chained_idx": 1, "algorithm": "nearest"}, "algorithm"),
        ({"chained_idx": 1, "algorithm": "associated_site"}, "associated_site_idx"),
    ],
)
def test_chains_that_lead_nowhere(site, template, key):
    with pytest.raises(InvalidInput, match=f"replication_rules 2: {key}"):
        subscribe(site, TEMPLATE, {**TEMPLATE, **template})
    assert site.count(subscriptions) == 0


def test_nothing_is_noted_for_nobody(site):
    site.dataset("before")
    assert site.count(subscription_items) == 0
    subscribe(site)
    site.doorbell.rung.clear()
    site.dataset("d")
    assert site.doorbell.rung == [Bell.SUBSCRIPTIONS]
    set_metadata(site.context, site.root, [("raw", "d", {"is_new": True})])
    assert site.count(subscription_items, subscription_items.c.again) == 1
    with pytest.raises(InvalidInput, match="is_new"):
        set_metadata(site.context, site.root, [("raw", "d", {"is_new": False})])
    update_subscription(site.context, site.root, "root", "nightly", {"state": "INACTIVE"})
    site.dataset("after")
    assert site.count(subscription_items, subscription_items.c.first_did_id > 2) == 0


def test_the_past_is_asked_for_once_at_a_time(site):
    site.dataset("a")
    site.dataset("b")
    subscribe(site, retroactive=True)
    update_subscription(site.context, site.root, "root", "nightly", {"retroactive": True})
    [walk] = list_waiting(site.context, "root", "nightly")
    assert (walk["remaining_dids"], walk["attempt"], walk["scope"]) == (2, 0, None)
    update_subscription(site.context, site.root, "root", "nightly", {"retroactive": False, "priority": 1})
    assert len(list(list_waiting(site.context, "root", "nightly"))) == 1
    with pytest.raises(NotFound):
        list(list_waiting(site.context, "root", "missing"))


def test_without_anything_there_is_no_past(site):
    subscribe(site, retroactive=True)
    assert site.count(subscription_items) == 0
