"""The Celery tasks: each calls one service of its process and returns nothing.

Retries live in the database (``attempt``, ``not_before``), never in Celery: no ``countdown``, no ``eta``.
"""

from celery import Celery

from arriero.registry.services.account_usage import record_account_usage
from arriero.registry.services.bad_replicas import end_unavailability
from arriero.registry.services.erasure import erase_expired_collections
from arriero.registry.services.histories import maintain_histories
from arriero.registry.services.losses import sweep_losses
from arriero.registry.services.replica_lifetimes import expire_announced, release_expired_files
from arriero.registry.services.resting_rules import compact_resting
from arriero.registry.services.rule_moves import release_parents
from arriero.registry.services.rule_removal import remove_expired_rules
from arriero.registry.services.storage_audits import clean_audits
from arriero.registry.services.storage_findings import settle_findings
from arriero.registry.services.stuck_rules import suspend_stuck_rules
from arriero.registry.services.suspicions import promote_suspicious
from arriero.scheduler.deletion_sweep import sweep_deletions as take_back_deletions
from arriero.scheduler.names import (
    EVALUATE,
    RUN_DELETIONS,
    RUN_TRANSFERS,
    SCRUB,
    SUBSCRIBE,
    SWEEP_ACCOUNTS,
    SWEEP_ARRIVALS,
    SWEEP_AUDITS,
    SWEEP_DELETIONS,
    SWEEP_DIDS,
    SWEEP_EVALUATIONS,
    SWEEP_HISTORIES,
    SWEEP_REPLICAS,
    SWEEP_REQUESTS,
    SWEEP_RULES,
    SWEEP_SUBSCRIPTIONS,
)
from arriero.scheduler.process import Work
from arriero.scheduler.sweeps import sweep_arrivals as take_back_arrivals
from arriero.scheduler.sweeps import sweep_evaluations as take_back_evaluations
from arriero.scheduler.sweeps import sweep_requests as take_back_requests
from arriero.scheduler.sweeps import sweep_subscriptions as look_at_subscriptions


def add_tasks(app: Celery, work: Work) -> None:
    """Give an app its tasks.

    Parameters
    ----------
    app
        A new one.
    work
        What the tasks work with, in each process.
    """

    # not shared: other apps of this process have tasks and a context of their own
    @app.task(name=EVALUATE, shared=False)
    def evaluate() -> None:
        work.evaluator.take()

    @app.task(name=SUBSCRIBE, shared=False)
    def subscribe() -> None:
        work.subscriptions.take()

    @app.task(name=RUN_TRANSFERS, shared=False)
    def run_transfers() -> None:
        work.transfers.take()

    _add_deletions(app, work)
    _add_sweeps(app, work)


def _add_deletions(app: Celery, work: Work) -> None:
    @app.task(name=RUN_DELETIONS, shared=False)
    def run_deletions() -> None:
        work.deletions.take()

    @app.task(name=SWEEP_DELETIONS, shared=False)
    def sweep_deletions() -> None:
        take_back_deletions(work.context)


def _add_sweeps(app: Celery, work: Work) -> None:
    @app.task(name=SWEEP_EVALUATIONS, shared=False)
    def sweep_evaluations() -> None:
        take_back_evaluations(work.context)

    @app.task(name=SWEEP_REQUESTS, shared=False)
    def sweep_requests() -> None:
        take_back_requests(work.context)

    @app.task(name=SWEEP_ARRIVALS, shared=False)
    def sweep_arrivals() -> None:
        take_back_arrivals(work.context)

    @app.task(name=SWEEP_SUBSCRIPTIONS, shared=False)
    def sweep_subscriptions() -> None:
        look_at_subscriptions(work.context)

    @app.task(name=SWEEP_RULES, shared=False)
    def sweep_rules() -> None:
        release_parents(work.context)
        remove_expired_rules(work.context)
        suspend_stuck_rules(work.context)
        compact_resting(work.context)

    @app.task(name=SWEEP_DIDS, shared=False)
    def sweep_dids() -> None:
        erase_expired_collections(work.context)
        release_expired_files(work.context)

    @app.task(name=SWEEP_REPLICAS, shared=False)
    def sweep_replicas() -> None:
        end_unavailability(work.context)
        expire_announced(work.context)
        sweep_losses(work.context)

    @app.task(name=SWEEP_ACCOUNTS, shared=False)
    def sweep_accounts() -> None:
        record_account_usage(work.context)

    @app.task(name=SWEEP_HISTORIES, shared=False)
    def sweep_histories() -> None:
        maintain_histories(work.context)

    @app.task(name=SWEEP_AUDITS, shared=False)
    def sweep_audits() -> None:
        settle_findings(work.context)
        promote_suspicious(work.context)
        clean_audits(work.context)

    @app.task(name=SCRUB, shared=False)
    def scrub() -> None:
        work.scrubs.take()
