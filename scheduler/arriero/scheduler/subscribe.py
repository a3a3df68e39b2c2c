"""Applies subscriptions to the DIDs that are new, have changed, or are the past that somebody asked for.

A batch is taken from the queue and looked at by each subscription in a transaction of its own: what one cannot do is
noted, with its reason, and tried again; it holds up no other. What a killed worker has not ended is taken again, and does
what is missing (docs/adr/0017).
"""

from collections.abc import Callable, Mapping, Sequence

import structlog
from sqlalchemy import Connection, select, update

from arriero.registry.ports import Bell
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import subscriptions
from arriero.registry.services.context import Context
from arriero.registry.states import SubscriptionState
from arriero.registry.store.subscription_items import LIVE
from arriero.scheduler import subscription_queue as queue
from arriero.scheduler.core.retry import back_off
from arriero.scheduler.core.subscription_filters import DidFacts
from arriero.scheduler.core.subscriptions import Storage
from arriero.scheduler.errors import LeaseLost
from arriero.scheduler.rse_catalogue import load_rses
from arriero.scheduler.subscription_apply import Outcome, apply
from arriero.scheduler.subscription_page import Page, Subscription, has_waiting, read_page
from arriero.scheduler.workers import TIME_BUDGET_S, never, take_turns, worker_name

log = structlog.get_logger(__name__)

UNEXPECTED = "unexpected_error"
DRY_RUN = "dry_run"


class Subscriber:
    """Applies subscriptions to the DIDs that are due.

    Parameters
    ----------
    context
        Database, settings, and the doorbell that tells of new rules.
    stopping
        Asked between batches; True ends `run`.
    page
        Most DIDs of a batch.
    """

    def __init__(
        self, context: Context, *, stopping: Callable[[], bool] = never, page: int = queue.PAGE_DIDS
    ) -> None:
        self._context = context
        self._worker = worker_name("subscriber")
        self._stopping = stopping
        self._page = page

    def run(self, *, budget_s: float = TIME_BUDGET_S) -> int:
        """Look at what is due, until nothing is or the time is up; then the bell is rung for the rest.

        Returns
        -------
        int
            Batches that ended.
        """
        return take_turns(
            self._context, Bell.SUBSCRIPTIONS, self._turn, budget_s=budget_s, stopping=self._stopping
        )

    def _turn(self) -> int | None:
        batch = self.claim()
        if batch is None:
            return None
        self._look_guarded(batch)
        return 1

    def claim(self) -> queue.Batch | None:
        """Take a batch, None when nothing is due."""
        lease_s = self._context.settings.evaluation_lease_s
        return self._context.database.run(
            lambda tx: queue.claim(tx, self._worker, lease_s=lease_s, page=self._page)
        )

    def _look_guarded(self, batch: queue.Batch) -> None:
        try:
            self.look(batch)
        except LeaseLost as lost:
            log.warning("DIDs were looked at by another worker meanwhile", code=lost.code)
        except Exception as error:
            # the boundary between batches
            log.exception("subscriptions not applied", items=len(batch.ids), attempt=batch.attempt)
            wait_s = self._wait(batch.attempt, batch.owner)
            reason = f"{type(error).__name__}: {error}"
            self._context.database.run(
                lambda tx: queue.put_back(tx, batch, wait_s=wait_s, code=UNEXPECTED, reason=reason)
            )

    def look(self, batch: queue.Batch) -> None:
        """Apply subscriptions to the DIDs of a batch.

        Raises
        ------
        LeaseLost
            Another worker has taken over; what was added stays, and is what it would have added.
        """
        database = self._context.database
        with database.snapshot() as connection:
            page = read_page(connection, batch)
            known = load_rses(connection) if page.taken else None
        storage = Storage([] if known is None else [rse.as_candidate() for rse in known.by_id.values()])
        outcomes: dict[int, Outcome] = {}
        for subscription in page.subscriptions:
            taken = page.taken.get(subscription.id)
            if taken:
                outcomes[subscription.id] = self._apply_guarded(subscription, taken, storage)
        database.run(lambda tx: self._conclude(tx, batch, page, outcomes))

    def _apply_guarded(
        self, subscription: Subscription, taken: Sequence[DidFacts], storage: Storage
    ) -> Outcome:
        try:
            outcome = self._context.database.run(lambda tx: apply(tx, subscription, taken, storage))
        except Exception as error:
            # the boundary between subscriptions: one that cannot be applied must not hold up the others
            log.exception("subscription not applied", subscription=subscription.shown, dids=len(taken))
            outcome = Outcome()
            outcome.fail([did.did_id for did in taken], UNEXPECTED, f"{type(error).__name__}: {error}")
            return outcome
        if outcome.added:
            self._context.doorbell.ring(Bell.EVALUATIONS)
        log.info(
            "subscription applied",
            subscription=subscription.shown,
            dids=len(taken),
            rules=outcome.added,
            failed=len(outcome.failed),
            would=outcome.would,
        )
        return outcome

    def _wait(self, attempt: int, seed: str) -> float:
        settings = self._context.settings
        return back_off(
            attempt, base_s=settings.transfer_backoff_s, maximum_s=settings.transfer_backoff_max_s, seed=seed
        )

    def _conclude(
        self, tx: Connection, batch: queue.Batch, page: Page, outcomes: Mapping[int, Outcome]
    ) -> None:
        attempt = batch.attempt if batch.subscription_id is not None else 1
        failed = [
            queue.Failed(subscription_id, did_id, code, reason)
            for subscription_id, outcome in outcomes.items()
            for did_id, (code, reason) in outcome.failed.items()
        ]
        # by subscription, so that what failed together is tried together
        queue.try_again(
            tx, batch, failed, wait_s=lambda one: self._wait(attempt, f"subscription {one.subscription_id}")
        )
        for subscription in page.subscriptions:
            if subscription.fault is not None:
                queue.hand_over(
                    tx,
                    batch,
                    subscription.id,
                    looked_to=page.looked_to,
                    wait_s=self._wait(attempt, f"subscription {subscription.id}"),
                    code=subscription.fault.code,
                    reason=subscription.fault.reason,
                )
        queue.finish(tx, batch, looked_to=page.looked_to)
        for subscription in page.subscriptions:
            _mark(tx, subscription, outcomes.get(subscription.id))
        _note_processed(tx, [one.id for one in page.subscriptions if one.fault is None])


