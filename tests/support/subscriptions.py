"""Three RSEs, and short words for subscriptions on them, in the test's own process."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import dids, rules, subscription_items, subscriptions
from arriero.registry.services import subscriptions as services
from arriero.scheduler.subscribe import Subscriber
from support.in_process import InProcess


def prepared(catalogue: InProcess) -> InProcess:
    catalogue.scope()
    for name, tier in (("SLAC", "0"), ("IN2P3", "1"), ("LANCS", "1")):
        catalogue.rse(name, tier=tier, site=name.lower())
    catalogue.doorbell.rung.clear()
    return catalogue


@pytest.fixture
def site(catalogue):
    return prepared(catalogue)


def subscribed(
    site,
    name: str = "nightly",
    filter_: dict | None = None,
    *templates: dict,
    account: str = "root",
    **options,
) -> str:
    given = {
        "filter": filter_ or {"scope": ["raw"]},
        "replication_rules": list(templates) or [{"rse_expression": "IN2P3", "copies": 1}],
        **options,
    }
    return services.add_subscription(site.context, site.root, account, name, given).hex


def updated(site, name: str = "nightly", **options: Any) -> None:
    services.update_subscription(site.context, site.root, "root", name, options)


def look(site, **options: Any) -> int:
    return Subscriber(site.context, **options).run()


def made(site, *columns: str) -> list[tuple[Any, ...]]:
    """Name of the DID, expression and copies of each rule, and what else is asked for."""
    chosen = [rules.c[column] for column in columns]
    query = (
        select(dids.c.name, rules.c.rse_expression, rules.c.copies, *chosen)
        .join(dids, dids.c.id == rules.c.did_id)
        .order_by(dids.c.name, rules.c.rse_expression, rules.c.copies)
    )
    return [tuple(row.values()) for row in site.rows(query)]


def row_of(site, name: str = "nightly") -> Any:
    [row] = site.rows(select(subscriptions).where(subscriptions.c.name == name))
    return row


def waiting(site) -> int:
    return site.count(subscription_items)


def due_now(site) -> None:
    with site.database.transaction() as tx:
        tx.execute(update(subscription_items).values(not_before=now()))
