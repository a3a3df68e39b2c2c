"""The end of trying: a rule of which nothing has succeeded for two weeks is SUSPENDED (DESIGN section 5, "Failure").

It goes on when somebody resumes it, and then has the whole time again. What it holds stays held.
"""

from sqlalchemy import Connection

from arriero.registry.services.context import Context
from arriero.registry.store import events
from arriero.registry.store import stuck_rules as store

STUCK_TOO_LONG = "stuck_too_long"
"""Code of a rule that was suspended because nothing of it succeeded."""

_DAY_S = 86400.0


def suspend_stuck_rules(context: Context, *, limit: int = 1000) -> int:
    """Have rules be SUSPENDED of which nothing has succeeded for ``stuck_suspend_days``; for a sweep.

    Parameters
    ----------
    limit
        At most so many.

    Returns
    -------
    int
        How many were suspended.
    """
    days = context.settings.stuck_suspend_days
    said = f"nothing of it has succeeded for {days:g} days; resume it when the cause is gone"

    def work(connection: Connection) -> int:
        found = store.hold_fruitless(connection, since_s=days * _DAY_S, limit=limit)
        if not found:
            return 0
        store.suspend(connection, [row["id"] for row in found], code=STUCK_TOO_LONG, said=said)
        keyed = [
            (
                f"rule:{row['uuid']}",
                {
                    "rule_id": row["uuid"].hex,
                    "scope": row["scope"],
                    "name": row["name"],
                    "account": row["account"],
                    "rse_expression": row["rse_expression"],
                    "code": STUCK_TOO_LONG,
                    "reason": f"{said}: {row['reason'] or 'no reason is known'}"[:1000],
                },
            )
            for row in found
        ]
        events.append(connection, "rule-suspended", keyed)
        return len(found)

    return context.database.run(work)