def _mark(tx: Connection, subscription: Subscription, outcome: Outcome | None) -> None:
    """Write on a subscription what became of it, unless it was changed meanwhile."""
    fault = subscription.fault or (None if outcome is None else outcome.fault)
    values: dict[str, object]
    if fault is not None:
        values = {"state": SubscriptionState.BROKEN, "code": fault.code, "reason": fault.reason[:2000]}
    elif outcome is None:
        return
    elif outcome.failed:
        code, reason = next(iter(outcome.failed.values()))
        values = {"state": SubscriptionState.ACTIVE, "code": code[:64], "reason": reason[:2000]}
    elif outcome.would is not None:
        values = {"state": SubscriptionState.ACTIVE, "code": DRY_RUN, "reason": outcome.would}
    elif subscription.code is not None and not has_waiting(tx, subscription.id):
        values = {"state": SubscriptionState.ACTIVE, "code": None, "reason": None}
    else:
        return
    tx.execute(
        update(subscriptions)
        .where(
            subscriptions.c.id == subscription.id,
            subscriptions.c.state.in_(LIVE),
            subscriptions.c.updated_at == subscription.updated_at,
        )
        .values(**values, updated_at=subscriptions.c.updated_at)
    )


def _note_processed(tx: Connection, ids: Sequence[int]) -> None:
    # several workers do so at once: whoever comes second leaves it
    free = select(subscriptions.c.id).where(subscriptions.c.id.in_(ids))
    free = free.order_by(subscriptions.c.id).with_for_update(skip_locked=True, key_share=True)
    chosen = tx.scalars(free).all()
    if chosen:
        tx.execute(
            update(subscriptions)
            .where(subscriptions.c.id.in_(chosen))
            .values(last_processed=now(), updated_at=subscriptions.c.updated_at)
        )
