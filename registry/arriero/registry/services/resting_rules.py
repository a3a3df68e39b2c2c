"""Rules that rest, SUSPENDED or waiting for approval, while what they are on goes on changing."""

from sqlalchemy import Connection

from arriero.registry.services.context import Context
from arriero.registry.store import resting_items as store

SPARE = 1000
"""Items that a rule may have beyond one for each of its locks, without anybody asking whether it needs them."""

ALWAYS = -(10**12)
"""Of spare items: every rule that is drawn is asked."""


def compact_resting(context: Context, *, limit: int = 5, spare: int = SPARE) -> int:
    """Forget what rules that rest need not look at when they go on; for a sweep.

    Each change of what a rule is on leaves something to look at. It stays bounded by what the rule holds, however long
    the rule rests.

    Parameters
    ----------
    limit
        Rules that are drawn by lot, each with a transaction of its own: the sweeps come to all of them.
    spare
        Rules that have no more to look at than their locks and so much are left alone.

    Returns
    -------
    int
        How much was forgotten.
    """
    with context.database.snapshot() as connection:
        chosen = store.crowded(connection, spare=spare, limit=limit)
    forgotten = 0
    for rule_id in chosen:

        def work(connection: Connection, rule_id: int = rule_id) -> int:
            return store.compact(connection, rule_id) if store.hold_resting(connection, rule_id) else 0

        forgotten += context.database.run(work)
    return forgotten
