"""Names of the Celery tasks and queues: a contract with running workers, so never derived from module paths."""

from typing import Final

EVALUATE: Final = "arriero.rules.evaluate"
SUBSCRIBE: Final = "arriero.rules.subscribe"
RUN_TRANSFERS: Final = "arriero.transfer.run"
RUN_DELETIONS: Final = "arriero.delete.run"
SWEEP_EVALUATIONS: Final = "arriero.maintenance.sweep_evaluations"
SWEEP_REQUESTS: Final = "arriero.maintenance.sweep_requests"
SWEEP_ARRIVALS: Final = "arriero.maintenance.sweep_arrivals"
SWEEP_DELETIONS: Final = "arriero.maintenance.sweep_deletions"
SWEEP_SUBSCRIPTIONS: Final = "arriero.maintenance.sweep_subscriptions"
SWEEP_RULES: Final = "arriero.maintenance.sweep_rules"
SWEEP_DIDS: Final = "arriero.maintenance.sweep_dids"
SWEEP_REPLICAS: Final = "arriero.maintenance.sweep_replicas"
SWEEP_ACCOUNTS: Final = "arriero.maintenance.sweep_accounts"
SWEEP_HISTORIES: Final = "arriero.maintenance.sweep_histories"
SWEEP_AUDITS: Final = "arriero.maintenance.sweep_audits"
SCRUB: Final = "arriero.maintenance.scrub"

SWEEPS: Final = (
    SWEEP_EVALUATIONS,
    SWEEP_REQUESTS,
    SWEEP_ARRIVALS,
    SWEEP_DELETIONS,
    SWEEP_SUBSCRIPTIONS,
    SWEEP_RULES,
    SWEEP_DIDS,
    SWEEP_REPLICAS,
    SWEEP_ACCOUNTS,
    SWEEP_HISTORIES,
    SWEEP_AUDITS,
    SCRUB,
)

QUEUES: Final = ("rules", "transfer", "delete", "maintenance")


def queue_of(task: str) -> str:
    """Queue of a task: the second part of its name."""
    return task.split(".")[1]
