"""Transfers are taken back and tried again while workers copy them: whatever the order, every rule ends whole."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select

from arriero.registry.errors import Busy
from arriero.registry.operations import CancelOrder, RetryOrder
from arriero.registry.schema.tables import accounts, locks, request_history, requests
from arriero.registry.services.context import Actor
from arriero.registry.services.transfer_changes import cancel, retry
from arriero.registry.states import LockState, Role
from arriero.scheduler.testing import ScriptedMover
from support import transfers as support_transfers

site = support_transfers.site

FILES = 40


def test_copies_are_taken_back_while_they_are_made(site):
    names = site.dataset("night", FILES)
    site.dataset("other", 1)
    site.client.attach_dids("raw", "other", [{"scope": "raw", "name": one} for one in names[:20]])
    rules = [site.rule("night"), site.rule("other")]
    [(root_id,)] = site.rows(select(accounts.c.id).where(accounts.c.name == "root"))
    root = Actor(root_id, "root", Role.ADMIN)
    chosen = random.Random(11)

    def work() -> None:
        for _ in range(12):
            site.runner(ScriptedMover(), transfer_batch=4).run(budget_s=0.05)

    def look() -> None:
        for _ in range(12):
            site.evaluate()

    def change() -> None:
        for _ in range(15):
            orders = [
                CancelOrder(scope="raw", name=chosen.choice(names)),
                CancelOrder(rule=chosen.choice(rules), under_way=chosen.random() < 0.5),
            ]
            try:
                cancel(site.context, root, chosen.choice(orders))
                retry(
                    site.context,
                    root,
                    RetryOrder(rule=chosen.choice(rules), priority=chosen.choice([None, 5])),
                )
            except Busy:
                # every race was lost: nothing has changed
                continue

    assert cancel(site.context, root, CancelOrder(scope="raw", name=names[0])).rules == 2
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(one) for one in (work, work, look, change)]:
            done.result(timeout=120)
    site.check_invariants()
    for _ in range(5):
        for rule in rules:
            retry(site.context, root, RetryOrder(rule=rule))
        site.evaluate()
        site.copy()
    assert {site.state_of(rule)["state"] for rule in rules} == {"OK"}
    assert site.rows(select(func.count()).select_from(requests)) == [(0,)]
    counted = site.rows(select(locks.c.state, func.count()).group_by(locks.c.state))
    assert [tuple(row) for row in counted] == [(LockState.OK, FILES + 21)]
    taken = site.rows(select(func.count()).where(request_history.c.code == "cancelled"))
    assert taken[0][0] > 0
    site.check_invariants()
